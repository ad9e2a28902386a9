"""Training of a run in processes of its own: killed, stopped, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from conftest import edit, run
from scipy.stats import binomtest

from timnet import schemas
from timnet.cli import common, stages
from timnet.errors import ArtifactError, ParameterError, TrainingError
from timnet.project import provenance
from timnet.training import train
from timnet.training.stack import TrainSettings, train_stack
from timnet.training.train import Work


@pytest.fixture
def longer(workspace: Path) -> Path:
    """A workspace whose next training takes long enough to be disturbed."""
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 20")
    edit(workspace / "params.yaml", "batch_size: 64", "batch_size: 16")
    return workspace


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "timnet", "train", "demo-random"],
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


SETTINGS = TrainSettings(epochs=2, batch_size=32, tabs=2, compiled=False)


def work_of(root: Path, settings: TrainSettings = SETTINGS, seeds: tuple[int, ...] = (0,)) -> Work:
    """The run demo-random of a reproduced workspace, with other settings."""
    source = root / "build/features/demo-44100.parquet"
    folds = schemas.read(root / "build/folds/demo-random.parquet", schemas.FOLDS)
    labels = tuple(sorted(set(pq.read_table(source)["emotion"].to_pylist())))
    return Work([source], folds, labels, settings, list(seeds), keep_best=True)


def test_folds_of_other_features_are_refused(reproduced: Path, tmp_path: Path) -> None:
    work = work_of(reproduced)
    column = work.folds.schema.get_field_index("utterance")
    names = pa.array([f"other-{name}" for name in work.folds["utterance"].to_pylist()])
    folds = work.folds.set_column(column, work.folds.schema.field(column), names)
    with pytest.raises(ArtifactError, match=r"no features of other-.*, which the folds name"):
        train.train(replace(work, folds=folds), tmp_path)


def test_a_gpu_that_is_too_small_takes_the_stack_in_parts(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for four networks of ten; tried without a GPU, so nothing is trained."""
    tried: list[list[int]] = []

    def train_here(parts: list, *_: object) -> None:
        tried.append([len(part.splits) for part in parts])
        if max(tried[-1]) > 4:
            raise torch.OutOfMemoryError
        raise StopIteration

    monkeypatch.setattr(train, "_train_here", train_here)
    said: list[str] = []
    with pytest.raises(StopIteration):
        train.train(work_of(reproduced, seeds=(0, 1)), tmp_path, "cuda", notify=said.append)
    assert tried == [[10], [5, 5], [3, 3, 2, 2]]
    assert said[-1] == "out of GPU memory: training 10 networks in 4 parts"


def test_a_gpu_is_given_to_one_process(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side, parts of a stack would need the memory of the whole."""
    given: list[object] = []

    def take(*arguments: object) -> None:
        given.extend(arguments)
        raise StopIteration

    monkeypatch.chdir(reproduced)
    monkeypatch.setattr(train, "train", take)
    monkeypatch.setattr(stages, "device", lambda: "cuda")
    monkeypatch.setattr(provenance, "device_name", lambda _: "a GPU")
    with pytest.raises(StopIteration):
        stages.train("demo-random")
    place = given.index("cuda")
    assert given[place + 1] == 1


def test_all_that_training_tells_arrives(reproduced: Path, tmp_path: Path) -> None:
    """Also what comes at the very end, and of a run that was done already."""
    work = work_of(reproduced)
    for expected in ([1, 2], [2]):
        told: list[train.Progress] = []
        train.train(work, tmp_path, workers=2, report=told.append)
        for part in range(5):
            assert [each.epoch for each in told if each.part == part] == expected


def test_a_worker_that_cannot_start_says_why(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import timnet.processes\n"
        "def refuse(*_):\n"
        "    raise OSError('no more threads')\n"
        "timnet.processes.end_with = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(TrainingError, match="cannot start: OSError: no more threads"):
        train.train(work_of(reproduced), tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("place", "missing", "said"),
    (
        (
            "cpu",
            "which",
            "there is no compiler: g++. Install one, name yours in CXX, or",
        ),
        ("cuda", "which", "there is no compiler: gcc or clang."),
        ("cuda", "triton", "Triton, which compiles for a GPU, is not installed"),
    ),
)
def test_kernels_need_a_compiler(
    monkeypatch: pytest.MonkeyPatch, place: str, missing: str, said: str
) -> None:
    monkeypatch.setattr(common.sys, "platform", "linux")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(common.shutil, "which", lambda name: None if missing == "which" else name)
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    with pytest.raises(ParameterError) as error:
        common.need_compiler(place)
    assert said in str(error.value)


@pytest.mark.long
@pytest.mark.slow
def test_over_a_whole_run_stack_single_folds_and_bf16_agree(
    reproduced: Path, tmp_path: Path
) -> None:
    """They round differently, so after hundreds of steps they are different networks: what must
    agree is how well they recognise (McNemar's exact test, where they disagree)."""
    settings = TrainSettings(22, 8, learning_rate=5e-4, tabs=5, compiled=False)
    work = work_of(reproduced, settings)
    material = work.load()
    truth, splits = material.targets, material.splits
    hits = []
    for precision in ("fp32", "bf16"):
        chosen = replace(work, settings=replace(settings, precision=precision))
        run = train.train(chosen, tmp_path / precision, workers=2)
        last = run.predictions.filter(pc.equal(run.predictions["epoch_kind"], "last"))
        hits.append(np.array(last["logits"].to_pylist()).argmax(1) == truth)
    state = train_stack(material.mfcc, truth, splits, len(work.labels), settings)
    together = np.zeros(len(truth), bool)
    for row, split in enumerate(splits):
        logits = state.last.logits[row, : len(split.test)].numpy()
        together[split.test] = logits.argmax(1) == truth[split.test]
    assert hits[0].mean() > 0.5
    for other in (hits[1], together):
        better, worse = (hits[0] & ~other).sum(), (~hits[0] & other).sum()
        assert better + worse == 0 or binomtest(better, better + worse).pvalue > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
def test_a_gpu_trains_to_the_same_bits_twice_and_near_the_cpu(
    reproduced: Path, tmp_path: Path
) -> None:
    work = work_of(reproduced, replace(SETTINGS, epochs=5))
    first, second, cpu = (
        train.train(work, tmp_path / name, device)
        for name, device in (("a", "cuda"), ("b", "cuda"), ("c", "cpu"))
    )
    assert first.predictions.equals(second.predictions)
    losses = [np.array(run.history["train_loss"]) for run in (first, cpu)]
    np.testing.assert_allclose(*losses, rtol=0.02)


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    (
        (
            "timnet.training.train",
            "polars pandas librosa scipy sklearn soundfile h5py pydantic prefect dvc",
        ),
        ("timnet.cli", "torch polars pandas librosa scipy sklearn soundfile prefect dvc"),
    ),
)
def test_what_an_import_does_not_pay_for(modules: str, unwanted: str) -> None:
    """A bare GPU machine has torch, numpy and pyarrow alone; `timnet --help` needs none of them."""
    code = f"import sys, {modules}; print(*(set('{unwanted}'.split()) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "", result.stderr
