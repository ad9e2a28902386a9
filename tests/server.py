"""A real HTTP server on loopback that misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a request with the next answer of the server's script, then as a good server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append((self.path, dict(self.headers)))
        body = self.server.files.get(self.path)
        answer = self.server.script.pop(0) if self.server.script else serve
        with contextlib.suppress(ConnectionError):
            if body is None and answer is serve:
                status(404)(self, b"")
            else:
                answer(self, body or b"")

    def reply(self, code: int, headers: dict[str, Any], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            if self.server.pause:
                time.sleep(self.server.pause)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`files` by path, `script` of the answers to come, `requests` that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.pause = 0.0  # s between blocks of 64 KiB
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def handle_error(self, *_: Any) -> None:
        pass

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def serve(handler: Handler, body: bytes) -> None:
    """As a good server does: ranges, validators."""
    headers = {"ETag": etag(body), "Accept-Ranges": "bytes", "Content-Type": "application/zip"}
    wanted = handler.headers.get("Range")
    if not wanted or handler.headers.get("If-Range", etag(body)) != etag(body):
        handler.reply(200, {**headers, "Content-Length": len(body)}, body)
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    if start >= len(body):
        handler.reply(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": 0})
        return
    rest = body[start:]
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.reply(206, {**headers, "Content-Range": span, "Content-Length": len(rest)}, rest)


def no_ranges(handler: Handler, body: bytes) -> None:
    handler.reply(200, {"Content-Length": len(body)}, body)


def no_length(handler: Handler, body: bytes) -> None:
    """The end of the connection is the end of the file."""
    handler.reply(200, {}, body)


def dated(handler: Handler, body: bytes) -> None:
    """Ranges, whose only validators are a date and a weak ETag."""
    headers = {"Last-Modified": formatdate(len(body), usegmt=True), "ETag": 'W/"x"'}
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    if start and handler.headers.get("If-Range") == headers["Last-Modified"]:
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.reply(206, {**headers, "Content-Length": len(body) - start}, body[start:])
    else:
        handler.reply(200, {**headers, "Content-Length": len(body)}, body)


def other_range(handler: Handler, body: bytes) -> None:
    """Another part of the file than was asked for."""
    span = f"bytes 0-{len(body) - 1}/{len(body)}"
    handler.reply(206, {"Content-Range": span, "Content-Length": len(body)}, body)


def cut(after: int, base: Answer = serve) -> Answer:
    """Promise all, send `after` bytes of it, close."""

    def answer(handler: Handler, body: bytes) -> None:
        write, left = handler.wfile.write, after

        def some(data: bytes) -> int:
            nonlocal left
            if data.startswith(b"HTTP/"):
                return write(data)
            write(data[:left])
            left -= len(data)
            if left <= 0:
                raise ConnectionAbortedError
            return len(data)

        handler.wfile.write = some  # type: ignore[method-assign, assignment]
        base(handler, body)

    return answer


def status(code: int, **headers: Any) -> Answer:
    def answer(handler: Handler, _: bytes) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.reply(code, {**fields, "Content-Length": 0})

    return answer


def redirect(to: str) -> Answer:
    return status(302, Location=to)


def promise(extra: int) -> Answer:
    """A Content-Length that is `extra` bytes too long."""

    def answer(handler: Handler, body: bytes) -> None:
        handler.reply(200, {"Content-Length": len(body) + extra}, body)

    return answer


def page(handler: Handler, _: bytes) -> None:
    """A login page, sent as if it were the file."""
    body = b"<!DOCTYPE html><html><title>Sign in</title>" + b" " * 600 + b"</html>"
    handler.reply(200, {"Content-Type": "text/html", "Content-Length": len(body)}, body)


def silence(seconds: float) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        time.sleep(seconds)
        serve(handler, body)

    return answer
