"""A machine that runs stages for others: a worker of a Prefect work pool, in a clone of its own.

    python -m flows.worker POOL

Belongs to a clone of the project that nobody else works in, with the remote `private` set up, and
takes one stage at a time: it brings the clone to the commit in question, pulls the stage's inputs,
lets DVC reproduce it, and pushes what came out. `flows.reproduce --pool POOL` sends it.
"""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import EntrypointType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, State
from ruamel.yaml import YAML

from flows.artifacts import Progress
from flows.guard import exclusive
from flows.leash import Leash
from flows.pool import FLOW, HEARTBEAT
from flows.reproduce import ask, reproduce_stage
from flows.server import running_ui
from timnet.cli.push import refuse_unlicensed
from timnet.errors import ParameterError, TimnetError
from timnet.licences import PRIVATE
from timnet.workspace import Workspace

CLONE = "TIMNET_CLONE"  # where the runs of a worker find its clone


@flow(name=FLOW, flow_run_name="{stage}")
def take(stage: str, commit: str, lock: dict[str, Any], inputs: list[str]) -> State:
    """Reproduce one stage in this machine's clone, from the remote and back to it.

    Args:
        stage: Its name in dvc.yaml.
        commit: Of the project, in full.
        lock: Entries of dvc.lock for the stages that its inputs come from.
        inputs: Paths of what DVC has to pull for it.
    """
    root = Path(os.environ[CLONE])
    try:
        refuse_unlicensed(root, PRIVATE)
        with exclusive(root, stage) as held, Leash(held) as leash:
            check_out(root, commit)
            add_to_lock(root, lock)
            if inputs:
                ask(leash, root, "pull", "--force", *inputs)
            with reported(root, stage):
                state = reproduce_stage(leash, root, stage, "--pull")
            if state.is_completed():
                ask(leash, root, "push", "--remote", PRIVATE, stage)
                # last, so that the run cache knows of no result that is not there
                ask(leash, root, "push", "--remote", PRIVATE, "--run-cache", stage)
            return state
    except TimnetError as error:
        return Failed(message=str(error))


def check_out(root: Path, commit: str) -> None:
    """Bring the clone to a commit; what git does not know stays.

    Raises:
        ParameterError: the commit cannot be had.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        git("fetch", "--quiet", "--all")
    switched = git("checkout", "--quiet", "--force", "--detach", commit)
    if switched.returncode:
        raise ParameterError(
            f"{root}: cannot go to commit {commit[:10]} ({switched.stderr.strip()}). Push it to "
            "where this clone fetches from."
        )
    get_run_logger().info("%s is at commit %s", root, commit[:10])


def add_to_lock(root: Path, entries: dict[str, Any]) -> None:
    """Tell DVC what stages have made elsewhere since the commit."""
    path = root / "dvc.lock"
    content: Any = YAML(typ="safe").load(path) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"].update(entries)
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(content, file)


@contextmanager
def reported(root: Path, stage: str) -> Iterator[None]:
    """Report the progress of a stage as an artifact while it runs."""
    progress, ended = Progress(root), threading.Event()

    def report() -> None:
        while not ended.wait(1.0):
            progress.look(stage)

    Workspace(root).progress(stage).unlink(missing_ok=True)
    thread = threading.Thread(target=copy_context().run, args=(report,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.end(stage)


def register(pool: str) -> None:
    """Tell the server of the pool and of the flow that its workers run."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    kind = EntrypointType.MODULE_PATH  # the installed one, wherever a machine has it
    deployment: Any = take.to_deployment(pool, work_pool_name=pool, entrypoint_type=kind)
    deployment.apply()


def main() -> None:
    """Serve a pool until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m flows.worker")
    parser.add_argument("pool", metavar="POOL", help="created if it is missing")
    pool = parser.parse_args().pool
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        sys.exit("worker: no dvc.yaml here: start it in the root of a clone of its own.")
    url = os.environ.get("PREFECT_API_URL") or running_ui()
    if url is None:
        sys.exit("worker: no server. Set PREFECT_API_URL to the one that sends the stages.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ |= {
        "PREFECT_API_URL": url,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
        CLONE: str(root),
    }
    try:
        refuse_unlicensed(root, PRIVATE)
        with temporary_settings({PREFECT_API_URL: url}):
            register(pool)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
        with Leash() as leash:
            sys.exit(leash.start([*command, "--pool", pool, "--limit", "1"]).wait())
    except TimnetError as error:
        sys.exit(f"worker: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
