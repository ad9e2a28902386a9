"""Kill -9, as `benchmarks/reliability.py kills` does it fifty times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from reliability import COMMANDS, kill

TARGETS = {target.name: target for target in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features", "tables"])
def test_a_killed_command_ends_in_the_same_bytes(workspace: Path, name: str) -> None:
    assert kill(workspace, TARGETS[name], 2, random.Random(name)) == []
