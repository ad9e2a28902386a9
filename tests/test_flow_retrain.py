"""Retraining on a real Prefect server, with real remotes of git and DVC in folders."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import run
from flow import left_in
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.flow_runs import resume_flow_run
from prefect.states import Cancelling, Running
from retraining_project import copy, make, push, push_epochs, refs
from small_pipeline import dvc, launch_flow, until

from flows.process_group import ProcessGroup
from flows.repository import Repository
from flows.retrain import retrain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first(prefect_api, tmp_path_factory):
    """The flow's first run on a project; copy it before use."""
    root = make(tmp_path_factory.mktemp("retrain") / "first")
    return SimpleNamespace(root=root, state=retrain(root, return_state=True))


def accept(root: Path) -> None:
    """A person merges what was made, as after a pull request."""
    run(root, "git", "merge", "--quiet", "--ff-only", made(root))
    run(root, "git", "push", "--quiet", "origin", "main")


def made(root: Path) -> str:
    """The newest branch of retraining."""
    return sorted(name for name in refs(root) if name.startswith("retrain/"))[-1]


def origin(root: Path) -> Path:
    return root.parent / "origin.git"


def newest(root: Path):
    """The newest run on a project: it, its tasks, its artifacts."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=50)
        flow_run = next(each for each in runs if each.parameters.get("workspace") == str(root))
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        return SimpleNamespace(
            run=flow_run,
            tasks={task.name for task in client.read_task_runs(flow_run_filter=chosen)},
            artifacts={each.key: each for each in client.read_artifacts(flow_run_filter=chosen)},
        )


def nothing_lacks_its_data(root: Path) -> None:
    """What is pushed can be used: the branch's data are there, each tag has its branch."""
    there = refs(origin(root))
    branches = {name: commit for name, commit in there.items() if name.startswith("retrain/")}
    assert len(branches) <= 1
    for name, commit in there.items():
        if name != "main":
            assert commit in branches.values()
            can_be_used(root, commit)


def can_be_used(root: Path, commit: str) -> None:
    """All data of a commit on the remote are there."""
    clone = root.parent / "clone"
    run(root.parent, "git", "clone", "--quiet", "origin.git", clone)
    run(clone, "git", "checkout", "--quiet", commit)
    dvc(clone, "pull", "--quiet")
    shutil.rmtree(clone)


def test_first_run(first):
    root, name = first.root, made(first.root)
    assert first.state.is_completed()
    assert first.state.message == f"{name}: the gate is open; demo@v1.0.0 is candidate"
    assert refs(origin(root)) == refs(root)
    assert refs(root).keys() == {"main", name, "demo@v1.0.0", "demo#candidate#1"}
    nothing_lacks_its_data(root)
    changed = run(root, "git", "diff", "--name-only", "main", name).stdout.split()
    results = {f"results/runs/demo-speaker/{each}" for each in ("metrics.json", "run.json")}
    assert set(changed) == {"dvc.lock", *results, "results/runs/demo-speaker/predictions.parquet"}
    # the checkout is as the person left it
    assert run(root, "git", "status", "--porcelain", "--branch").stdout == "## main\n"
    assert sorted(path.name for path in (root / "build").iterdir()) == ["retrain"]
    verdict = newest(root).artifacts["gate"]
    assert verdict.data.startswith("# The gate is open\n")
    assert "- `UAR of demo-speaker, speaker-independent`: New run" in verdict.data
    assert f"- Before: origin/main at {refs(root)['main'][:10]}. After: {name} at" in verdict.data


def test_without_a_change(first, tmp_path):
    root = copy(first.root, tmp_path / "home")
    before = refs(origin(root))
    state = retrain(root, return_state=True)
    assert state.message == f"nothing has changed since {made(root)}; demo@v1.0.0 is candidate"
    assert newest(root).tasks == {"look"}
    accept(root)
    state = retrain(root, return_state=True)
    assert state.message == "nothing has changed: main is up to date"
    assert newest(root).tasks == {"look"}
    assert refs(origin(root)) == {**before, "main": refs(root)["main"]}


