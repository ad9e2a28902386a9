"""The flow on a real Prefect server and real DVC stages, whose commands take no time."""

from __future__ import annotations

import logging
import re
import shutil
import signal
from types import SimpleNamespace

import pytest
from conftest import ROOT, edit, run
from flow import kills, left_in
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Cancelling, Completed, Failed, Pending
from reliability import dead_locks
from small_pipeline import ALL, copy, dvc, launch, lock, make, until, write_recording

from flows.process_group import ProcessGroup
from flows.reproduce import Found, Step, is_transient, outcome, reproduce
from flows.reproduce import dvc as started_dvc
from flows.reproduce import plan as plan_of
from flows.server import free_port, start_server
from flows.stage import check_out
from timnet.errors import ParameterError, TimnetError
from timnet.project.dvc import repository


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A workspace in which nothing has run; copy it before use."""
    return make(tmp_path_factory.mktemp("flow") / "new")


@pytest.fixture(scope="module")
def first(new, prefect_api):
    """The flow's first run, from nothing; copy its workspace before use."""
    root = copy(new, new.with_name("first"))
    return SimpleNamespace(root=root, state=reproduce(root, return_state=True))


def start(root, **parameters):
    """The flow in this process."""
    return reproduce(root, allow_data_changes=True, return_state=True, **parameters)


def newest(root, client):
    return next(
        flow_run
        for flow_run in client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=50)
        if flow_run.parameters["workspace"] == str(root)
    )


def on_server(root, tasks=None):
    """The newest flow run of a workspace, with its so many tasks, as the server tells of it.

    Args:
        tasks: None: as many as there are, where it depends on the moment.
    """
    with get_client(sync_client=True) as client:
        flow_run = newest(root, client)
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))

        def settled():
            runs = client.read_task_runs(flow_run_filter=chosen)
            ended = [run for run in runs if run.state.is_final() or run.state_name == "NotReady"]
            wanted = max(len(runs), 1) if tasks is None else tasks
            return (ended,) if len(ended) == len(runs) == wanted else None

        (runs,) = until(settled)
        return SimpleNamespace(
            id=flow_run.id,
            state=flow_run.state,
            tasks={run.name: run.state for run in runs},
            artifacts={each.key: each for each in client.read_artifacts(flow_run_filter=chosen)},
        )


def log(flow_run):
    with get_client(sync_client=True) as client:
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run])))
    return [line.message for line in lines]


def names(tasks):
    return {stage: state.name for stage, state in tasks.items()}


def plan(root, *arguments, **options):
    with repository(root) as repo:
        return plan_of(repo, *arguments, **options)


def test_plan_is_dvcs_graph(new):
    assert plan(new) == {
        "copy@one": Step([]),
        "copy@two": Step([]),
        "score@one": Step(["copy@one"]),
        "score@two": Step(["copy@two"]),
        "tables": Step(["score@one", "score@two"]),
        "report": Step(["tables"]),
    }
    assert list(plan(new)) == ALL
    assert list(plan(new, ["score@two"])) == ["copy@two", "score@two"]
    assert list(plan(new, ["copy"])) == ["copy@one", "copy@two"]
    with pytest.raises(ParameterError, match=r"dvc\.yaml has no stage scoer\. It has .*score@one"):
        plan(new, ["scoer", "tables"])


