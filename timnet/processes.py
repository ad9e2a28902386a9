"""Worker processes: one core each, frugal with memory, gone when their parent is."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

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


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: by its affinity, and by the quota that a container sets.

    Args:
        root: of the file system.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    number = len(affinity(0)) if affinity else os.cpu_count() or 1
    shares = [quota / period for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, min([number, *map(math.ceil, shares)]))


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of CPU time in so many, of the groups that this process is in (Linux cgroups).

    Version 2 keeps both in `cpu.max`, where the first may be "max"; version 1 in two files, where
    the first may be -1. In a container the groups may lie at the root, whatever their path is.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [mounts / controllers, mounts / "cpu"] if controllers else [mounts]
        group = PurePosixPath(path)
        for top in tops:
            for folder in (group, *group.parents):
                place = top / str(folder).lstrip("/")
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                try:
                    words = " ".join((place / name).read_text() for name in names).split()
                    yield int(words[0]), int(words[1])
                except (OSError, ValueError, IndexError):  # "max", or not a group of its own
                    continue


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
