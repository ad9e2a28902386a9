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
import pyarrow.parquet as pq
import pytest
import torch
from conftest import edit, run
from scipy.stats import binomtest

from timnet import schemas
from timnet.cli import common, stages
from timnet.dataset import features
from timnet.errors import ArtifactError, ParameterError
from timnet.project import provenance
from timnet.training import train
from timnet.training.stack import Split, TrainSettings, train_stack


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


SETTINGS = TrainSettings(epochs=2, batch_size=32, tabs=2, compiled=False)


def test_across_corpora_one_is_trained_on_and_another_tested(
    reproduced: Path, tmp_path: Path
) -> None:
    source = reproduced / "build/features/demo-44100.parquet"
    one = pq.read_table(source)
    names = pa.array([f"other-{name}" for name in one["utterance"].to_pylist()])
    field = one.schema.field("utterance")
    other = one.set_column(one.schema.get_field_index("utterance"), field, names)
    pq.write_table(other, tmp_path / "other.parquet")
    trained, tested = one["utterance"].to_pylist()[::3], names.to_pylist()[1::4]
    fold = [-1] * len(trained) + [0] * len(tested)
    columns = [[*trained, *tested], [0] * len(fold), fold]
    folds = pa.table(columns, schema=schemas.FOLDS)
    labels = tuple(sorted(set(one["emotion"].to_pylist())))
    files = [source, tmp_path / "other.parquet"]
    result = train.train(files, folds, labels, SETTINGS, [3, 4], False, tmp_path, workers=2)
    rows = result.predictions.to_pydict()
    assert rows["utterance"] == tested * 2
    assert rows["seed"] == [3] * len(tested) + [4] * len(tested)
    emotion_of = dict(zip(names.to_pylist(), one["emotion"].to_pylist(), strict=True))
    assert rows["emotion"] == [emotion_of[name] for name in rows["utterance"]]
    with pytest.raises(ArtifactError, match=r"no features of other-.*, which the folds name"):
        train.train(files[:1], folds, labels, SETTINGS, [3], False, tmp_path)


def test_a_gpu_that_is_too_small_takes_the_stack_in_the_fewest_parts(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for four networks of five; tried without a GPU, so nothing is trained."""
    tried: list[list[int]] = []

    def train_parts(parts: list, *_: object) -> None:
        tried.append([len(part.splits) for part in parts])
        if max(tried[-1]) > 4:
            raise torch.OutOfMemoryError
        raise StopIteration

    monkeypatch.setattr(train, "_train_parts", train_parts)
    source = reproduced / "build/features/demo-44100.parquet"
    folds = schemas.read(reproduced / "build/folds/demo-random.parquet", schemas.FOLDS)
    said: list[str] = []
    common = ([source], folds, ("angry",), SETTINGS, [0, 1], True, tmp_path, "cuda")
    with pytest.raises(StopIteration):
        train.train(*common, notify=said.append)
    assert tried == [[10], [5, 5], [4, 3, 3]]
    assert said[-1] == "out of GPU memory: training 10 networks in 3 parts"


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
    source = reproduced / "build/features/demo-44100.parquet"
    folds = schemas.read(reproduced / "build/folds/demo-random.parquet", schemas.FOLDS)
    table, _ = features.read(source)
    labels = tuple(sorted(set(table["emotion"].to_pylist())))
    truth = np.array([labels.index(emotion) for emotion in table["emotion"].to_pylist()])
    settings = TrainSettings(22, 8, learning_rate=5e-4, tabs=5, compiled=False)
    hits = []
    for precision in ("fp32", "bf16"):
        chosen = replace(settings, precision=precision)
        place = tmp_path / precision
        run = train.train([source], folds, labels, chosen, [0], False, place, workers=2)
        logits = np.array(run.predictions["logits"].to_pylist())
        hits.append(logits.argmax(1) == truth)
    fold_of = folds["fold"].to_numpy()
    splits = [
        Split(1, fold, 0, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(5)
    ]
    state = train_stack(features.array(table), truth, splits, len(labels), settings)
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
    source = reproduced / "build/features/demo-44100.parquet"
    folds = schemas.read(reproduced / "build/folds/demo-random.parquet", schemas.FOLDS)
    labels = tuple(sorted(set(pq.read_table(source)["emotion"].to_pylist())))
    settings = TrainSettings(epochs=5, batch_size=32, tabs=2, compiled=False)
    first, second, cpu = (
        train.train([source], folds, labels, settings, [0], True, tmp_path / name, device)
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
