"""What git says of a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from timnet.errors import ArtifactError

WRITTEN = ("params.yaml", "dvc.yaml")  # by hand, so conflicts are for a person to resolve
NOTED = ("data.dvc", "dvc.lock")  # by DVC, for which either side will do
MARK = b"<<<<<<< "  # begins a line where two versions differ


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


def _has_marks(content: bytes) -> bool:
    return any(line.startswith(MARK) for line in content.splitlines())


def _last_without_marks(root: Path, name: str) -> str:
    """The newest commit whose version of a file has no marks of a conflict; HEAD^ if none has."""
    commits = (
        ask(root, "log", "--first-parent", "--format=%h", "--max-count=100", "--", name) or ""
    ).split()
    versions = ((commit, run(root, "show", f"{commit}:./{name}")) for commit in commits)
    whole = (c for c, shown in versions if not shown.returncode and not _has_marks(shown.stdout))
    return next(whole, "HEAD^")


def refuse_conflicts(root: Path) -> None:
    """Stop where a merge has left its marks in a file that stages and parameters are read from.

    Raises:
        ArtifactError: with the commands that resolve it.
    """
    for name in (*WRITTEN, *NOTED):
        try:
            content = (root / name).read_bytes()
        except OSError:
            continue
        if not _has_marks(content):
            continue
        told = f"{root / name}: conflicts of a merge stand in it."
        if name in WRITTEN:
            raise ArtifactError(
                f"{told} Keep the lines that are meant, delete those that begin with <<<<<<<, "
                f"======= and >>>>>>>, then `git add {name}`."
            )
        unmerged = ask(root, "ls-files", "--unmerged", "--", name)
        side = "--ours" if unmerged else f"{_last_without_marks(root, name)} --"
        taken = f"git checkout {side} {name}"
        after = {
            "dvc.lock": "let `dvc repro` make what is not of that side",
            "data.dvc": "let `timnet status` say whether data/ holds its recordings",
        }[name]
        raise ArtifactError(f"{told} Take one side, `{taken}`, {after}, then `git add {name}`.")
