"""What a run shows in Prefect, from files as the stages leave them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from conftest import ROOT, edit, run
from markdown_it import MarkdownIt
from prefect import flow
from prefect.client.orchestration import get_client

from flows import artifacts
from flows.artifacts import Progress, key
from timnet.paths import Workspace, write_text
from timnet.reporting import render

show = flow(artifacts.show, name="show", validate_parameters=False)
DONE = ["validate@demo", "score@demo-random", "tables"]
SCORES = {"uar": 61.5, "uar_fold_mean": 61.0, "uar_fold_sd": 2.0, "war": 62.0}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Results of one run, without a repository."""
    workspace = Workspace(tmp_path)
    shutil.copy(ROOT / "timnet" / "demo.yaml", workspace.params)
    results = workspace.run_results("demo-random")
    write_text(results / "metrics.json", json.dumps({"last-epoch": SCORES}))
    checks = [
        {"check": "utterances", "passed": True},
        {"check": "copies", "passed": False, "message": "a|b.wav and _c_.wav are one"},
    ]
    write_text(workspace.validation("demo"), json.dumps({"checks": checks}))
    write_text(workspace.tables / "single-corpus.md", "# Single corpus\n")
    return workspace


def shown(name: str):
    """The newest artifact of a key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=200)
    return max((each for each in found if each.key == name), key=lambda each: each.created)


def cells(page: str) -> list[list[str]]:
    """What a reader sees in the rows of a page's table, its head the first."""
    html = MarkdownIt("commonmark").enable("table").render(page)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t", row)] for row in rows]


def test_tables_and_what_was_checked(prefect_api, workspace):
    show(workspace.root, DONE)
    (row,) = json.loads(shown("metrics").data)
    assert row == {"run": "demo-random", "protocol": "last-epoch", "UAR": 61.5, "WAR": 62.0}
    assert cells(shown("validation").data)[-1] == ["demo", "2", "a|b.wav and _c_.wav are one"]
    assert shown("single-corpus").data == "# Single corpus\n"
    assert shown("single-corpus").description == "commit no commit"


def test_figures_and_the_report(prefect_api, workspace, monkeypatch):
    figure = workspace.figures("demo-random") / "confusion-last-epoch.svg"
    write_text(figure, "an image")
    report = workspace.root / "results" / "report.html"
    report.write_text("<h1>The report</h1>")
    done = [*DONE, "figures@demo-random", "report"]
    show(workspace.root, done)
    assert shown("report").data == f"[report.html]({report.as_uri()})"
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("TIMNET_RESULTS_URL", "http://127.0.0.1:4201")  # as `make ui` does
    show(workspace.root, done)
    artifact = shown("demo-random-confusion-last-epoch")
    assert artifact.type == "image"
    path = "figures/demo-random/confusion-last-epoch.svg"
    assert artifact.data == f"http://127.0.0.1:4201/{path}"
    assert shown("report").data == "[report.html](http://127.0.0.1:4201/report.html)"


def test_the_first_table_fits_a_page(prefect_api, workspace):
    table = workspace.tables / "single-corpus.csv"
    shutil.copy(ROOT / "results/tables/single-corpus.csv", table)
    head, first, *_ = csv.reader(table.open())
    show(workspace.root, DONE)
    columns, row, *_ = cells(shown("single-corpus").data)
    assert columns == list(artifacts.COLUMNS)  # each of them is one of the table's
    assert row == [first[head.index(column)] for column in columns]


def test_against_main(prefect_api, reproduced, tmp_path):
    root = Path(shutil.copytree(reproduced, tmp_path / "workspace", symlinks=True))
    run(root, "git", "checkout", "--quiet", "-B", "main")
    done = ["tables"]
    show(root, done)
    same = shown("against-main").data
    assert "+0.00 to +0.00" in same
    edit(root / "params.yaml", "epochs: 1", "epochs: 2")
    run(root, "dvc", "repro", "score@demo-random")
    show(root, done)
    assert (
        shown("against-main").data == run(root, "timnet", "compare", "main").stdout.rstrip() + "\n"
    )
    assert "epochs 2 here, 1 there" in shown("against-main").data


def test_against_main_has_transfers(workspace, monkeypatch):
    shutil.copy(ROOT / "params.yaml", workspace.params)
    monkeypatch.setattr(artifacts.git, "ask", lambda *_: "main")
    asked = []

    def compared(_, runs, name):
        asked.extend(runs)
        return render.Table("compare", name, ("run",), [])

    monkeypatch.setattr(artifacts.revisions, "compared", compared)
    artifacts.against_main(workspace)
    assert {"emovo-random", "emovo-to-emodb"} <= set(asked)


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
            told = {"done": done, "total": 200, "unit": "fold-epochs", "said": "loss 0.5"}
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
