"""Training of a run in processes of its own: killed, stopped, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import edit, run


@pytest.fixture
def longer(workspace: Path) -> Path:
    """A workspace whose next training takes long enough to be disturbed."""
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 20")
    edit(workspace / "params.yaml", "batch_size: 64", "batch_size: 16")
    return workspace


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from timnet.cli import main; main()", "train", "demo-random"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(folder: Path) -> None:
    """Until a checkpoint is written from now on: a fold is done, and others are under way."""
    checkpoints = folder / "build" / "checkpoints" / "demo-random"

    def newest() -> int:
        return max((path.stat().st_mtime_ns for path in checkpoints.rglob("[0-9]*.pt")), default=0)

    before = newest()
    for _ in range(2400):
        if newest() > before:
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint was written")


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "build/train/demo-random").iterdir()}


def processes(group: int) -> list[str]:
    """Command lines of a process group that still run."""
    listing = subprocess.run(["ps", "-o", "stat=,args=", "-g", str(group)], capture_output=True)
    lines = listing.stdout.decode().splitlines()
    return [line for line in lines if not line.startswith("Z")]


@pytest.mark.slow
def test_killed_and_stopped_it_ends_in_the_same_bytes(longer: Path, tmp_path: Path) -> None:
    run(longer, "timnet", "train", "demo-random")
    undisturbed = outputs(longer)
    assert not (longer / "build/checkpoints/demo-random").exists()

    process = start(longer)  # kill -9: workers notice that their parent is gone
    wait_for_checkpoint(longer)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(100):
        if not processes(process.pid):
            break
        time.sleep(0.1)
    assert not processes(process.pid)

    process = start(longer)  # SIGTERM: checkpoints are written first
    wait_for_checkpoint(longer)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped by SIGTERM; checkpoints are written. Run the command again" in said
    assert "Traceback" not in said

    run(longer, "timnet", "train", "demo-random")
    assert outputs(longer) == undisturbed


def test_after_a_changed_parameter_training_starts_anew(workspace: Path) -> None:
    """What was stopped under other settings is neither used nor in the way."""
    stray = workspace / "build/checkpoints/demo-random/0123456789abcdef/0-0-1.pt"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of other settings")
    before = outputs(workspace)
    run(workspace, "timnet", "train", "demo-random")
    after = outputs(workspace)
    assert {**after, "run.json": b""} == {**before, "run.json": b""}
    assert not stray.exists()


def test_what_training_leaves(reproduced: Path) -> None:
    folder = reproduced / "results" / "runs"
    random = pq.read_table(folder / "demo-random" / "predictions.parquet").to_pydict()
    # each utterance is tested once for each kind of epoch, in the manifest's order
    manifest = pq.read_table(reproduced / "build/manifest/demo.parquet").to_pydict()
    for kind in ("last", "best_on_test"):
        rows = [i for i, k in enumerate(random["epoch_kind"]) if k == kind]
        assert [random["utterance"][i] for i in rows] == manifest["utterance"]
        assert [random["emotion"][i] for i in rows] == manifest["emotion"]
    speaker = pq.read_table(folder / "demo-speaker" / "predictions.parquet").to_pydict()
    assert set(speaker["epoch_kind"]) == {"last"}
    assert len(speaker["utterance"]) == 240
    history = pq.read_table(folder / "demo-speaker" / "history.parquet").to_pydict()
    assert sorted(history["fold"]) == list(range(6))


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    (
        ("timnet.train", "polars pandas librosa scipy sklearn soundfile h5py pydantic prefect dvc"),
        ("timnet.cli", "torch polars pandas librosa scipy sklearn soundfile prefect dvc"),
    ),
)
def test_what_an_import_does_not_pay_for(modules: str, unwanted: str) -> None:
    """A bare GPU machine has torch, numpy and pyarrow alone; `timnet --help` needs none of them."""
    code = f"import sys, {modules}; print(*(set('{unwanted}'.split()) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "", result.stderr
