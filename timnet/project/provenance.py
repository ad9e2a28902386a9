"""Where a score comes from: commit, versions, device."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from timnet import records
from timnet.paths import Workspace
from timnet.project import git
from timnet.records import RunRecord

# What decides a run's numbers besides its inputs; results and locks change while stages run.
SOURCES = ("timnet", "params.yaml", "dvc.yaml", "data.dvc", "constraints.txt")


@dataclass(frozen=True)
class Head:
    """What a checkout is at."""

    commit: str  # in full
    changed: bool  # whether its sources differ from the commit


def head(root: Path) -> Head | None:
    """None where there is no git, or no commit."""
    commit = git.ask(root, "rev-parse", "HEAD")
    changed = git.ask(root, "status", "--porcelain", "--", *SOURCES)
    return None if commit is None or changed is None else Head(commit, bool(changed))


def commit(root: Path) -> str:
    """The short commit of a checkout, ` + changes` behind it where its sources differ from it."""
    at = head(root)
    if at is None:
        return "no commit"
    return f"{at.commit[:10]} + changes" if at.changed else at.commit[:10]


def versions() -> dict[str, str]:
    """Of what touches the numbers of training."""
    import numpy
    import torch

    from timnet import __version__

    return {
        "timnet": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
    }


def changed_versions(record: RunRecord) -> list[str]:
    """What a run was made with in other versions than are installed here, a sentence each.

    No stage is stale by it: whether numbers change is for `timnet verify` to say.
    """
    made_with = {
        "trained with": {name: of for name, of in record["versions"].items() if name != "timnet"},
        "features made with": record["features"].get("libraries", {}),
    }
    said = []
    for what, then in made_with.items():
        here = {name: _installed(name) for name in then}
        differ = [name for name in then if here[name] != then[name]]
        said += [f"{what} {name} {then[name]}, here {here[name]}" for name in differ]
    return said


@cache
def _installed(name: str) -> str:
    """A version as `versions` has it, without importing torch, which takes seconds."""
    if name == "python":
        return platform.python_version()
    spec = importlib.util.find_spec("torch") if name == "torch" else None
    if spec and spec.origin:  # the registry's own build is named 2.14.1 and says 2.14.1+cu130
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
        if found := re.search(r"^__version__ = ['\"](.+)['\"]", text, re.MULTILINE):
            return found[1]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def runs_by_change(root: Path, runs: Iterable[str]) -> dict[str, list[str]]:
    """Those of the runs with results whose versions are no more those installed, by sentence."""
    workspace, found = Workspace(root), dict[str, list[str]]()
    for run in runs:
        try:
            record = records.read(workspace.run_results(run) / "run.json", records.RunRecord)
        except (FileNotFoundError, records.DamagedRecord):  # other stages speak of it
            continue
        for change in changed_versions(record):
            found.setdefault(change, []).append(run)
    return found


def device_name(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU: {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"


def cpu_name() -> str:
    return next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
