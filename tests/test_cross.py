"""A network of one corpus on another: two corpora of noise, from recordings to tables."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from archives import laid_out, wav
from conftest import run

from timnet.corpora.corpus import SHARED_EMOTIONS

pytestmark = pytest.mark.slow

SPEAKERS = 2
LENGTH = 22050


def copy_demo(folder: Path, corpus: str, emotions: tuple[str, ...], times: int) -> None:
    """Make recordings a corpus of the workspace `folder`."""
    names = [
        f"{corpus}{speaker}-{emotion}-{time}.wav"
        for speaker in range(SPEAKERS)
        for emotion in emotions
        for time in range(times)
    ]
    sounds = {name: wav((corpus, name), 1.0, rate=8000) for name in names}
    rows = "".join(f"{name},{','.join(name.split('-')[:2])}\n" for name in names)
    source = laid_out(sounds, folder.parent / corpus)
    (source / "table.csv").write_text(f"path,speaker,emotion\n{rows}")
    run(folder, "timnet", "acquire", corpus, "--csv", source / "table.csv")


NETWORK = {"recipe": "paper", "network": {"tabs": 2, "variant": "tim-net"}, "precision": "fp32"}


@pytest.fixture(scope="module")
def workspace(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross-corpus") / "workspace"
    params = yaml.safe_load((reproduced / "params.yaml").read_text())
    corpora = ("one", "two", "three")
    params["corpora"] = dict.fromkeys(corpora, "custom")
    sets = {f"{name}-{LENGTH}": {"corpus": name, "signal_length": LENGTH} for name in corpora}
    params["features"]["sets"] = sets
    params["runs"] = {
        "two-svm": {
            "trained_on": "two",
            "signal_length": LENGTH,
            "folds": {"protocol": "random", "number": 4, "seeds": [1]},
            "recipe": "paper",
            "baseline": "svm",
        }
    }
    source = {"trained_on": "one", "signal_length": LENGTH, "emotions": "shared"}
    params["sources"] = {
        "one-shared": {**source, **NETWORK, "seeds": [0, 1, 2]},
        "one-svm": {**source, "recipe": "paper", "baseline": "svm"},
        "one-shared-adapted": {**source, **NETWORK, "recipe": "adapted", "seeds": [0]},
    }
    params["recipes"]["adapted"] = {"epochs": 1, "by_speaker": True, "compiled": False}
    sources = {"one": "one-shared", "svm": "one-svm", "one-adapted": "one-shared-adapted"}
    params["transfers"] = {
        f"{name}-to-two": {"source": source, "tested_on": "two", "signal_length": LENGTH}
        for name, source in sources.items()
    }
    params["models"] = {}
    run(folder.parent, "git", "clone", "--quiet", reproduced, folder)
    (folder / "data.dvc").unlink()  # of the demo
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    copy_demo(folder, "one", (*SHARED_EMOTIONS, "disgust"), 3)
    copy_demo(folder, "two", (*SHARED_EMOTIONS, "surprise"), 2)
    copy_demo(folder, "three", SHARED_EMOTIONS, 2)
    run(folder, "dvc", "repro", "report")
    return folder


def test_all_of_one_is_trained_on_and_all_of_the_other_tested(workspace: Path) -> None:
    results = workspace / "results" / "runs" / "one-to-two"
    record = json.loads((results / "run.json").read_text())
    assert record["labels"] == list(SHARED_EMOTIONS)  # what one of them lacks is left out
    assert (record["source"], record["tested_on"]) == ("one-shared", "two")
    trained = json.loads((workspace / "build/train/one-shared/run.json").read_text())
    assert trained["utterances"] == 3 * SPEAKERS * len(SHARED_EMOTIONS)
    scored = json.loads((results / "scores.json").read_text())
    assert list(scored) == ["cross-corpus"]
    assert [draw["seed"] for draw in scored["cross-corpus"]["draws"]] == [0, 1, 2]
    with (results / "confusion.csv").open() as file:
        counts = [int(row["utterances"]) for row in csv.DictReader(file)]
    assert sum(counts) == 3 * 2 * SPEAKERS * len(SHARED_EMOTIONS)
    assert "fused" not in pq.read_schema(results / "predictions.parquet").names
    drawn = {path.stem for path in (workspace / "results/figures/one-to-two").iterdir()}
    assert "confusion-cross-corpus" in drawn and not drawn & {"curves", "fused"}


def test_a_baseline_stands_beside_it(workspace: Path) -> None:
    record = json.loads((workspace / "results/runs/svm-to-two/run.json").read_text())
    assert (record["baseline"], record["recipe"]) == ("svm", "paper")
    text = (workspace / "results/tables/table-s4.md").read_text()
    (pair,) = (line for line in text.splitlines() if line.startswith("| one to two"))
    assert pair.count("[") >= 2  # its scores and the network's
    page = (workspace / "results/report.html").read_text()
    links = re.findall(r'href="(figures/svm-to-two/[^"]*)"', page)
    assert links and all((workspace / "results" / link).is_file() for link in links)
    assert "figures/one-to-two/" not in page.replace("results/figures/", "")  # in the page itself
    cards = page.partition('class="cards"')[2].partition('class="notes"')[0]
    across = cards.partition("cross-corpus")[2].partition('<div class="card">')[0]
    assert cards.count("; on two; chance 20.00 %") == 1
    assert re.findall(r"<span>(.*?)</span>", across) == ["TIM-Net", "recipe adapted", "SVM"]


def test_a_recipe_that_adapts_to_speakers_stands_beside_it(workspace: Path) -> None:
    results = workspace / "results/runs/one-adapted-to-two"
    record = json.loads((results / "run.json").read_text())
    assert (record["recipe"], record["train"]["by_speaker"]) == ("adapted", True)
    score = json.loads((results / "scores.json").read_text())["cross-corpus"]["uar"]["value"]
    tables = workspace / "results/tables"
    with (tables / "table-s4.csv").open() as file:
        *_, row = csv.DictReader(file)
    assert row["pair"] == "one to two"
    told = row["TIM-Net, recipe adapted UAR"].split()[0]
    assert float(told) == pytest.approx(score, abs=0.06)
    notes = (tables / "table-s4.md").read_text()
    assert "TIM-Net, recipe adapted: adapted to each tested speaker by" in notes
    assert "without labels" in notes


def test_a_baseline_has_folds_of_a_corpus_too(workspace: Path) -> None:
    results = workspace / "results" / "runs" / "two-svm"
    record = json.loads((results / "run.json").read_text())
    assert (record["baseline"], record["device"], record["seeds"]) == ("svm", "cpu", [0])
    assert list(json.loads((results / "scores.json").read_text())) == ["last-epoch"]
    said = run(workspace, "timnet", "verify", "two-svm", "--fold", "2").stdout
    assert "two-svm, fold 2: the same bits" in said
    run(workspace, "dvc", "plots", "show", "--out", "plots")  # though it has no curves
    assert "SVM" in (workspace / "results" / "report.html").read_text()


def test_its_scores_stand_below_the_paper_s_pairs(workspace: Path) -> None:
    tables = workspace / "results" / "tables"
    with (tables / "table-s4.csv").open() as file:
        *_, row = csv.DictReader(file)
    scores = json.loads((workspace / "results/runs/one-to-two/scores.json").read_text())
    across = scores["cross-corpus"]
    assert across["corpora"]["two"]["uar"] == across["uar"]  # the one that was tested
    assert row["pair"] == "one to two"
    assert float(row["ours, mean UAR"].split()[0]) == pytest.approx(
        across["uar"]["value"], abs=0.06
    )
    assert row["seeds"].startswith("3 ± ")
    assert not (tables / "table-2.csv").exists()  # the mean over the paper's pairs
    (row,) = csv.DictReader((tables / "single-corpus.csv").open())
    assert row["corpus"] == "two"  # the baseline's, within a corpus


def test_another_target_trains_nothing(workspace: Path) -> None:
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    entry = {"source": "one-shared", "tested_on": "three", "signal_length": LENGTH}
    params["transfers"]["one-to-three"] = entry
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    ran = run(workspace, "dvc", "repro", "tables").stdout
    stages = set(re.findall(r"Running stage '(.*?)'", ran))
    assert stages == {f"features@three-{LENGTH}", "transfer@one-to-three", "tables"}
