from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from conftest import ROOT, run
from ruamel.yaml import YAML

from timnet.paper import runs as paper_runs
from timnet.project import params
from timnet.reporting import tables
from timnet.training.network import VARIANTS


def test_every_entry_of_the_paper_is_there_with_its_settings() -> None:
    known = list(paper_runs.paper()["fold_seed"])
    assert len(paper_runs.entries("table-1", known)["runs"]) == 6
    assert len(paper_runs.entries("table-s3", known)["runs"]) == 24
    across = paper_runs.entries("table-2", list(paper_runs.CROSS_CORPORA))
    assert len(across["transfers"]) == 20
    assert across["transfers"]["savee-to-casia"]["source"] == "savee-shared"
    source = across["sources"]["savee-shared"]
    assert source["seeds"] == list(range(10))
    assert (source["signal_length"], source["emotions"]) == (100000, "shared")
    adapted = paper_runs.entries("table-2-adapted", list(paper_runs.CROSS_CORPORA))
    assert len(adapted["transfers"]) == 20
    assert adapted["transfers"]["savee-adapted-to-casia"]["source"] == "savee-shared-adapted"
    assert adapted["sources"]["savee-shared-adapted"] == source | {"recipe": "adapted"}
    baseline = paper_runs.entries("table-2-baseline", list(paper_runs.CROSS_CORPORA))
    assert len(baseline["transfers"]) == 2 * 20
    own = baseline["transfers"]["savee-svm-normalised-to-casia"]["source"]
    assert baseline["sources"][own]["recipe"] == "speaker-normalised"
    assert "seeds" not in baseline["sources"][own]
    iemocap = paper_runs.entries("table-1", ["iemocap"])["runs"]["iemocap-random"]
    assert iemocap["network"]["tabs"] == 10
    assert iemocap["folds"]["seeds"] == [16]


def test_seeds_are_as_many_as_asked_for() -> None:
    for table in ("table-1", "speaker", "sentence", "both", "table-s3"):
        runs = paper_runs.entries(table, ["emovo"], 3)["runs"]
        assert all(run["seeds"] == [0, 1, 2] for run in runs.values())
    assert "seeds" not in paper_runs.entries("baseline", ["emovo"], 3)["runs"]["emovo-svm-speaker"]


def test_the_adapted_recipe_is_that_of_params() -> None:
    """One that `timnet runs` adds to another project is the one that was judged here."""
    assert (
        YAML(typ="safe").load(ROOT / "params.yaml")["recipes"]["adapted"]
        == paper_runs.RECIPES["adapted"]
    )


def test_a_variant_of_the_network_is_known_everywhere() -> None:
    spelled = (
        ("tim-net", *paper_runs.ABLATIONS),
        get_args(params.Network.model_fields["variant"].annotation),
        tables.ABLATION_NAMES.values(),
    )
    assert all(sorted(each) == sorted(VARIANTS) for each in spelled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    yaml = YAML()
    yaml.width = 4096
    content = yaml.load(ROOT / "params.yaml")  # of which EMOVO's networks are kept
    for section in (content["corpora"], content["features"]["sets"], content["runs"]):
        for name in [name for name in section if name.split("-")[0] != "emovo" or "svm" in name]:
            del section[name]
    content["models"] = {"emovo": content["models"]["emovo"]}
    content["sources"], content["transfers"] = {}, {}
    content["features"]["sets"].pop("emovo-100000", None)  # theirs
    yaml.dump(content, tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "runs"),
    (
        (("table-s3", "emodb"), ["emodb-random", "emodb-without-bd", "emodb-tcn"]),
        (("table-2", "emovo", "ravdess"), ["emovo-to-ravdess", "ravdess-to-emovo"]),
        (
            ("table-2-adapted", "emovo", "emodb"),
            ["emovo-adapted-to-emodb", "emodb-adapted-to-emovo"],
        ),
        (("table-2-baseline", "emovo", "emodb"), ["emovo-svm-to-emodb"]),
        (("table-1", "iemocap"), ["iemocap-random"]),
        (
            ("sentence", "both", "baseline", "speaker", "emovo", "savee", "--seeds", "3"),
            ["savee-sentence", "emovo-speaker-sentence", "emovo-svm-normalised-speaker"],
        ),
    ),
)
def test_added_runs_are_valid_and_comments_stay(
    folder: Path, arguments: tuple[str, ...], runs: list[str]
) -> None:
    before = (folder / "params.yaml").read_text()
    run(folder, "timnet", "runs", "--add", *arguments)
    after = (folder / "params.yaml").read_text()
    assert set(runs) <= set(params.read(folder / "params.yaml").scored)
    gone = {line for line in before.splitlines() if line not in after.splitlines()}
    assert gone <= {"sources: {}", "transfers: {}"}
    again = run(folder, "timnet", "runs", "--add", *arguments).stdout
    assert "params.yaml already has all of" in again
    assert (folder / "params.yaml").read_text() == after


