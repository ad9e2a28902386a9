"""Who works on a workspace with DVC, and how far: by DVC's own locks and what stages tell."""

from __future__ import annotations

import json
from pathlib import Path

from timnet.errors import TimnetError
from timnet.paths import Workspace


class WorkspaceInUse(TimnetError):
    """Another process works on the workspace with DVC."""


def running_dvc(root: Path) -> str | None:
    """A sentence about the processes that run stages here, such as

        `dvc repro` (process 1489) is at work: train@emovo-random, 17 of 20 fold-epochs

    None if there are none; locks of processes that are no more do not count, as for DVC itself.
    """
    outputs: dict[tuple[int, str], list[str]] = {}
    for path, process in _writing(root).items():
        outputs.setdefault((process["pid"], process["cmd"]), []).append(path)
    return (
        "; ".join(
            f"`{_short(command)}` (process {pid}) is running: {_stages(root, paths)}"
            for (pid, command), paths in outputs.items()
            if _lives(pid, command)
        )
        or None
    )


def raise_if_in_use(root: Path, said: str) -> None:
    """Say who is at work where DVC failed for that reason; what it says itself is to delete a lock.

    Args:
        said: by DVC, to standard error.

    Raises:
        WorkspaceInUse: who it is.
    """
    if ("is busy, it is being blocked by" in said) and (told := running_dvc(root)):
        raise WorkspaceInUse(told)
    if "Unable to acquire lock" in said:  # nobody else's is left behind: the system takes it back
        owner = (root / ".dvc" / "tmp" / "lock").read_text(encoding="utf-8").strip()
        raise WorkspaceInUse(f"another `dvc` (process {owner}) is running")


def _writing(root: Path) -> dict[str, dict]:
    """What DVC notes of each path that is written: number and command of the process."""
    try:
        noted = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
        return noted.get("write", {})
    except (FileNotFoundError, ValueError):  # DVC writes it in place, perhaps now
        return {}


def _lives(pid: int, command: str) -> bool:
    """Whether a process is still the one that took a lock, and not another of its number."""
    import psutil

    try:
        running = " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # somebody else's
        return True
    return running.endswith(command.partition(" ")[2])


def _short(command: str) -> str:
    """A command line as one types it: DVC notes where its program lies."""
    return f"dvc {command.partition(' ')[2]}".replace(" --wait-for-lock", "").strip()


def _stages(root: Path, paths: list[str]) -> str:
    """The stages that write some paths, each with how far it is, if it tells."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stages = dict.fromkeys(
            getattr(out.stage, "name", None) or out.def_path
            for out in repo.index.outs
            if out.fs_path in paths
        )
    return ", ".join(stage + _how_far(root, stage) for stage in stages) or ", ".join(paths)


def _how_far(root: Path, stage: str) -> str:
    try:
        told = json.loads(Workspace(root).progress(stage).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return f", {told['done']} of {told['total']} {told['unit']}"
