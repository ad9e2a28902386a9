"""Stages on several machines: clones, workers and a remote, on a real Prefect server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import psutil
import pytest
from conftest import ROOT, commit, edit, run
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort
from small_pipeline import copy, dvc, launch, lock, make, until, write_recording

from flows.pool import prepare
from flows.process_group import ProcessGroup
from flows.server import free_port, start_server
from timnet.errors import ParameterError

POOL = "machines"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """URL of a server with all its services, events and automations among them."""
    with pytest.MonkeyPatch.context() as patch, ProcessGroup() as processes:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield start_server(processes, free_port())


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A project whose stages `copy@...` go to a pool."""
    root = make(tmp_path_factory.mktemp("pool") / "project")
    edit(
        root / "dvc.yaml",
        "      outs:\n        - copy/${item}.txt\n",
        "      outs:\n        - copy/${item}.txt:\n            remote: private\n"
        "      meta: {gpu: true}\n",
    )
    return root


def project(new: Path, tmp_path: Path, remote: str, one: str) -> Path:
    """The project with a remote; `one` is what the recording of one corpus holds."""
    root = copy(new, tmp_path / "project")
    with (root / ".dvc" / "config").open("a") as file:
        file.write(f"[core]\n    remote = private\n['remote \"private\"']\n{remote}")
    write_recording(root, "one", one)
    dvc(root, "add", "--quiet", "data")
    commit(root)
    return root


@contextmanager
def machines(root: Path, api: str, *names: str) -> Iterator[dict[str, psutil.Process]]:
    """Workers, each in a clone of its own."""
    running = {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": api}
    command = [sys.executable, "-m", "flows.worker", POOL]
    for name in names:
        clone = root.with_name(name)
        run(root, "git", "clone", "--quiet", root, clone)
        with clone.with_suffix(".log").open("w") as log:
            running[name] = psutil.Popen(
                command, cwd=clone, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
    try:
        for name in names:
            log = root.with_name(f"{name}.log")
            until(lambda log=log: "started!" in log.read_text(), 120)
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def cut_power(process: psutil.Process) -> None:
    """End a machine with all that runs on it."""
    for each in [process, *process.children(recursive=True)]:
        each.kill()


def same_as_serial(root: Path, new: Path, one: str) -> bool:
    serial = copy(new, root.with_name("serial"))
    write_recording(serial, "one", one)
    dvc(serial, "repro")
    return lock(root) == lock(serial) and all(
        (root / made).read_bytes() == (serial / made).read_bytes()
        for made in ("copy/one.txt", "copy/two.txt", "score/one.txt", "results/report.html")
    )


def sent(api: str) -> list[tuple[str, str]]:
    """Name and state of what went to the pool, newest first."""
    with SyncPrefectClient(api) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    return [(each.name, each.state_name) for each in runs if each.parent_task_run_id]


@pytest.mark.long
@pytest.mark.slow
def test_a_lost_machine_is_replaced(new, tmp_path, api):
    root = project(new, tmp_path, f"    url = {tmp_path / 'remote'}\n", one="once\n")
    with machines(root, api, "a", "b") as running:
        flow = launch(root, "--pool", POOL, PREFECT_API_URL=api)
        (lost,) = until(lambda: [n for n in running if (tmp_path / n / "running").exists()], 120)
        cut_power(running[lost])
        _, said = flow.communicate(timeout=300)
    assert said.splitlines()[-1] == "reproduce: 6 completed"
    assert same_as_serial(root, new, "once\n")
    assert sorted(sent(api)) == [
        ("copy@one", "Completed"),
        ("copy@one", "Crashed"),
        ("copy@two", "Completed"),
    ]

    shutil.rmtree(root / "copy")  # no machine is left, but the remote has it all
    shutil.rmtree(root / ".dvc" / "cache")
    dvc(root, "pull", "--quiet", "data")
    state = launch(root, "copy", "--pool", POOL, PREFECT_API_URL=api)
    _, said = state.communicate(timeout=120)
    assert said.splitlines()[-1] == "reproduce: 2 restored"


@pytest.mark.long
@pytest.mark.slow
def test_machines_that_meet_in_s3(new, tmp_path, api, monkeypatch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        _, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        url = f"http://127.0.0.1:{port}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="timnet")
        remote = f"    url = s3://timnet/remote\n    endpointurl = {url}\n"
        root = project(new, tmp_path, remote, one="# un\n")
        with machines(root, api, "a", "b"):
            flow = launch(root, "--pool", POOL, PREFECT_API_URL=api)
            _, said = flow.communicate(timeout=300)
    finally:
        server.stop()
    assert said.splitlines()[-1] == "reproduce: 6 completed"
    assert same_as_serial(root, new, "# un\n")


def test_what_a_pool_needs(new, tmp_path, prefect_api):
    for root, why in ((tmp_path, "there is none"), (new, "the sources here differ from it")):
        with pytest.raises(ParameterError, match=f"of a pool check out a commit, and {why}"):
            prepare(root, "none")  # no repository; a dvc.yaml that is not committed
    root = project(new, tmp_path, "    url = ../../remote\n", one="# un\n")
    with pytest.raises(ParameterError, match=r"no worker has ever served the pool 'none'"):
        prepare(root, "none")
