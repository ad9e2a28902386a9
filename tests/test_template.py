"""`timnet init`: a project elsewhere, whose stages depend on the installed code."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from conftest import ROOT, commit, edit, run
from ruamel.yaml import YAML

from timnet.acquire.synthesis import generate
from timnet.corpora import demo
from timnet.errors import ArtifactError, ParameterError, TimnetError
from timnet.project import template

RUNS = """\
corpora:
  mine: custom
features:
  resampler: kaiser_best_0_2_2
  sets:
    mine-22050: {corpus: mine, signal_length: 22050}
"""
RUN = """\
runs:
  mine-speaker:
    trained_on: mine
    signal_length: 22050
    folds: {protocol: speaker}
    recipe: paper
    network: {tabs: 2, variant: tim-net}
    precision: fp32
    seeds: [0]
sources: {}
transfers: {}
models:
  mine: {run: mine-speaker, corpus: mine, networks: mine-speaker}
"""


def read(path: Path) -> dict:
    return YAML(typ="safe").load(path)


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_it_is_in_step_with_this_repository(name: str) -> None:
    assert (template.NEW / name).read_text() == template.derived(ROOT)[name], "run `make template`"


def test_its_stages_are_ours_with_code_as_parameters() -> None:
    ours, new = read(ROOT / "dvc.yaml")["stages"], read(template.NEW / "dvc.yaml")["stages"]
    assert list(new) == list(ours)
    for name, stage in new.items():
        work, own = (each.get("do", each) for each in (stage, ours[name]))
        assert not [path for path in work["deps"] if path.startswith("timnet")]
        code = [path for path in own["deps"] if path.startswith("timnet/")]
        (named,) = (entry["code.yaml"] for entry in work["params"] if isinstance(entry, dict))
        assert named == [template.key(path) for path in code]
        assert (work["cmd"], work["outs"]) == (own["cmd"], own["outs"])


def test_it_brings_no_results(tmp_path: Path) -> None:
    run(tmp_path, "timnet", "init", "project")
    tracked = run(tmp_path / "project", "git", "ls-files", "--cached", "--others").stdout.split()
    assert tracked == [
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "code.yaml",
        "data.dvc",
        "dvc.yaml",
        "params.yaml",
    ]
    named = read(tmp_path / "project/params.yaml")
    assert (named["corpora"], named["features"]["sets"], named["runs"]) == ({}, {}, {})
    assert named["features"]["resampler"] == read(ROOT / "params.yaml")["features"]["resampler"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ParameterError, match="not empty"):
        template.write(tmp_path)
    with pytest.raises(ParameterError, match="no code"):
        template.update(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_git_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TimnetError, match="git was not found"):
        template.write(tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_code_of_another_version_is_named_until_the_project_is_updated(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    template.write(folder)
    assert template.differing(folder) == []
    known = read(folder / "code.yaml")["timnet/dataset/folds"]
    edit(folder / "code.yaml", known, "0123456789abcdef")
    with pytest.raises(ArtifactError, match="timnet/dataset/folds differ"):
        template.refuse_other_code(folder)
    assert template.update(folder) == ["timnet/dataset/folds"]
    template.refuse_other_code(folder)
    assert read(folder / "code.yaml")["timnet/dataset/folds"] == known


def test_an_update_adds_sections_that_are_new(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    template.write(folder)
    path = folder / "params.yaml"
    before = read(path)
    kept = re.sub(r"^tuned_on:.*\n", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(f"# mine\n{kept}")
    template.update(folder)
    assert read(path) == before and path.read_text().startswith("# mine\n")
    path.write_text("a: [")
    with pytest.raises(ParameterError, match=r"params\.yaml"):
        template.update(folder)


def table_of_recordings(folder: Path) -> Path:
    """Twelve recordings of each of three synthetic speakers, and the table that lists them."""
    generate(folder / "all")
    rows = []
    for utterance in demo.CORPUS.read(folder / "all"):
        if utterance.speaker in list(demo.VOICES)[:3] and utterance.sentence in ("01", "02", "03"):
            rows.append((f"all/{utterance.path}", utterance.speaker, utterance.emotion))
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "speaker", "emotion"), *rows])
    return path


@pytest.mark.slow
def test_a_corpus_of_ones_own_comes_to_a_table(tmp_path: Path) -> None:
    table = table_of_recordings(tmp_path)
    run(tmp_path, "timnet", "init", "project")
    project = tmp_path / "project"
    run(project, "git", "config", "user.name", "test")
    run(project, "git", "config", "user.email", "test@localhost")
    assert "mine" not in run(project, "timnet", "status").stdout
    run(project, "timnet", "acquire", "mine", "--csv", table)
    run(project, "dvc", "add", "data")
    assert read(project / "data.dvc")["outs"][0]["remote"] == "private"
    text = (project / "params.yaml").read_text()
    tail = text[text.index("recipes:") :]
    settings = tail[: tail.index("\nruns:")]
    (project / "params.yaml").write_text(f"{RUNS}{settings}\n{RUN}")
    edit(project / "params.yaml", "epochs: 500", "epochs: 1")
    edit(project / "params.yaml", "compiled: true", "compiled: false")
    commit(project)
    run(project, "python", "-m", "flows.reproduce")
    (row,) = csv.DictReader((project / "results/tables/single-corpus.csv").open())
    assert (row["corpus"], row["run"]) == ("mine", "mine-speaker")
    assert (project / "results/report.html").is_file()
    # nothing is left to do, until code changes on which a stage depends
    assert run(project, "dvc", "status", "--quiet", check=False).returncode == 0
    known = read(project / "code.yaml")["timnet/reporting/report"]
    edit(project / "code.yaml", known, "0123456789abcdef")
    stale = run(project, "dvc", "status").stdout
    assert "report:" in stale and "tables:" not in stale and "train@" not in stale
