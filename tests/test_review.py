from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import commit, edit, run

from timnet.project import revisions


def test_without_a_change_nothing_is_said_to_have_changed(workspace: Path) -> None:
    said = run(workspace, "timnet", "compare", "HEAD").stdout
    lines = [line.split("|")[1:-1] for line in said.splitlines() if line.startswith("| demo")]
    assert len(lines) == 6
    for cells in lines:
        assert [cell.strip() for cell in cells[5:]] == ["+0.00", "+0.00 to +0.00"]
    assert "tables that changed: none." in said


def test_a_change_comes_with_its_interval(workspace: Path) -> None:
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 2")
    run(workspace, "dvc", "repro", "tables")
    said = run(workspace, "timnet", "compare", "HEAD").stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()]
    (row,) = (row for row in rows if row[1:3] == ["last-epoch", "UAR"])
    before, after, change, bounds = row[3:]
    assert float(after) - float(before) == pytest.approx(float(change), abs=0.011)
    low, high = (float(bound) for bound in bounds.split(" to "))
    assert low <= float(change) <= high
    (changed,) = (line for line in said.splitlines() if line.startswith("- tables that changed"))
    assert all(name in changed for name in ("calibration", "single-corpus", "strictness"))
    assert "- `demo-random` was made with other settings: epochs 2 here, 1 there." in said


def test_runs_of_one_revision_alone_are_named(workspace: Path) -> None:
    (workspace / "results/runs/demo-speaker").rename(workspace / "results/runs/demo-new")
    edit(workspace / "params.yaml", "  demo-speaker:", "  demo-new:")
    edit(workspace / "params.yaml", "run: demo-speaker", "run: demo-new")
    edit(workspace / "params.yaml", "networks: demo-speaker", "networks: demo-new")
    lines = run(workspace, "timnet", "compare", "HEAD").stdout.splitlines()
    assert any("demo-new" in line and "new here" in line for line in lines)
    assert any("demo-speaker" in line and "not here, but in" in line for line in lines)