def test_worse_then_better(first, tmp_path):
    root = copy(first.root, tmp_path / "home")
    accept(root)
    before = refs(origin(root))
    push_epochs(root, 30)
    state = retrain(root, return_state=True)
    name = made(root)
    assert state.is_failed()
    why = "Fell by more than the tolerance (95 % confidence). -30.00 points ("
    head = f"{name}: the gate is closed:\n  - UAR of demo-speaker, speaker-independent: {why}"
    assert state.message.startswith(head)
    assert "Nothing was pushed or registered." in state.message
    assert refs(origin(root)) == {**before, "main": refs(root)["main"]}
    seen = newest(root)
    assert {"gate", "commit"} < seen.tasks and not {"push data", "register"} & seen.tasks
    row = next(line for line in seen.artifacts["gate"].data.splitlines() if "CLOSED" in line)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3:5] == ["60.00", "30.00"] and cells[5].startswith("-30.00 (-3")
    with get_client(sync_client=True) as client:

        def events():
            wanted = {"filter": {"event": {"name": ["timnet.retrain.refused"]}}}
            return client._client.post("/events/filter", json=wanted).json()["events"]

        (event,) = until(events)
    assert event["payload"]["branch"] == name and why in event["payload"]["why"]
    # again: the same verdict, nothing trained again
    assert retrain(root, return_state=True).message == state.message
    assert "train" not in newest(root).tasks
    # a person takes it nevertheless
    accept(root)
    before = refs(origin(root))
    state = retrain(root, return_state=True)
    told = "nothing has changed: main is up to date"
    assert state.message == f"{told}; published as merged; demo@v1.1.0 is candidate"
    there = refs(origin(root))
    assert there.keys() - before.keys() == {"demo@v1.1.0", "demo#candidate#2"}
    assert there["demo@v1.1.0"] == there["main"]
    can_be_used(root, there["main"])
    assert retrain(root, return_state=True).message == told
    assert newest(root).tasks == {"look"}
    # a better one, where nothing can be pushed
    push_epochs(root, 90)
    run(root, "git", "remote", "remove", "origin")
    dvc(root, "remote", "remove", "private")
    state = retrain(root, return_state=True)
    assert state.message == (
        f"{made(root)}: the gate is open; nothing was pushed: neither DVC nor git has a remote "
        "('origin'); demo@v1.2.0 is candidate"
    )
    assert refs(root)["demo@v1.2.0"] == refs(root)["demo#candidate#3"] == refs(root)[made(root)]
    assert " better" in newest(root).artifacts["gate"].data


def test_a_branch_that_was_squashed_and_deleted(first, tmp_path):
    """Its tags are found by a machine that never saw it, and it is not pushed again."""
    root = copy(first.root, tmp_path / "home")
    name = made(root)
    run(root, "git", "merge", "--quiet", "--squash", name)
    push(root, "Squash")
    run(root, "git", "push", "--quiet", "--delete", "origin", name)
    other = root.with_name("other")
    run(root.parent, "git", "clone", "--quiet", "--no-tags", "origin.git", other)
    with ProcessGroup() as processes:
        for place, known in ((root, {name}), (other, set())):
            repository = Repository(place, processes, "origin")
            repository.fetch()
            assert repository.versions(refs(root)[name]) != []
            assert {each.revision for each in repository.candidates()} == known
    assert retrain(root, return_state=True).message == "nothing has changed: main is up to date"
    assert name not in refs(origin(root))


def test_a_person_decides(first, tmp_path):
    root = copy(first.root, tmp_path / "home")
    flow = launch_flow("retrain", root, "--promote", "ask")

    def paused():
        with suppress(StopIteration):  # it has not reached the server yet
            seen = newest(root).run
            return seen if seen.state.is_paused() else None

    until(paused, 120)
    with get_client(sync_client=True) as client:  # asked again by the next run
        client.set_flow_run_state(newest(root).run.id, Cancelling(), force=True)
    _, errors = flow.communicate(timeout=60)
    assert (flow.returncode, errors.splitlines()[-1]) == (1, "retrain: cancelled")
    assert newest(root).run.state.is_cancelled()
    flow = launch_flow("retrain", root, "--promote", "ask")
    asking = until(paused, 120)

    def refused():
        with pytest.raises(RuntimeError) as caught:  # the form insists on an answer
            resume_flow_run(asking.id)
        return "decision" in str(caught.value)  # at first the form may not have reached the server

    until(refused)
    assert paused()
    with get_client(sync_client=True) as client:  # past the form
        client.set_flow_run_state(asking.id, Running(), force=True)
    until(lambda: not paused(), 60)
    asking = until(paused, 120)
    assert not [name for name in refs(root) if "production" in name]
    resume_flow_run(asking.id, run_input={"decision": "rejected"})
    _, errors = flow.communicate(timeout=120)
    told = f"nothing has changed since {made(root)}; demo@v1.0.0 is candidate and rejected"
    assert errors.splitlines()[-1] == f"retrain: {told}"
    # not asked again; a person may still change their mind
    assert retrain(root, promote="ask", return_state=True).message == told
    state = retrain(root, promote="production", return_state=True)
    assert state.message.endswith("demo@v1.0.0 is candidate and production and rejected")
    assert {"demo#rejected#2", "demo#production#3"} < refs(origin(root)).keys()


