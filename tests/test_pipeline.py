"""The chain as DVC runs it, on the synthetic corpus."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import edit, run
from ruamel.yaml import YAML

STAGES = {
    "manifest",
    "validate",
    "features",
    "folds",
    "train",
    "score",
    "model",
    "figures",
    "tables",
    "report",
}


def ran(output: str) -> set[str]:
    """Stages that `dvc repro` ran, by its own words."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_the_graph_holds_every_stage(reproduced: Path) -> None:
    dag = run(reproduced, "dvc", "dag", "--dot").stdout
    for run_name in ("demo-random", "demo-speaker"):
        for edge in (("features@demo-44100", "train"), ("train", "score"), ("folds", "train")):
            first, second = (n if "@" in n else f"{n}@{run_name}" for n in edge)
            assert f'"{first}" -> "{second}"' in dag
        assert f'"score@{run_name}" -> "tables"' in dag
        assert f'"figures@{run_name}" -> "report"' in dag
    assert '"validate@demo" -> "features@demo-44100"' in dag
    assert '"data.dvc" -> "manifest@demo"' in dag
    assert {
        name.split("@")[0] for name in YAML(typ="safe").load(reproduced / "dvc.lock")["stages"]
    } == STAGES


def test_a_second_run_does_nothing(workspace: Path) -> None:
    assert ran(run(workspace, "dvc", "repro").stdout) == set()
    assert "up to date" in run(workspace, "dvc", "status").stdout
    assert run(workspace, "git", "status", "--porcelain").stdout == ""


def test_recordings_are_dvc_s(reproduced: Path) -> None:
    (out,) = YAML(typ="safe").load(reproduced / "data.dvc")["outs"]
    assert (out["path"], out["nfiles"]) == ("data", 240)


def test_a_new_fold_seed_runs_folds_and_what_follows(workspace: Path) -> None:
    edit(workspace / "params.yaml", "number: 5, seeds: [1]", "number: 5, seeds: [2]")
    again = ran(run(workspace, "dvc", "repro").stdout)
    own = {f"{stage}@demo-random" for stage in ("folds", "train", "score", "figures")}
    assert again == {*own, "tables", "report"}


def test_a_docstring_of_the_tables_remakes_what_they_stand_in_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(workspace / "timnet/reporting/tables.py", '"""The tables', '"""All tables')
    result = run(workspace, "timnet", "tables", check=False)
    assert "tables.py differ from the installed timnet" in result.stderr
    monkeypatch.setenv("PYTHONPATH", str(workspace))
    assert ran(run(workspace, "dvc", "repro").stdout) == {"tables", "report"}


def test_the_table_carries_protocol_and_commit(reproduced: Path) -> None:
    text = (reproduced / "results/tables/single-corpus.md").read_text()
    assert "`best-epoch`: " in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1  # aligned as plain text
    with (reproduced / "results/tables/single-corpus.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["protocol"] for row in rows] == ["best-epoch", "last-epoch", "speaker-independent"]
    for row in rows:
        metrics = json.loads((reproduced / f"results/runs/{row['run']}/metrics.json").read_text())
        assert float(row["UAR"]) == round(metrics[row["protocol"]]["uar"] + 1e-9, 2)
        record = json.loads((reproduced / f"results/runs/{row['run']}/run.json").read_text())
        assert row["commit"] == record["commit"] != ""


def test_a_clone_without_data_rebuilds_the_tables(reproduced: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", reproduced, clone)
    results = [
        clone / "results/tables/single-corpus.md",
        clone / "results/runs/demo-random/metrics.json",
        clone / "results/runs/demo-random/confusion.csv",
        clone / "results/figures/demo-random/fused.svg",
    ]
    report = clone / "results/report.html"
    assert not report.exists()  # DVC's cache has it, not git
    before = [path.read_text() for path in results]
    for path in results:
        path.unlink()
    for command in (("score", "demo-random"), ("figures", "demo-random"), ("tables",), ("report",)):
        run(clone, "timnet", *command)
    assert [path.read_text() for path in results] == before
    assert report.read_text() == (reproduced / "results/report.html").read_text()


def test_metrics_diff_across_branches(workspace: Path) -> None:
    run(workspace, "git", "branch", "--force", "before")
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 3")
    run(workspace, "dvc", "repro")
    run(workspace, "git", "commit", "--quiet", "--all", "--message", "Train longer")
    said = run(workspace, "dvc", "metrics", "diff", "before", "--md").stdout
    rows = [line.split("|")[1:-1] for line in said.splitlines()[2:] if line.startswith("|")]
    assert 0 < len(rows) <= 6  # two scores per protocol, those that changed
    assert {cells[0].strip() for cells in rows} <= {
        f"results/runs/{name}/metrics.json" for name in ("demo-random", "demo-speaker")
    }
    names = {cells[1].strip() for cells in rows}
    assert {"speaker-independent.uar", "last-epoch.war"} <= names
    for cells in rows:
        old, new, change = (float(cell) for cell in cells[2:5])
        assert abs(new - old - change) < 1e-6
    params = run(workspace, "dvc", "params", "diff", "before", "--md").stdout
    assert [cell.strip() for cell in params.splitlines()[2].split("|")[1:-1]] == [
        "params.yaml",
        "recipes.paper.epochs",
        "1",
        "3",
    ]
