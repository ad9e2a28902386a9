"""Runs that are proposed for a custom corpus."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archives import laid_out, wav
from conftest import ROOT
from ruamel.yaml import YAML

from timnet import schemas
from timnet.acquire.table import import_table
from timnet.cli.runs import list_runs
from timnet.corpora import CORPORA
from timnet.dataset import proposals
from timnet.errors import ParameterError
from timnet.paper import runs as paper_runs
from timnet.project import params


def manifest(seconds: list[float], rate: int = 16000) -> pa.Table:
    rows = [
        {"utterance": f"u{n}", "speaker": f"s{n % 3}", "emotion": "sad", "path": f"{n}.wav",
         "sentence": None, "sample_rate": rate, "channels": 1, "samples": round(each * rate),
         "sha256": ""}
        for n, each in enumerate(seconds)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


def test_a_signal_holds_most_recordings_whole() -> None:
    lengths = np.random.default_rng(0).uniform(1, 4, 400).tolist()
    table = manifest([*lengths, 60.0])
    found = proposals.signal_length(table)
    assert found % proposals.STEP == 0
    assert 0.95 <= proposals.share_within(table, found) < 0.99
    assert proposals.signal_length(manifest([0.1])) == 22050
    assert proposals.signal_length(manifest([600.0])) == 15 * 22050


@pytest.mark.parametrize("corpus", sorted(CORPORA.keys() - {"demo"}))
def test_blocks_are_those_of_the_paper_for_its_corpora(corpus: str) -> None:
    run = paper_runs.entries("table-1", [corpus])["runs"][f"{corpus}-random"]
    assert proposals.blocks(run["signal_length"]) == run["network"]["tabs"]


def custom_corpus(folder: Path, speakers: int) -> None:
    """A custom corpus `mine` of so many speakers in a workspace, and params.yaml."""
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    names = [f"s{n}/{emotion}.wav" for n in range(speakers) for emotion in ("happy", "sad")]
    source = laid_out({name: wav(name, 1.2, rate=8000) for name in names}, folder / "source")
    rows = "".join(f"{name},{name.split('/')[0]},{Path(name).stem}\n" for name in names)
    (source / "t.csv").write_text(f"path,speaker,emotion\n{rows}")
    import_table(source / "t.csv", "mine", folder / "data")


def test_runs_of_a_custom_corpus_are_entered(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    custom_corpus(tmp_path, 3)
    list_runs(["mine"], add=True)
    entered = params.read(tmp_path / "params.yaml")
    assert entered.corpora["mine"] == "custom"
    random, speaker = entered.runs["mine-random"], entered.runs["mine-speaker"]
    assert random.signal_length == speaker.signal_length == 26460
    assert (random.folds.protocol, random.folds.number) == ("random", 6)
    assert (speaker.folds.protocol, speaker.folds.number) == ("speaker", None)
    assert entered.models["mine"].networks == "mine-speaker"
    assert "1.2 s hold 100% of the recordings whole" in capsys.readouterr().out
    list_runs(["mine"], add=True)
    assert "already" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="mine is a custom corpus"):
        list_runs(["mine", "emovo"], add=True)


@pytest.mark.parametrize(
    ("speakers", "folds"),
    [(1, None), (10, {"protocol": "speaker"}), (11, {"protocol": "speaker", "number": 5})],
)
def test_many_speakers_are_left_out_in_groups(
    tmp_path: Path, monkeypatch, capsys, speakers: int, folds: dict | None
) -> None:
    monkeypatch.chdir(tmp_path)
    custom_corpus(tmp_path, speakers)
    list_runs(["mine"], add=True)
    content = YAML(typ="safe").load(tmp_path / "params.yaml")
    assert content["runs"].get("mine-speaker", {}).get("folds") == folds
    assert ("mine" in content["models"]) == (folds is not None)
    assert ("one speaker" in capsys.readouterr().out) == (folds is None)
