"""DVC's stages as a Prefect flow: DVC decides what is stale, Prefect when it runs, and shows it.

    python -m flows.reproduce [TARGET...]

Each stage of dvc.yaml that is not up to date is one task run of its name, started as soon as the
stages that it depends on have ended, several at a time. The others are counted as unchanged. It is
one `dvc repro --single-item`, and ends as

    Completed  the stage ran
    Cached     what it depends on came out as before
    Restored   DVC's run cache held its outputs; they were put in place, nothing ran
    Failed     with the last lines of what it printed
    NotReady   it needs a stage that failed, and was not started
    Cancelled  the run was stopped before the stage had ended

A failed stage does not stop those that do not need it; the flow fails if any stage did. Whatever
stops a run, no process is left of it, and the next one goes on from the last whole stage.
"""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.

import argparse
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from dvc.exceptions import DvcException
from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import FlowRun
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled, Completed, Failed, Pending, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import reported, show
from flows.command import TOLD, command, failure, run_and_exit
from flows.pool import prepare, send
from flows.process_group import ProcessGroup, Stopped
from flows.run_control import describe, exclusive, watch
from flows.server import running_ui
from timnet.errors import ParameterError, TimnetError, listing
from timnet.evaluation.protocols import ORDER
from timnet.paths import Workspace
from timnet.project import params
from timnet.project.dvc import repository
from timnet.project.estimates import estimate
from timnet.project.git import refuse_conflicts
from timnet.project.remotes import PRIVATE, refuse_unlicensed
from timnet.project.status import (
    corpora_of,
    refuse_data_changes,
    stages_of,
    stale_stages,
    training_stages,
)
from timnet.reporting import render

Protocol = Literal[ORDER]  # type: ignore[valid-type]
VERDICTS = {  # what DVC prints behind the name of a stage that it does not run
    "didn't change, skipping": "Cached",
    "is cached - skipping run, checking out outputs": "Restored",
}
ADVICE = (  # what DVC prints for who runs it by hand
    "To track the changes with git, run:",
    "To enable auto staging, run:",
    "Use `dvc push` to send your updates to remote storage.",
    "\tgit add ",
    "\tdvc config core.autostage true",
)
TAIL = 12  # lines of output that the message of a failed stage quotes
# What may be otherwise a little later: somebody else's lock, the network. Nothing else is.
TRANSIENT = re.compile(
    r"is busy, it is being blocked by|Unable to acquire lock|\(process \d+\) is running"
    "|Temporary failure in name resolution|Could not resolve host|Could(n't| not) connect to"
    "|Connection (reset|refused|aborted|timed out)"
)
PAUSES = [1.0, 5.0, 15.0, 30.0]  # s before each new try
GPU = "gpu"  # the global limit that stages marked `meta: {gpu: true}` share, in all workspaces
LEASE = 60.0  # s after which the slot of a run that was killed comes back
NO_SHELL = "false"  # with it for a shell DVC restores a stage, and runs none
# SIGTERM ends what DVC has started, and DVC itself as soon as it has tidied up: it writes its
# files in place, so that one that it is killed at stays half-written.
DVC = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
from dvc.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Step:
    """A stage among others."""

    needs: list[str]  # the stages that it depends on
    gpu: bool = False  # whether it trains: one at a time, as the limit `gpu` has it
    pooled: bool = False  # whether machines of a pool take it, since it needs no recordings
    # what DVC keeps of its inputs, and the outputs that these are, or lie in
    inputs: dict[str, str] = field(default_factory=dict, compare=False)


