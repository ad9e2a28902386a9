"""One run per workspace, stopped when it is cancelled or its server is lost."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.process_group import GRACE, ProcessGroup
from timnet.errors import ArtifactError
from timnet.project import git
from timnet.project.locks import running_dvc
from timnet.project.provenance import commit

EVERY = 3.0  # s between two looks at the server
LOST = 30.0  # s without an answer, until a run is stopped
REPRODUCE = "reproduce"  # the kind of run whose stages run in the workspace itself


@contextmanager
def exclusive(root: Path, name: str, work: str = REPRODUCE) -> Iterator[int]:
    """The only run of its kind on a workspace; yields a descriptor that keeps it so while open.

    The system takes the lock back when the last process that holds the descriptor ends. It is
    waited for as long as the stages of a run that was stopped may take to end, and so is a
    `dvc repro` without a flow, unless this run does its work elsewhere.

    Raises:
        ArtifactError: another run is at work, or this is no workspace.
    """
    if not (root / ".dvc").is_dir():
        raise ArtifactError(f"{root}: no folder .dvc here. Start it in the root of a workspace.")
    path = root / ".dvc" / "tmp" / f"{work}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        deadline = time.monotonic() + GRACE + 5
        while True:
            try:
                flock(file, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise ArtifactError(
                        f"{root}: another run is active here ({file.read().strip()}). Wait until "
                        "it ends or stop it, then start again."
                    ) from None
                time.sleep(0.5)
        while work == REPRODUCE and (told := running_dvc(root)):
            if time.monotonic() > deadline:
                raise ArtifactError(
                    f"{root}: {told}. Wait until it ends or stop it, then start again."
                )
            time.sleep(0.5)
        file.truncate(0)
        file.write(f"{name}, process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        yield file.fileno()


def describe(run: FlowRun, root: Path, name: str) -> None:
    """Name a run by what it does, and tag it with branch and commit."""
    at = [git.ask(root, "branch", "--show-current"), commit(root)]
    tags = [*run.tags, *(tag for tag in at if tag and tag not in run.tags)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=name, tags=tags)


def watch(run: FlowRun, processes: ProcessGroup) -> None:
    """Until a run ends, check that its server responds and that nobody cancelled the run.

    A cancelled run has its processes stopped, but for a deployment: there Prefect does it.
    If the server is lost, stages are stopped and this process ends: Prefect would try to reach it
    for minutes, at every report.
    """
    threading.Thread(target=copy_context().run, args=(_watch, run, processes), daemon=True).start()


def _watch(run: FlowRun, processes: ProcessGroup) -> None:
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client,
    ):
        responded = time.monotonic()
        while time.monotonic() - responded < LOST:
            time.sleep(EVERY)
            if run.state and run.state.is_final():  # as far as this process knows
                return
            try:
                state = client.read_flow_run(run.id).state
                responded = time.monotonic()
            except httpx.HTTPStatusError:  # an answer, if not a good one
                responded = time.monotonic()
                continue
            except (httpx.HTTPError, OSError):
                continue
            if state and (state.is_cancelling() or state.is_cancelled()):
                if run.deployment_id is None:
                    processes.stop("cancelled")
                return
            if state and state.is_final():
                return
    processes.stop("server lost")
    processes.wait()
    print(
        f"the Prefect server at {PREFECT_API_URL.value()} has not responded for {LOST:.0f} s, so "
        "the run was stopped. Start it again with a working server: it continues from there.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
