"""Where a figure comes from: commit, versions, device."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from timnet.project import git

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
