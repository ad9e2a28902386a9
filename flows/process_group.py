"""Commands that end with the process that started them, whatever ends it.

    python process_group.py GRACE COMMAND...

runs a command in a process group of its own until it ends, or until standard input does: a pipe
that only the starting process could write to, so that the system closes it even when that one is
killed. Then the group gets SIGTERM, and after GRACE seconds SIGKILL. It exits as the command did,
with 128 + number after a signal, and leaves nothing of the group.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

GRACE = 10.0  # s from SIGTERM to SIGKILL
AGAIN = 2.0  # s between two SIGTERM, for what started after the first
PR_SET_CHILD_SUBREAPER = 36  # of Linux


class Stopped(Exception):
    """The commands of a group were stopped, and no other starts in it."""


class ProcessGroup:
    """Commands that all end when it is stopped, at the end of its `with`, or with this process.

    Args:
        held: descriptors, such as that of a lock, that stay open until the last command has ended.
    """

    def __init__(self, *held: int, grace: float = GRACE) -> None:
        self.reason: str | None = None  # why it was stopped
        self._held, self._grace = held, grace
        self._read, self._write = os.pipe()
        self._mutex = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A command with its output as `subprocess.Popen` has it; `Stopped` if the group was.

        The process is the supervisor of the command: wait for it, send it no signals.
        """
        supervisor = [sys.executable, "-I", "-S", __file__, str(self._grace), *command]
        with self._mutex:
            if self.reason is not None:
                raise Stopped(self.reason)
            process = subprocess.Popen(
                supervisor,
                stdin=self._read,
                pass_fds=self._held,
                start_new_session=True,
                encoding="utf-8",
                errors="replace",
                **options,
            )
            self._processes.append(process)
        return process

    def stop(self, reason: str) -> None:
        """End all commands, without waiting for it. The first reason counts."""
        with self._mutex:
            if self.reason is None:
                self.reason = reason
                os.close(self._write)

    def wait(self) -> None:
        """Wait until every command has ended."""
        for process in self._processes:
            process.wait()

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("stopped")
        self.wait()
        os.close(self._read)


def supervise(grace: float, command: Sequence[str]) -> int:
    """Run the command; gives its exit status."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a signal to all processes does not stop it
    adopt_orphans()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    group = process.pid

    def watch() -> None:
        while os.read(0, 1):
            pass
        end_group(group, grace)

    threading.Thread(target=watch, daemon=True).start()
    pid = status = 0
    while pid != group:
        pid, status = os.wait()
    end_group(group, grace, reap)  # what it left behind
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end_group(group: int, grace: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    """End all processes of a group; returns when it has none, or none that could be ended."""
    start = told = time.monotonic()
    with suppress(ProcessLookupError, PermissionError):  # it is empty
        os.killpg(group, signal.SIGTERM)
        while (now := time.monotonic()) < start + grace:
            if now > told + AGAIN:
                os.killpg(group, signal.SIGTERM)
                told = now
            time.sleep(0.02)
            meanwhile()
            os.killpg(group, 0)
        for _ in range(50):
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.02)
            meanwhile()


def adopt_orphans() -> None:
    """On Linux, become the parent of grandchildren whose parent dies, so that `reap` finds them.

    Elsewhere the system's first process does that, which not every container has.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(supervise(float(sys.argv[1]), sys.argv[2:]))
