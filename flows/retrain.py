"""Retraining as a Prefect flow: update a branch, compare the results, publish them or not.

    python -m flows.retrain [--branch BRANCH] [--pool POOL]

The tip of a branch is brought up to date in a worktree of its own, `build/retrain/worktree`, and
what changed is committed on a branch `retrain/<date>`. Then the gate compares it with the baseline
(`timnet gate`). Open: data, branch and registry tags are pushed, in this order, and the models are
candidates. Closed: the branch stays here for inspection, nothing is pushed or registered, the event
`timnet.retrain.refused` goes out and the flow fails.

Every step looks at what is there and does what is missing, so that a run that was killed anywhere
is simply started again. On a tip that is up to date it ends in seconds.
"""

# Annotations are no strings here: Prefect could not resolve those of a flow that it serves.

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal, get_args

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import ValidationError

from flows.acquire import LOGIN, acquire, has_login
from flows.artifacts import show
from flows.command import TOLD, failure, run_and_exit
from flows.pool import prepare
from flows.process_group import ProcessGroup, Stopped
from flows.repository import PRODUCTION, REJECTED, Candidate, Repository, Version
from flows.reproduce import PATIENT, Work, look, outcome, refuse_options, run_steps, this_run
from flows.run_control import describe, exclusive, watch
from timnet import corpora as registry
from timnet.acquire import acquire as stage
from timnet.cli.review import CLOSED, TOLERANCE
from timnet.errors import ParameterError, TimnetError
from timnet.evaluation.protocols import NOT_OPTIMISTIC, ORDER
from timnet.paths import Workspace
from timnet.project import params

GateProtocol = Literal[ORDER]  # type: ignore[valid-type]
Promote = Literal["candidate", "ask", "production"]
REFUSED = "timnet.retrain.refused"  # an event
LOOKS = 5  # s between two looks for an answer


class Answer(RunInput):
    """What a person says of a candidate. No default: who says nothing has not decided."""

    decision: Literal["production", "rejected"]


