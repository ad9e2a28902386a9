from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
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


def test_of_a_whole_corpus_the_shared_emotions_or_all_are_trained_on() -> None:
    one = manifest("a", ["angry", "disgust", "fear", "happy", "neutral", "sad"])
    rows = folds.whole_table(one, shared=True).to_pydict()
    assert rows["utterance"] == ["a0", "a2", "a3", "a4", "a5"]
    assert set(rows["part"]) == {"train"} and set(rows["fold"]) == {0}
    assert folds.whole_table(one)["utterance"].to_pylist() == one["utterance"].to_pylist()
    with pytest.raises(CorpusError, match="fear, sad"):
        folds.whole_table(manifest("b", ["angry", "happy", "neutral"]), shared=True)


def test_several_fold_seeds_are_several_splits_of_all_utterances() -> None:
    listed = manifest("a", ["sad"] * 20)
    rows = folds.random_table(listed, 4, [1, 7])
    for seed in (1, 7):
        expected = folds.random_folds(20, 4, seed)
        for fold in range(4):
            tested = parts_of(rows, seed, fold)["test"]
            assert sorted(tested) == sorted(np.array(listed["utterance"])[expected == fold])


def parts_of(table: pa.Table, seed: int, fold: int) -> dict[str, list[str]]:
    """The utterances of each part of a fold."""
    own = pc.and_(pc.equal(table["fold_seed"], seed), pc.equal(table["fold"], fold))
    rows = table.filter(own).to_pylist()
    return {part: [row["utterance"] for row in rows if row["part"] == part] for part in folds.PARTS}


SPEAKERS, SENTENCES = tuple(CORPORA["emodb"].speakers), tuple("abcdefgh")


@st.composite
def corpora(draw: st.DrawFn) -> pa.Table:
    """A manifest of EMODB's speakers, who say some sentences, some of them often."""
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(SPEAKERS), st.sampled_from(SENTENCES)),
            min_size=6,
            max_size=60,
        )
    )
    speakers, sentences = zip(*pairs, strict=True)
    return pa.table(
        {
            "utterance": [f"u{number}" for number in range(len(pairs))],
            "speaker": list(speakers),
            "emotion": draw(
                st.lists(
                    st.sampled_from(("sad", "happy")), min_size=len(pairs), max_size=len(pairs)
                )
            ),
            "sentence": list(sentences),
        }
    )


@given(
    corpora(),
    st.sampled_from(("random", "speaker", "sentence", "speaker-sentence")),
    st.none() | st.integers(2, 6),
    st.integers(0, 3),
)
def test_nothing_that_is_held_out_is_trained_on(listed, protocol, number, validation) -> None:
    """Whatever the settings: no speaker, sentence or validation utterance on both sides."""
    seeds = [1, 7] if protocol == "random" else None
    number = number or 5 if protocol == "random" else number
    try:
        table = folds.table(listed, protocol, number, seeds, validation, lambda: CORPORA["emodb"])
    except (CorpusError, ParameterError):  # fewer groups than are asked for
        reject()
    who = {row["utterance"]: row for row in listed.to_pylist()}
    tested: dict[int, list[str]] = {}
    for seed, fold in dict.fromkeys(
        zip(table["fold_seed"].to_pylist(), table["fold"].to_pylist(), strict=True)
    ):
        parts = parts_of(table, seed, fold)
        assert parts["test"] and (parts["validation"] or not validation)
        tested.setdefault(seed, []).extend(parts["test"])
        assert len({u for part in parts.values() for u in part}) == sum(map(len, parts.values()))
        held_out = {"speaker": ["speaker"], "sentence": ["sentence"], "random": []}.get(
            protocol, ["speaker", "sentence"]
        )
        for one, other in (("train", "test"), ("validation", "test")):
            for what in held_out:
                sides = [{who[u][what] for u in parts[part]} for part in (one, other)]
                assert not sides[0] & sides[1]
        # what chooses the epoch was not trained on; of both kinds its speakers were not
        for what in held_out[:1]:
            assert not {who[u][what] for u in parts["train"]} & {
                who[u][what] for u in parts["validation"]
            }
    for utterances in tested.values():
        assert sorted(utterances) == sorted(who)  # each once


def test_a_fold_without_an_utterance_for_validation_is_refused() -> None:
    """Its epoch would be chosen on the test fold."""
    said = {"03": "a", "08": "a", "09": "ab", "10": "ab"}  # by each speaker
    pairs = [(speaker, sentence) for speaker, known in said.items() for sentence in known]
    speakers, sentences = map(list, zip(*pairs, strict=True))
    names = [f"u{number}" for number in range(len(pairs))]
    listed = pa.table({"utterance": names, "speaker": speakers, "sentence": sentences})
    rest = ("speaker-sentence", None, None)
    assert len(folds.table(listed, *rest, 0, lambda: CORPORA["emodb"]))
    with pytest.raises(ParameterError, match="fold 0 has no utterances for validation"):
        folds.table(listed, *rest, 1, lambda: CORPORA["emodb"])


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
