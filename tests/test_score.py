from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from timnet import schemas
from timnet.evaluation import score

LABELS = ("angry", "sad")


def predictions(folds: int, seeds: int, of_a_fold: int = 20) -> pa.Table:
    """Draws at random, each of other networks, over the same utterances."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "utterance": f"u{fold}-{number}",
            "speaker": f"s{fold}",
            "fold_seed": 0,
            "fold": fold,
            "seed": seed,
            "epoch_kind": "last",
            "epoch": 3,
            "emotion": LABELS[number % 2],
            "logits": rng.standard_normal(2).tolist(),
            "fused": [0.0],
        }
        for seed in range(seeds)
        for fold in range(folds)
        for number in range(of_a_fold)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.predictions(2, 1))


def test_with_several_seeds_the_headline_is_their_mean() -> None:
    figures = score.scores(predictions(folds=2, seeds=3), LABELS, "speaker")["speaker-independent"]
    draws = [draw["uar"] for draw in figures["draws"]]
    assert len(set(draws)) > 1
    assert figures["uar"]["value"] == pytest.approx(np.mean(draws), abs=1e-4)
    assert figures["uar"]["low"] < figures["uar"]["value"] < figures["uar"]["high"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_temperature_is_told_only_where_others_than_its_folds_fit_it(seeds: int) -> None:
    across = score.scores(predictions(folds=1, seeds=seeds), LABELS, "cross-corpus")["cross-corpus"]
    assert "calibration" not in across
    left_out = score.scores(predictions(folds=3, seeds=seeds), LABELS, "speaker")[
        "speaker-independent"
    ]
    assert set(left_out["calibration"]) == {"temperature", "error_before", "error_after"}
