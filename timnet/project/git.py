"""What git says of a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A git command that has ended, with all that it printed."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True)


def ask(root: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails, or is not installed."""
    try:
        done = run(root, *arguments)
    except OSError:
        return None
    return None if done.returncode else done.stdout.decode().strip()
