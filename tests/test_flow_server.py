"""Servers that are there and cannot be used, and what stands between them and a flow."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from small_pipeline import make

from flows import server
from flows.server import free_port, refuse_closed
from timnet.errors import TimnetError


class Odd(BaseHTTPRequestHandler):
    """Answers every request with one status and body; with none it says nothing at all."""

    def __init__(self, *arguments, status: int | None, body: bytes = b"{}") -> None:
        self.status, self.body = status, body
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.status is None:
            self.server.over.wait()  # type: ignore[attr-defined]
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_) -> None:
        pass


@contextmanager
def odd(status: int | None, body: bytes = b"{}") -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Odd, status=status, body=body))  # type: ignore[arg-type]
    httpd.daemon_threads = True
    httpd.over = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/api"
    finally:
        httpd.over.set()  # type: ignore[attr-defined]
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (None, b"", "no answer within 1 s"),
        (401, b"{}", "PREFECT_API_AUTH_STRING"),
        (403, b"{}", "PREFECT_API_AUTH_STRING"),
        (404, b"{}", "status 404"),
        (500, b"{}", "status 500"),
        (200, b"<html>", "no Prefect API"),
        (200, b'{"a": 1}', "no Prefect API"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_in_a_sentence(monkeypatch, status, body, why):
    monkeypatch.setattr(server, "ANSWER", 1.0)
    with odd(status, body) as url, pytest.raises(TimnetError, match=why) as caught:
        refuse_closed(url)
    assert url in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_is_not_there(monkeypatch):
    with pytest.raises(TimnetError, match="Connection refused"):
        refuse_closed(f"http://127.0.0.1:{free_port()}/api")


def test_a_server_that_can_be_used(prefect_api):
    refuse_closed(prefect_api)


def launch(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.reproduce", "--dry-run", "--allow-data-changes"],
        cwd=root,
        env={**given, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("port", ["0", "-1", "65535", "70000", "web"])
def test_ports_that_the_ui_cannot_use(tmp_path, port):
    (tmp_path / "dvc.yaml").touch()
    done = subprocess.run(
        [sys.executable, "-m", "flows.ui", f"--port={port}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"argument --port: '{port}'" in done.stderr and "Traceback" not in done.stderr


def test_no_server_ends_in_one_line(tmp_path):
    done = launch(make(tmp_path / "root"), PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_proxies_and_a_login_of_the_environment(tmp_path):
    """Neither stands between a flow and the server that it starts."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = launch(make(tmp_path / "root"), **proxies, PREFECT_SERVER_API_AUTH_STRING="who:secret")
    assert done.returncode == 0, done.stderr
    assert "dry run: 6 of 6 stages would run" in done.stderr
