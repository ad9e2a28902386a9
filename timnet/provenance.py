"""Where a figure comes from: commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

# What decides a run's numbers besides its inputs; results and locks change while stages run.
SOURCES = ("timnet", "params.yaml", "dvc.yaml", "data.dvc", "constraints.txt")


def commit(root: Path) -> str:
    """The commit of a checkout, ` + changes` behind it where its sources differ from it."""
    try:
        head = _git(root, "rev-parse", "--short=10", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--", *SOURCES).strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return f"{head} + changes" if changed else head


def head(root: Path) -> str:
    """The commit of a checkout, in full."""
    return _git(root, "rev-parse", "HEAD").strip()


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


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout
