"""The flow on a real Prefect server and real DVC stages, whose commands take no time."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import FlowRunSort

from flows import reproduce as module
from flows.reproduce import plan, reproduce
from timnet.errors import ParameterError

# copy@one -> score@one -+
# copy@two -> score@two -+-> tables
STAGES = """\
stages:
  copy:
    foreach: [one, two]
    do:
      cmd: sh work.sh data/${item}/take.txt copy/${item}.txt
      deps:
        - data/${item}
      outs:
        - copy/${item}.txt
  score:
    foreach: [one, two]
    do:
      cmd: sh work.sh copy/${item}.txt score/${item}.txt
      deps:
        - copy/${item}.txt
      outs:
        - score/${item}.txt
  tables:
    cmd: mkdir -p results/tables && cat score/*.txt > results/tables/single-corpus.md
    deps:
      - score/one.txt
      - score/two.txt
    outs:
      - results/tables/single-corpus.md:
          cache: false
"""
ORDER = ["copy@one", "copy@two", "score@one", "score@two", "tables"]

# What it finds in its input decides whether it copies it, fails, or runs until it is killed.
WORK = """\
case $(cat $1) in
  broken) echo "cannot read $1" >&2; exit 3 ;;
  slow) touch running; sleep 600 ;;
  stubborn) trap '' TERM; touch running; while :; do sleep 1; done ;;
  *) sleep ${PAUSE:-0}; mkdir -p $(dirname $2); cp $1 $2 ;;
esac
"""


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A workspace in which nothing has run; copy it before use."""
    root = tmp_path_factory.mktemp("flow") / "new"
    for corpus in ("one", "two"):
        (root / "data" / corpus).mkdir(parents=True)
        take(root, corpus, f"# {corpus}\n")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "work.sh").write_text(WORK)
    run(root, "git", "init", "--quiet")
    dvc(root, "init", "--quiet")
    dvc(root, "add", "--quiet", "data")
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    return root


@pytest.fixture(scope="module")
def first(new, prefect_api):
    """The flow's first run, from nothing; copy its workspace before use."""
    root = copy(new, new.with_name("first"))
    return SimpleNamespace(root=root, state=reproduce(root, return_state=True))


def copy(source, target):
    return Path(shutil.copytree(source, target, symlinks=True))


def take(root, corpus, content):
    (root / "data" / corpus / "take.txt").write_text(content)


def run(root, *command):
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def dvc(root, *arguments):
    return run(root, sys.executable, "-m", "dvc", *arguments)


def start(root, **parameters):
    """The flow in this process."""
    return reproduce(root, allow_data_changes=True, return_state=True, **parameters)


def launch(root, *arguments, **environment):
    """The flow in a process of its own."""
    command = ["env", *(f"{name}={value}" for name, value in environment.items())]
    command += [sys.executable, "-m", "flows.reproduce", "--workspace", str(root)]
    return subprocess.Popen(
        [*command, "--allow-data-changes", *arguments],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(holds, seconds=30.0):
    """Wait for what the server, told by a queue of events, learns with delay."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return result


def on_server(root, tasks):
    """The newest flow run of a workspace, with its so many tasks, as the server tells of it."""
    with get_client(sync_client=True) as client:
        flow_run = next(
            flow_run
            for flow_run in client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=50)
            if flow_run.parameters["workspace"] == str(root)
        )
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))

        def settled():
            runs = client.read_task_runs(flow_run_filter=chosen)
            ended = [run for run in runs if run.state.is_final() or run.state_name == "NotReady"]
            return (ended,) if len(ended) == len(runs) == tasks else None

        (runs,) = until(settled)
        return SimpleNamespace(
            id=flow_run.id,
            state=flow_run.state,
            tasks={
                run.name: run.state for run in sorted(runs, key=lambda r: r.expected_start_time)
            },
            artifacts=client.read_artifacts(flow_run_filter=chosen),
        )


def log(flow_run):
    with get_client(sync_client=True) as client:
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run])))
    return [line.message for line in lines]


def left_in(root):
    """Processes at work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def names(tasks):
    return {stage: state.name for stage, state in tasks.items()}


def test_plan_is_dvcs_graph(new):
    assert plan(new) == {
        "copy@one": [],
        "copy@two": [],
        "score@one": ["copy@one"],
        "score@two": ["copy@two"],
        "tables": ["score@one", "score@two"],
    }
    assert list(plan(new)) == ORDER
    assert list(plan(new, ["score@two"])) == ["copy@two", "score@two"]
    assert list(plan(new, ["copy"])) == ["copy@one", "copy@two"]
    with pytest.raises(ParameterError, match=r"dvc\.yaml has no stage scoer\. It has .*score@one"):
        plan(new, ["scoer", "tables"])


def test_a_served_flow_knows_its_types():
    # Prefect pickles it without the module's imports, so that no annotation may be a string
    assert not [a for a in reproduce.fn.__annotations__.values() if isinstance(a, str)]


def test_first_run(first):
    seen = on_server(first.root, tasks=5)
    assert first.state.is_completed() and seen.state.is_completed()
    assert seen.state.message == "5 completed"
    assert list(seen.tasks) == ORDER
    assert set(names(seen.tasks).values()) == {"Completed"}
    (artifact,) = seen.artifacts
    assert (artifact.key, artifact.type) == ("single-corpus", "markdown")
    assert artifact.data == "# one\n# two\n"
    commit = run(first.root, "git", "rev-parse", "--short=10", "HEAD").strip()
    assert artifact.description == f"commit {commit}"
    until(lambda: "> sh work.sh copy/one.txt score/one.txt" in log(seen.id))


def test_same_as_dvc_repro(first, new, tmp_path):
    serial = copy(new, tmp_path / "serial")
    dvc(serial, "repro")
    assert (first.root / "dvc.lock").read_bytes() == (serial / "dvc.lock").read_bytes()
    assert "up to date" in dvc(first.root, "status")


def test_second_run_is_cached(first):
    start(first.root)
    seen = on_server(first.root, tasks=5)
    assert seen.state.message == "5 cached"
    assert names(seen.tasks) == dict.fromkeys(ORDER, "Cached")
    assert all(state.is_completed() for state in seen.tasks.values())
    assert len(seen.artifacts) == 1


def test_restored_from_the_run_cache(first, tmp_path):
    root = copy(first.root, tmp_path / "lost")
    shutil.rmtree(root / "copy")
    state = start(root, targets=["copy@one"])
    assert state.message == "1 restored"
    assert names(on_server(root, tasks=1).tasks) == {"copy@one": "Restored"}
    assert (root / "copy" / "one.txt").read_text() == "# one\n"


def test_failing_stage(first, tmp_path):
    root = copy(first.root, tmp_path / "failing")
    take(root, "one", "broken\n")
    take(root, "two", "# deux\n")
    flow = launch(root)
    printed, errors = flow.communicate(timeout=120)
    seen = on_server(root, tasks=5)
    assert flow.returncode == 1
    assert "Traceback" not in printed + errors
    message = "failed: copy@one; not reached: score@one, tables; others: 2 completed"
    assert errors.splitlines()[-1] == f"reproduce: {message}"
    assert seen.state.is_failed() and seen.state.message == message
    assert names(seen.tasks) == {
        "copy@one": "Failed",
        "score@one": "NotReady",
        "copy@two": "Completed",
        "score@two": "Completed",
        "tables": "NotReady",
    }
    assert "`dvc repro copy@one` ended with 255" in seen.tasks["copy@one"].message
    assert "\ncannot read data/one/take.txt\n" in seen.tasks["copy@one"].message
    assert (root / "score" / "two.txt").read_text() == "# deux\n"
    assert seen.artifacts == []


def test_changed_data_are_refused(first, tmp_path):
    root = copy(first.root, tmp_path / "changed")
    take(root, "one", "# another\n")
    state = reproduce(root, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("data/ is not what data.dvc says:\n  - one: 1 file changed")
    assert on_server(root, tasks=0).state.message == state.message
    assert (root / "score" / "one.txt").read_text() == "# one\n"


def test_terminated_flow_leaves_nothing(first, tmp_path):
    root = copy(first.root, tmp_path / "slow")
    take(root, "one", "slow\n")
    flow = launch(root)
    until((root / "running").exists)
    assert any("sleep" in command for command in left_in(root))
    flow.terminate()
    flow.communicate(timeout=60)
    assert flow.returncode == 128 + signal.SIGTERM
    assert left_in(root) == []
    seen = on_server(root, tasks=1)
    assert seen.state.is_crashed()
    assert list(seen.tasks) == ["copy@one"] and seen.tasks["copy@one"].is_crashed()
    # the workspace is as usable as before
    take(root, "one", "# one\n")
    dvc(root, "repro")
    assert "up to date" in dvc(root, "status")


def test_stubborn_stage_is_killed(new, tmp_path, monkeypatch):
    root = copy(new, tmp_path / "stubborn")
    take(root, "one", "stubborn\n")
    monkeypatch.setattr(module, "GRACE", 0.5)
    with pytest.raises(KeyboardInterrupt), module.dvc(root, "repro", "copy@one"):
        until((root / "running").exists)
        raise KeyboardInterrupt
    assert left_in(root) == []


@pytest.mark.slow
def test_killed_at_any_moment(new, prefect_api, tmp_path):
    root = copy(new, tmp_path / "killed")
    moments = random.Random(1)
    for blow in (signal.SIGTERM, signal.SIGINT) * 3:
        flow = launch(root, PAUSE=0.5)
        time.sleep(moments.uniform(3.0, 12.0))
        flow.send_signal(blow)
        flow.communicate(timeout=60)
        assert left_in(root) == []
    assert start(root).is_completed()
    serial = copy(new, tmp_path / "serial")
    dvc(serial, "repro")
    assert (root / "dvc.lock").read_text() == (serial / "dvc.lock").read_text()
    assert "up to date" in dvc(root, "status")