@flow(name="retrain", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def retrain(
    workspace: Path = Path(),
    branch: str = "main",
    baseline: str = "",
    protocols: Sequence[GateProtocol] = NOT_OPTIMISTIC,
    tolerance: float = TOLERANCE,
    weights: Mapping[str, Path] | None = None,
    promote: Promote = "candidate",
    patience: float = 48.0,
    git_remote: str = "origin",
    mirror: str | None = None,
    max_workers: int = 2,
    pool: str | None = None,
) -> State:
    """Bring the tip of a branch up to date on a branch of its own, judge it, register its models.

    Args:
        workspace: The checkout; nothing that a person works on there is touched.
        branch: What to bring up to date: as the git remote has it, where it has it.
        baseline: Branch, tag or commit to compare with; empty: the branch itself.
        protocols: Whose UAR the gate looks at.
        tolerance: Points by which a UAR may fall. The gate closes where it fell by more with
            confidence: the whole 95 % interval of the change lies below.
        weights: Archives of the authors' weights by corpus, such as
            {"emovo": "/somewhere/EMOVO_1.zip"}: the features must still give the paper's scores.
        promote: What becomes of models that pass: candidate, or production at once, or ask:
            the run pauses until someone resumes it with an answer.
        patience: Hours that a run waits for that answer.
        git_remote: Where branches and tags go, if the checkout has a remote of that name.
        mirror: Address of an institute's own copies of corpora.
        max_workers: Stages at a time, apart from those that train.
        pool: Work pool whose machines train in place of this one; see `flows.worker`.
    """
    root, run = workspace.absolute(), this_run()
    if has_login(mirror):
        return Failed(message=LOGIN)
    try:
        refuse_options(max_workers)
        options = gate_options(protocols, tolerance, weights or {})
        with at_work(root, run, git_remote, branch) as repository:
            do("look", repository.fetch)
            repository.commit_of(repository.revision(baseline or branch))  # before any work
            made = brought_up_to_date(repository, branch, mirror, max_workers, pool)
            if made is None:
                told = f"nothing has changed: {branch} is up to date"
                return Completed(message=told + publish_merged(repository, branch, git_remote))
            if is_settled(repository, made):
                told = f"nothing has changed since {made.name}"
            elif closed := judge(repository, made, baseline or branch, options):
                return reject(repository, made, closed)
            else:
                publish(repository, made)
                told = f"{made.name}: the gate is open"
            told += left_out(repository, git_remote)
            waiting = undecided(repository, made, promote)
        if waiting:  # with the checkout free meanwhile: a person may take days
            decision = ask(run, made, waiting, patience) if promote == "ask" else PRODUCTION
            with at_work(root, run, git_remote, branch) as repository:
                do(decision, lambda: decide(repository, made, waiting, decision))
        return Completed(message=f"{told}{registered(repository, made)}")
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
    except TOLD as error:
        return failure(error)


def gate_options(
    protocols: Sequence[str], tolerance: float, weights: Mapping[str, Path]
) -> list[str]:
    """Options of `timnet gate`, which runs in another folder: paths are absolute.

    Raises:
        TimnetError: one of them is wrong, which the gate would find out after the training.
    """
    if not tolerance >= 0:
        raise ParameterError(f"tolerance is {tolerance:g}; give 0 or more.")
    for corpus, path in weights.items():
        from timnet.evaluation import parity  # which loads torch

        if not Path(path).is_file():
            raise ParameterError(f"weights of {corpus}: no file {path}.")
        parity.settings(registry.corpus(corpus))
    return [
        f"--tolerance={tolerance:g}",
        *(f"--protocol={each}" for each in protocols),
        *(f"--weights={corpus}={Path(path).absolute()}" for corpus, path in weights.items()),
    ]


def do(name: str, work: Callable[[], Any]) -> Any:
    """What a step gives, as a task run of its name; raises what it fails with."""
    state: State = step(name, work, return_state=True)
    if state.is_cancelled():
        raise Stopped(state.message or "")
    if not state.is_completed():
        raise TimnetError(f"{name}: {state.message}")
    return state.result()


@task(task_run_name="{name}", **PATIENT)
def step(name: str, work: Callable[[], Any]) -> State:
    try:
        given = work()
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
    except TOLD as error:
        return failure(error)
    if isinstance(given, str) and given:
        get_run_logger().info(given)
    return Completed(data=given)


@contextmanager
def at_work(root: Path, run: FlowRun, git_remote: str, branch: str) -> Iterator[Repository]:
    """The checkout, for the only run at work on it; what is started there ends with the `with`."""
    with exclusive(root, run.name, "retrain") as lock, ProcessGroup(lock) as processes:
        watch(run, processes)
        describe(run, root, f"retrain {branch}")
        yield Repository(root, processes, git_remote)


def brought_up_to_date(
    repository: Repository, branch: str, mirror: str | None, max_workers: int, pool: str | None
) -> Candidate | None:
    """What was made of the tip of a branch, now or before; None if the tip is up to date itself."""
    tip = repository.commit_of(repository.revision(branch))
    if made := candidate_of(repository, tip):
        return made
    if repository.is_unchanged(tip):
        return None
    bring(repository, tip, mirror)
    states = reproduce(repository.worktree, repository.processes, max_workers, pool)
    made = do("commit", lambda: commit(repository, tip, branch))
    if made is not None:
        show(repository.worktree, states)
    return made


def candidate_of(repository: Repository, tip: str) -> Candidate | None:
    """What was made of a tip, here or elsewhere."""
    return next((each for each in repository.candidates() if each.parent == tip), None)


def bring(repository: Repository, tip: str, mirror: str | None) -> None:
    """The worktree at a tip, with all that it needs and that can be had."""
    do("worktree", lambda: repository.prepare(tip))
    do("pull data", repository.pull)
    workspace = Workspace(repository.worktree)
    wanted = params.read(workspace.params).corpora
    absent = [
        name
        for name in wanted
        if stage.state(registry.corpus(name, workspace.data), workspace.data).status == "absent"
    ]
    if absent:
        state = acquire(absent, repository.worktree, mirror, return_state=True)
        if not state.is_completed():
            raise TimnetError(f"corpora are missing:\n{state.message}")


def reproduce(
    worktree: Path, processes: ProcessGroup, max_workers: int, pool: str | None
) -> list[str]:
    """Run the stages, each a task as in the flow `reproduce`; gives their names.

    Raises:
        TimnetError: some failed, or nobody serves the pool.
        Stopped: the run was stopped.
    """
    found = look(worktree)
    if pool is not None:
        prepare(worktree, pool)
    states = run_steps(Work(worktree, processes, max_workers, False, pool), found.to_run)
    end = outcome(found, states, processes.reason)
    if end.is_cancelled():
        raise Stopped(end.message or "")
    if not end.is_completed():
        raise TimnetError(
            f"{end.message}. Completed stages are kept: start again after fixing this."
        )
    get_run_logger().info(end.message)
    return list(states)


def commit(repository: Repository, tip: str, branch: str) -> Candidate | None:
    """Commit what the stages changed on a branch of its own; None if it is nothing."""
    made = repository.commit(tip, branch)
    if made is None:
        return None
    repository.branch(made)  # last: a branch is whole or not there
    return candidate_of(repository, tip)


def is_settled(repository: Repository, made: Candidate) -> bool:
    """Whether it passed the gate before, and all is where it belongs."""
    versions = repository.versions(made.commit)
    if repository.unregistered(made.commit) or not all(each.stages for each in versions):
        return False
    if repository.remote and repository.data_remote:
        # tags go last: a branch that is not there though they are was deleted by a person
        known = bool(versions) or repository.is_pushed(made)
        return known and not repository.unpushed_tags(made)
    return bool(versions)


def judge(repository: Repository, made: Candidate, baseline: str, options: list[str]) -> str | None:
    """Why the gate is closed, None if it is open; the verdict as an artifact."""
    do("worktree", lambda: repository.prepare(made.commit))
    against = repository.revision(baseline)
    status, text, complaint = do("gate", lambda: repository.gate(made, against, *options))
    if status not in (0, CLOSED):
        raise TimnetError(f"`timnet gate` failed:\n{complaint.strip()}")
    description = f"{made.name}, commit {made.commit[:10]}, against {against}"
    create_markdown_artifact(text, key="gate", description=description)
    return complaint.strip().removeprefix("timnet: ") if status == CLOSED else None


def reject(repository: Repository, made: Candidate, why: str) -> State:
    """Promote nothing, and tell everybody."""
    emit_event(
        REFUSED,
        resource={"prefect.resource.id": f"timnet.{made.name}", "prefect.resource.name": made.name},
        payload={"branch": made.name, "commit": made.commit, "why": why},
    )
    return Failed(
        message=f"{made.name}: {why}\nNothing was pushed or registered. The branch stays in "
        f"{repository.root} for inspection: `git diff {made.parent[:10]} {made.revision}`."
    )


def publish(repository: Repository, made: Candidate) -> None:
    """Data, then the branch, then the tags of its models: none of them without what it needs."""
    if repository.data_remote:
        do("push data", repository.push_data)
        if repository.remote and not repository.is_pushed(made):
            do("push branch", lambda: repository.push_branch(made))
    do("register", lambda: repository.register(made.commit))
    push_tags(repository, made)


def push_tags(repository: Repository, made: Candidate) -> None:
    if repository.remote and repository.data_remote and (tags := repository.unpushed_tags(made)):
        do("push tags", lambda: repository.push_tags(tags))


def publish_merged(repository: Repository, branch: str, git_remote: str) -> str:
    """Publish a tip that is up to date, unless that was done when it was made.

    Somebody merged it: a candidate that the gate was closed to, perhaps. Says what came of it.
    """
    tip = repository.commit_of(repository.revision(branch))
    merged = repository.with_files_of(tip)
    if repository.is_published(tip) or any(is_settled(repository, each) for each in merged):
        return ""
    accepted = Candidate(branch, tip, tip, repository.tree_of(tip), parent="")
    if repository.remote and not repository.is_pushed(accepted):
        return ""  # a branch that nobody else has
    do("worktree", lambda: repository.prepare(tip))
    publish(repository, accepted)
    repository.note_published(tip)
    return (
        f"; published as merged{left_out(repository, git_remote)}{registered(repository, accepted)}"
    )


def left_out(repository: Repository, git_remote: str) -> str:
    """What was not pushed for want of a remote."""
    if repository.remote and repository.data_remote:
        return ""
    if repository.data_remote:
        return f"; the branch and its tags were not pushed: git has no remote {git_remote!r}"
    if repository.remote:
        return (
            "; nothing was pushed: DVC has no default remote, and no branch is pushed without its "
            "data"
        )
    return f"; nothing was pushed: neither DVC nor git has a remote ({git_remote!r})"


def undecided(repository: Repository, made: Candidate, promote: Promote) -> list[Version]:
    """Versions that are to become production; nobody is asked twice."""
    done = {PRODUCTION} if promote == PRODUCTION else {PRODUCTION, REJECTED}
    versions = repository.versions(made.commit) if promote != "candidate" else []
    return [version for version in versions if not version.stages & done]


def ask(run: FlowRun, made: Candidate, waiting: list[Version], patience: float) -> str:
    """A person's decision. Nothing is held meanwhile.

    Raises:
        TimnetError: nobody gave one in time.
        Stopped: the run was cancelled.
    """
    names = ", ".join(map(str, waiting))
    text = f"{names} of {made.name} passed the gate: see the artifact `gate`. Use it in production?"
    get_run_logger().info("%s Resume this run with your answer.", text)
    end = time.monotonic() + 3600 * patience
    while True:
        try:
            answer = answered(run, text, max(int(end - time.monotonic()), 1))
        except ValidationError:  # someone resumed it past the form, which insists on an answer
            get_run_logger().warning("resumed without a decision: asking again")
            continue
        except FlowPauseTimeout:
            raise TimnetError(
                f"no answer in {patience:g} hours: {names} stay candidates. Start the flow again "
                "to be asked again."
            ) from None
        return answer.decision


def answered(run: FlowRun, text: str, timeout: int) -> Answer:
    """As `pause_flow_run`, which in a thread of its own lets a cancelled run end.

    Raises:
        FlowPauseTimeout: nobody answered within `timeout` s.
        ValidationError: the run was resumed without an answer.
        Stopped: it was cancelled.
    """
    answer = Future[Answer]()

    def pause() -> None:
        form = Answer.with_initial_data(description=text)
        try:
            answer.set_result(pause_flow_run(form, timeout=timeout, poll_interval=LOOKS))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=copy_context().run, args=(pause,), daemon=True).start()
    with get_client(sync_client=True) as client:
        while not wait([answer], LOOKS).done:
            state = client.read_flow_run(run.id).state
            if state and (state.is_cancelling() or state.is_cancelled()):
                raise Stopped("cancelled")
    return answer.result()


