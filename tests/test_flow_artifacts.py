"""What a run shows in Prefect, from files as the stages leave them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, commit, run
from prefect import flow
from prefect.client.orchestration import get_client

from flows import artifacts
from flows.artifacts import Progress, key
from timnet.paths import Workspace, write_text

show = flow(artifacts.show, name="show", validate_parameters=False)
DONE = ["validate@demo", "score@demo-random", "tables"]
FIGURES = {"uar": 61.5, "uar_fold_mean": 61.0, "uar_fold_sd": 2.0, "war": 62.0}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Results of one run, without a repository."""
    workspace = Workspace(tmp_path)
    shutil.copy(ROOT / "timnet" / "demo.yaml", workspace.params)
    results = workspace.run_results("demo-random")
    write_text(results / "metrics.json", json.dumps({"last-epoch": FIGURES}))
    checks = [
        {"check": "utterances", "passed": True},
        {"check": "copies", "passed": False, "message": "two recordings are one"},
    ]
    write_text(workspace.validation("demo"), json.dumps({"checks": checks}))
    write_text(workspace.tables / "single-corpus.md", "# Single corpus\n")
    return workspace


def shown(name: str):
    """The newest artifact of a key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=200)
    return max((each for each in found if each.key == name), key=lambda each: each.created)


def test_tables_and_what_was_checked(prefect_api, workspace):
    show(workspace.root, DONE)
    (row,) = json.loads(shown("metrics").data)
    assert row == {"run": "demo-random", "protocol": "last-epoch", **FIGURES}
    assert "| demo | 2 | two recordings are one |" in shown("validation").data
    assert shown("single-corpus").data == "# Single corpus\n"
    assert shown("single-corpus").description == "commit no commit"


def test_figures_and_the_report(prefect_api, workspace):
    image = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    figures = workspace.root / "results" / "figures" / "demo-random"
    figures.mkdir(parents=True)
    (figures / "confusion-last-epoch.svg").write_bytes(image)
    report = workspace.root / "results" / "report.html"
    report.write_text("<h1>The report</h1>")
    show(workspace.root, [*DONE, "figures@demo-random", "report"])
    artifact = shown("demo-random-confusion-last-epoch")
    assert artifact.type == "image"
    assert artifact.data == f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"
    assert shown("report").data == f"[report.html]({report.as_uri()})"


def test_against_main(prefect_api, workspace):
    root = workspace.root
    run(root, "git", "init", "--quiet", "--initial-branch", "main")
    run(root, "dvc", "init", "--quiet")
    path = "results/runs/demo-random/metrics.json"
    (root / "dvc.yaml").write_text(f"metrics: [{path}]\n")
    commit(root)
    show(root, DONE)
    assert shown("against-main").data == "# Against main\n\nThe metrics are those of `main`.\n"
    write_text(root / path, json.dumps({"last-epoch": {**FIGURES, "uar": 71.5}}))
    show(root, DONE)
    (line,) = [row for row in shown("against-main").data.splitlines() if "uar " in row]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells == [
        "last-epoch.uar",
        "61.5",
        "71.5",
        "10.0",
    ]


def test_nothing_is_shown_that_was_not_made(prefect_api, workspace):
    with get_client(sync_client=True) as client:
        before = len(client.read_artifacts(limit=200))
        show(workspace.root, ["manifest@demo", "features@demo-44100"])
        assert len(client.read_artifacts(limit=200)) == before


def test_progress(prefect_api, workspace, monkeypatch):
    monkeypatch.setattr("flows.artifacts.EVERY", 0.0)

    @flow
    def train():
        stage = "train@demo-random"
        progress = Progress(workspace.root, stage)
        progress.look()  # it tells nothing yet
        for done in (50, 100):
            told = {"done": done, "total": 200, "unit": "fold-epochs", "figures": "loss 0.5"}
            write_text(workspace.progress(stage), json.dumps(told))
            progress.look()
            artifact = shown("train-demo-random")
            assert (artifact.type, artifact.data) == ("progress", done / 2)
            assert artifact.description == f"{done} of 200 fold-epochs, loss 0.5; commit no commit"
        progress.end()

    train()
    assert shown("train-demo-random").data == 100.0


def test_keys():
    assert key("train@Emovo_random.2") == "train-emovo-random-2"
