"""The anchor of the whole project: the authors' weights on features extracted here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import run

from timnet.corpora import CORPORA
from timnet.dataset import features, manifest
from timnet.errors import ArtifactError, ParameterError
from timnet.evaluation import parity

EMOVO = CORPORA["emovo"]
LOGITS = Path(__file__).parent / "reference" / "emovo-logits.npy"  # of the first exact run


@pytest.fixture(scope="module")
def table(restored, tmp_path_factory: pytest.TempPathFactory):
    """Features of EMOVO as the paper has them."""
    folder, target = restored("emovo"), tmp_path_factory.mktemp("features") / "emovo.parquet"
    rows = manifest.build(EMOVO, folder)
    features.extract(rows, folder, parity.settings(EMOVO), target, target.parent / "shards", 2)
    return features.read(target)[0]


@pytest.fixture(scope="module")
def networks(shared: Path):
    return parity.read_networks(EMOVO, shared / "reference" / "EMOVO_1.zip")


def test_emovo_is_the_paper_s_to_the_last_utterance(table, networks) -> None:
    result = parity.parity(EMOVO, table, networks)
    assert result.correct == 541
    assert (round(result.uar, 2), round(result.war, 2)) == (92.01, 92.01)
    assert result.holds
    # the closest call among the winners is 5e-4
    np.testing.assert_allclose(result.logits, np.load(LOGITS), atol=1e-3)


def test_one_utterance_less_does_not_hold(table, networks) -> None:
    result = parity.parity(EMOVO, table, networks)
    result.confusion[0, 0] -= 1
    result.confusion[0, 3] += 1
    assert not result.holds


def test_the_command_says_so(restored, shared: Path, tmp_path: Path) -> None:
    weights = shared / "reference" / "EMOVO_1.zip"
    said = run(
        tmp_path, "timnet", "parity", "emovo", "--weights", weights, "--data", restored("emovo")
    ).stdout
    assert "541 of 588 utterances recognised" in said
    assert "the same figures, confusion matrix included" in said


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
    with pytest.raises(ParameterError, match="the paper has no figures for demo; it has them for"):
        parity.settings(CORPORA["demo"])