def test_plan_of_some_corpora_and_protocols(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "timnet" / "demo.yaml", tmp_path / "params.yaml")
    run(tmp_path, "git", "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    everything = plan(tmp_path)
    runs = {stage for stage in everything if stage.startswith("train@")}
    assert {stage for stage, step in everything.items() if step.gpu} == runs
    source = "{trained_on: demo, signal_length: 44100, emotions: all, recipe: paper, network: "
    source += "{tabs: 3, variant: tim-net}, precision: fp32, seeds: [0]}"
    edit(tmp_path / "params.yaml", "sources: {}", f"sources:\n  demo-whole: {source}")
    edit(tmp_path / "params.yaml", "networks: demo-speaker", "networks: demo-whole")
    whole = plan(tmp_path)
    trained = {*runs, "source@demo-whole"}
    assert {stage for stage, step in whole.items() if step.gpu} == trained
    assert {stage for stage, step in whole.items() if step.pooled} == trained
    some = plan(tmp_path, corpora=["demo"])
    assert everything.keys() - some.keys() == {"tables", "report"}
    speaker = plan(tmp_path, protocols=["speaker-independent"])
    assert "score@demo-speaker" in speaker and "features@demo-44100" in speaker
    assert not any("random" in stage for stage in speaker)
    assert list(plan(tmp_path, ["folds"], ["demo"], ["best-epoch"])) == [
        "manifest@demo",
        "validate@demo",
        "folds@demo-random",
    ]
    never = ("cross-corpus", "validated-epoch", "speaker-independent-validated")
    assert [name for name in never if plan(tmp_path, protocols=[name])] == []
    edit(
        tmp_path / "params.yaml",
        "folds: {protocol: speaker}",
        "folds: {protocol: speaker, validation: 1}",
    )
    validated = plan(tmp_path, protocols=["speaker-independent-validated"])
    assert "score@demo-speaker" in validated and "score@demo-random" not in validated
    with pytest.raises(ParameterError, match="demoo"):
        plan(tmp_path, corpora=["demoo"])


def test_outcome_says_what_is_left():
    stages = ("a", "b", "c", "d")
    steps = Found({name: Step([]) for name in stages}, {name: ["why"] for name in stages})
    done = Completed(name="Cached")
    assert outcome(Found({}, {}), {}, None).message == "no stage to bring up to date"
    assert outcome(Found({"a": Step([])}, {}), {}, None).message == "1 unchanged"
    assert outcome(Found({"a": Step([])}, {"a": []}), {"a": done}, None).message == "1 cached"
    state = outcome(steps, {"a": done, "b": Failed(), "c": Pending(name="NotReady")}, None)
    assert state.is_failed()
    assert state.message == "failed: b; not reached: c, d; others: 1 cached"
    state = outcome(steps, {"a": done, "b": Cancelled()}, "cancelled")
    assert state.is_cancelled()
    assert state.message == "cancelled; stopped: b; not reached: c, d; others: 1 cached"


def test_what_is_worth_another_try():
    busy = "ERROR: 'data/one' is busy, it is being blocked by:\n  (PID 7): dvc repro"
    assert is_transient(None, None, Failed(message=busy))
    assert is_transient(None, None, Failed(message="Connection reset by peer"))
    assert not is_transient(None, None, Failed(message="timnet: 3 of 588 files are missing"))


def test_a_clone_that_cannot_fetch_tries_again(tmp_path):
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "remote", "add", "origin", f"http://127.0.0.1:{free_port()}/nothing")
    with pytest.raises(TimnetError, match="git fetch failed") as caught:
        check_out(tmp_path, 40 * "0")
    assert is_transient(None, None, Failed(message=str(caught.value)))
    run(tmp_path, "git", "remote", "set-url", "origin", tmp_path)
    with pytest.raises(ParameterError, match="Push it") as lacking:
        check_out(tmp_path, 40 * "0")
    assert not is_transient(None, None, Failed(message=str(lacking.value)))


def test_a_served_flow_knows_its_types():
    # Prefect pickles it without the module's imports, so that no annotation may be a string
    assert not [a for a in reproduce.fn.__annotations__.values() if isinstance(a, str)]


def test_first_run(first):
    seen = on_server(first.root, tasks=6)
    assert first.state.is_completed() and seen.state.is_completed()
    assert seen.state.message == "6 completed"
    assert names(seen.tasks) == dict.fromkeys(ALL, "Completed")
    assert seen.artifacts.keys() == {"single-corpus", "report"}
    artifact = seen.artifacts["single-corpus"]
    assert (artifact.type, artifact.data) == ("markdown", "# one\n# two\n")
    commit = run(first.root, "git", "rev-parse", "--short=10", "HEAD").stdout.strip()
    assert artifact.description == f"commit {commit}"
    until(lambda: "> sh work.sh copy/one.txt score/one.txt" in log(seen.id))
    assert not [line for line in log(seen.id) if "git add" in line or "dvc push" in line]


def test_same_as_dvc_repro(first, new, tmp_path):
    serial = copy(new, tmp_path / "serial")
    dvc(serial, "repro")
    assert lock(first.root) == lock(serial)  # but for the order, which is that of their ends
    assert "up to date" in dvc(first.root, "status")


