"""`python -m flows.ui` as a person has it: server, deployments, schedule, pages, links."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import retraining_project
from browser import chromium
from conftest import ROOT, run
from flow import left_in
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from selenium import webdriver
from selenium.webdriver.common.by import By
from small_pipeline import ALL, copy, make, until, write_recording

from flows.server import free_port, is_free

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = make(tmp_path_factory.mktemp("ui") / "project")
    copy(ROOT / "flows", root / "flows")
    shutil.copy(ROOT / "prefect.yaml", root)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """What is retrained."""
    return retraining_project.make(tmp_path_factory.mktemp("ui-weekly") / "home")


def launch(root: Path, port: int) -> subprocess.Popen[str]:
    # were it for Prefect alone, this would open the server to the network
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_SERVER_API_HOST": "0.0.0.0"}
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.ui", "--port", str(port)],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def port(root) -> Iterator[int]:
    """Of a server that runs as long as the tests of this module."""
    port = free_port()
    ui = launch(root, port)
    assert ui.stdout is not None
    assert ui.stdout.readline() == f"Prefect: http://127.0.0.1:{port}   (Ctrl-C stops it)\n"
    yield port
    write_recording(root, "one", "slow\n")
    with api(port) as client:
        start(client, targets=["copy@one"])
        until((root / "running").exists)
        ui.send_signal(signal.SIGTERM)  # while a stage runs
        _, said = ui.communicate(timeout=60)
    until(lambda: left_in(root) == [])
    assert is_free(port) and is_free(port + 1)
    assert "Traceback" not in said and "Warning" not in said


def api(port: int) -> SyncPrefectClient:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        return get_client(sync_client=True)


def start(client, **parameters):
    nightly = client.read_deployment_by_name("reproduce/nightly")
    given = {"allow_data_changes": True, **parameters}
    return client.create_flow_run_from_deployment(nightly.id, parameters=given)


def ended(client, run):
    return until(lambda: (s := client.read_flow_run(run.id).state).is_final() and s, 120)


@pytest.fixture(scope="module")
def first(port):
    """A run started as the button in the UI does."""
    with api(port) as client:
        run = start(client)
        assert ended(client, run).message == "6 completed"
    return run


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    with chromium(1400, 1000) as browser:
        yield browser


def test_what_it_serves(root, port):
    with api(port) as client:
        nightly = client.read_deployment_by_name("reproduce/nightly")
        assert [schedule.active for schedule in nightly.schedules] == [False]
        assert client.read_deployment_by_name("acquire/on-demand").schedules == []
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 1
        retraining = client.read_deployment_by_name("retrain/weekly")
        assert [schedule.active for schedule in retraining.schedules] == [False]
    for deployment, offered in (
        (nightly, {"targets", "corpora", "protocols", "force", "dry_run"}),
        (retraining, {"branch", "baseline", "protocols", "tolerance", "weights", "promote"}),
    ):
        schema = deployment.parameter_openapi_schema["properties"]
        assert offered <= set(schema) and all(schema[name]["description"] for name in schema)
    assert (root / ".prefect" / "prefect.db").exists()


def test_it_listens_on_loopback_alone(port):
    sockets = [each for each in psutil.net_connections() if each.status == psutil.CONN_LISTEN]
    listening = {each.laddr.ip for each in sockets if each.laddr.port in (port, port + 1)}
    assert listening == {"127.0.0.1"}


def test_a_second_one_says_where_the_first_is(root, port):
    second = launch(root, free_port())
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert said == f"Prefect: http://127.0.0.1:{port}   (already running)\n"


def test_pages(root, port, first, browser):
    address = f"http://127.0.0.1:{port}"

    def body() -> str:
        return browser.find_element(By.TAG_NAME, "body").text

    browser.get(f"{address}/runs/flow-run/{first.id}")
    until(lambda: "6 Task runs" in body() and "Completed" in body())
    # the graph is drawn on a canvas
    until(lambda: browser.find_elements(By.CSS_SELECTOR, ".run-graph canvas, canvas"))
    with api(port) as client:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[first.id]))
        artifacts = {each.key: each for each in client.read_artifacts(flow_run_filter=chosen)}
        assert {task.name for task in client.read_task_runs(flow_run_filter=chosen)} == set(ALL)
    browser.get(f"{address}/artifacts/artifact/{artifacts['single-corpus'].id}")
    until(lambda: "single-corpus" in body() and "two" in body())
    link = artifacts["report"].data
    assert f"(http://127.0.0.1:{port + 1}/report.html)" in link
    shown = httpx.get(f"http://127.0.0.1:{port + 1}/report.html", trust_env=False)
    assert shown.text == "# one\n# two\n"


def test_a_cancelled_run_leaves_nothing(root, port, first):
    before = len(left_in(root))
    write_recording(root, "one", "slow\n")
    with api(port) as client:
        run = start(client, targets=["score@one"])
        until((root / "running").exists)
        assert len(left_in(root)) > before
        client.set_flow_run_state(run.id, Cancelling())
        assert ended(client, run).is_cancelled()
    until(lambda: len(left_in(root)) == before)
    (root / "running").unlink()
    write_recording(root, "one", "# one\n")


def test_schedules_fire(port, first, project):
    expected = {
        "reproduce/nightly": ({"dry_run": True}, "dry run: "),
        "retrain/weekly": ({"workspace": str(project)}, "retrain/"),
    }
    with api(port) as client:
        created = {
            name: schedule(client, name, parameters) for name, (parameters, _) in expected.items()
        }
        try:
            for name, (_, message) in expected.items():
                done = until(partial(fired, client, name), 240)
                assert done[0].state.message.startswith(message)
        finally:
            for deployment, made in created.values():
                client.delete_deployment_schedule(deployment, made)


def schedule(client, name, parameters):
    """Let a deployment run often."""
    deployment = client.read_deployment_by_name(name).id
    often = IntervalSchedule(interval=datetime.timedelta(seconds=20))
    wanted = DeploymentScheduleCreate(schedule=often, active=True, parameters=parameters)
    (created,) = client.request(
        "POST",
        "/deployments/{id}/schedules",
        path_params={"id": deployment},
        json=[wanted.model_dump(mode="json", exclude_unset=True)],
    ).json()
    return deployment, created["id"]


def fired(client, name):
    """Runs that a schedule started and that are completed, the first one first."""
    chosen = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[client.read_deployment_by_name(name).id]),
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Completed"])),
    )
    runs = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.START_TIME_ASC)
    return [run for run in runs if run.auto_scheduled]


def test_a_worker_of_a_pool_retrains(root, port, project, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("PREFECT_HOME", str(root / ".prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run(root, "prefect", "work-pool", "create", "--type", "process", "timnet")
    run(root, "prefect", "--no-prompt", "deploy", "--all")
    with api(port) as client:
        deployment = client.read_deployment_by_name("retrain/weekly-on-pool")
        assert [schedule.active for schedule in deployment.schedules] == [False]
        given = {"workspace": str(project)}
        made = client.create_flow_run_from_deployment(deployment.id, parameters=given)
        run(root, "prefect", "worker", "start", "--pool", "timnet", "--run-once")
        assert ended(client, made).message.endswith("demo@v1.0.0 is candidate")