# Kills the flow before git does the first thing that a pattern fits, or right after it.
SHIM = """\
#!/bin/sh
case "$*" in
  *$KILL*) [ "$WHEN" = after ] && {git} "$@"; kill -9 $(cat {pid}); sleep 1; exit 1 ;;
esac
exec {git} "$@"
"""


@pytest.mark.long
def test_kills_do_no_harm(prefect_api, tmp_path):
    root = make(tmp_path / "home")
    hold, pid = tmp_path / "hold", tmp_path / "pid"
    shims = tmp_path / "bin"
    shims.mkdir()
    git = run(root, "which", "git").stdout.strip()
    (shims / "git").write_text(SHIM.replace("{git}", git).replace("{pid}", str(pid)))
    (shims / "git").chmod(0o755)

    def killed(kill: str, when: str) -> None:
        path = f"{shims}{os.pathsep}{os.environ['PATH']}"
        flow = launch_flow("retrain", root, PATH=path, KILL=kill, WHEN=when, HOLD=str(hold))
        pid.write_text(str(flow.pid))
        if hold.exists():
            until((tmp_path / "held").exists, 300)
            refused = retrain(root, return_state=True)  # a second one meanwhile
            assert f"{root}: another run is active here (" in refused.message
            flow.kill()
            hold.unlink()
        flow.communicate(timeout=300)
        assert flow.returncode == -signal.SIGKILL
        until(lambda: left_in(root) == [])
        nothing_lacks_its_data(root)

    hold.touch()
    killed("never", "")  # while it trains
    killed("commit --quiet", "after")
    killed("update-ref", "before")  # data and branch are pushed
    (root / "build/retrain/worktree/.git").unlink()  # and somebody tidied up
    killed("push --quiet --atomic", "before")  # tags are made
    killed("push --quiet --atomic", "after")
    state = retrain(root, return_state=True)
    assert state.message == f"nothing has changed since {made(root)}; demo@v1.0.0 is candidate"
    assert refs(root) == refs(origin(root))
    assert len([name for name in refs(root) if name.startswith("retrain/")]) == 1
    assert run(root, "git", "rev-list", "--count", f"main..{made(root)}").stdout == "1\n"
    assert "nothing to commit" in run(root, "git", "status").stdout


def test_what_stops_it_is_said(first, tmp_path):
    root = copy(first.root, tmp_path / "home")
    state = retrain(root, branch="mian", return_state=True)
    assert state.is_failed()
    assert f"{root}: unknown revision 'mian'" in state.message
    state = retrain(root, baseline="mian", return_state=True)  # before anything is trained
    assert state.is_failed() and "unknown revision 'mian'" in state.message
    archive = tmp_path / "a.zip"
    state = retrain(root, weights={"demo": archive}, return_state=True)
    assert state.is_failed() and state.message == f"weights of demo: no file {archive}."
    archive.touch()
    for options, said in (
        ({"weights": {"demo": archive}}, "no results for demo"),
        ({"tolerance": -1.0}, "tolerance is -1"),
        ({"max_workers": 0}, "max_workers is 0"),
        ({"mirror": "http://somebody:secret@x"}, "contains a login"),
    ):
        state = retrain(root, **options, return_state=True)
        assert state.is_failed() and said in state.message
    flow = launch_flow("retrain", root, "--mirror", "http://somebody:secret@x")
    _, errors = flow.communicate(timeout=60)
    assert "contains a login" in errors and "secret" not in errors
    flow = launch_flow("retrain", root, "--weights", "demo")
    _, errors = flow.communicate(timeout=60)
    assert "argument --weights: give CORPUS=ZIP, such as emovo=EMOVO_1.zip" in errors
    options = (
        "--protocol=speaker-independent",
        f"--weights=emovo={archive}",
        "--patience=1",
        "--mirror=http://x",
    )
    flow = launch_flow("retrain", root, "--branch=mian", *options, "--max-workers=3", "--pool=p")
    _, errors = flow.communicate(timeout=120)
    assert "unknown revision 'mian'" in errors
    given = newest(root).run.parameters
    assert given["protocols"] == ["speaker-independent"]
    assert given["weights"] == {"emovo": str(archive)}
    assert (given["patience"], given["mirror"]) == (1.0, "http://x")
    assert (given["max_workers"], given["pool"], given["promote"]) == (3, "p", "candidate")
    push_epochs(root, 70)
    state = retrain(root, pool="none", return_state=True)
    assert state.is_failed() and "no worker has ever served the pool 'none'" in state.message
    (root / "params.yaml").write_text("corpora: {demo: demo}\n")
    push(root, "Break it")
    state = retrain(root, return_state=True)
    assert state.is_failed() and "params.yaml: correct these settings:" in state.message
    assert refs(root).keys() == refs(first.root).keys()
