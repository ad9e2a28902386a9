from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timnet import schemas
from timnet.dataset.normalise import sounding_frames
from timnet.errors import ParameterError, TrainingError
from timnet.evaluation import score
from timnet.training import baseline
from timnet.training.stack import Split

LABELS = ("angry", "happy", "sad")
FRAMES, CHANNELS = 20, 6


def corpus(utterances: int = 48, speakers: int = 4) -> tuple[np.ndarray, pa.Table]:
    """Padded features in which an emotion moves one coefficient, and a speaker all of them."""
    rng = np.random.default_rng(0)
    emotion = np.arange(utterances) % len(LABELS)
    speaker = np.arange(utterances) // len(LABELS) % speakers
    mfcc = rng.normal(0, 1, (utterances, FRAMES, CHANNELS))
    mfcc[np.arange(utterances), :, 1 + emotion] += 2
    mfcc[:, :, 1:] += 3 * rng.normal(0, 1, (speakers, CHANNELS - 1))[speaker][:, None]
    length = rng.integers(8, FRAMES - 2, utterances)
    padding = np.arange(FRAMES) >= length[:, None]
    mfcc[padding] = [-500.0, *[0.0] * (CHANNELS - 1)]
    table = pa.table(
        {
            "utterance": [f"u{number}" for number in range(utterances)],
            "speaker": [f"s{number}" for number in speaker],
            "emotion": [LABELS[label] for label in emotion],
        }
    )
    return mfcc.astype(np.float32), table


def splits(table: pa.Table, by: str, number: int = 4, seeds: tuple[int, ...] = (0,)) -> list[Split]:
    if by == "random":
        of = np.random.default_rng(1).permutation(np.arange(len(table)) % number)
    else:
        of = np.array([int(name[1:]) for name in table["speaker"].to_pylist()])
    return [
        Split(0, fold, seed, np.flatnonzero(of != fold), np.flatnonzero(of == fold))
        for seed in seeds
        for fold in range(of.max() + 1)
    ]


def accuracy(by: str, normalise: str = "none") -> float:
    mfcc, table = corpus()
    told = baseline.predictions(mfcc, table, LABELS, splits(table, by), normalise)
    (scores,) = score.scores(told, LABELS, by).values()
    return scores["war"]["value"]


def test_padding_does_not_count() -> None:
    mfcc, _ = corpus()
    speech = sounding_frames(mfcc)
    longer = np.concatenate([mfcc[:, -2:], mfcc, np.repeat(mfcc[:, -1:], 30, 1)], 1)
    expected = baseline.statistics(mfcc, speech)
    np.testing.assert_allclose(
        baseline.statistics(longer, sounding_frames(longer)), expected, atol=1e-9
    )
    first = mfcc[0][speech[0]].astype(np.float64)
    np.testing.assert_allclose(expected[0, :CHANNELS], first.mean(0))
    np.testing.assert_allclose(
        expected[0, 2 * CHANNELS : 3 * CHANNELS], np.percentile(first, 10, 0)
    )
    assert expected[0, -1] == len(first) < FRAMES


def test_silence_alone_gives_numbers() -> None:
    silent = np.zeros((1, FRAMES, CHANNELS), np.float32)
    assert not baseline.statistics(silent, sounding_frames(silent)).any()


def test_it_learns_and_knowing_the_speaker_s_range_helps() -> None:
    assert accuracy("random", "speaker") > 90
    alone, normalised = accuracy("speaker"), accuracy("speaker", "speaker")
    assert normalised > 90
    assert normalised > alone + 30


@given(factor=st.floats(0.1, 10), offset=st.floats(-50, 50))
def test_a_speaker_s_own_scale_and_offset_do_not_matter_once_normalised(factor, offset) -> None:
    mfcc, table = corpus(utterances=24)
    speech = sounding_frames(mfcc)
    speakers = np.array(table["speaker"].to_pylist())
    moved = mfcc.astype(np.float64)
    moved[speakers == "s1"] = moved[speakers == "s1"] * factor + offset
    before, after = (
        baseline.inputs(values, speech, speakers, "speaker") for values in (mfcc, moved)
    )
    np.testing.assert_allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("normalise", ["none", "utterance", "speaker"])
def test_its_predictions_are_a_run_s(normalise: str) -> None:
    mfcc, table = corpus()
    own = splits(table, "random", seeds=(0, 7))
    told = baseline.predictions(mfcc, table, LABELS, own, normalise)
    schemas.check(told.schema, schemas.predictions(len(LABELS), CHANNELS), None)
    assert told["utterance"].to_pylist() == table["utterance"].to_pylist() * 2  # manifest's order
    assert set(told["epoch_kind"].to_pylist()) == {"last"}
    assert np.isfinite(np.array(told["logits"].to_pylist())).all()
    assert np.isfinite(np.array(told["fused"].to_pylist())).all()
    first, second = (told.filter(pa.compute.equal(told["seed"], seed)) for seed in (0, 7))
    assert first["logits"].equals(second["logits"])  # nothing is drawn at random
    scores = score.scores(told, LABELS, "random")["last-epoch"]
    assert scores["uar"]["seed_sd"] == 0


def test_across_corpora_speakers_of_one_name_are_not_one_speaker() -> None:
    mfcc, table = corpus()
    moved = mfcc.copy()
    moved[sounding_frames(mfcc)] += 100
    both = np.concatenate([mfcc, moved])
    names = ["one"] * len(mfcc) + ["two"] * len(mfcc)
    utterances = pa.concat_tables([table, table]).append_column("corpus", [names])
    split = Split(0, 0, 0, np.arange(len(mfcc)), len(mfcc) + np.arange(len(mfcc)))
    told = baseline.predictions(both, utterances, LABELS, [split], "speaker")
    assert "fused" not in told.column_names
    assert set(told["corpus"].to_pylist()) == {"two"}
    scores = score.scores(told, LABELS, "cross-corpus")["cross-corpus"]
    assert scores["corpora"]["two"]["war"]["value"] > 90


def test_two_emotions_have_two_logits() -> None:
    mfcc, table = corpus()
    two = [row for row, emotion in enumerate(table["emotion"].to_pylist()) if emotion != "sad"]
    mfcc, table = mfcc[two], table.take(two)
    told = baseline.predictions(mfcc, table, LABELS[:2], splits(table, "random"))
    logits = np.array(told["logits"].to_pylist())
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1])


def test_an_emotion_that_a_fold_does_not_train_on_is_never_named() -> None:
    mfcc, table = corpus()
    sad = np.array([emotion == "sad" for emotion in table["emotion"].to_pylist()])
    split = Split(0, 0, 0, np.flatnonzero(~sad), np.flatnonzero(sad))
    told = baseline.predictions(mfcc, table, LABELS, [split])
    assert (np.array(told["logits"].to_pylist()).argmax(1) != LABELS.index("sad")).all()


def test_what_it_cannot_do_is_refused() -> None:
    mfcc, table = corpus()
    with pytest.raises(ParameterError, match="corpus"):
        baseline.predictions(mfcc, table, LABELS, splits(table, "random"), "corpus")
    angry = np.flatnonzero([emotion == "angry" for emotion in table["emotion"].to_pylist()])
    with pytest.raises(TrainingError, match="fold 3"):
        baseline.predictions(mfcc, table, LABELS, [Split(0, 3, 0, angry, angry)])
