"""A server for a team: Prefect on Postgres with a login, as deploy/compose.yaml arranges it.

The data's place, a bucket in S3, is tried by test_flow_pool.py.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import small_pipeline
from conftest import ROOT
from ruamel.yaml import YAML

LOGIN = "team:a-password"


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of a database in a cluster of its own, from Debian's packages."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no Postgres here: apt-get install postgresql")
    programs = found[-1].parent
    with TemporaryDirectory(prefix="timnet-postgres-") as folder:  # pytest's own admit root alone
        yield from cluster(programs, Path(folder))


def cluster(programs: Path, folder: Path) -> Iterator[str]:
    who: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("Postgres does not run as root, and there is no user postgres")
        who = ["runuser", "--user", "postgres", "--"]
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, port = folder / "data", free_port()

    def call(program: str, *arguments: str | Path) -> None:
        command = [*who, programs / program, *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call("initdb", "--pgdata", data, "--username", "prefect", "--auth", "trust")
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    server = ("pg_ctl", "--pgdata", data, "-t", "300", "-w")
    call(*server, "--log", folder / "log", "--options", options, "start")
    try:
        call("createdb", "--host", "127.0.0.1", "--port", str(port), "-U", "prefect", "prefect")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        call(*server, "--mode", "immediate", "stop")


@pytest.fixture
def api(
    postgres: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a server with a login, whose runs are in Postgres."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres,
        "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        small_pipeline.until(lambda: responds(url), 300)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", auth=tuple(LOGIN.split(":"))).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_flow_runs_on_postgres_with_a_login(api: str, tmp_path: Path) -> None:
    root = small_pipeline.make(tmp_path)
    assert httpx.post(f"{api}/flow_runs/filter", json={}).status_code == 401
    flow = small_pipeline.launch(root, PREFECT_API_URL=api, PREFECT_API_AUTH_STRING=LOGIN)
    _, said = flow.communicate(timeout=300)
    assert flow.returncode == 0, said
    known = httpx.post(f"{api}/flow_runs/filter", json={}, auth=tuple(LOGIN.split(":"))).json()
    assert [each["state_type"] for each in known] == ["COMPLETED"]
    assert (root / "results/report.html").read_text() == "# one\n# two\n"


@pytest.mark.slow
def test_a_wrong_login_is_refused(api: str, tmp_path: Path) -> None:
    root = small_pipeline.make(tmp_path)
    flow = small_pipeline.launch(root, PREFECT_API_URL=api, PREFECT_API_AUTH_STRING="team:wrong")
    flow.communicate(timeout=300)
    assert flow.returncode != 0
    assert not (root / "results/report.html").exists()


def test_the_compose_file_asks_for_what_is_tried() -> None:
    services = YAML(typ="safe").load(ROOT / "deploy/compose.yaml")["services"]
    asked = services["server"]["environment"]
    assert asked["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    assert "LOGIN" in asked["PREFECT_SERVER_API_AUTH_STRING"]
    assert "LOGIN" in services["worker"]["environment"]["PREFECT_API_AUTH_STRING"]
    stated = (ROOT / "deploy/team.env.example").read_text()
    for name in ("DATABASE_PASSWORD", "LOGIN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert f"{name}=" in stated
    assert asked["PREFECT_SERVER_UI_API_URL"].endswith("/api") and "ADDRESS=" in stated
    ports = services["server"]["ports"]
    assert all(each.startswith("127.0.0.1:") for each in ports)  # behind a proxy


def test_the_image_holds_no_password() -> None:
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"deploy/team.env", ".dvc/config.local", ".prefect"} <= set(left_out)
