"""A project to retrain: stages that take no time, results that the gate can judge, real remotes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from conftest import ROOT, commit, edit, run
from small_pipeline import dvc

STAGES = """\
stages:
  train:
    cmd: python work.py
    params: [recipes.paper.epochs]
    deps:
      - data/demo
    outs:
      - build/train
  model:
    cmd: mkdir -p build/models && cp build/train/recalled.txt build/models/demo.safetensors
    deps:
      - build/train
    outs:
      - build/models/demo.safetensors
  score:
    foreach: [demo-speaker]
    do:
      cmd: mkdir -p results/runs/${item} && cp build/train/*.[jp]* results/runs/${item}
      deps:
        - build/train
      outs:
        - results/runs/${item}/predictions.parquet:
            cache: false
        - results/runs/${item}/run.json:
            cache: false
        - results/runs/${item}/metrics.json:
            cache: false
artifacts:
  demo: {path: build/models/demo.safetensors, type: model}
"""

# As many of 100 utterances are recognised as there are epochs. It waits as long as the file HOLD
# is there.
WORK = """\
import json, os, pathlib, time
import pyarrow as pa
from ruamel.yaml import YAML
from timnet import schemas

hold = pathlib.Path(os.environ.get("HOLD", "none"))
while hold.exists():
    hold.with_name("held").touch()
    time.sleep(0.1)
epochs = YAML(typ="safe").load(open("params.yaml"))["recipes"]["paper"]["epochs"]
labels, rows = ["angry", "sad"], []
for number in range(200):
    right = number // 2 * 37 % 100 < epochs
    truth = number % 2
    rows.append({
        "utterance": f"u{number}", "speaker": f"s{number % 5}", "fold_seed": 0, "fold": 0,
        "seed": 0, "epoch_kind": "last", "epoch": 1, "emotion": labels[truth],
        "logits": [1.0, 0.0] if (truth == 0) == right else [0.0, 1.0], "fused": [0.0] * 39,
    })
folder = pathlib.Path("build/train")
schema = schemas.predictions(2, 39)
schemas.write(pa.Table.from_pylist(rows, schema), folder / "predictions.parquet", schema)
record = {
    "commit": "0123456789", "device": "cpu", "device_name": "CPU", "versions": {},
    "features": {
        "revision": 1, "source": "demo",
        "settings": {"signal_length": 100, "resampler": "none", "coefficients": 39},
    },
    "folds": {"protocol": "speaker"}, "labels": labels, "seeds": [0], "utterances": 200,
    "tested_on": "demo", "trained_on": "demo",
    "train": {
        "epochs": epochs, "tabs": 1, "variant": "tim-net", "precision": "fp32", "compiled": False,
    },
}
(folder / "run.json").write_text(json.dumps(record))
scores = {"uar": float(epochs), "war": float(epochs)}
(folder / "metrics.json").write_text(json.dumps({"speaker-independent": scores}))
(folder / "recalled.txt").write_text(str(epochs))
"""
VALIDATION = {
    "corpus": "demo",
    "utterances": 200,
    "speakers": 5,
    "passed": True,
    "checks": [{"check": "all", "severity": "error", "passed": True}],
}


def make(home: Path) -> Path:
    """`home`/project, of which nothing was trained, with remotes of git and DVC beside it."""
    root = home / "project"
    (root / "data" / "demo").mkdir(parents=True)
    (root / "data" / "demo" / "take.txt").write_text("take\n")
    (root / "results" / "validation").mkdir(parents=True)
    (root / "results" / "validation" / "demo.json").write_text(json.dumps(VALIDATION))
    (root / "dvc.yaml").write_text(STAGES)
    (root / "work.py").write_text(WORK)
    shutil.copy(ROOT / "timnet" / "demo.yaml", root / "params.yaml")
    edit(root / "params.yaml", "epochs: 22", "epochs: 60")
    (root / ".gitignore").write_text("/build/\n/data\n/.prefect/\n")
    run(home, "git", "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
    run(root, "git", "init", "--quiet", "--initial-branch", "main")
    for name, value in (("name", "somebody"), ("email", "somebody@localhost")):
        run(root, "git", "config", f"user.{name}", value)
    run(root, "git", "remote", "add", "origin", "../origin.git")
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--quiet", "--default", "private", "../store")
    dvc(root, "add", "--quiet", "data")
    push(root, "start")
    dvc(root, "push", "--quiet")
    return root


def copy(root: Path, home: Path) -> Path:
    """The project with its remotes, in another place."""
    shutil.copytree(root.parent, home, symlinks=True)
    return home / root.name


def push(root: Path, message: str) -> None:
    commit(root, message)
    run(root, "git", "push", "--quiet", "origin", "main")


def push_epochs(root: Path, epochs: int) -> None:
    """A person pushes settings under which so many of 100 utterances are recognised."""
    path = root / "params.yaml"
    now = next(line for line in path.read_text().splitlines() if "epochs:" in line)
    edit(path, now, f"    epochs: {epochs}")
    push(root, f"Train {epochs} epochs")


def refs(folder: Path) -> dict[str, str]:
    """Branches and tags of a repository, with their commits."""
    form = "--format=%(refname) %(objectname) %(*objectname)"
    lines = run(folder, "git", "for-each-ref", form, "refs/heads", "refs/tags").stdout.splitlines()
    return {
        line.split()[0].removeprefix("refs/heads/").removeprefix("refs/tags/"): line.split()[-1]
        for line in lines
    }
