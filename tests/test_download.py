from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import random
import time
from pathlib import Path

import pytest
import server as http
from server import Server

from timnet.acquire.download import archive_kind, fetch
from timnet.errors import CorpusError

BODY = b"PK\x03\x04" + random.Random(1).randbytes(3_000_000)
OTHER = b"PK\x03\x04" + random.Random(2).randbytes(2_500_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server(server: Server) -> Server:
    server.files["/a.zip"] = BODY
    return server


@pytest.fixture
def waits() -> list[float]:
    return []


def get(server: Server, target: Path, waits: list[float], **options) -> dict:
    return fetch(server.url("/a.zip"), target, sleep=waits.append, **options)


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def test_fetches_once_and_records(server, tmp_path, waits):
    target = tmp_path / "deep" / "a.zip"
    seen = []
    record = get(server, target, waits, progress=lambda *now: seen.append(now))
    assert target.read_bytes() == BODY
    assert record["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (record["size"], record["md5"], record["etag"]) == (len(BODY), MD5, http.etag(BODY))
    assert json.loads((tmp_path / "deep" / "a.zip.json").read_text()) == record
    assert seen[-1] == ("download", len(BODY), len(BODY))
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.zip", "a.zip.json"]

    assert get(server, target, waits) == record
    assert len(server.requests) == 1
    assert waits == []


def test_resumes_after_every_cut(server, tmp_path, waits):
    server.script = [http.cut(1_000_000), http.cut(500_000), http.cut(100)]
    get(server, tmp_path / "a.zip", waits, size=len(BODY), md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    first, *rest = ranges(server)
    assert first is None
    assert len(rest) == 3
    offsets = [int(value.removeprefix("bytes=").rstrip("-")) for value in rest]
    assert offsets == sorted(set(offsets))
    assert 0 < offsets[0] <= 1_000_000
    assert server.requests[1][1]["If-Range"] == http.etag(BODY)


def test_resumes_what_an_earlier_run_left(server, tmp_path, waits):
    server.script = [http.cut(1_000_000), *[http.status(503)] * 6]
    with pytest.raises(CorpusError, match=r"503 .*gave up after 6 attempts, with [\d,]+ byte"):
        get(server, tmp_path / "a.zip", waits)
    assert not (tmp_path / "a.zip").exists()
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert ranges(server)[-1] is not None


def test_starts_over_where_ranges_are_ignored(server, tmp_path, waits):
    server.script = [http.cut(1_000_000), http.no_ranges]
    get(server, tmp_path / "a.zip", waits, md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("good", [http.serve, http.dated])
def test_starts_over_when_the_remote_file_changed(server, tmp_path, waits, good):
    server.script = [http.cut(1_000_000, good), *[http.status(500)] * 6]
    with pytest.raises(CorpusError, match="500"):
        get(server, tmp_path / "a.zip", waits)
    server.files["/a.zip"] = OTHER
    server.script = [good]
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == OTHER


def test_an_etag_that_may_not_be_sent_back_is_not(server, tmp_path, waits):
    def odd(handler, body):
        handler.reply(200, {"ETag": '"gr\u00fcn"', "Content-Length": len(body)}, body)

    server.script = [http.cut(1_000_000, odd)]
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_resumes_by_date_where_the_etag_is_weak(server, tmp_path, waits):
    server.script = [http.cut(1_000_000, http.dated), http.dated]
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert "If-Range" in server.requests[1][1]


def test_starts_over_when_another_range_comes(server, tmp_path, waits):
    server.script = [http.cut(1_000_000), http.other_range]
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert ranges(server)[2] is None


def test_a_part_of_another_address_is_not_used(server, tmp_path, waits):
    server.script = [http.cut(1_000_000), *[http.status(500)] * 6]
    with pytest.raises(CorpusError):
        get(server, tmp_path / "a.zip", waits)
    server.files["/b.zip"] = OTHER
    fetch(server.url("/b.zip"), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == OTHER
    assert ranges(server)[-1] is None


def test_a_whole_part_needs_no_request(server, tmp_path, waits):
    get(server, tmp_path / "a.zip", waits)
    (tmp_path / "a.zip").rename(tmp_path / "a.zip.part")
    state = {"url": server.url("/a.zip"), "size": len(BODY)}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(state))
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 1


def test_killed_before_the_record(server, tmp_path, waits):
    record = get(server, tmp_path / "a.zip", waits)
    (tmp_path / "a.zip.json").unlink()
    state = {"url": server.url("/a.zip"), "size": len(BODY), "etag": record["etag"]}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(state))
    assert get(server, tmp_path / "a.zip", waits) == record
    assert len(server.requests) == 1


@pytest.mark.parametrize("harm", ["other bytes", "cut", "no record", "other address"])
def test_a_target_that_is_not_right_is_fetched_anew(server, tmp_path, waits, harm):
    target = tmp_path / "a.zip"
    get(server, target, waits)
    if harm == "other bytes":
        target.write_bytes(OTHER)
    elif harm == "cut":
        target.write_bytes(BODY[:-1])
    elif harm == "no record":
        (tmp_path / "a.zip.json").write_text("{")
    else:
        record = json.loads((tmp_path / "a.zip.json").read_text())
        (tmp_path / "a.zip.json").write_text(json.dumps({**record, "url": "http://else"}))
    get(server, target, waits)
    assert target.read_bytes() == BODY
    assert len(server.requests) == 2


def test_no_length(server, tmp_path, waits):
    server.script = [http.no_length]
    assert get(server, tmp_path / "a.zip", waits)["size"] == len(BODY)


def test_no_length_and_cut_shows_by_the_published_size(server, tmp_path, waits):
    server.files["/a.zip"] = BODY
    server.script = [lambda handler, body: http.no_length(handler, body[:1_000_000])]
    get(server, tmp_path / "a.zip", waits, size=len(BODY))
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_transient_answers_are_tried_again_ever_later(server, tmp_path, waits):
    server.script = [http.status(code) for code in (500, 502, 503, 504, 408)]
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    bounds = [2.0, 4.0, 8.0, 16.0, 32.0]
    assert len(waits) == 5
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


def test_retry_after_is_honoured(server, tmp_path, waits):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.script = [http.status(429, Retry_After=7), http.status(429, Retry_After=date)]
    get(server, tmp_path / "a.zip", waits)
    assert waits[0] == 7
    assert 90 < waits[1] <= 101


def test_a_lost_connection_and_a_silent_server(server, tmp_path, waits):
    server.script = [http.cut(0), http.silence(0.5)]
    get(server, tmp_path / "a.zip", waits, timeout=0.2)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 3


def test_redirect_is_followed(server, tmp_path, waits):
    server.script = [http.redirect("/b.zip"), http.cut(1_000_000), http.redirect("/b.zip")]
    server.files["/b.zip"] = OTHER
    get(server, tmp_path / "a.zip", waits)
    assert (tmp_path / "a.zip").read_bytes() == OTHER
    assert ranges(server)[1] is None
    assert ranges(server)[3] == "bytes=1000000-"


def test_a_login_is_sent_and_kept_nowhere(server, tmp_path, waits, caplog):
    caplog.set_level("DEBUG")
    url = server.url("/a.zip").replace("//", "//anna:s%40cret@")
    server.script = [http.cut(1_000_000), http.serve, http.status(404)]
    record = fetch(url, tmp_path / "a.zip", sleep=waits.append)
    assert record["url"] == server.url("/a.zip")
    sent = "Basic " + base64.b64encode(b"anna:s@cret").decode()
    assert [headers["Authorization"] for _, headers in server.requests] == [sent, sent]
    assert fetch(url, tmp_path / "a.zip", sleep=waits.append) == record  # what is here is known
    with pytest.raises(CorpusError, match="404") as caught:
        fetch(url, tmp_path / "b.zip", sleep=waits.append)
    kept = "".join(path.read_text("latin-1") for path in tmp_path.glob("*.json"))
    assert "cret" not in kept + str(caught.value) + caplog.text


def test_a_login_goes_to_nobody_else(server, tmp_path, waits):
    with Server() as other:
        other.files["/a.zip"] = BODY
        server.script = [http.redirect(other.url("/a.zip"))]
        url = server.url("/a.zip").replace("//", "//anna:secret@")
        fetch(url, tmp_path / "a.zip", sleep=waits.append)
        assert "Authorization" not in other.requests[0][1]


REFUSED = [
    pytest.param([http.status(404)], {}, r"404 Not Found\. .*--url", id="404"),
    pytest.param([http.status(403)], {}, r"403 Forbidden", id="403"),
    pytest.param([http.status(401)], {}, r"401 Unauthorized.* login", id="401"),
    pytest.param([http.status(410)], {}, r"410 Gone", id="410"),
    pytest.param([http.status(302)], {}, r"302 Found", id="redirect to none"),
    pytest.param([http.status(429, Retry_After=9000)], {}, r"429 .* 9000 s", id="429, too long"),
    pytest.param([http.page], {}, r"a web page, not an archive; .*--from PATH", id="login"),
    pytest.param(
        [http.redirect("/login"), http.page],
        {},
        r"a\.zip \(which leads to \S+/login\): .*a web page",
        id="redirect to a login",
    ),
    pytest.param([http.redirect("/a.zip")] * 20, {}, "endless redirects", id="redirect loop"),
    pytest.param(
        [http.redirect("ftp://x/a.zip")],
        {},
        "not a URL to download from",
        id="redirect to ftp",
    ),
    pytest.param(
        [lambda handler, _: http.serve(handler, b"RIFF" * 200)],
        {},
        r"no archive \(it begins with b'RIFFRIFF",
        id="not an archive",
    ),
    pytest.param(
        [lambda handler, _: http.serve(handler, b'{"error": 1}')],
        {},
        r"no archive \(it begins with b'\{\"error",
        id="a short answer",
    ),
    pytest.param([], {"size": 99}, r"the server offers 3,000,004 bytes, expected 99\.", id="size"),
    pytest.param(
        [http.no_length], {"size": 99}, "3,000,004 bytes received, expected 99", id="longer"
    ),
    pytest.param([], {"md5": "0" * 32}, f"its md5 is {MD5}, expected 0000.*was removed", id="md5"),
]


@pytest.mark.parametrize(("script", "options", "message"), REFUSED)
def test_refused_at_once(server, tmp_path, waits, script, options, message):
    server.script = list(script)
    with pytest.raises(CorpusError, match=message) as caught:
        get(server, tmp_path / "a.zip", waits, **options)
    assert server.url("/a.zip") in str(caught.value)
    assert waits == []
    assert not (tmp_path / "a.zip").exists()
    assert not (tmp_path / "a.zip.part").exists()
    assert len(server.requests) <= 11


def test_a_length_that_is_never_reached(server, tmp_path, waits):
    server.script = [http.promise(5)] * 30
    with pytest.raises(CorpusError, match="gave up after 6 attempts"):
        get(server, tmp_path / "a.zip", waits)
    assert len(server.requests) < 20


def test_a_damaged_resume_starts_over(server, tmp_path, waits):
    """Bytes of another version, where nothing told the versions apart."""
    (tmp_path / "a.zip.part").write_bytes(OTHER[:1_000_000])
    state = {"url": server.url("/a.zip"), "size": len(BODY)}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(state))
    get(server, tmp_path / "a.zip", waits, md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_no_server(tmp_path, waits):
    with Server() as server:
        url = server.url("/a.zip")
    with pytest.raises(CorpusError, match=r"connection lost .*gave up .*, no data received"):
        fetch(url, tmp_path / "a.zip", sleep=waits.append)
    with pytest.raises(CorpusError, match=r"nowhere: not a URL to download from.*http://"):
        fetch("nowhere", tmp_path / "a.zip", sleep=waits.append)


def test_no_network(tmp_path, waits):
    url = "http://nowhere.invalid/a.zip"
    with pytest.raises(CorpusError, match=r"host cannot be found .*--from"):
        fetch(url, tmp_path / "a.zip", sleep=waits.append)
    assert len(waits) == 1
    (tmp_path / "a.zip.part").write_bytes(b"x" * 4000)  # a network may be gone for a while
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"url": url}))
    with pytest.raises(CorpusError, match=r"gave up after 6 attempts, with 4,000 bytes kept"):
        fetch(url, tmp_path / "a.zip", sleep=waits.append)


def test_no_space(server, tmp_path, waits, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(CorpusError, match="disk is full: 3,000,004 bytes are still needed, 1,000"):
        get(server, tmp_path / "a.zip", waits)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"Rar!\x1a\x07\x01", "RAR"),
        (b"7z\xbc\xaf'\x1c", "7z"),
        (b"\0" * 257 + b"ustar", "tar"),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_archive_kind(head, kind):
    assert archive_kind(head) == kind
