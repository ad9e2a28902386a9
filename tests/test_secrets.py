"""No password or key in what is committed, nor a way for the usual ones to get there."""

from __future__ import annotations

import re
import time

import pytest
from conftest import ROOT, run

SECRETS = {
    "a login in an address": r"\w://[^/\s:@{<\"'`]+:(?!PASSWORD)[^/\s:@{<\"'`]+@",
    "a password": r"(?i)\b(password|passwd|secret|api_?key|token)\s*[:=]\s*[\"']?[\w/+-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a key of Prefect": r"\bpn[ub]_[A-Za-z0-9]{20,}",
    "a key of AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{30,}",
}


def test_nothing_committed_holds_a_secret() -> None:
    found = []
    for name in run(ROOT, "git", "ls-files", "-z").stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or name.startswith("tests/"):  # made up there
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {what}" for what, form in SECRETS.items() if re.search(form, text)]
    assert found == []


@pytest.mark.parametrize("form", SECRETS.values(), ids=SECRETS)
def test_a_long_word_is_searched_in_no_time(form: str) -> None:
    """Such as a picture in the report: at each of its places a few characters are looked at."""
    start = time.process_time()
    assert not re.search(form, "https://x.org/" + "A" * 1_000_000)
    assert time.process_time() - start < 5


def test_a_login_is_found() -> None:
    assert re.search(SECRETS["a login in an address"], "see https://" + "me:geheim@x.org")


def test_where_secrets_belong_git_looks_at_nothing() -> None:
    """`dvc remote modify --local` writes to config.local; Prefect's database knows parameters."""
    places = [".dvc/config.local", ".prefect/prefect.db", ".prefect/server.log", "build/x"]
    ignored = run(ROOT, "git", "check-ignore", *places).stdout.split()
    assert ignored == places