def test_a_corpus_comes_with_its_features(folder: Path) -> None:
    """Two commands lead from recordings to a row of a table: `acquire` and this one."""
    run(folder, "timnet", "runs", "--add", "table-1", "speaker", "emodb", "savee")
    found = params.read(folder / "params.yaml")
    assert list(found.corpora) == ["emovo", "emodb", "savee"]
    assert list(found.features.sets) == ["emovo-96000", "emodb-96000", "savee-130000"]


def test_another_target_leaves_sources_as_they_are(folder: Path) -> None:
    run(folder, "timnet", "runs", "--add", "table-2", "emovo", "casia")
    before = params.read(folder / "params.yaml").sources
    run(folder, "timnet", "runs", "--add", "table-2", "emovo", "casia", "savee")
    found = params.read(folder / "params.yaml")
    assert len(found.transfers) == 6
    assert {name: found.sources[name] for name in before} == before


def test_what_is_here_is_listed(folder: Path) -> None:
    (folder / "data" / "emovo").mkdir(parents=True)
    lines = run(folder, "timnet", "runs").stdout.splitlines()
    (emovo,) = (line for line in lines if line.startswith("emovo-random"))
    assert emovo.split() == ["emovo-random", "here", "yes", "no"]
    (casia,) = (line for line in lines if line.startswith("casia-random"))
    assert casia.split() == ["casia-random", "missing:", "casia", "no", "no"]


def test_without_a_corpus_one_has_to_be_named(folder: Path) -> None:
    yaml, path = YAML(), folder / "params.yaml"
    content = yaml.load(path)
    content["features"]["sets"] = {}
    emptied = {key: {} for key in ("corpora", "runs", "models", "tuned_on")}
    yaml.dump(content | emptied, path)
    refused = run(folder, "timnet", "runs", "--add", "table-1", check=False)
    assert refused.returncode == 1
    assert "params.yaml has no corpus of table-1. Name one: casia, emodb" in refused.stderr


def test_seeds_of_runs_that_are_there_are_not_changed_silently(folder: Path) -> None:
    before = (folder / "params.yaml").read_text()
    added = ("timnet", "runs", "--add", "table-1", "emovo", "--seeds", "5")
    assert "Seeds of its entries stay as they are" in run(folder, *added).stdout
    assert (folder / "params.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--add", "table-9", "emodb"), "'table-9' is neither a table (table-1, speaker, "),
        (("--add", "table-1", "emodbb"), "Did you mean 'emodb'?"),
        (("--add", "emodb"), "name a table as well: table-1, speaker, "),
        (("--add", "table-2", "emodb", "iemocap"), "table-2 has no iemocap; it has casia"),
        (("--add", "sentence", "iemocap"), "sentence has no iemocap; it has casia"),
        (("--add", "table-2-adapted", "emovo"), "table-2-adapted needs two corpora or more"),
        (("--add", "table-2", "emovo"), "table-2 needs two corpora or more"),
        (("--add", "data/emovo/"), "'data/emovo/' is a path; give a name alone: 'emovo'"),
        (("emovo",), "names are for --add"),
        (("--seeds", "3"), "--seeds is for --add"),
        (("--prune", "--seeds", "3"), "--seeds is for --add"),
    ),
)
def test_what_the_paper_has_not_is_refused(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(folder, "timnet", "runs", *arguments, check=False)
    assert result.returncode == 1
    assert message in result.stderr
