"""What DVC, Prefect and torch take for granted of a machine, and not every one has."""

from __future__ import annotations

import ctypes
import errno
import getpass
import os
from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux calls them on x86, and on ARM
SLOW_BF16 = (
    "this CPU has no bf16 instructions, so `precision: bf16` is slower than fp32 here, about seven "
    "times where measured. `precision: fp32` gives scores that differ no more than between seeds"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# the machine's trouble, not a fault of the program
MACHINE_TROUBLE = {
    errno.ENOSPC: "Free disk space and run it again.",
    errno.EDQUOT: "Free disk space and run it again.",
    errno.EFBIG: "The file size is limited here: see `ulimit -f`.",
    errno.EACCES: "Change its permissions, or use another folder.",
    errno.EPERM: "Change its permissions, or use another folder.",
    errno.EROFS: "Use a folder on a file system that is not read-only.",
    errno.EMFILE: "Raise the limit of open files, for example `ulimit -n 1024`.",
    errno.ENFILE: "Raise the limit of open files, or end other programs.",
    errno.ENOMEM: "Free memory, or use fewer processes: TIMNET_WORKERS=1.",
    errno.EAGAIN: "Too many processes: end some, or use fewer: TIMNET_WORKERS=1.",
    errno.EIO: "The disk may be failing: check it, then run again.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOTDIR: "A file is where a folder is expected: move it away.",
    errno.EEXIST: "A file is where a folder is expected: move it away.",
    errno.EISDIR: "A folder is where a file is expected: move it away.",
    errno.ELOOP: "A link leads to itself: remove it.",
}


def trouble(error: Exception) -> str:
    """What the machine lacks, in a sentence with what to do; empty if that is not the cause."""
    if isinstance(error, OSError) and error.errno in MACHINE_TROUBLE:
        where = f"{error.filename}: " if error.filename else ""
        advice = MACHINE_TROUBLE[error.errno]
        return f"{where}{error.strerror}; no incomplete file is left. {advice}"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # the latter torch's
        return f"out of memory; no incomplete file is left. {MACHINE_TROUBLE[errno.ENOMEM]}"
    return ""


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
