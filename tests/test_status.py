"""What DVC notes while others read it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import ROOT, run

from timnet.cli.status import locked

LOCK = (ROOT / "dvc.lock").read_bytes()
PART = LOCK[:8192]  # what DVC has written at first when it writes the file anew


@pytest.mark.parametrize("there", [b"", PART], ids=["nothing", "a whole-looking part"])
def test_a_lock_that_is_being_written_is_waited_for(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "dvc.lock"
    path.write_bytes(LOCK)
    whole = locked(tmp_path)
    last = list(whole)[-1]
    path.write_bytes(there)
    writer = threading.Timer(0.5, path.write_bytes, [LOCK])
    writer.start()
    assert locked(tmp_path, last) == whole
    writer.join()


def test_tables_refuse_a_lock_without_what_they_were_made_of(workspace: Path) -> None:
    lock = workspace / "dvc.lock"
    lock.write_text(lock.read_text().replace("features@demo-44100:", "features@demo-96000:"))
    before = (workspace / "results/provenance.json").read_bytes()
    result = run(workspace, "timnet", "tables", check=False)
    assert result.returncode == 1
    said = "timnet: dvc.lock: no entry of features@demo-44100. Run `dvc repro`.\n"
    assert result.stderr == said
    assert (workspace / "results/provenance.json").read_bytes() == before


def test_the_folder_that_holds_a_clone_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "timnet").mkdir()
    (tmp_path / "timnet" / "setup.py").touch()
    result = run(tmp_path, "timnet", "status", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("timnet: params.yaml: no such file. Run timnet in the root of")
