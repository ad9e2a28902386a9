"""Where a figure comes from: commit, versions, device."""

from __future__ import annotations

import platform
from pathlib import Path

from timnet import git
from timnet.errors import ArtifactError

# What decides a run's numbers besides its inputs; results and locks change while stages run.
SOURCES = ("timnet", "params.yaml", "dvc.yaml", "data.dvc", "constraints.txt")


def commit(root: Path) -> str:
    """The commit of a checkout, ` + changes` behind it where its sources differ from it."""
    head = git.ask(root, "rev-parse", "--short=10", "HEAD")
    changed = git.ask(root, "status", "--porcelain", "--", *SOURCES)
    if head is None or changed is None:
        return "no commit"
    return f"{head} + changes" if changed else head


def head(root: Path) -> str:
    """The commit of a checkout, in full; ArtifactError if it has none."""
    found = git.ask(root, "rev-parse", "HEAD")
    if found is None:
        raise ArtifactError(f"{root}: git knows no commit of it. Commit it first.")
    return found


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
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"CPU: {model}, {torch.backends.cpu.get_cpu_capability()}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
