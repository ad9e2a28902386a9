"""What a merge leaves in dvc.lock and its like: the message names commands that resolve it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import commit, run

from timnet.errors import ArtifactError
from timnet.project.git import refuse_conflicts

STAGES = """\
stages:
  copy:
    cmd: cp params.yaml out.txt
    deps: [params.yaml]
    outs: [out.txt]
"""


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A repository in the middle of a merge of two branches that both ran the stage."""
    for command in ("git init --quiet --initial-branch main", "dvc init --quiet"):
        run(tmp_path, *command.split())
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "data").mkdir()

    def change(text: str) -> None:
        (tmp_path / "params.yaml").write_text(f"corpora: [{text}]\n")
        (tmp_path / "data" / "x.txt").write_text(text)
        run(tmp_path, "dvc", "add", "--quiet", "data")
        run(tmp_path, "dvc", "repro", "--quiet")
        commit(tmp_path, text)

    change("one")
    run(tmp_path, "git", "checkout", "--quiet", "-b", "other")
    change("two")
    run(tmp_path, "git", "checkout", "--quiet", "main")
    change("three")
    assert run(tmp_path, "git", "merge", "other", check=False).returncode
    return tmp_path


def advised(folder: Path) -> list[str]:
    """The commands of git that the message names, and whose file it is."""
    with pytest.raises(ArtifactError, match="conflicts of a merge") as caught:
        refuse_conflicts(folder)
    return re.findall(r"`((?:git|dvc) [^`]+)`", str(caught.value))


def test_the_advice_mends_each_file(merged: Path) -> None:
    assert advised(merged) == ["git add params.yaml"]
    (merged / "params.yaml").write_text("corpora: [three]\n")
    run(merged, "git", "add", "params.yaml")
    for name in ("data.dvc", "dvc.lock"):
        commands = advised(merged)
        assert commands[-1] == f"git add {name}"
        for command in commands:
            run(merged, *command.split())
    refuse_conflicts(merged)
    commit(merged, "merge")
    assert "up to date" in run(merged, "dvc", "status").stdout


def test_marks_that_somebody_committed(merged: Path) -> None:
    (merged / "params.yaml").write_text("corpora: [three]\n")
    commit(merged, "merge, without a look")
    run(merged, "git", "commit", "--quiet", "--allow-empty", "--message", "more")
    for _ in ("data.dvc", "dvc.lock"):
        for command in advised(merged):
            run(merged, *command.split())
    refuse_conflicts(merged)


def test_nothing_to_mend(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: <<<<<<< b\n")
    refuse_conflicts(tmp_path)