@flow(name="reproduce", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def reproduce(
    workspace: Path = Path(),
    targets: Sequence[str] = (),
    corpora: Sequence[str] = (),
    protocols: Sequence[Protocol] = (),
    dry_run: bool = False,
    force: bool = False,
    max_workers: int = 2,
    allow_data_changes: bool = False,
    pool: str | None = None,
) -> State:
    """Bring a workspace up to date, as `dvc repro` would.

    Args:
        workspace: Folder of dvc.yaml.
        targets: Stages, or groups of them (`train` for all `train@...`); these run, and all that
            they depend on. None means every stage.
        corpora: Only stages of these, and of runs on these alone. The tables need every run, so
            they are left to a run without this.
        protocols: Only stages of runs that have scores under these protocols.
        dry_run: Only list what would run, why, and how long it took last time.
        force: Run stages though nothing has changed.
        max_workers: Stages at a time, apart from those that train: these share the limit `gpu`.
        allow_data_changes: Go on where data/ is not what data.dvc says; it is not rewritten.
        pool: Work pool whose machines train, all at the same time, in place of this one; see
            `flows.worker`.
    """
    root = workspace.absolute()
    try:
        refuse_options(max_workers, force, pool)
        wanted = partial(look, root, targets, corpora, protocols, force, allow_data_changes)
        run = this_run()
        if dry_run:
            return forecast(root, run, wanted())
        with exclusive(root, run.name) as lock, ProcessGroup(lock) as processes:
            watch(run, processes)
            found = wanted()
            describe(run, root, f"reproduce {about(root, found.stale)}")
            if pool is not None:
                prepare(root, pool)
            states = run_steps(Work(root, processes, max_workers, force, pool), found.to_run)
            if processes.reason is None:
                show(root, [stage for stage, state in states.items() if state.is_completed()])
            return outcome(found, states, processes.reason)
    except TOLD as error:
        return failure(error)


def refuse_options(max_workers: int, force: bool = False, pool: str | None = None) -> None:
    """Stop at options that cannot work.

    Raises:
        ParameterError: one of them.
    """
    if max_workers < 1:
        raise ParameterError(f"max_workers is {max_workers}; give 1 or more.")
    if force and pool is not None:
        raise ParameterError(
            "force cannot be combined with a pool, whose stages restore what was ever computed. "
            "Leave one of them out."
        )


@dataclass(frozen=True)
class Found:
    """What is to be done."""

    steps: dict[str, Step]  # all that were asked for, in the order in which DVC would run them
    stale: dict[str, list[str]]  # those of them that may run, each with why

    @property
    def to_run(self) -> dict[str, Step]:
        return {stage: step for stage, step in self.steps.items() if stage in self.stale}


def look(
    root: Path,
    targets: Sequence[str] = (),
    corpora: Sequence[str] = (),
    protocols: Sequence[str] = (),
    force: bool = False,
    allow_data_changes: bool = False,
) -> Found:
    """What a run would do; arguments and errors as of the flow `reproduce`."""
    refuse_conflicts(root)
    with repository(root) as repo:
        steps = plan(repo, targets, corpora, protocols)
        if not allow_data_changes:
            refuse_data_changes(repo, corpora_of(Workspace(root), steps))
        stale = stale_stages(repo)
    forced = {stage: ["forced"] for stage in (steps if force else ())}
    why = {stage: reasons or ["if what it depends on changes"] for stage, reasons in stale.items()}
    return Found(steps, {stage: each for stage, each in (forced | why).items() if stage in steps})


def about(root: Path, stages: Collection[str]) -> str:
    """What some stages are for, such as `emovo 3 stages`."""
    if not stages:
        return "nothing: up to date"
    corpora = corpora_of(Workspace(root), stages)
    named = [", ".join(corpora) if len(corpora) < 4 else f"{len(corpora)} corpora"]
    number = f"{len(stages)} stage{'s' if len(stages) > 1 else ''}"
    return " ".join([*filter(None, named), number])


def this_run() -> FlowRun:
    context = FlowRunContext.get()
    assert context and context.flow_run, "only within a flow"
    return context.flow_run


def plan(
    repo: Any,
    targets: Sequence[str] = (),
    corpora: Sequence[str] = (),
    protocols: Sequence[str] = (),
) -> dict[str, Step]:
    """The stages to bring up to date, in the order in which DVC would run them.

    Args:
        repo: as of `timnet.project.dvc.repository`.

    Raises:
        ParameterError: no such stage or corpus.
    """
    from dvc.repo.reproduce import plan_repro
    from dvc.stage import PipelineStage

    root, graph = Path(repo.root_dir), repo.index.graph
    # data.dvc is a node of the graph too
    stages = [stage for stage in graph if isinstance(stage, PipelineStage)]
    wanted = _targeted(root, stages, targets)
    if corpora or protocols:
        chosen = stages_of(Workspace(root), corpora, protocols)
        wanted = [stage for stage in wanted if stage.name in chosen]
    needed = set(stages) & set(plan_repro(graph, wanted)) if wanted else set()
    kept = {out.def_path for out in repo.index.outs if out.use_cache}
    training = training_stages(Workspace(root))

    def step(stage: Any) -> Step:
        marked = bool((stage.meta or {}).get("gpu"))
        needs = [other.name for other in graph.successors(stage) if other in needed]
        return Step(needs, marked or stage.name in training, marked, _kept_inputs(stage, kept))

    return {stage.name: step(stage) for stage in plan_repro(graph) if stage in needed}


def _targeted(root: Path, stages: list[Any], targets: Sequence[str]) -> list[Any]:
    """The stages that some targets name, each or as a group; without targets all of them."""
    names = {stage: {stage.name, stage.name.partition("@")[0]} for stage in stages}
    known = sorted(set().union(*names.values()))
    if unknown := [target for target in targets if target not in known]:
        raise ParameterError(
            f"{root / 'dvc.yaml'} has no stage {listing(unknown)}. It has {listing(known, 40)}."
        )
    return [stage for stage in stages if not targets or names[stage] & set(targets)]


def _kept_inputs(stage: Any, kept: set[str]) -> dict[str, str]:
    """Inputs of a stage that DVC keeps: each with the output that it is, or lies in."""
    return {
        dep.def_path: out
        for dep in stage.deps
        for out in kept.intersection(_and_above(dep.def_path))
    }


def _and_above(path: str) -> set[str]:
    return {path, *map(str, PurePosixPath(path).parents)}


def forecast(root: Path, run: FlowRun, found: Found) -> State:
    """What a run would do, in the log and as an artifact."""
    workspace = Workspace(root)
    known = params.read(workspace.params) if workspace.params.is_file() else None
    would = found.to_run
    describe(run, root, f"dry run of {about(root, would)}")

    def time(stages: Collection[str]) -> str:
        return str(estimate(workspace, known, stages)) if known else "not timed"

    lines = [(stage, "; ".join(found.stale[stage]), time([stage])) for stage in would]
    for line in lines:
        get_run_logger().info("would run %s: %s (%s)", *line)
    said = f"{len(would)} of {len(found.steps)} stages would run"
    if would:
        said += f"; one after the other: {time(would)}"
    rows = [render.row_of(*line) for line in lines]
    table = render.Table("dry-run", "Dry run", ("stage", "why", "time"), rows, [f"{said}."])
    create_markdown_artifact(render.markdown(table), key="dry-run", description=said)
    return Completed(message=f"dry run: {said}")


class Work:
    """What the tasks of one run share."""

    def __init__(
        self, root: Path, processes: ProcessGroup, max_workers: int, force: bool, pool: str | None
    ) -> None:
        self.root, self.processes, self.force, self.pool = root, processes, force, pool
        self.room = threading.Semaphore(max_workers)  # of stages that do not train
        self.turn = threading.Lock()  # one of this run at a time asks for a slot of the limit `gpu`
        self.futures: dict[str, PrefectFuture[Any]] = {}

    def lacking(self, step: Step) -> list[str]:
        """Of the stages that a step needs those that have ended otherwise than completed."""
        needed = (each for each in step.needs if each in self.futures)
        return [each for each in needed if not self.futures[each].state.is_completed()]


def run_steps(work: Work, steps: Mapping[str, Step]) -> dict[str, State]:
    """Run each stage once what it needs has ended; gives the states that they end in."""
    for stage, step in steps.items():  # each stands behind what it needs
        needed = [work.futures[each] for each in step.needs if each in work.futures]
        work.futures[stage] = run_stage.submit(
            work,
            stage,
            step,
            # else Prefect itself ends it, naming what it needs by a number
            wait_for=[allow_failure(each) for each in needed],
            return_state=False,
        )
    wait(list(work.futures.values()))
    return {stage: future.state for stage, future in work.futures.items()}


def is_transient(_task: Any, _run: Any, state: State) -> bool:
    return bool(TRANSIENT.search(state.message or ""))


PATIENT: dict[str, Any] = {  # a task that tries again what is transient
    "cache_policy": NO_CACHE,
    "retries": len(PAUSES),
    "retry_delay_seconds": PAUSES,
    "retry_condition_fn": is_transient,
}


@task(task_run_name="{stage}", **PATIENT)
def run_stage(work: Work, stage: str, step: Step) -> State:
    """Let DVC reproduce one stage whose inputs are up to date, here or on a machine of a pool."""
    if lacking := work.lacking(step):
        return Pending(name="NotReady", message=f"it needs {listing(lacking)}")
    try:
        if step.pooled and work.pool:
            return run_elsewhere(work.root, stage, work.processes, step, work.pool)
        with slot(work.processes, work.turn) if step.gpu else work.room:
            if work.processes.reason is not None:
                return Pending(name="NotReady", message=work.processes.reason)
            with reported(work.root, stage):
                options = ["--force"] if work.force else []
                return reproduce_stage(work.processes, work.root, stage, *options)
    except TOLD as error:
        return failure(error)


def run_elsewhere(
    workspace: Path, stage: str, processes: ProcessGroup, step: Step, pool: str
) -> State:
    """Let a machine of the pool run a stage, unless the remote has its result already."""
    restore = partial(reproduce_stage, processes, workspace, stage, "--pull", SHELL=NO_SHELL)
    state = restore(quiet=True)
    if state.is_completed() and state.name == "Completed":
        return Completed(name="Restored", message="its outputs were restored from the remote")
    if not (state.is_failed() and f"Running stage '{stage}'" in (state.message or "")):
        return state
    try:
        if step.inputs:
            refuse_unlicensed(workspace, PRIVATE)
            # Whole outputs: of a folder that was sent in part DVC believes that it is all there.
            ask(processes, workspace, "push", "--remote", PRIVATE, *set(step.inputs.values()))
        state = send(workspace, stage, step.needs, list(step.inputs), pool, processes)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
    except TOLD as error:
        return failure(error)
    if state.is_completed():
        state = restore()
    if state.is_completed():
        return Completed(message=f"the stage ran on a machine of the pool {pool}")
    return state


def reproduce_stage(
    processes: ProcessGroup,
    workspace: Path,
    stage: str,
    *options: str,
    quiet: bool = False,
    **environment: str,
) -> State:
    """`dvc repro` of one stage; what it prints goes to the log, unless `quiet`."""
    log = get_run_logger()
    name, message = "Completed", "the stage ran"
    tail: deque[str] = deque(maxlen=TAIL)
    # Without --wait-for-lock a stage that ends while another DVC is at work can lose its result.
    command = ["--wait-for-lock", "repro", "--single-item", *options, stage]
    Workspace(workspace).progress(stage).unlink(missing_ok=True)  # of a run that was killed
    try:
        with dvc(processes, workspace, *command, **environment) as process:
            for line in map(str.rstrip, process.stdout or ()):
                if not line or line.startswith(ADVICE):
                    continue
                if not quiet:
                    log.info(line)
                tail.append(line)
                if verdict := VERDICTS.get(line.removeprefix(f"Stage '{stage}' ")):
                    name, message = verdict, line
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
    if process.returncode and processes.reason is not None:
        return Cancelled(message=processes.reason)
    if process.returncode:
        said = "\n".join(tail) or "(it printed nothing)"
        return Failed(message=f"`dvc repro {stage}` ended with {process.returncode}:\n{said}")
    return Completed(name=name, message=message)


def ask(processes: ProcessGroup, workspace: Path, *arguments: str) -> str:
    """What a DVC command prints, once it has ended.

    Raises:
        Stopped: the group was, before the command had ended.
        TimnetError: the command failed; with the end of what it printed.
    """
    with dvc(processes, workspace, "--wait-for-lock", *arguments) as process:
        said = process.communicate()[0].strip()
    if process.returncode and processes.reason is not None:
        raise Stopped(processes.reason)
    if process.returncode:
        tail = "\n".join(said.splitlines()[-TAIL:])
        raise TimnetError(f"`dvc {' '.join(arguments)}` ended with {process.returncode}:\n{tail}")
    return said


@contextmanager
def dvc(
    processes: ProcessGroup, workspace: Path, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """DVC, as one of the run's processes."""
    # unbuffered: its lines are read as they are printed
    with processes.start(
        [sys.executable, "-c", DVC, *arguments],
        cwd=workspace,
        env={**environment(workspace), "PYTHONUNBUFFERED": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        yield process


def environment(workspace: Path) -> dict[str, str]:
    """Of commands that use a workspace: this environment's programs first, and its own `timnet/`.

    That is the code which DVC watches there, whatever is installed.
    """
    first = {"PATH": Path(sys.executable).parent, "PYTHONPATH": workspace.absolute()}
    return os.environ | {
        name: os.pathsep.join([str(path), *filter(None, [os.environ.get(name)])])
        for name, path in first.items()
    }


def slots() -> int:
    """How many stages may use a GPU at once, by the limit `gpu`; it is created if missing."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(GPU).limit
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another run was faster
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=GPU, limit=1)
                )
            return 1


@contextmanager
def slot(processes: ProcessGroup, turn: threading.Lock) -> Iterator[None]:
    """Hold a slot of the limit `gpu`, once there is one or the processes were stopped.

    Raises:
        ParameterError: the limit is 0, so that none would ever come.
    """
    told = False
    with ExitStack() as stack:
        with turn:
            while processes.reason is None:
                if slots() == 0:
                    raise ParameterError(
                        f"the limit {GPU} is 0, so no stage can train. Raise it: `prefect gcl "
                        f"update {GPU} --limit 1`, or under Concurrency in the UI."
                    )
                held = concurrency(
                    GPU,
                    timeout_seconds=5,
                    lease_duration=LEASE,
                    strict=True,
                    raise_on_lease_renewal_failure=False,  # `watch` sees to a lost server
                )
                with suppress(AcquireConcurrencySlotTimeoutError):
                    stack.enter_context(held)
                    break
                if not told:
                    get_run_logger().info("waits for a slot of the limit %s", GPU)
                    told = True
        yield


def outcome(found: Found, states: Mapping[str, State], stopped: str | None) -> State:
    """The flow's own state: failed if a stage is, naming these and what was not reached."""
    done = [str(state.name) for state in states.values() if state.is_completed()]
    done += ["unchanged"] * (len(found.steps) - len(found.to_run))
    not_reached = [s for s in found.to_run if s not in states or states[s].is_pending()]
    failed = [stage for stage, state in states.items() if state.is_failed() or state.is_crashed()]
    stopped_stages = [stage for stage, state in states.items() if state.is_cancelled()]
    counts = ", ".join(f"{done.count(name)} {name.lower()}" for name in sorted(set(done)))
    parts = {
        "failed": ", ".join(failed),
        "stopped": ", ".join(stopped_stages),
        "not reached": ", ".join(not_reached),
    }
    if not any(parts.values()):
        return Completed(message=counts or "no stage to bring up to date")
    message = "; ".join(f"{what}: {which}" for what, which in parts.items() if which)
    message += f"; others: {counts}" if counts else ""
    return Cancelled(message=f"{stopped}; {message}") if stopped else Failed(message=message)


def main() -> None:
    """Run the flow from the command line: 0 if all stages are up to date, otherwise 1.

    Where nothing is to be done and no server runs, none is started to say so.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=("stages or groups; default: all")
    )
    parser.add_argument("--workspace", type=Path, default=".", help="folder of dvc.yaml")
    several: Any = {"action": "append", "default": []}
    parser.add_argument(
        "--corpus",
        dest="corpora",
        metavar="CORPUS",
        help="only stages that need no other corpus; may be repeated",
        **several,
    )
    parser.add_argument(
        "--protocol",
        dest="protocols",
        choices=get_args(Protocol),
        help="only runs with scores under this protocol; may be repeated",
        **several,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help=("list what would run, why, and for how long")
    )
    parser.add_argument("--force", action="store_true", help="also run unchanged stages")
    parser.add_argument("--max-workers", type=int, default=2, help="stages at a time")
    parser.add_argument(
        "--allow-data-changes", action="store_true", help=("even if data/ differs from data.dvc")
    )
    parser.add_argument("--pool", help="work pool whose machines train")
    arguments = vars(parser.parse_args())
    with command(reproduce.name):
        unchanged = count_unchanged(**arguments)
    if unchanged:
        print(f"reproduce: {unchanged} unchanged", file=sys.stderr)
        return
    run_and_exit(reproduce, **arguments)


def count_unchanged(
    workspace: Path, dry_run: bool, max_workers: int, pool: str | None, **options: Any
) -> int:
    """How many stages are up to date, if all are and there is no server to tell; otherwise 0."""
    if dry_run or max_workers < 1 or os.environ.get("PREFECT_API_URL") or running_ui():
        return 0
    try:
        found = look(workspace.absolute(), **options)
    except (TimnetError, DvcException):  # the flow says it too, where all can see it
        return 0
    return 0 if found.stale else len(found.steps)


if __name__ == "__main__":
    main()