def test_compare_refuses_what_is_no_revision(workspace: Path) -> None:
    result = run(workspace, "timnet", "compare", "nowhere", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "timnet: 'nowhere' is not a revision of this repository.\n"


def test_damaged_predictions_of_a_revision_are_named(workspace: Path) -> None:
    path = workspace / "results/runs/demo-speaker/predictions.parquet"
    whole = path.read_bytes()
    other = workspace / "results/runs/demo-speaker/history.parquet"
    for content, why in (
        (whole[:-9], "not a readable Parquet file ("),
        (other.read_bytes(), "columns differ from the declared schema: utterance: missing"),
    ):
        path.write_bytes(content)
        commit(workspace)
        path.write_bytes(whole)
        for command in (("gate", "HEAD"), ("compare", "HEAD")):
            result = run(workspace, "timnet", *command, check=False)
            assert result.returncode == 1
            (said,) = result.stderr.splitlines()
            assert said.startswith("timnet: results/runs/demo-speaker/predictions.parquet at ")
            assert why in said and said.endswith(". Name another revision.")


def test_a_fold_is_verified_whatever_the_parameters_say_by_now(workspace: Path) -> None:
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 2")
    edit(workspace / "params.yaml", "seeds: [0]", "seeds: [3, 4]")
    before = {path: path.read_bytes() for path in (workspace / "results").rglob("*.*")}
    said = run(workspace, "timnet", "verify", "demo-random", "--fold", "3").stdout
    assert "demo-random, fold 3: the same bits, 96 predictions and 1 epochs" in said
    assert {path: path.read_bytes() for path in (workspace / "results").rglob("*.*")} == before
    assert not (workspace / "build/checkpoints/demo-random-verify").exists()


def test_a_fold_that_comes_out_otherwise_is_told_how_far_and_why(workspace: Path) -> None:
    record = workspace / "results/runs/demo-random/run.json"
    edit(record, '"learning_rate": 0.0005', '"learning_rate": 0.0006')
    edit(record, '"torch": "', '"torch": "1.')
    said = run(workspace, "timnet", "verify", "demo-random", "--fold", "0").stdout
    assert "NOT the same bits: training losses differ from epoch 1 on; logits of the last" in said
    assert "  trained with torch 1.2." in said
    edit(record, '"learning_rate"', '"rate"')
    result = run(workspace, "timnet", "verify", "demo-random", check=False)
    assert "(rate)" in result.stderr
    result = run(workspace, "timnet", "verify", "demo-random", "--fold", "5", check=False)
    assert "timnet: demo-random has no fold 5; it has 0 to 4." in result.stderr


def drop_a_run(workspace: Path) -> None:
    """What leaves params.yaml leaves its results behind."""
    path = workspace / "params.yaml"
    text = path.read_text()
    runs, models = text.index("  demo-random:"), text.index("  demo-speaker:")
    path.write_text(text[:runs] + text[models:])


def test_a_run_that_left_is_judged_no_more(workspace: Path) -> None:
    drop_a_run(workspace)
    compared = run(workspace, "timnet", "compare", "HEAD").stdout
    assert any("demo-random" in row and "not here" in row for row in compared.splitlines())
    commit(workspace)
    compared = run(workspace, "timnet", "compare", "HEAD").stdout
    assert "demo-random" not in compared and "demo-speaker" in compared
    judged = run(workspace, "timnet", "gate", "HEAD").stdout
    assert "demo-random" not in judged and "demo-speaker" in judged
    judged = run(workspace, "timnet", "gate", "HEAD~1").stdout
    assert any("demo-random" in row and "Removed run" in row for row in judged.splitlines())


def test_predictions_that_are_cut_are_not_judged(workspace: Path) -> None:
    path = workspace / "results/runs/demo-speaker/predictions.parquet"
    pq.write_table(pq.read_table(path).slice(0, 150), path)
    refused = run(workspace, "timnet", "compare", "HEAD", check=False)
    assert refused.returncode == 1 and "expected one of each of 240" in refused.stderr
    commit(workspace)
    refused = run(workspace, "timnet", "gate", "HEAD~1", check=False)
    assert refused.returncode == 1 and "demo-speaker/predictions.parquet" in refused.stderr


def test_transfers_of_a_revision_are_compared_as_runs_are(workspace: Path) -> None:
    folder = workspace / "results/runs"
    shutil.copytree(folder / "demo-speaker", folder / "demo-to-other")
    commit(workspace)
    assert revisions.runs_of(workspace, "HEAD") == ["demo-random", "demo-speaker"]
    edit(workspace / "params.yaml", "transfers: {}", "transfers: {demo-to-other: {}}")
    commit(workspace)
    assert "demo-to-other" in revisions.runs_of(workspace, "HEAD")


def test_results_of_a_run_that_left_are_named_and_removed(workspace: Path) -> None:
    drop_a_run(workspace)
    left = ["results/runs/demo-random", "results/figures/demo-random"]
    said = run(workspace, "timnet", "tables").stdout
    assert all(path in said for path in left) and "timnet runs --prune" in said
    kept = workspace / "results/runs/demo-random/metrics.json"
    before = kept.read_bytes()
    kept.write_bytes(before + b"\n")  # git could not bring this back
    refused = run(workspace, "timnet", "runs", "--prune", check=False)
    assert refused.returncode == 1 and "demo-random" in refused.stderr and kept.exists()
    kept.write_bytes(before)
    elsewhere = Path(shutil.copytree(kept.parent, workspace / "elsewhere"))
    (workspace / "results/runs/linked").symlink_to(elsewhere)
    commit(workspace)
    said = run(workspace, "timnet", "runs", "--prune").stdout
    assert (elsewhere / "metrics.json").exists()
    assert all(f"{path}: not in params.yaml" in said for path in left)
    assert not any((workspace / path).exists() for path in left)
    assert (workspace / "results/runs/demo-speaker").exists()
    assert "demo-random" not in run(workspace, "timnet", "runs", "--prune").stdout
