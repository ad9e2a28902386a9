"""Kill -9, as `benchmarks/reliability.py kills` does it fifty times."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run
from reliability import COMMANDS, kill

from timnet.paths import replacing, replacing_folder

TARGETS = {target.name: target for target in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features", "tables"])
def test_a_killed_command_ends_in_the_same_bytes(workspace: Path, name: str) -> None:
    assert kill(workspace, TARGETS[name], 2, random.Random(name)) == []


def test_what_a_killed_stage_leaves_behind_is_nobody_s(tmp_path: Path) -> None:
    """Else it would enter the hash of a folder, and the next commit."""
    partial = []
    for writing in (replacing, replacing_folder):
        with pytest.raises(KeyboardInterrupt), writing(tmp_path / "figures" / "a.svg") as path:
            partial.append(f"results/{path.relative_to(tmp_path)}")
            raise KeyboardInterrupt
    assert run(ROOT, "git", "check-ignore", *partial).stdout.split() == partial
    assert (
        run(ROOT, sys.executable, "-m", "dvc", "check-ignore", *partial).stdout.split() == partial
    )


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from timnet.__main__ import main
main()
"""


def test_an_interrupt_while_the_program_loads_is_told_in_a_line() -> None:
    done = run(ROOT, sys.executable, "-c", INTERRUPTED, "status", check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1
    assert "interrupted" in done.stderr
