"""benchmarks/gpu.py rehearsed on a CPU with what a bare GPU machine has: features, folds, plan."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from timnet import schemas
from timnet.dataset import folds
from timnet.dataset.features import FINGERPRINT, FeatureSettings
from timnet.training.stack import TrainSettings

pytestmark = pytest.mark.slow

SPEAKERS, EMOTIONS, FRAMES = ("a", "b", "c"), ("angry", "happy", "sad"), 20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with features under EMOVO's name, and a plan of a recipe and of a run."""
    settings = FeatureSettings(512 * (FRAMES - 1))
    record = {"settings": asdict(settings), "frames": FRAMES, "revision": 2, "source": "none"}
    names = [f"{s}-{e}-{n}" for s in SPEAKERS for e in EMOTIONS for n in range(6)]
    emotions = [name.split("-")[1] for name in names]
    values = np.random.default_rng(0).normal(size=(len(names), FRAMES * 39)).astype(np.float32)
    schema = schemas.features(FRAMES * 39)
    table = pa.table(
        [
            pa.array(names),
            pa.array([name[0] for name in names]),
            pa.array(emotions),
            pa.array(np.full(len(names), FRAMES, np.int32)),
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), FRAMES * 39),
        ],
        schema=schema.with_metadata({FINGERPRINT: json.dumps(record)}),
    )
    pq.write_table(table, tmp_path / "emovo-96000.parquet")
    groups = np.array([SPEAKERS.index(name[0]) for name in names], np.int32)
    pq.write_table(folds.grouped_table(table, groups), tmp_path / "folds.parquet")
    recipe = {"epochs": 2, "batch_size": 8, "tabs": 2, "compiled": False, "precision": "fp32"}
    run = {
        "name": "emovo-speaker",
        "features": ["emovo-96000.parquet"],
        "folds": "folds.parquet",
        "labels": EMOTIONS,
        "settings": asdict(TrainSettings(**recipe)),
        "seeds": [0],
        "keep_best": False,
        "record": {"commit": "0123456789", "versions": {}},
    }
    screened = {"name": "by speaker", "settings": recipe | {"by_speaker": True}, "seeds": 2}
    on_folds = {"name": "random folds", "settings": recipe, "seeds": 1, "folds": "folds.parquet"}
    plan = {"screen": [screened, on_folds], "runs": [run]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    return tmp_path


def unpack(out: Path, target: Path) -> None:
    pieces = b"".join(path.read_bytes() for path in sorted(out.glob("runs-*")))
    with tarfile.open(fileobj=io.BytesIO(pieces), ignore_zeros=True) as tar:
        tar.extractall(target)


def test_runs_come_back_in_pieces_of_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specification = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks/gpu.py")
    assert specification and specification.loader
    gpu = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(gpu)
    monkeypatch.setattr(gpu, "PIECE_BYTES", 7000)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(name.encode() * 5000)
        gpu.pack(tmp_path / name, out)
    sizes = [path.stat().st_size for path in sorted(out.iterdir())]
    assert set(sizes[:-1]) == {7000} and sizes[-1] <= 7000
    unpack(out, tmp_path / "back")
    for name in ("one", "two"):
        assert (tmp_path / "back" / name / "weights").read_bytes() == name.encode() * 5000


def test_each_result_is_kept_and_runs_come_back_as_training_writes_them(machine: Path) -> None:
    out = machine / "out"
    given = ("--device", "cpu", "--epochs", "1", "--rehearse", "--features", machine)
    command = [sys.executable, "benchmarks/gpu.py", "screen", "runs", *given]
    subprocess.run([*command, "--plan", machine / "plan.json", "--out", out], cwd=ROOT, check=True)
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [each["step"] for each in found] == ["machine", "screen", "screen", "runs"]
    assert [len(each["uar"]) for each in found[1:3]] == [2, 2]
    assert not any("error" in each for each in found)
    unpack(out, machine / "back")
    folder = machine / "back" / "emovo-speaker"
    record = json.loads((folder / "run.json").read_text())
    assert record["device"] == "cpu"
    told = schemas.read(folder / "predictions.parquet", schemas.predictions(3, 39))
    assert len(told) == len(SPEAKERS) * len(EMOTIONS) * 6


def test_a_run_without_time_or_features_is_left_out_by_name(machine: Path) -> None:
    plan = json.loads((machine / "plan.json").read_text())
    plan["runs"].append(plan["runs"][0] | {"name": "absent", "features": ["absent.parquet"]})
    plan["runs"][0]["seconds"] = 10_000
    (machine / "plan.json").write_text(json.dumps(plan))
    out = machine / "out"
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "runs",
        "--device",
        "cpu",
        "--features",
        machine,
    ]
    subprocess.run([*command, "--plan", machine / "plan.json", "--out", out], cwd=ROOT, check=True)
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [each["name"] for each in found if each.get("skipped")] == ["emovo-speaker", "absent"]
