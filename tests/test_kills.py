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
