"""The demo: a clone of the project whose only corpus is the synthetic one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from timnet.acquire.synthesis import generate
from timnet.errors import ParameterError, TimnetError
from timnet.paths import Workspace
from timnet.project import git
from timnet.project.dvc import ask_dvc
from timnet.project.plots import show_offline

MARK = ".git/timnet-demo"  # what `set_up` made, and may be given other code


def set_up(source: Path, folder: Path, progress: Callable[[int], None] | None = None) -> None:
    """A clone of the project whose only corpus is the synthetic one.

    A clone, since stages depend on the project's own files and results name its commit; apart,
    since DVC wants all recordings of data.dvc and the checkout is to stay as it is.

    Args:
        progress: called with the number of recordings made since the last call.
    """
    if folder.exists():
        raise ParameterError(f"{folder} exists and is not a demo workspace; name another folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(source, "git", "clone", "--quiet", "--no-hardlinks", ".", str(partial.absolute()))
    refresh(source, partial)
    (partial / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(partial / "results", ignore_errors=True)
    workspace = Workspace(partial)
    shutil.copyfile(str(files("timnet").joinpath("demo.yaml")), workspace.params)
    # DVC then adds to git what it writes, in place of telling how to
    ask_dvc(partial, "config", "--local", "core.autostage", "true")
    generate(workspace.corpus("demo"), progress=progress)
    ask_dvc(partial, "add", "data")
    run(partial, "git", "add", "--all")
    author = ("-c", "user.name=timnet demo", "-c", "user.email=demo@localhost")
    commit = ("commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "Set up the demo")
    run(partial, "git", *author, *commit)
    # for the Makefile: what is installed here will do there
    (partial / MARK).write_text(str(Path(sys.executable).parent), encoding="utf-8")
    show_offline(partial)
    partial.rename(folder)


def refresh(source: Path, folder: Path) -> None:
    """Give a clone the code and the stages of `source` as they are now, committed or not."""
    for path in _watched(folder):
        if not (source / path).is_file():
            (folder / path).unlink(missing_ok=True)
    for path in _watched(source):
        if (source / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, folder / path)


def _watched(folder: Path) -> list[str]:
    """Files of the code and the stages that git knows, or would add."""
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    found = git.ask(folder, *listed, "--", "dvc.yaml", "timnet")
    if found is None:
        raise TimnetError(f"`git {' '.join(listed)}` failed in {folder or '.'}")
    return [path for path in found.split("\0") if path]


def reproduce(folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Run `dvc repro`, passing on what it says; the seconds that each kind of stage took.

    DVC's own work before the first stage and after a stage counts with what follows and with that
    stage.
    """
    command = (sys.executable, "-m", "dvc", "repro")
    seconds, stage, start = dict[str, float](), "DVC's look at the graph", time.monotonic()
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip("\n"))
            if found := re.match(r"Running stage '([^'@]+)", line):
                now = time.monotonic()
                seconds[stage] = seconds.get(stage, 0.0) + now - start
                stage, start = found[1], now
    seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start
    _refuse(process.returncode, folder, command)
    return seconds


def run(folder: Path, *command: str) -> None:
    """Run a program in `folder`, with this environment's own programs first on the path."""
    _refuse(subprocess.run(command, cwd=folder, env=_environment()).returncode, folder, command)


def _environment() -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}


def _refuse(status: int, folder: Path, command: Sequence[str]) -> None:
    if status:
        raise TimnetError(f"`{' '.join(command)}` ended with {status} in {folder or '.'}")
