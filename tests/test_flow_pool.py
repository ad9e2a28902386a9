"""Stages on several machines: clones, workers and a remote, on a real Prefect server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, edit, run
from mini import copy, dvc, launch, lock, make, take, until
from prefect.client.orchestration import SyncPrefectClient

from flows.leash import Leash
from flows.pool import FLOW
from flows.server import free_port, start_server

POOL = "machines"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """URL of a server with all its services, events and automations among them."""
    with pytest.MonkeyPatch.context() as patch, Leash() as leash:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield start_server(leash, free_port())


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


def commit(root: Path) -> None:
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "change")


def project(new: Path, tmp_path: Path, url: str, one: str = "# one\n") -> Path:
    root = copy(new, tmp_path / "coordinator")
    with (root / ".dvc" / "config").open("a") as file:
        file.write(f"[core]\n    remote = private\n['remote \"private\"']\n    url = {url}\n")
    take(root, "one", one)
    dvc(root, "add", "--quiet", "data")
    commit(root)
    return root


def machine(root: Path, name: str, api: str) -> subprocess.Popen[str]:
    """A worker in a clone of its own."""
    clone = root.with_name(name)
    run(root, "git", "clone", "--quiet", root, clone)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.worker", POOL],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": api},
        stdout=(clone / "worker.log").open("w"),
        stderr=subprocess.STDOUT,
    )


def destroy(process: subprocess.Popen[str]) -> None:
    """What a power cut does to a machine."""
    tree = psutil.Process(process.pid)
    for each in [tree, *tree.children(recursive=True)]:
        each.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_lost_machine_is_replaced(new, tmp_path, api):
    root = project(new, tmp_path, str(tmp_path / "remote"), one="once\n")
    machines = {name: machine(root, name, api) for name in ("a", "b")}
    try:
        until(
            lambda: all(
                "Worker '" in (tmp_path / name / "worker.log").read_text() for name in machines
            )
        )
        flow = launch(root, "--pool", POOL, PREFECT_API_URL=api)
        (lost,) = until(lambda: [n for n in machines if (tmp_path / n / "running").exists()], 120)
        destroy(machines.pop(lost))
        _, said = flow.communicate(timeout=300)
    finally:
        for process in machines.values():
            process.send_signal(signal.SIGTERM)
            process.wait()
    assert flow.returncode == 0, said
    assert said.splitlines()[-1] == "reproduce: 6 completed"

    serial = copy(new, tmp_path / "serial")
    take(serial, "one", "once\n")
    dvc(serial, "repro")
    assert lock(root) == lock(serial)
    for made in ("copy/one.txt", "copy/two.txt", "results/report.html"):
        assert (root / made).read_bytes() == (serial / made).read_bytes()
    with SyncPrefectClient(api) as client:
        runs = [r for r in client.read_flow_runs() if r.name.startswith("copy")]
    assert sorted((r.name, r.state_name) for r in runs) == [
        ("copy@one", "Completed"),
        ("copy@one", "Crashed"),
        ("copy@two", "Completed"),
    ]
