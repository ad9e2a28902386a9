"""A Prefect server of the project's own: on loopback, its files in PREFECT_HOME."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.process_group import ProcessGroup
from timnet.errors import TimnetError
from timnet.project.machine import MACHINE_TROUBLE

HOST = "127.0.0.1"
PATIENCE = 120.0  # s until a server that was started here must answer
ANSWER = 10.0  # s until any other must
ROOM = 10e6  # bytes of the disk that a new server needs: its database, its log
# Leases of slots outlive the server, or a slot that was held at its end would never come back.
LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def start_server(processes: ProcessGroup, port: int) -> str:
    """Start a server that ends with `processes`; returns the URL of its API once it responds.

    Raises:
        TimnetError: the port is taken, or the server ended at its start.
    """
    if not is_free(port):
        raise TimnetError(f"port {port} of {HOST} is taken. Choose another with --port.")
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    log, url = home / "server.log", f"http://{HOST}:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start"]
    environment = {
        **os.environ,
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
    }
    with log.open("w", encoding="utf-8") as file:
        process = processes.start(
            [*command, "--host", HOST, "--port", str(port)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + PATIENCE
    while not responds(url):
        if process.poll() is not None or time.monotonic() > deadline:
            free = shutil.disk_usage(home).free
            if free < ROOM:
                raise TimnetError(
                    f"the Prefect server did not start: the disk of {home} has "
                    f"{free / 1e6:.1f} MB left. {MACHINE_TROUBLE[errno.ENOSPC]}"
                )
            raise TimnetError(f"the Prefect server did not start; {log} says why.")
        time.sleep(0.2)
    return url


def some_server() -> str:
    """The API of PREFECT_API_URL, or of `make ui`, or of a server that lasts as this process.

    Raises:
        TimnetError: it does not answer, or does not let this process in.
    """
    if given := os.environ.get("PREFECT_API_URL") or running_ui():
        refuse_closed(given)
        return given
    # Never stopped here: Prefect reports up to the very end of the process, which then stops it.
    started = start_server(ProcessGroup(), free_port())
    refuse_closed(started)
    return started


def refuse_closed(url: str) -> None:
    """Stop where the API at `url` is not one that this process can use.

    Prefect would try for minutes, and then show where in its own code it was.

    Raises:
        TimnetError: why.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            with get_client(sync_client=True, httpx_settings={"timeout": ANSWER}) as client:
                client.read_flows(limit=1)
            return
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            why = f"it responds with status {status}"
            if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                why = "it requires a login: set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to yours"
        except httpx.TimeoutException:
            why = f"no answer within {ANSWER:g} s"
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
        except (ValueError, RuntimeError) as error:  # an answer that is none of Prefect's
            why = f"there is no Prefect API ({type(error).__name__})"
    raise TimnetError(
        f"the Prefect API at {url}: {why}. Set PREFECT_API_URL to a working one, or unset it to "
        "start a server here."
    )


@contextmanager
def announced(url: str) -> Iterator[None]:
    """Let `some_server` find this one."""
    _address().write_text(url, encoding="utf-8")
    try:
        yield
    finally:
        _address().unlink(missing_ok=True)


def running_ui() -> str | None:
    """The API of the server that was announced, if it responds."""
    try:
        url = _address().read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return url if responds(url) else None


def _address() -> Path:
    return Path(os.environ["PREFECT_HOME"], "address")


def responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


def is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
