"""Versions that results were made with are compared with those installed."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run

from timnet.project import provenance


def made_with(workspace: Path, **versions: str) -> dict:
    """Change what a run of the demo says of the versions that made it."""
    path = workspace / "results/runs/demo-random/run.json"
    record = json.loads(path.read_text())
    record["versions"] |= versions
    path.write_text(json.dumps(record))
    return record


def test_what_is_installed_here_is_no_change(workspace: Path) -> None:
    assert provenance.runs_by_change(workspace, ["demo-random", "demo-speaker", "no-run"]) == {}


def test_a_build_is_no_other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's wheels are named without their build, which torch itself tells."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.14.1")
    record: Any = {"versions": {"torch": torch.__version__}, "features": {}}
    assert provenance.changed_versions(record) == []


def test_other_versions_are_named_with_both(workspace: Path) -> None:
    made_with(workspace, torch="1.0.0", timnet="0.0.1", gone="3")
    here = torch.__version__
    assert provenance.runs_by_change(workspace, ["demo-random", "demo-speaker"]) == {
        f"trained with torch 1.0.0, here {here}": ["demo-random"],
        "trained with gone 3, here none": ["demo-random"],
    }


def test_so_are_those_of_features(workspace: Path) -> None:
    record = made_with(workspace)
    record["features"]["libraries"]["librosa"] = "0.9.0"
    here = version("librosa")
    said = [f"features made with librosa 0.9.0, here {here}"]
    assert provenance.changed_versions(record) == said


def test_status_names_the_runs(workspace: Path) -> None:
    made_with(workspace, torch="1.0.0")
    said = run(workspace, "timnet", "status").stdout
    assert f"trained with torch 1.0.0, here {torch.__version__}: demo-random." in said
