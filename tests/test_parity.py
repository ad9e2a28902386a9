"""The anchor of the whole project: the authors' weights on features extracted here."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archives import emovo_archive, laid_out
from conftest import run

from timnet.corpora import CORPORA
from timnet.dataset import features, manifest
from timnet.errors import ArtifactError, CorpusError, ParameterError
from timnet.evaluation import parity

EMOVO = CORPORA["emovo"]
LOGITS = Path(__file__).parent / "reference" / "emovo-logits.npy"  # of the first exact run
WEIGHTS = {
    "casia": "CASIA_32.zip",
    "emodb": "EMODB_46.zip",
    "emovo": "EMOVO_1.zip",
    "ravdess": "RAVDE_46.zip",
}


@pytest.fixture(scope="module")
def scored(recordings, shared: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function from a corpus to what the authors' networks make of its original recordings."""

    @cache
    def score(name: str) -> parity.Parity:
        corpus, folder = CORPORA[name], recordings(name)
        network = parity.read_networks(corpus, shared / "reference" / WEIGHTS[name])
        target = tmp_path_factory.mktemp("features") / f"{name}.parquet"
        rows = manifest.build(corpus, folder)
        parity.refuse_incomplete(corpus, folder, rows)
        features.extract(rows, folder, parity.settings(corpus), target, target.parent / "shards", 2)
        return parity.parity(corpus, features.read(target)[0], network)

    return score


def test_emovo_is_the_paper_s_to_the_last_utterance(scored) -> None:
    result = scored("emovo")
    assert result.correct == 541
    assert (round(result.uar, 2), round(result.war, 2)) == (92.01, 92.01)
    assert result.paper_confusion is not None
    assert result.holds
    # the closest call among the winners is 5e-4
    np.testing.assert_allclose(result.logits, np.load(LOGITS), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corpus", "correct", "of", "uar", "war"),
    (
        ("casia", 1136, 1200, 94.67, 94.67),
        ("emodb", 512, 535, 95.17, 95.70),
        ("ravdess", 1326, 1440, 91.93, 92.08),
    ),
)
def test_other_corpora_are_the_paper_s_to_the_last_utterance(
    scored, corpus: str, correct: int, of: int, uar: float, war: float
) -> None:
    result = scored(corpus)
    assert (result.correct, result.confusion.sum()) == (correct, of)
    assert (round(result.uar, 2), round(result.war, 2)) == (uar, war) == result.paper
    assert result.holds


def test_one_utterance_less_does_not_hold(scored) -> None:
    result = scored("emovo")
    other = result.confusion.copy()
    other[0, 0] -= 1
    other[0, 3] += 1
    assert not dataclasses.replace(result, confusion=other).holds


def test_an_incomplete_corpus_is_refused() -> None:
    """339 of 535 would score 99.7 %, on folds that the networks were trained on."""
    emodb = CORPORA["emodb"]
    there = emodb.counts | {"boredom": 0, "fear": 0, "disgust": 0}
    rows = pa.table({"emotion": [label for label, n in there.items() for _ in range(n)]})
    with pytest.raises(CorpusError, match=r"339 of 535 .*boredom 0 of 81, .*fear 0 of 69"):
        parity.refuse_incomplete(emodb, Path("data/emodb"), rows)


def test_the_command_refuses_an_incomplete_corpus(shared: Path, tmp_path: Path) -> None:
    members = emovo_archive(top="")
    del members["m3/tri-m3-n5.wav"]
    folder, weights = laid_out(members, tmp_path / "emovo"), shared / "reference" / "EMOVO_1.zip"
    said = run(
        tmp_path, "timnet", "parity", "emovo", "--weights", weights, "--data", folder, check=False
    )
    assert said.returncode == 1
    assert "587 of 588 utterances of emovo (sad 83 of 84)" in said.stderr


def test_the_command_says_so(recordings, shared: Path, tmp_path: Path) -> None:
    weights = shared / "reference" / "EMOVO_1.zip"
    said = run(
        tmp_path, "timnet", "parity", "emovo", "--weights", weights, "--data", recordings("emovo")
    ).stdout
    assert "541 of 588 utterances correct" in said
    assert "the same results" in said


def test_weights_of_another_corpus_are_refused(shared: Path) -> None:
    with pytest.raises(ArtifactError, match="networks for 7 emotions, while ravdess has 8"):
        parity.read_networks(CORPORA["ravdess"], shared / "reference" / "EMOVO_1.zip")


def test_the_command_looks_at_the_weights_before_the_recordings(tmp_path: Path) -> None:
    said = run(tmp_path, "timnet", "parity", "emovo", "--weights", "x.zip", check=False)
    assert said.returncode == 1
    assert said.stderr == "timnet: x.zip: no such file. Give the ZIP of the authors' weights.\n"


@pytest.mark.parametrize(
    ("content", "message"),
    ((None, "no such file. Give the ZIP"), (b"PK nothing", "not a ZIP archive of the authors'")),
)
def test_what_is_no_archive_of_weights_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "weights.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        parity.authors_weights.read_networks(path)


def test_a_corpus_without_figures_is_refused() -> None:
    with pytest.raises(ParameterError, match="the paper has no results for demo"):
        parity.settings(CORPORA["demo"])
