"""One stage on a machine of a pool: the flow that workers run (`flows.worker`)."""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.

import os
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import State
from ruamel.yaml import YAML

from flows.artifacts import reported
from flows.command import TOLD, failure
from flows.pool import FLOW
from flows.process_group import ProcessGroup
from flows.reproduce import ask, reproduce_stage
from flows.run_control import exclusive
from timnet.errors import ParameterError, TimnetError
from timnet.paths import replacing
from timnet.project import git
from timnet.project.remotes import PRIVATE, refuse_unlicensed

CLONE = "TIMNET_CLONE"  # where the runs of a worker find its clone


@flow(name=FLOW, flow_run_name="{stage}")
def reproduce_in_clone(stage: str, commit: str, lock: dict[str, Any], inputs: list[str]) -> State:
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
        with exclusive(root, stage) as held, ProcessGroup(held) as processes:
            check_out(root, commit)
            add_to_lock(root, lock)
            if inputs:
                ask(processes, root, "pull", "--force", *inputs)
            with reported(root, stage):
                state = reproduce_stage(processes, root, stage, "--pull")
            if state.is_completed():
                ask(processes, root, "push", "--remote", PRIVATE, stage)
                # last, so that the run cache knows of no result that is not there
                ask(processes, root, "push", "--remote", PRIVATE, "--run-cache", stage)
            return state
    except TOLD as error:
        return failure(error)


def check_out(root: Path, commit: str) -> None:
    """Bring the clone to a commit; what git does not know stays.

    Raises:
        TimnetError: git cannot fetch.
        ParameterError: the commit is not where the clone fetches from.
    """
    if git.ask(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        fetched = git.run(root, "fetch", "--quiet", "--all")
        if fetched.returncode:  # which another try may mend, see `reproduce.TRANSIENT`
            raise TimnetError(f"{root}: git fetch failed: {fetched.stderr.decode().strip()}")
    switched = git.run(root, "checkout", "--quiet", "--force", "--detach", commit)
    if switched.returncode:
        why = switched.stderr.decode().strip()
        raise ParameterError(
            f"{root}: cannot check out commit {commit[:10]} ({why}). Push it to where this clone "
            "fetches from."
        )
    get_run_logger().info("%s is at commit %s", root, commit[:10])


def add_to_lock(root: Path, entries: dict[str, Any]) -> None:
    """Tell DVC what stages have made elsewhere since the commit."""
    path = root / "dvc.lock"
    content: Any = YAML(typ="safe").load(path) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"].update(entries)
    with replacing(path) as partial:
        YAML(typ="safe").dump(content, partial)
