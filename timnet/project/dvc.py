"""What DVC says and what it noted."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from timnet import records
from timnet.errors import ArtifactError, TimnetError, listing
from timnet.project.locks import refuse_at_work

PATIENCE = 5.0  # s that another DVC has to end what it writes


def locked(root: Path, *wanted: str) -> dict[str, Any]:
    """What dvc.lock notes of each stage.

    DVC writes it in place, perhaps now, and what of it is there already may even look whole.

    Args:
        wanted: stages that have run, and so must be in it.

    Raises:
        ArtifactError: it is damaged or lacks some of these, and stays so.
    """
    path = root / "dvc.lock"
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            before = _state(path)
            known = read_noted(path, records.Lock).get("stages", {}) if before else {}
            absent = [stage for stage in wanted if stage not in known]
            if absent:
                raise ArtifactError(f"{path}: no entry of {listing(absent)}. Run `dvc repro`.")
            if before == _state(path):
                return known
        except ArtifactError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _state(path: Path) -> tuple[int, int] | None:
    """What changes with every write to a file; None if there is none."""
    with suppress(FileNotFoundError):
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    return None


def read_noted(path: Path, shape: Any) -> Any:
    """What DVC noted in a file of git.

    Raises:
        ArtifactError: it is damaged, by a merge perhaps.
    """
    try:
        return records.read_yaml(path, shape)
    except records.Damaged as error:
        raise ArtifactError(
            f"{path}: {error}. Take it from git: `git checkout -- {path.name}`."
        ) from None


def ask_dvc(root: Path, *arguments: str) -> str:
    """What a `dvc` command prints.

    Raises:
        Busy: another process works on what it needs.
        TimnetError: it fails.
    """
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True
    )
    if result.returncode:
        refuse_at_work(root, result.stderr)
        raise TimnetError(f"`dvc {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout
