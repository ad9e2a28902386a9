from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timnet import records, schemas
from timnet.errors import ArtifactError
from timnet.evaluation import results, score

LABELS = ("angry", "sad")


def predictions(
    folds: int,
    seeds: int,
    of_a_fold: int = 20,
    kinds: tuple[str, ...] = ("last",),
    corpora: dict[str, float] | None = None,
) -> pa.Table:
    """Draws at random, each of other networks, over the same utterances.

    Args:
        corpora: across corpora, how many utterances of each are recognised.
    """
    rng = np.random.default_rng(0)
    rows = [
        {
            "utterance": f"{corpus}{fold}-{number}",
            "speaker": f"s{fold}",
            "fold_seed": 0,
            "fold": fold,
            "seed": seed,
            "epoch_kind": kind,
            "epoch": 3,
            "emotion": LABELS[number % 2],
            "logits": logits(rng, number % 2, share),
            **({"corpus": corpus} if corpora else {"fused": [0.0]}),
        }
        for seed in range(seeds)
        for kind in kinds
        for corpus, share in (corpora or {"u": None}).items()
        for fold in range(folds)
        for number in range(of_a_fold)
    ]
    if corpora is None:
        return pa.Table.from_pylist(rows, schema=schemas.predictions(2, 1))
    table = pa.Table.from_pylist(rows)
    place = table.schema.get_field_index("logits")
    fixed = pa.array(table["logits"].to_pylist(), pa.list_(pa.float32(), 2))
    return table.set_column(place, "logits", fixed)


def logits(rng: np.random.Generator, label: int, share: float | None) -> list[float]:
    if share is None:
        return rng.standard_normal(2).tolist()
    said = label if rng.random() < share else 1 - label
    return np.eye(2)[said].tolist()


def test_with_several_seeds_the_headline_is_their_mean() -> None:
    scores = score.scores(predictions(folds=2, seeds=3), LABELS, "speaker")["speaker-independent"]
    draws = [draw["uar"] for draw in scores["draws"]]
    assert len(set(draws)) > 1
    assert scores["uar"]["value"] == pytest.approx(np.mean(draws), abs=1e-4)
    assert scores["uar"]["low"] < scores["uar"]["value"] < scores["uar"]["high"]
    assert scores["uar"]["seed_sd"] == pytest.approx(np.std(draws, ddof=1), abs=1e-4)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"no weights")])
def test_damaged_weights_are_named_before_anything_is_kept(tmp_path: Path, harm) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    for name in (*results.KEPT, "weights.npz"):
        (trained / name).write_bytes(b"x")
    harm(trained / "weights.npz")
    with pytest.raises(ArtifactError, match=r"weights\.npz: not the weights of a run"):
        results.keep(trained, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_one_seed_has_no_spread() -> None:
    scores = score.scores(predictions(folds=2, seeds=1), LABELS, "random")["last-epoch"]
    assert "seed_sd" not in scores["uar"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_temperature_is_told_only_where_others_than_its_folds_fit_it(seeds: int) -> None:
    across = score.scores(predictions(folds=1, seeds=seeds), LABELS, "cross-corpus")
    assert "calibration" not in across["cross-corpus"]
    unseen = score.scores(predictions(folds=3, seeds=seeds), LABELS, "speaker")
    told = unseen["speaker-independent"]["calibration"]
    assert set(told) == {"temperature", "error_before", "error_after"}


def test_the_kind_of_epoch_makes_the_protocol() -> None:
    kinds = ("best_on_test", "best_on_validation", "last")
    table = predictions(folds=2, seeds=2, kinds=kinds)
    assert list(score.scores(table, LABELS, "random")) == [
        "best-epoch",
        "validated-epoch",
        "last-epoch",
    ]
    validated = predictions(folds=2, seeds=1, kinds=("best_on_validation", "last"))
    assert list(score.scores(validated, LABELS, "sentence")) == [
        "sentence-independent-validated",
        "sentence-independent",
    ]
    told = score.scores(validated, LABELS, "sentence")  # of the last epoch alone
    assert [name for name in told if "calibration" in told[name]] == ["sentence-independent"]


@pytest.mark.parametrize(
    ("folds", "clusters"),
    [("random", None), ("speaker", 6), ("sentence", 6), ("speaker-sentence", 6)],
)
def test_it_tells_how_many_speakers_or_folds_the_interval_draws(folds: str, clusters) -> None:
    (scores,) = score.scores(predictions(folds=6, seeds=1), LABELS, folds).values()
    assert scores.get("clusters") == clusters


def test_women_and_men_are_scored_apart_where_it_is_known_who_is() -> None:
    sexes = {"demo": {"s0": "female", "s1": "male", "s2": "female"}}
    table = predictions(folds=4, seeds=2)
    scores = score.scores(table, LABELS, "speaker", "demo", sexes)["speaker-independent"]
    assert {sex: own["speakers"] for sex, own in scores["sexes"].items()} == {
        "female": 2,
        "male": 1,
    }
    assert scores["sexes"]["female"]["utterances"] == 40
    male = scores["sexes"]["male"]
    assert {name: male[name] for name in ("uar", "war", "utterances")} == scores["speakers"]["s1"]
    unknown = score.scores(table, LABELS, "speaker", "mine", sexes)["speaker-independent"]
    assert "sexes" not in unknown


def across(**corpora: float) -> dict:
    table = predictions(folds=1, seeds=3, of_a_fold=200, corpora=corpora)
    return score.scores(table, LABELS, "cross-corpus")["cross-corpus"]


def test_across_corpora_each_has_its_scores_and_the_headline_is_their_mean() -> None:
    scores = across(one=0.9, two=0.5)
    own = {corpus: each["uar"]["value"] for corpus, each in scores["corpora"].items()}
    assert own["one"] > own["two"] + 25
    assert scores["uar"]["value"] == pytest.approx(np.mean(list(own.values())), abs=1e-4)
    assert len(scores["draws"]) == len(scores["corpora"]["one"]["draws"]) == 3
    assert "speakers" in scores["corpora"]["one"] and "speakers" not in scores
    # two corpora may have speakers of one name
    assert scores["clusters"] == 2
    assert scores["corpora"]["one"]["clusters"] == 1


@settings(max_examples=10)
@given(
    st.sampled_from(["random", "speaker", "sentence", "cross-corpus"]),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_scores_are_what_is_read_back(folds: str, seeds: int, number: int) -> None:
    corpora = {"one": 0.8, "two": 0.6} if folds == "cross-corpus" else None
    table = predictions(number, seeds, of_a_fold=8, corpora=corpora)
    scores = score.scores(table, LABELS, folds)
    assert records.parse(json.dumps(scores).encode(), records.Scores) == scores
    assert set(score.summary(scores)) == set(scores)
    for part in score.parts(table, LABELS, folds):
        assert 0 <= part.uar <= 100
