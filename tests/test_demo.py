"""What `timnet demo` leaves alone; the workspace that it makes is that of many other tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import small_pipeline
from archives import laid_out, tree
from conftest import run

from flows.process_group import ProcessGroup
from flows.repository import Repository
from timnet.cli.demo import demo
from timnet.errors import ParameterError, TimnetError
from timnet.project import demo as clone


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, with uncommitted work in it, beside one that is the current folder."""
    for name in ("here", "other"):
        files = {"dvc.yaml": b"stages:\n", f"timnet/{name}.py": b"not committed"}
        run(laid_out(files, tmp_path / name), "git", "init", "--quiet")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "other"


def test_what_it_did_not_make_is_left_alone(checkout: Path) -> None:
    before = tree(checkout)
    with pytest.raises(ParameterError, match="not a demo workspace"):
        demo(checkout)
    assert tree(checkout) == before


def test_without_code_to_take_nothing_is_deleted(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git/timnet-demo").touch()  # as if it had made it
    before = tree(checkout)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="no clone of the project"):
        demo(checkout)
    monkeypatch.chdir(checkout)
    with pytest.raises(ParameterError, match="the folder of the project itself"):
        demo(Path())
    assert tree(checkout) == before


def test_a_demo_uses_the_environment_that_made_it(reproduced: Path) -> None:
    told = run(reproduced, "make", "-n", "ui").stdout
    assert "flows.ui" in told and "venv" not in told and "pip" not in told
    first = run(reproduced, "make", "-pn", "ui").stdout
    assert f"BIN := {Path(sys.executable).parent}\n" in first


def test_a_demo_s_model_is_an_artifact(reproduced: Path) -> None:
    with ProcessGroup() as processes:
        models = Repository(reproduced, processes, "origin").models("HEAD")
    assert models.keys() == {"demo"}


def test_it_says_how_long_each_kind_of_stage_took(tmp_path: Path) -> None:
    small_pipeline.make(tmp_path)
    said: list[str] = []
    seconds = clone.reproduce(tmp_path, said.append)
    assert [name for name in seconds if name in ("copy", "score", "tables", "report")] == [
        "copy",
        "score",
        "tables",
        "report",
    ]
    assert "Running stage 'report':" in said
    (tmp_path / "data/one/take.txt").write_text("broken")
    with pytest.raises(TimnetError, match="dvc repro"):
        clone.reproduce(tmp_path, said.append)
