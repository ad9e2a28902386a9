"""Stages that other machines run: workers of a Prefect work pool, with DVC's remote in between.

A stage's inputs go to the remote `private`, a worker (`flows.worker`) takes the stage, pulls them,
runs it and pushes what it made with its entry of the run cache; from there `flows.reproduce`
restores it as DVC does any stage that has run before. So a result is lost nowhere: one that has
reached the remote is never computed again, whoever asked for it.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Failed, State

from flows.process_group import ProcessGroup
from timnet.errors import ParameterError
from timnet.project.dvc import locked
from timnet.project.provenance import head

FLOW = "stage"  # of `flows.stage`; its deployment has the name of the pool
EVERY = 2.0  # s between two looks at a run
HEARTBEAT = 30  # s between two signs of life of a run; Prefect allows no less
LOST = 90  # s without one, until a run counts as crashed
TRIES = 5  # machines that a stage may lose
SILENCE = "timnet: worker heartbeat lost"  # name of the automation


def prepare(root: Path, pool: str) -> None:
    """See that workers can take stages of this workspace.

    Raises:
        ParameterError: no commit, sources that differ from it, or a pool that nobody serves.
    """
    at = head(root)
    if at is None or at.changed:
        what = "there is none" if at is None else "the sources here differ from it"
        raise ParameterError(
            f"{root}: the machines of a pool check out a commit, and {what}. Commit and push first."
        )
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{FLOW}/{pool}")
        except ObjectNotFound:
            raise ParameterError(
                f"no worker has ever served the pool {pool!r}. Start one in a clone on each "
                f"machine: `python -m flows.worker {pool}`."
            ) from None
    end_the_silent()


def end_the_silent() -> None:
    """Let the server call a stage's run crashed when its machine gives no more signs of life."""
    known: Any = Automation.read
    with suppress(ValueError):
        known(name=SILENCE)
        return
    ends = ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling")
    Automation(
        name=SILENCE,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            threshold=1,
            within=timedelta(seconds=LOST),
        ),
        actions=[
            ChangeFlowRunState(
                name=None, state=StateType.CRASHED, message="worker heartbeat lost", force=True
            )
        ],
    ).create()


def send(
    root: Path,
    stage: str,
    needs: Sequence[str],
    inputs: Sequence[str],
    pool: str,
    processes: ProcessGroup,
) -> State:
    """Let a machine of the pool run a stage whose inputs are in the remote; gives its last state.

    A machine that is lost is replaced by the next one that is free.
    """
    log = get_run_logger()
    noted, at = locked(root, *needs), head(root)
    assert at, "prepare has seen a commit"
    parameters = {
        "stage": stage,
        "commit": at.commit,
        "lock": {each: noted[each] for each in needs},
        "inputs": list(inputs),
    }
    run: Any
    for _ in range(TRIES):
        run = run_deployment(
            f"{FLOW}/{pool}", parameters=parameters, timeout=0, flow_run_name=stage
        )
        log.info("goes to the pool %s, as its run %s", pool, run.id)
        state = _wait(run.id, processes)
        if state.is_failed():  # a state of its own, for Prefect puts other words on one returned
            return Failed(message=state.message)
        if not state.is_crashed():
            return state
        log.warning("%s; another machine takes over", state.message)
    return Failed(message=f"gave up after {TRIES} machines of the pool {pool} were lost")


def _wait(run: UUID, processes: ProcessGroup) -> State:
    with get_client(sync_client=True) as client:
        while processes.reason is None:
            state = client.read_flow_run(run).state
            if state and state.is_cancelled():
                return Cancelled(message=f"someone cancelled its run {run}")
            if state and state.is_final():
                return state
            time.sleep(EVERY)
        client.set_flow_run_state(run, Cancelling())
    return Cancelled(message=processes.reason)