def decide(repository: Repository, made: Candidate, waiting: list[Version], decision: str) -> None:
    for version in waiting:
        repository.assign(version, decision)
    if repository.remote and repository.data_remote:
        repository.push_tags(repository.unpushed_tags(made))


def registered(repository: Repository, made: Candidate) -> str:
    """The models and their stages, for the end of a message."""
    versions = repository.versions(made.commit)
    told = [f"{version} is {' and '.join(sorted(version.stages))}" for version in versions]
    return f"; {', '.join(told) or 'no model changed'}"


def main() -> None:
    """Run the flow from the command line: 0 if the gate is open or nothing changed, otherwise 1."""
    # what is not given is left to the flow's own defaults
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--workspace", type=Path, default=Path(), help="the checkout")
    parser.add_argument("--branch", help="branch to bring up to date; default: main")
    parser.add_argument("--baseline", help="revision to compare with; default: the branch")
    several: Any = {"action": "append", "help": "protocol whose UAR counts; can be repeated"}
    parser.add_argument("--protocol", dest="protocols", choices=get_args(GateProtocol), **several)
    parser.add_argument("--tolerance", type=float, help=f"points of UAR; default: {TOLERANCE:g}")
    several = {"action": "append", "help": "the authors' weights; can be repeated"}
    parser.add_argument("--weights", metavar="CORPUS=ZIP", type=_archive, **several)
    parser.add_argument("--promote", choices=get_args(Promote), help="else candidate")
    parser.add_argument("--patience", type=float, help="hours to wait for an answer; default: 48")
    parser.add_argument("--git-remote", help="git remote for branches and tags; default: origin")
    parser.add_argument("--mirror", help="URL of an institute's copies of corpora")
    parser.add_argument("--max-workers", type=int, help="stages at a time; default: 2")
    parser.add_argument("--pool", help="work pool whose machines train")
    arguments = vars(parser.parse_args())
    arguments["weights"] = dict(arguments.get("weights", ()))
    if has_login(arguments.get("mirror")):
        sys.exit(f"retrain: {LOGIN}")
    run_and_exit(retrain, **arguments)


def _archive(text: str) -> tuple[str, Path]:
    corpus, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("give CORPUS=ZIP, such as emovo=EMOVO_1.zip")
    return corpus, Path(path)


if __name__ == "__main__":
    main()
