"""Groups of commands, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from flow import left_in
from small_pipeline import until

from flows.process_group import ProcessGroup, Stopped

HOLDER = """
import subprocess, sys, time
from flows.process_group import ProcessGroup
processes = ProcessGroup(grace=1.0)
processes.start(["sh", "-c", sys.argv[1]], cwd=sys.argv[2])
time.sleep(600)
"""


def start(processes: ProcessGroup, folder: Path, script: str) -> subprocess.Popen[str]:
    return processes.start(["sh", "-c", script], cwd=folder, stdout=subprocess.PIPE)


def test_output_and_status_are_the_command_s(tmp_path):
    with ProcessGroup() as processes:
        process = start(processes, tmp_path, "echo one; cat; exit 3")  # its input is empty
        assert process.communicate()[0] == "one\n"
        assert process.returncode == 3
        killed = start(processes, tmp_path, "kill -KILL $$")
        assert killed.wait() == 128 + signal.SIGKILL


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    with ProcessGroup() as processes:
        assert start(processes, tmp_path, "sleep 600 & exit 0").wait() == 0
        assert left_in(tmp_path) == []


@pytest.mark.parametrize("script", ["sleep 600", "trap '' TERM; while :; do sleep 1; done"])
def test_stopping_ends_all(tmp_path, script):
    with ProcessGroup(grace=0.5) as processes:
        started = [start(processes, tmp_path, f"touch {i}; {script}") for i in range(3)]
        until(lambda: len(list(tmp_path.iterdir())) == 3)
        processes.stop("enough")
        processes.stop("later")
        assert all(process.wait() for process in started)
        assert left_in(tmp_path) == []
        assert processes.reason == "enough"
        with pytest.raises(Stopped, match="enough"):
            start(processes, tmp_path, "touch never")


def test_commands_end_with_a_killed_process(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = "touch running; sleep 600 & sleep 600"
    command = [sys.executable, "-c", HOLDER, script, str(tmp_path)]
    with subprocess.Popen(command, env=environment) as holder:
        until((tmp_path / "running").exists)
        holder.kill()
    until(lambda: left_in(tmp_path) == [])


def test_a_lock_lasts_as_long_as_the_commands(tmp_path):
    read, write = os.pipe()
    with ProcessGroup(write) as processes:
        process = start(processes, tmp_path, "sleep 1; touch done")
        os.close(write)
        os.read(read, 1)  # returns when nobody can write any more
        assert (tmp_path / "done").exists()
        assert process.wait() == 0
    os.close(read)