def test_a_second_run_changes_nothing(first):
    start(first.root)
    seen = on_server(first.root, tasks=0)
    assert seen.state.is_completed() and seen.state.message == "6 unchanged"
    assert seen.artifacts == {}


def test_what_comes_out_as_before_stops_there(first, tmp_path):
    root = copy(first.root, tmp_path / "same")
    edit(root / "dvc.yaml", "cmd: sh work.sh copy/", "cmd: sh  work.sh copy/")
    state = start(root)
    assert state.message == "2 cached, 2 completed, 2 unchanged"
    assert names(on_server(root, tasks=4).tasks) == {
        "score@one": "Completed",
        "score@two": "Completed",
        "tables": "Cached",
        "report": "Cached",
    }


def test_a_run_says_what_it_does(first, tmp_path):
    root = copy(first.root, tmp_path / "named")
    write_recording(root, "one", "# un\n")
    start(root, targets=["score@one"])
    with get_client(sync_client=True) as client:
        flow_run = newest(root, client)
    assert flow_run.name == "reproduce 2 stages"
    commit = run(root, "git", "rev-parse", "--short=10", "HEAD").stdout.strip()
    assert set(flow_run.tags) == {"main", commit}


def test_nothing_to_do_needs_no_server(first):
    flow = launch(first.root, PREFECT_API_URL="")
    _, errors = flow.communicate(timeout=60)
    assert flow.returncode == 0
    assert errors.splitlines()[-1] == "reproduce: 6 unchanged"
    assert not (first.root / ".prefect" / "server.log").exists()


def test_force_runs_what_has_not_changed(first):
    assert start(first.root, force=True, targets=["copy"]).message == "2 completed"


def test_restored_from_the_run_cache(first, tmp_path):
    root = copy(first.root, tmp_path / "lost")
    shutil.rmtree(root / "copy")
    state = start(root, targets=["copy@one"])
    assert state.message == "1 restored"
    assert names(on_server(root, tasks=1).tasks) == {"copy@one": "Restored"}
    assert (root / "copy" / "one.txt").read_text() == "# one\n"


def test_dry_run_says_what_and_why(first, tmp_path):
    root = copy(first.root, tmp_path / "dry")
    assert start(root, dry_run=True).message == "dry run: 0 of 6 stages would run"
    write_recording(root, "one", "# another\n")
    state = start(root, dry_run=True)
    assert state.message == "dry run: 4 of 6 stages would run; one after the other: not timed"
    seen = on_server(root, tasks=0)
    assert seen.artifacts.keys() == {"dry-run"}
    text = re.sub(" +", " ", seen.artifacts["dry-run"].data)  # columns are aligned
    assert "| copy@one | data/one modified |" in text
    assert "| tables | if what it depends on changes |" in text
    assert "copy@two" not in text
    assert (root / "score" / "one.txt").read_text() == "# one\n"
    assert "6 of 6 stages would run" in start(root, dry_run=True, force=True).message


def test_failing_stage(first, tmp_path):
    root = copy(first.root, tmp_path / "failing")
    write_recording(root, "one", "broken\n")
    write_recording(root, "two", "# deux\n")
    flow = launch(root)
    printed, errors = flow.communicate(timeout=120)
    seen = on_server(root, tasks=6)
    assert flow.returncode == 1
    assert "Traceback" not in printed + errors
    message = "failed: copy@one; not reached: score@one, tables, report; others: 2 completed"
    assert errors.splitlines()[-1] == f"reproduce: {message}"
    assert seen.state.is_failed() and seen.state.message == message
    assert names(seen.tasks) == {
        "copy@one": "Failed",
        "score@one": "NotReady",
        "copy@two": "Completed",
        "score@two": "Completed",
        "tables": "NotReady",
        "report": "NotReady",
    }
    assert "`dvc repro copy@one` ended with 255" in seen.tasks["copy@one"].message
    assert "\ncannot read data/one/take.txt\n" in seen.tasks["copy@one"].message
    assert seen.tasks["score@one"].message == "it needs copy@one"
    assert seen.tasks["report"].message == "it needs tables"
    assert (root / "score" / "two.txt").read_text() == "# deux\n"
    assert seen.artifacts == {}


