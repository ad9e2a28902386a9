from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import KFold

from timnet.corpora import CORPORA, ravdess
from timnet.corpora.corpus import natural_key
from timnet.dataset import folds
from timnet.errors import CorpusError, ParameterError


def test_random_folds_are_the_paper_s() -> None:
    actual = folds.random_folds(588, 10, 1)
    for fold, (_, test) in enumerate(KFold(10, shuffle=True, random_state=1).split(range(588))):
        assert np.flatnonzero(actual == fold).tolist() == test.tolist()


def test_more_folds_than_utterances_are_refused() -> None:
    with pytest.raises(ParameterError, match="10 folds need at least as many utterances; there ar"):
        folds.random_folds(9, 10, 1)


@pytest.mark.parametrize("name", CORPORA)
def test_no_speaker_stands_on_both_sides(name: str) -> None:
    corpus = CORPORA[name]
    speakers = [speaker for speaker in corpus.speakers for _ in range(3)]
    assignment = folds.speaker_folds(speakers, corpus)
    for fold in range(assignment.max() + 1):
        test = {s for s, f in zip(speakers, assignment, strict=True) if f == fold}
        train = {s for s, f in zip(speakers, assignment, strict=True) if f != fold}
        assert test
        assert not test & train


@pytest.mark.parametrize(
    ("name", "number"),
    {"casia": 4, "savee": 4, "emovo": 6, "emodb": 10, "iemocap": 5, "ravdess": 6}.items(),
)
def test_number_of_speaker_folds(name: str, number: int) -> None:
    corpus = CORPORA[name]
    assert len(set(folds.speaker_folds(list(corpus.speakers), corpus))) == number


def test_a_single_speaker_cannot_be_left_out() -> None:
    with pytest.raises(CorpusError, match="emovo: all utterances are of one speaker or group"):
        folds.speaker_folds(["f1", "f1"], CORPORA["emovo"])


def manifest(prefix: str, emotions: list[str]) -> pa.Table:
    names = [f"{prefix}{number}" for number in range(len(emotions))]
    return pa.table({"utterance": names, "speaker": names, "emotion": emotions})


def test_across_corpora_the_five_shared_emotions_take_part() -> None:
    one = manifest("a", ["angry", "disgust", "fear", "happy", "neutral", "sad"])
    other = manifest("b", ["sad", "angry", "calm", "fear", "happy", "neutral", "neutral"])
    rows = folds.cross_table(one, other).to_pydict()
    assert rows["utterance"] == ["a0", "a2", "a3", "a4", "a5", "b0", "b1", "b3", "b4", "b5", "b6"]
    assert rows["fold"] == [-1] * 5 + [0] * 6


def test_across_corpora_a_missing_emotion_or_a_shared_name_is_refused() -> None:
    emotions = ["angry", "fear", "happy", "neutral", "sad"]
    with pytest.raises(
        CorpusError, match="tested_on: the corpus has no fear, sad; a cross-corpus run"
    ):
        folds.cross_table(manifest("a", emotions), manifest("b", ["angry", "happy", "neutral"]))
    with pytest.raises(CorpusError, match="both corpora have utterances named a0, a1, a2"):
        folds.cross_table(manifest("a", emotions), manifest("a", emotions))


def test_several_fold_seeds_are_several_splits_of_all_utterances() -> None:
    rows = folds.random_table(manifest("a", ["sad"] * 20), 4, [1, 7])
    for number, seed in enumerate((1, 7)):
        part = rows.slice(20 * number, 20)
        assert set(part["fold_seed"].to_pylist()) == {seed}
        assert part["fold"].to_pylist() == folds.random_folds(20, 4, seed).tolist()


def test_an_unknown_speaker_is_named() -> None:
    with pytest.raises(CorpusError, match="emovo: speakers f9 are in no fold; known are f1, f2"):
        folds.speaker_folds(["f1", "f9"], CORPORA["emovo"])


def test_the_identical_pair_of_ravdess_leaks_under_random_folds_alone() -> None:
    """Counted from 0, the paper's seed puts it into folds 3 and 7; by speaker it is in one."""
    corpus = CORPORA["ravdess"]
    (pair,) = (ids for sentence, ids in corpus.quirks.items() if "one recording" in sentence)
    names = [
        f"03-01-{code}-{intensity}-{sentence}-{repetition}-{actor:02}"
        for code in range(1, 9)
        for intensity in ("01", "02")
        if (code, intensity) != (1, "02")
        for sentence in ("01", "02")
        for repetition in ("01", "02")
        for actor in range(1, 25)
    ]
    names = [name.replace("03-01-", "03-01-0", 1) for name in names]
    emotions = ravdess.EMOTION_CODES
    rows = sorted(
        names, key=lambda name: (corpus.labels.index(emotions[name[6:8]]), natural_key(name))
    )
    assert len(rows) == 1440
    assignment = folds.random_folds(1440, 10, 46)
    assert {int(assignment[rows.index(name)]) for name in pair} == {3, 7}
    by_speaker = folds.speaker_folds([f"Actor_{name[-2:]}" for name in rows], corpus)
    assert len({int(by_speaker[rows.index(name)]) for name in pair}) == 1
