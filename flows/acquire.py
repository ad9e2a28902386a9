"""Corpora as a Prefect flow: all that can be had comes at the same time, then goes to DVC.

    python -m flows.acquire CORPUS...

Each corpus is one task run of its name: Completed if it is in data/, whole, now or before; Failed
with what is wrong, or whom a person has to ask for it. The others go on: `dvc add data` follows if
any is there, and the flow fails if any is not. Prefect retries nothing: `timnet.acquire.download`
tries again, with back-off and as the server asks, from where the connection dropped, and says so in
the log.
"""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.
import argparse
import logging
import os
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.command import TOLD, command, failure, run
from flows.process_group import ProcessGroup
from flows.reproduce import ask, this_run
from flows.run_control import describe
from timnet import corpora as registry
from timnet.acquire import acquire as stage
from timnet.acquire.download import Progress, without_login
from timnet.errors import TimnetError
from timnet.paths import Workspace
from timnet.project.dvc import refuse_without_dvc, repository
from timnet.project.status import noted, nothing_to_add
from timnet.project.tracked import refuse_ignore_files, refuse_left_out, restored

EVERY = 5.0  # s between two reports of progress
LOGIN = "the mirror's URL contains a login, which Prefect would store: set TIMNET_MIRROR instead."


@flow(name="acquire", task_runner=ThreadPoolTaskRunner(max_workers=4))  # type: ignore[arg-type]
def acquire(corpora: list[str], workspace: Path = Path(), mirror: str | None = None) -> State:
    """Bring corpora to data/ as `timnet acquire` would.

    Args:
        mirror: Address of an institute's own copies. Prefect keeps and shows it: one with a login
            belongs into the environment, as TIMNET_MIRROR, which is used where none is given.
    """
    if has_login(mirror):
        return Failed(message=LOGIN)
    logging.getLogger("timnet").setLevel(logging.INFO)
    root, stop = workspace.absolute(), Event()
    try:
        refuse_without_dvc(root)
    except TOLD as error:
        return failure(error)
    describe(this_run(), root, f"acquire {', '.join(corpora)}")
    futures = {name: bring.submit(root, name, mirror, stop) for name in dict.fromkeys(corpora)}
    try:
        wait(list(futures.values()))
    finally:
        stop.set()  # a signal ends this wait, but no thread
    states = {name: future.state for name, future in futures.items()}
    if brought := [name for name, state in states.items() if state.is_completed()]:
        states["dvc add data"] = add_data(root, brought, return_state=True)
    failed = [f"{name}: {s.message}" for name, s in states.items() if not s.is_completed()]
    if failed:
        return Failed(message="\n".join(failed))
    return Completed(message=f"{', '.join(futures)}: in data/, under DVC")


def has_login(mirror: str | None) -> bool:
    """Whether Prefect would keep a login, see `LOGIN`."""
    return mirror is not None and without_login(mirror)[1] is not None


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def bring(workspace: Path, name: str, mirror: str | None, stop: Event) -> State:
    """Bring one corpus to its place, or say why not."""
    data, progress = Workspace(workspace).data, report(name, stop)
    mirror = mirror or os.environ.get("TIMNET_MIRROR")
    try:
        got = stage.acquire(registry.corpus(name, data), data, mirror=mirror, progress=progress)
    except TOLD as error:
        return failure(error)
    return Completed(message=f"{'already there, ' if got.found else ''}{got.utterances} utterances")


@task(task_run_name="dvc add data", cache_policy=NO_CACHE)
def add_data(workspace: Path, brought: list[str]) -> State:
    try:
        refuse_ignore_files(workspace)
        with repository(workspace) as repo:
            why = nothing_to_add(repo, brought)
        if why:
            return Completed(message=why)
        data = Workspace(workspace).data
        with restored(workspace / "data.dvc"):
            with ProcessGroup() as processes:
                ask(processes, workspace, "add", "data")
            refuse_left_out(workspace, {name: registry.corpus(name, data) for name in brought})
    except TOLD as error:
        return failure(error)
    return Completed(message=noted(workspace))


def report(name: str, stop: Event) -> Progress:
    """Progress as lines of the log and, where the end is known, as artifacts; ends at `stop`."""
    log = get_run_logger()
    artifacts, last = dict[str, Any](), dict[str, float]()

    def progress(what: str, done: int, total: int | None) -> None:
        if stop.is_set():
            raise TimnetError("stopped; run again to continue")
        if done != total and time.monotonic() - last.get(what, -EVERY) < EVERY:
            return
        last[what] = time.monotonic()
        log.info(f"{what}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else ""))
        if total and what in artifacts:
            update_progress_artifact(artifacts[what], progress=100 * done / total)
        elif total:
            artifacts[what] = create_progress_artifact(100 * done / total, key=f"{name}-{what}")

    return progress


def main() -> None:
    """Run the flow from the command line: 0 if all corpora are there, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m flows.acquire")
    parser.add_argument("corpora", nargs="+", metavar="CORPUS", help="what to bring")
    parser.add_argument("--workspace", type=Path, default=Path(), help="folder of data/")
    parser.add_argument("--mirror", help="URL of copies, instead of TIMNET_MIRROR")
    arguments = vars(parser.parse_args())
    if has_login(arguments["mirror"]):
        sys.exit(f"acquire: {LOGIN}")
    with command(acquire.name):  # before a server is started
        refuse_without_dvc(arguments["workspace"])
        for name in arguments["corpora"]:
            registry.corpus(name, Workspace(arguments["workspace"]).data)
    state = run(acquire, **arguments)
    if not state.is_completed():
        sys.exit(f"acquire: {state.message}")


if __name__ == "__main__":
    main()
