"""What DVC, Prefect and torch take for granted of a machine, and not every one has."""

from __future__ import annotations

import ctypes
import getpass
import os
from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux calls them on x86, and on ARM
SLOW_BF16 = (
    "this CPU has no bf16 instructions, so `precision: bf16` is slower than fp32 here, about seven "
    "times where measured. `precision: fp32` gives scores that differ no more than between seeds"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def name_the_user() -> None:
    """Give a user id without a name one, as containers have them.

    DVC and torch ask for it when they name their temporary folders.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def avoid_proxies_on_loopback() -> None:
    """Let no proxy of the environment stand between processes of this machine."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    hosts = [host for host in known.split(",") if host.strip()]
    hosts += [host for host in LOOPBACK if host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)


def may_run_programs(folder: Path) -> bool:
    """Whether files in a folder may be executed or loaded as libraries: not so if mounted noexec.

    Args:
        folder: which need not be there yet.
    """
    while not folder.exists():
        folder = folder.parent
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for bf16; taken for granted where nothing tells."""
    try:
        with cpuinfo.open(encoding="utf-8") as lines:  # as long as there are cores: read one's
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), None)
    except (OSError, ValueError):
        return True
    return flags is None or bool(BF16_FLAGS & set(flags.split()))


def has_gpu() -> bool:
    """Whether there is a driver of NVIDIA's with a GPU: what torch asks, without importing it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    number = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(number)):
        return False
    return number.value > 0
