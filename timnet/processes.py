"""Worker processes: one core each, frugal with memory, gone when their parent is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# One thread per process: small products only wait for each other's threads. And the few megabytes
# that are allocated and freed over and over are kept by the process, where they cost no page
# faults, which otherwise take up to half of the time.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # What CUDA needs to give the same bits twice. The second since what torch is told of compiled
    # kernels does not reach the thread in which gradients are computed there.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TORCHINDUCTOR_DETERMINISTIC": "1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}


@contextmanager
def worker_environment() -> Iterator[None]:
    """Set WORKER_ENVIRONMENT for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_with(parent: int, before: Callable[[], None] = lambda: None) -> None:
    """Called in a worker: leave signals to the parent, and end when the parent has ended.

    Args:
        before: called once the parent is gone; the worker ends when it returns.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        before()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
