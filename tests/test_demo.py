"""What `timnet demo` leaves alone; the workspace that it makes is that of many other tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_pipeline
from archives import laid_out, tree
from conftest import run

from timnet.cli.demo import demo
from timnet.errors import ParameterError, TimnetError
from timnet.project import demo as clone


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, with uncommitted work in it, beside one that is the current folder."""
    for name in ("here", "other"):
        files = {"dvc.yaml": b"stages:\n", f"timnet/{name}.py": b"not committed"}
        files["timnet/__init__.py"] = b""
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


def test_a_project_that_uses_the_package_is_no_clone_of_it(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    Path("timnet/__init__.py").unlink()
    before = tree(checkout)
    with pytest.raises(ParameterError, match="no clone of the project"):
        demo(tmp_path / "demo")
    assert tree(checkout) == before


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
