"""What DVC notes while others read it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT, run
from small_pipeline import dvc, make, until, write_recording

from timnet.errors import ArtifactError
from timnet.paths import Workspace, write_text
from timnet.project.dvc import locked
from timnet.project.locks import Busy, at_work, refuse_at_work
from timnet.project.status import past_time, refuse_data_changes

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
    before = (workspace / "results/tables/single-corpus.csv").read_bytes()
    result = run(workspace, "timnet", "tables", check=False)
    assert result.returncode == 1
    said = "timnet: dvc.lock: no entry of features@demo-44100. Run `dvc repro`.\n"
    assert result.stderr == said
    assert (workspace / "results/tables/single-corpus.csv").read_bytes() == before


def test_the_folder_that_holds_a_clone_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "timnet").mkdir()
    (tmp_path / "timnet" / "setup.py").touch()
    result = run(tmp_path, "timnet", "status", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("timnet: params.yaml: no such file. Run timnet in the root of")


def test_a_time_is_told_only_where_it_was_taken(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stages = ["manifest@demo", "features@demo-44100", "publish@demo"]
    assert past_time(workspace, stages) == "no run here yet"
    for stage in stages[:2]:
        write_text(workspace.times(stage), '{"seconds": 100.2}')
    assert past_time(workspace, stages) == "up to 3 min"
    assert past_time(workspace, stages[:1]) == "up to 100 s"
    assert past_time(workspace, ["tables"]) == "not timed"


def test_who_is_at_work_and_how_far(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    shutil.copy(ROOT / "timnet" / "demo.yaml", root / "params.yaml")
    write_recording(root, "one", "slow\n")
    dvc(root, "add", "--quiet", "data")
    command = [sys.executable, "-m", "dvc", "repro", "copy@one"]
    with subprocess.Popen(command, cwd=root, start_new_session=True) as repro:
        try:
            until((root / "running").exists)
            told = '{"done": 17, "total": 20, "unit": "fold-epochs"}'
            write_text(Workspace(root).progress("copy@one"), told)
            assert run(root, "timnet", "status").stdout == (
                f"`dvc repro copy@one` (process {repro.pid}) is at work: copy@one, 17 of 20 "
                "fold-epochs. What is stale can be told at its end.\n"
            )
        finally:
            os.killpg(repro.pid, signal.SIGKILL)
    assert at_work(root) is None  # though DVC's lock is left


def test_who_holds_the_whole_repository(tmp_path: Path) -> None:
    write_text(tmp_path / ".dvc" / "tmp" / "lock", " 7\n")
    with pytest.raises(Busy, match=r"another `dvc` \(process 7\) is at work"):
        refuse_at_work(tmp_path, "ERROR: Unable to acquire lock. Most likely another DVC process")


def test_recordings_that_are_not_here_are_acquired_or_pulled(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    (root / "data" / "one").rename(root / "data" / "savee")
    (root / "data" / "two").rename(root / "data" / "emovo")
    dvc(root, "add", "--quiet", "data")
    shutil.rmtree(root / "data")
    says = (
        "- emovo: 1 file missing\n  - savee: 1 file missing\nPut the committed recordings in place"
    )
    with pytest.raises(ArtifactError, match=rf"{says}: `timnet acquire emovo savee`\. If what"):
        refuse_data_changes(root)
    dvc(root, "remote", "add", "private", "/dev/null/no-address-yet")
    with pytest.raises(ArtifactError, match=r"`timnet acquire emovo savee`\. If what"):
        refuse_data_changes(root)
    dvc(root, "remote", "modify", "private", "url", str(tmp_path / "remote"))
    with pytest.raises(ArtifactError, match=r"`timnet acquire emovo savee`, or `dvc pull`\. If"):
        refuse_data_changes(root)


def test_what_dvc_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    (root / ".dvcignore").write_text("/data\n")
    table = ["path,speaker,emotion"]
    generator = np.random.default_rng(0)
    for name, emotion in (("a.wav", "happy"), ("b.wav", "sad")):
        signal = 0.1 * generator.standard_normal(16000).astype("f4")
        sf.write(tmp_path / name, signal, 16000)
        table.append(f"{name},anna,{emotion}")
    (tmp_path / "t.csv").write_text("\n".join(table) + "\n")
    result = run(root, "timnet", "acquire", "mine", "--csv", tmp_path / "t.csv", check=False)
    assert result.returncode == 1
    assert "ignored" in result.stderr and "see above" not in result.stderr