def test_changed_data_are_refused(first, tmp_path):
    root = copy(first.root, tmp_path / "changed")
    write_recording(root, "one", "# another\n")
    state = reproduce(root, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("data/ differs from data.dvc:\n  - one: 1 file changed")
    assert on_server(root, tasks=0).state.message == state.message
    assert (root / "score" / "one.txt").read_text() == "# one\n"


def test_stages_run_together(first, tmp_path):
    root = copy(first.root, tmp_path / "together")
    for corpus in ("one", "two"):
        write_recording(root, corpus, "together\n")  # each waits for the other
    assert start(root, targets=["copy"]).message == "2 completed"


def test_stages_on_a_gpu_run_alone(first, tmp_path):
    root = copy(first.root, tmp_path / "gpu")
    edit(
        root / "dvc.yaml",
        "      outs:\n        - copy",
        "      meta: {gpu: true}\n      outs:\n        - copy",
    )
    for corpus in ("one", "two"):
        write_recording(root, corpus, "alone\n")  # fails beside another
    assert start(root, targets=["copy"]).message == "2 completed"
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("gpu")
        assert (limit.limit, limit.active_slots) == (1, 0)


def test_a_limit_of_0_is_told_and_a_new_one_is_obeyed(first, tmp_path):
    root = copy(first.root, tmp_path / "limit")
    edit(
        root / "dvc.yaml",
        "      outs:\n        - copy",
        "      meta: {gpu: true}\n      outs:\n        - copy",
    )
    for corpus in ("one", "two"):
        write_recording(root, corpus, "together\n")  # each waits for the other
    with get_client(sync_client=True) as client:

        def limit(number):
            client.upsert_global_concurrency_limit_by_name("gpu", number)

        limit(0)
        try:
            state = start(root, targets=["copy"])
            assert state.is_failed() and state.message.startswith("failed: copy@one, copy@two")
            assert "limit gpu is 0" in on_server(root, tasks=2).tasks["copy@one"].message
            limit(1)
            flow = launch(root, "copy")
            until(lambda: any(root.glob("here-*")))
            limit(2)  # while the second one waits
            flow.communicate(timeout=120)
            assert flow.returncode == 0
        finally:
            limit(1)


def test_no_error_is_logged_for_a_slot_that_another_training_holds(caplog):
    logger = logging.getLogger("prefect._internal.concurrency")
    said = "Service %r failed to process item %r"
    logger.error(said, "ConcurrencySlotAcquisitionWithLeaseService", (1, "concurrency", 5))
    logger.error(said, "EventsWorker", ())
    (record,) = caplog.records
    assert "EventsWorker" in record.getMessage()


@pytest.mark.slow
def test_a_stage_waits_for_somebody_else_s_lock(first, tmp_path):
    root = copy(first.root, tmp_path / "busy")
    for name in ("one", "two"):
        write_recording(root, name, "together\n")
    flow = launch(root, "copy", "--max-workers", "1")
    until(lambda: any(root.glob("here-*")))
    later = "one" if (root / "here-two.txt").exists() else "two"
    write_recording(root, later, "slow\n")
    with ProcessGroup() as processes:
        with started_dvc(processes, root, "repro", "--single-item", f"copy@{later}"):
            until((root / "running").exists)
            (root / f"here-{later}.txt").touch()  # the other one can end
            busy = "is busy, it is being blocked by"
            until(lambda: any(busy in line for line in log_of(root)))
            write_recording(root, later, "# deux\n")
            processes.stop("enough")
        assert flow.wait(timeout=120) == 0
    assert (root / "copy" / f"{later}.txt").read_text() == "# deux\n"


def log_of(root):
    with get_client(sync_client=True) as client:
        try:
            return log(newest(root, client).id)
        except StopIteration:
            return []


@pytest.mark.slow
def test_a_second_run_is_refused(first, tmp_path):
    root = copy(first.root, tmp_path / "twice")
    write_recording(root, "one", "slow\n")
    flow = launch(root)
    until((root / "running").exists)
    state = start(root)
    assert state.is_failed()
    assert f"{root}: another run is active here (" in state.message
    assert f"process {flow.pid}, since " in state.message
    flow.terminate()
    flow.communicate(timeout=60)


@pytest.mark.slow
def test_a_run_beside_dvc_repro_is_refused(first, tmp_path):
    root = copy(first.root, tmp_path / "beside")
    write_recording(root, "one", "slow\n")
    with ProcessGroup() as processes, started_dvc(processes, root, "repro", "copy@one"):
        until((root / "running").exists)
        state = start(root)
        processes.stop("enough")
    assert state.is_failed()
    assert state.message.startswith(f"{root}: `dvc repro copy@one` (process ")
    assert ") is running: copy@one." in state.message
    assert on_server(root, tasks=0).state.message == state.message


def test_locks_of_the_dead_stop_nobody(first, tmp_path):
    root = copy(first.root, tmp_path / "left")
    write_recording(root, "one", "# un\n")
    dead_locks(root, "copy/one.txt", "score/one.txt")
    assert start(root, targets=["score@one"]).message == "2 completed"


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_flow_leaves_nothing(first, tmp_path, blow):
    root = copy(first.root, tmp_path / "slow")
    write_recording(root, "one", "slow\n")
    flow = launch(root, "copy@one")
    until((root / "running").exists)
    assert any("sleep" in command for command in left_in(root))
    flow.send_signal(blow)
    flow.communicate(timeout=60)
    until(lambda: left_in(root) == [])
    if blow == signal.SIGKILL:
        assert flow.returncode == -blow
    else:
        assert flow.returncode == 128 + blow
        seen = on_server(root, tasks=1)
        assert seen.state.is_crashed()
        assert seen.tasks["copy@one"].is_cancelled()
        assert seen.tasks["copy@one"].message == "stopped"
    # the workspace is as usable as before
    write_recording(root, "one", "# un\n")
    assert start(root).is_completed()
    assert (root / "score" / "one.txt").read_text() == "# un\n"
    assert "up to date" in dvc(root, "status", *ALL)


@pytest.mark.slow
def test_a_cancelled_run_stops(first, tmp_path):
    root = copy(first.root, tmp_path / "cancelled")
    write_recording(root, "one", "slow\n")
    flow = launch(root, "score@one")
    until((root / "running").exists)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(newest(root, client).id, Cancelling())
    _, errors = flow.communicate(timeout=60)
    assert flow.returncode == 1
    assert left_in(root) == []
    seen = on_server(root)  # score@one may have been about to start
    assert seen.state.is_cancelled()
    assert names(seen.tasks)["copy@one"] == "Cancelled"
    message = "cancelled; stopped: copy@one; not reached: score@one"
    assert seen.state.message == message
    assert errors.splitlines()[-1] == f"reproduce: {message}"


@pytest.mark.slow
def test_a_lost_server_stops_the_run(new, tmp_path):
    root = copy(new, tmp_path / "lost")
    write_recording(root, "one", "slow\n")
    with ProcessGroup() as processes:
        url = start_server(processes, free_port())
        flow = launch(root, PREFECT_API_URL=url)
        until((root / "running").exists)
    _, errors = flow.communicate(timeout=120)
    assert flow.returncode == 1
    assert f"the Prefect server at {url} has not responded for 30 s" in errors
    until(lambda: left_in(root) == [])
    write_recording(root, "one", "# one\n")
    dvc(root, "repro")
    assert "up to date" in dvc(root, "status")


@pytest.mark.slow
def test_kills_leave_the_same_result(prefect_api, tmp_path):
    assert kills(tmp_path, prefect_api, runs=2) == {"as dvc repro": 2}


@pytest.mark.slow
def test_a_server_of_its_own(new, tmp_path, prefect_api):
    root = copy(new, tmp_path / "own")
    secret = "pnu_0123456789"
    home = {"PREFECT_API_URL": "", "PREFECT_HOME": str(tmp_path / "home")}
    flow = launch(root, **home, PREFECT_API_KEY=secret, AWS_SECRET_ACCESS_KEY=secret)
    _, errors = flow.communicate(timeout=180)
    assert flow.returncode == 0, errors
    assert errors.splitlines()[-1] == "reproduce: 6 completed"
    assert (tmp_path / "home" / "prefect.db").exists()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
