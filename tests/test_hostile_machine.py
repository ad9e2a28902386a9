"""A machine without space, files, memory, a clock or a network: one sentence, or the same bytes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, run
from reliability import contents
from small_pipeline import make
from test_errors import snapshot

pytestmark = pytest.mark.slow

# A system clock that is ten months late, then ten months early, at every other look.
CLOCK = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) { static long calls; return (calls++ % 2 ? 1 : -1) * 300L * 86400; }
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += jump();
  return result;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec; now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
"""


def limited(folder: Path, command: str, limit: Callable[[], None]) -> subprocess.CompletedProcess:
    """A command of `timnet` under a limit of the system."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["timnet", *command.split()],
        cwd=folder,
        env={**os.environ, "PATH": programs, "TIMNET_WORKERS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )


def refused(result: subprocess.CompletedProcess, words: str) -> None:
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert words in result.stderr.splitlines()[-1], result.stderr


def isolated(folder: Path, script: str, network: bool = False) -> subprocess.CompletedProcess[str]:
    """A script of the shell where there is no network, and where it may mount things."""
    space = ("unshare", "--mount", *(() if network else ("--net",)), "sh", "-ec")
    tried = "mount -t tmpfs tmpfs /mnt"
    if subprocess.run([*space, tried], capture_output=True).returncode:
        pytest.skip("mounts need root")
    return run(folder, *space, script, check=False)


@pytest.mark.parametrize("command", ["features demo-44100", "score demo-random", "report"])
def test_files_that_may_not_grow(workspace: Path, command: str) -> None:
    """As on a full disk: every write beyond 500 bytes fails."""
    before = snapshot(workspace)
    limit = (500, 500)
    result = limited(workspace, command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    refused(result, "File too large")
    assert snapshot(workspace) == before


@pytest.mark.parametrize("command", ["tables", "figures demo-random"])
def test_figures_that_may_not_grow(workspace: Path, command: str) -> None:
    """What fits is written, as it was; what does not leaves the whole old file."""
    before = contents(workspace, ("results",))
    limit = (9000, 9000)
    result = limited(workspace, command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    refused(result, "File too large")
    assert contents(workspace, ("results",)) == before


@pytest.mark.parametrize("folder", ["features", "shards"])
def test_a_full_disk(workspace: Path, folder: str) -> None:
    script = f"""
    rm -rf build/shards build/features/*; mkdir build/shards
    mount -t tmpfs -o size=200k tmpfs build/{folder}
    status=0; timnet features demo-44100 || status=$?
    ls -A build/features; exit $status
    """
    result = isolated(workspace, script)
    refused(result, "No space left on device")
    assert result.stdout == ""


def test_a_folder_that_may_only_be_read(workspace: Path) -> None:
    script = "mount --bind results results; mount -o remount,ro,bind results; timnet tables"
    result = isolated(workspace, script)
    refused(result, "Read-only file system")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small one, in which flows start a server of their own."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return make(tmp_path / "project")


@pytest.mark.parametrize("option", ["", "--dry-run"])
def test_a_flow_where_all_may_only_be_read(project: Path, option: str) -> None:
    script = f"""
    mount --bind . .; mount -o remount,ro,bind .; cd "$PWD"
    python -m flows.reproduce {option}
    """
    result = isolated(project, script, network=True)
    refused(result, "Read-only file system")


def test_a_flow_on_a_full_disk(project: Path) -> None:
    script = """
    mkdir .prefect; mount -t tmpfs -o size=200k tmpfs .prefect
    python -m flows.reproduce
    """
    refused(isolated(project, script, network=True), "Free disk space")


def test_no_temporary_folder_and_no_network(workspace: Path) -> None:
    """Stages need neither; what they leave is what they left with both."""
    made = [workspace / name for name in ("results/validation/demo.json", "results/report.html")]
    before = [path.read_bytes() for path in made]
    script = """
    for folder in /tmp /var/tmp; do mount -o ro -t tmpfs tmpfs $folder; done
    unset TMPDIR
    timnet validate demo; timnet report
    """
    if workspace.is_relative_to("/tmp") or workspace.is_relative_to("/var/tmp"):
        script = script.replace("/tmp /var/tmp", "/dev/shm")
        script = script.replace("unset TMPDIR", "export TMPDIR=/nowhere")
    result = isolated(workspace, script)
    assert result.returncode == 0, result.stderr
    assert [path.read_bytes() for path in made] == before


def test_64_open_files(workspace: Path) -> None:
    result = limited(
        workspace, "train demo-random", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    )
    assert result.returncode == 0, result.stderr


def test_2_gb_of_memory(workspace: Path) -> None:
    """Of addresses, of which torch alone takes more than it uses."""
    result = limited(
        workspace,
        "train demo-random",
        lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    )
    refused(result, "out of memory")


def test_another_place_language_time_and_clock_give_the_same_bytes(
    reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the clock")
    folder = tmp_path / "zwei W\u00f6rter, \u00fc"
    shutil.copytree(reproduced, folder, symlinks=True)
    (tmp_path / "clock.c").write_text(CLOCK)
    run(tmp_path, "cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl")
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "clock.so"))
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)  # a world of ASCII
    monkeypatch.setenv("TIMNET_WORKERS", "1")
    for command in ("features demo-44100", "train demo-random", "score demo-random", "tables",
                    "report"):  # fmt: skip
        done = run(folder, "taskset", "--cpu-list", "0", "timnet", *command.split(), check=False)
        assert done.returncode == 0, done.stderr
    monkeypatch.undo()
    names = (
        "build/features/demo-44100.parquet",
        *(f"build/train/demo-random/{name}.parquet" for name in ("history", "predictions")),
        "build/train/demo-random/weights.npz",
        "results/runs/demo-random/scores.json",
        "results/tables/strictness.md",
    )
    for name in names:
        assert (folder / name).read_bytes() == (reproduced / name).read_bytes(), name
