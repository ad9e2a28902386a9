from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from conftest import ROOT, run

from timnet.paper import runs as paper_runs
from timnet.project import params
from timnet.reporting import tables
from timnet.training.network import VARIANTS


def test_every_run_of_the_paper_is_there_with_its_settings() -> None:
    assert len(paper_runs.runs("table-1", list(paper_runs.paper()["fold_seed"]))) == 6
    assert len(paper_runs.runs("table-s3", list(paper_runs.paper()["fold_seed"]))) == 24
    pairs = paper_runs.runs("table-2", list(paper_runs.CROSS_CORPORA))
    assert len(pairs) == 20
    assert pairs["savee-to-casia"]["seeds"] == list(range(10))
    assert pairs["savee-to-casia"]["signal_length"] == 100000
    iemocap = paper_runs.runs("table-1", ["iemocap"])["iemocap-random"]
    assert iemocap["network"]["tabs"] == 10
    assert iemocap["folds"]["seeds"] == [16]


def test_a_variant_of_the_network_is_known_everywhere() -> None:
    spelled = (
        ("tim-net", *paper_runs.ABLATIONS),
        get_args(params.Network.model_fields["variant"].annotation),
        tables.ABLATION_NAMES.values(),
    )
    assert all(sorted(each) == sorted(VARIANTS) for each in spelled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "runs"),
    (
        (("table-s3", "emodb"), ["emodb-random", "emodb-without-bd", "emodb-tcn"]),
        (("table-2", "emovo", "ravdess"), ["emovo-to-ravdess", "ravdess-to-emovo"]),
        (("table-1", "iemocap"), ["iemocap-random"]),
    ),
)
def test_added_runs_are_valid_and_comments_stay(
    folder: Path, arguments: tuple[str, ...], runs: list[str]
) -> None:
    before = (folder / "params.yaml").read_text()
    run(folder, "timnet", "runs", "--add", *arguments)
    after = (folder / "params.yaml").read_text()
    assert set(runs) <= set(params.read(folder / "params.yaml").runs)
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    again = run(folder, "timnet", "runs", "--add", *arguments).stdout
    assert "has the runs of" in again
    assert (folder / "params.yaml").read_text() == after


def test_what_is_here_is_listed(folder: Path) -> None:
    (folder / "data" / "emovo").mkdir(parents=True)
    lines = run(folder, "timnet", "runs").stdout.splitlines()
    (emovo,) = (line for line in lines if line.startswith("emovo-random"))
    assert emovo.split() == ["emovo-random", "here", "yes", "no"]
    (casia,) = (line for line in lines if line.startswith("casia-random"))
    assert casia.split() == ["casia-random", "missing:", "casia", "no", "no"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--add", "table-9"), "no table 'table-9'; known are table-1, speaker-independent"),
        (("--add", "table-1", "emodbb"), "table-1 has no emodbb; it has casia, emodb"),
        (("--add", "table-1", "emodbb"), "savee. Did you mean 'emodb'?"),
        (("--add", "table-2", "emovo"), "table-2 needs two corpora or more"),
        (("emovo",), "name a table as well: `timnet runs --add TABLE CORPUS...`"),
    ),
)
def test_what_the_paper_has_not_is_refused(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(folder, "timnet", "runs", *arguments, check=False)
    assert result.returncode == 1
    assert message in result.stderr
