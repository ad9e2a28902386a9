"""Commands on a leash, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from flow import left_in
from mini import until

from flows.leash import Cut, Leash

HOLDER = """
import subprocess, sys, time
from flows.leash import Leash
leash = Leash(grace=1.0)
leash.start(["sh", "-c", sys.argv[1]], cwd=sys.argv[2])
time.sleep(600)
"""


def start(leash: Leash, folder: Path, script: str) -> subprocess.Popen[str]:
    return leash.start(["sh", "-c", script], cwd=folder, stdout=subprocess.PIPE)


def test_output_and_status_are_the_command_s(tmp_path):
    with Leash() as leash:
        process = start(leash, tmp_path, "echo one; cat; exit 3")  # its input is empty
        assert process.communicate()[0] == "one\n"
        assert process.returncode == 3
        killed = start(leash, tmp_path, "kill -KILL $$")
        assert killed.wait() == 128 + signal.SIGKILL


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    with Leash() as leash:
        assert start(leash, tmp_path, "sleep 600 & exit 0").wait() == 0
        assert left_in(tmp_path) == []


@pytest.mark.parametrize("script", ["sleep 600", "trap '' TERM; while :; do sleep 1; done"])
def test_a_cut_ends_all(tmp_path, script):
    with Leash(grace=0.5) as leash:
        processes = [start(leash, tmp_path, f"touch {i}; {script}") for i in range(3)]
        until(lambda: len(list(tmp_path.iterdir())) == 3)
        leash.cut("enough")
        leash.cut("later")
        assert all(process.wait() for process in processes)
        assert left_in(tmp_path) == []
        assert leash.reason == "enough"
        with pytest.raises(Cut, match="enough"):
            start(leash, tmp_path, "touch never")


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
    with Leash(write) as leash:
        process = start(leash, tmp_path, "sleep 1; touch done")
        os.close(write)
        os.read(read, 1)  # returns when nobody can write any more
        assert (tmp_path / "done").exists()
        assert process.wait() == 0
    os.close(read)
