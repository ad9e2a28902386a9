"""What commands share: the application, progress bars, the workspace, small files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from timnet.errors import ArtifactError, ParameterError, listing
from timnet.paths import Workspace, write_text
from timnet.processes import cores

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from timnet.project.params import Params

app = typer.Typer(
    help=(
        "TIM-Net speech emotion recognition, from recordings to the paper's tables. UAR: "
        "unweighted average recall. WAR: weighted average recall (accuracy). MFCC: mel-frequency "
        "cepstral coefficients. TAB: temporal-aware block."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing in a log; yields what advances it."""
    from rich.progress import (
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.0f}/s" if speed else "")

    columns = (MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with bars(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def bars(*columns: ProgressColumn) -> Progress:
    """Progress bars with their titles and these columns; nothing in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    title = TextColumn("{task.description}")
    return Progress(title, BarColumn(), *columns, console=console, disable=not console.is_terminal)


def given_path(text: str) -> Path:
    """Parser of a path on the command line: of an empty name typer itself would make `.`."""
    if text == "":
        raise typer.BadParameter(
            "the name is empty, perhaps from a variable that is not set. Name a file or folder."
        )
    return Path(text)


def file_to_write(text: str) -> Path:
    """Parser of a file that will be written."""
    if given_path(text).is_dir() or text.endswith("/"):
        raise typer.BadParameter(f"{text} is a folder; give a file.")
    return Path(text)


def say(text: str) -> None:
    print(text, flush=True)


def workers(device: str = "cpu") -> int:
    """Processes to spread work over: TIMNET_WORKERS, or the cores that this process may use.

    On a GPU one: parts of a stack side by side would need the memory of the whole.
    """
    if device == "cuda":
        return 1
    given = os.environ.get("TIMNET_WORKERS")
    if given is None:
        return cores()
    if not given.isdecimal() or int(given) < 1:
        raise ParameterError(f"TIMNET_WORKERS is {given!r}; give a whole number of processes.")
    return int(given)


@contextmanager
def timed(workspace: Workspace, stage: str) -> Iterator[dict[str, Any]]:
    """Record how long a stage took here, for `timnet status`; how much it did is added inside."""
    start, done = time.monotonic(), dict[str, Any]()
    yield done
    record = {"seconds": round(time.monotonic() - start, 1), **done}
    write_text(workspace.times(stage), json.dumps(record) + "\n")


def open_workspace() -> tuple[Workspace, Params]:
    """The workspace in the current folder and its parameters."""
    from timnet.project import params, template
    from timnet.project.git import refuse_conflicts

    workspace = Workspace(Path())
    _refuse_other_code(workspace)
    template.refuse_other_code(workspace.root)
    refuse_conflicts(workspace.root)
    return workspace, params.read(workspace.params)


def _refuse_other_code(workspace: Workspace) -> None:
    """DVC watches the workspace's own `timnet/`; code from elsewhere would run unwatched."""
    import timnet

    running, watched = Path(timnet.__file__).parent, workspace.root / "timnet"
    if not (watched / "__init__.py").is_file() or watched.resolve() == running.resolve():
        return
    names = {path.relative_to(folder) for folder in (running, watched) for path in _code(folder)}
    differ = sorted(
        f"timnet/{name.as_posix()}"
        for name in names
        if not (running / name).is_file()
        or not (watched / name).is_file()
        or (running / name).read_bytes() != (watched / name).read_bytes()
    )
    if differ:
        raise ArtifactError(
            f"{listing(differ)} differ from the installed timnet, so DVC would not see changes of "
            "the code that runs. Install this checkout (`pip install --editable .`), "
            "or set PYTHONPATH to its folder."
        )


def _code(folder: Path) -> list[Path]:
    return [
        path for ending in ("py", "html", "json", "yaml") for path in folder.rglob(f"*.{ending}")
    ]


def need_compiler(place: str) -> None:
    """Refuse to train with compiled kernels where nothing can compile them."""
    if place == "cuda":
        name, known = "CC", ["gcc", "clang"]  # as Triton looks for them
    else:
        name, known = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]  # as torch does
    names = os.environ.get(name, "").split()[:1] or known
    if not any(map(shutil.which, names)):
        raise ParameterError(
            f"the recipe is compiled, but there is no compiler: {' or '.join(names)}. Install one, "
            f"name yours in {name}, or set compiled to false."
        )
    if place == "cuda" and find_spec("triton") is None:
        raise ParameterError(
            "the recipe is compiled, but Triton, which compiles for a GPU, is not installed. "
            "Install torch's own build for your CUDA, which brings it, or set compiled to "
            "false."
        )
    place_kernels(Path("build/kernels"))


def place_kernels(folder: Path) -> None:
    """Have torch compile in `folder` where its own place, temporary files, may run no programs.

    Raises:
        ParameterError: neither place may.
    """
    from timnet.project.machine import may_run_programs

    usual = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()
    if may_run_programs(Path(usual)):
        return
    if not may_run_programs(folder.absolute()):
        raise ParameterError(
            f"the recipe is compiled, but neither {usual} nor {folder} may run programs (mounted "
            "noexec). Name a folder that may in TORCHINDUCTOR_CACHE_DIR, or set compiled to "
            "false."
        )
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.absolute())
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder.absolute() / "triton"))


def device() -> str:
    """Where to train: TIMNET_DEVICE, or a GPU where torch finds one."""
    import torch

    given = os.environ.get("TIMNET_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if given not in ("cpu", "cuda"):
        raise ParameterError(f"TIMNET_DEVICE is {given!r}; give cpu or cuda.")
    if given == "cuda" and not torch.cuda.is_available():
        raise ParameterError("TIMNET_DEVICE is cuda, but torch finds no GPU here; leave it unset.")
    return given
