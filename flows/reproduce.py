"""DVC's stages as a Prefect flow: DVC decides what is stale, Prefect shows what runs.

    python -m flows.reproduce [TARGET...]

Each stage of dvc.yaml is one task run of its name, after the stages that it depends on. It is one
`dvc repro --single-item`, and ends as

    Completed  the stage ran
    Cached     DVC found it unchanged
    Restored   DVC's run cache held its outputs; they were put in place, nothing ran
    Failed     with the last lines of what it printed
    NotReady   it needs a stage that failed, and was not started

A failed stage does not stop those that do not need it; the flow fails if any stage did.
"""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Prefect reads these as it is imported; the stages inherit them.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from dvc.exceptions import DvcException
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from timnet.errors import ParameterError, TimnetError, listing
from timnet.provenance import commit
from timnet.workspace import Workspace

TABLE = "single-corpus"  # results/tables/<TABLE>.md, made by the stage `tables`; artifact's key
VERDICTS = {  # what DVC prints behind the name of a stage that it does not run
    "didn't change, skipping": "Cached",
    "is cached - skipping run, checking out outputs": "Restored",
}
TAIL = 12  # lines of output that the message of a failed stage quotes
GRACE = 10.0  # s from SIGTERM to SIGKILL


@flow(name="reproduce")
def reproduce(
    workspace: Path | str = ".", targets: Sequence[str] = (), allow_data_changes: bool = False
) -> State:
    """Bring a workspace up to date, as `dvc repro` would.

    `targets` are stages, or groups of them (`train` for all `train@...`): these run, and all that
    they depend on; none means every stage. Data other than data.dvc describes are refused unless
    `allow_data_changes`; data.dvc itself is never rewritten.
    """
    root = Path(workspace).absolute()
    try:
        if not allow_data_changes:
            from timnet.cli.status import refuse_data_changes

            refuse_data_changes(root)
        stages = plan(root, targets)
    except (TimnetError, DvcException) as error:
        return Failed(message=str(error))

    states: dict[str, State] = {}
    for stage, needed in stages.items():
        upstream = [states[other] for other in needed]
        states[stage] = run_stage(root, stage, wait_for=upstream, return_state=True)

    if "tables" in states and states["tables"].is_completed():
        table = Workspace(root).tables / f"{TABLE}.md"
        create_markdown_artifact(
            table.read_text(encoding="utf-8"), key=TABLE, description=f"commit {commit(root)}"
        )
    return outcome(states)


def plan(root: Path, targets: Sequence[str] = ()) -> dict[str, list[str]]:
    """Stages in the order in which DVC would run them, each with those that it depends on."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro
    from dvc.stage import PipelineStage

    with Repo(str(root)) as repo:
        graph = repo.index.graph
    names = {  # of the stages in dvc.yaml; data.dvc is a node of the graph too
        stage: {stage.name, stage.name.partition("@")[0]}
        for stage in graph
        if isinstance(stage, PipelineStage)
    }
    known = sorted(set().union(*names.values()))
    if unknown := [target for target in targets if target not in known]:
        raise ParameterError(
            f"{root / 'dvc.yaml'} has no stage {listing(unknown)}. It has {listing(known, 40)}."
        )
    wanted = [stage for stage in names if not targets or names[stage] & set(targets)]
    needed = names.keys() & set(plan_repro(graph, wanted))
    return {
        stage.name: [other.name for other in graph.successors(stage) if other in names]
        for stage in plan_repro(graph)
        if stage in needed
    }


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(workspace: Path, stage: str) -> State:
    """Let DVC reproduce one stage whose inputs are up to date; what it prints goes to the log."""
    name, message = "Completed", "the stage ran"
    tail: deque[str] = deque(maxlen=TAIL)
    # Without --wait-for-lock a stage that ends while another DVC is at work can lose its result.
    with dvc(workspace, "--wait-for-lock", "repro", "--single-item", stage) as process:
        for line in map(str.rstrip, process.stdout or ()):
            get_run_logger().info(line)
            if verdict := VERDICTS.get(line.removeprefix(f"Stage '{stage}' ")):
                name, message = verdict, line
            if line:
                tail.append(line)
        status = process.wait()
    if status:
        said = "\n".join(tail) or "(it printed nothing)"
        return Failed(message=f"`dvc repro {stage}` ended with {status}:\n{said}")
    return Completed(name=name, message=message)


@contextmanager
def dvc(workspace: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """DVC in a process group of its own, of which nothing is left when the block ends."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},  # lines as they are printed
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            try:
                end_group(process, signal.SIGTERM)
            finally:  # also when a second signal cuts the grace short
                end_group(process, signal.SIGKILL)


def end_group(process: subprocess.Popen[str], blow: signal.Signals) -> None:
    """Send a signal to what is left of a process' group; wait for its end, but GRACE at most."""
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, blow)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def outcome(states: dict[str, State]) -> State:
    """The flow's own state: failed if a stage is, naming these and what was not reached."""
    done = [str(state.name) for state in states.values() if state.is_completed()]
    not_reached = [stage for stage, state in states.items() if state.is_pending()]
    failed = [s for s, state in states.items() if not (state.is_completed() or state.is_pending())]
    counts = ", ".join(f"{done.count(name)} {name.lower()}" for name in sorted(set(done)))
    if not failed:
        return Completed(message=counts)
    parts = {"failed": ", ".join(failed), "not reached": ", ".join(not_reached), "others": counts}
    return Failed(message="; ".join(f"{what}: {which}" for what, which in parts.items() if which))


def main() -> None:
    """Run the flow from the command line: 0 if all stages are up to date, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stages or groups; else all")
    parser.add_argument("--workspace", default=".", help="folder of dvc.yaml")
    parser.add_argument("--allow-data-changes", action="store_true", help="whatever data.dvc says")
    arguments = vars(parser.parse_args())
    if not (Path(arguments["workspace"]) / "dvc.yaml").is_file():
        sys.exit(f"reproduce: {arguments['workspace']} has no dvc.yaml: no workspace")
    # Prefect hands a SIGTERM on to this handler, which lets it report the crash before the end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        state = reproduce(**arguments, return_state=True)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if not state.is_completed():
        sys.exit(f"reproduce: {state.message}")


if __name__ == "__main__":
    main()
