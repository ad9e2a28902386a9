"""What the command lines of flows share: a server, signals, errors in words, exit statuses."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dvc.exceptions import DvcException

from flows.server import some_server
from timnet.errors import TimnetError
from timnet.project.machine import trouble

TOLD = (TimnetError, DvcException, OSError, MemoryError)  # what may have a `sentence`


@contextmanager
def command(name: str) -> Iterator[None]:
    """Exit with 1 and a sentence as of `sentence`, with 128 + number on a signal."""
    # Prefect hands a SIGTERM on to this handler, which lets it report the crash before the end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except TOLD as error:
        sys.exit(f"{name}: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def sentence(error: Exception) -> str:
    """A user's error or the machine's trouble in words; raises any other."""
    said = str(error) if isinstance(error, TimnetError | DvcException) else trouble(error)
    if not said:
        raise error
    return said


def failure(error: Exception) -> Any:
    """The state that a user's error or the machine's trouble ends in; raises any other."""
    from prefect.states import Failed  # as in `run`

    return Failed(message=sentence(error))


def run(flow: Any, **parameters: Any) -> Any:
    """The state that a flow ends in, run on `some_server`; exits as `command` does."""
    # not before `flows.ui` has set up what Prefect reads as it is imported
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with command(flow.name), temporary_settings({PREFECT_API_URL: some_server()}):
        return flow(**parameters, return_state=True)


def run_and_exit(flow: Any, workspace: Path, **parameters: Any) -> NoReturn:
    """Run a flow on a workspace; prints its last message and exits with 0 if it succeeded."""
    if not (workspace / "dvc.yaml").is_file():
        sys.exit(f"{flow.name}: {workspace} has no dvc.yaml, so it is no workspace")
    state = run(flow, workspace=workspace, **parameters)
    print(f"{flow.name}: {state.message}", file=sys.stderr)
    sys.exit(0 if state.is_completed() else 1)
