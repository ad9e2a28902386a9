"""What commands share: the application, progress bars, the workspace, small files."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from timnet.errors import ArtifactError, ParameterError
from timnet.workspace import Workspace, write_text

if TYPE_CHECKING:
    from timnet.params import Params

app = typer.Typer(
    help="TIM-Net speech emotion recognition: from recordings to the paper's tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing in a log; yields what advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def say(text: str) -> None:
    print(text, flush=True)


def workers() -> int:
    """Processes to spread work over: TIMNET_WORKERS, or the cores that this process may use."""
    given = os.environ.get("TIMNET_WORKERS")
    if given is None:
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not given.isdigit() or int(given) < 1:
        raise ParameterError(f"TIMNET_WORKERS is {given!r}; give a whole number of processes.")
    return int(given)


@contextmanager
def timed(workspace: Workspace, stage: str) -> Iterator[None]:
    """Record how long a stage took here, for `timnet status`."""
    start = time.monotonic()
    yield
    record = {"seconds": round(time.monotonic() - start, 1)}
    write_text(workspace.times(stage), json.dumps(record) + "\n")


def open_workspace() -> tuple[Workspace, Params]:
    """The workspace in the current folder and its parameters."""
    from timnet import params

    workspace = Workspace(Path())
    return workspace, params.read(workspace.params)


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file. Run `dvc repro`.") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, partial)
    partial.replace(target)
