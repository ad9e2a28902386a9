"""Two methods as one: by definition, and only where both tell of the same utterances."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from timnet import schemas
from timnet.errors import ArtifactError
from timnet.evaluation.together import together

LABELS = ("angry", "happy", "sad")
NAMES = [f"u{number}" for number in range(12)]


def predictions(
    seed: int, seeds: int, order: list[str], kinds: tuple[str, ...] = ("last",)
) -> pa.Table:
    """Drawn logits of utterances, in an order, for each seed and kind of epoch."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "utterance": name,
            "speaker": "ab"[NAMES.index(name) % 2],
            "fold_seed": 0,
            "fold": NAMES.index(name) % 2,
            "seed": one,
            "epoch_kind": kind,
            "epoch": 1,
            "emotion": LABELS[NAMES.index(name) % 3],
            "logits": rng.normal(0, 3, 3).tolist(),
            "fused": [0.0, 0.0],
        }
        for one in range(seeds)
        for kind in kinds
        for name in order
    ]
    return pa.Table.from_pylist(rows, schema=schemas.predictions(3, 2))


def softmax(logits: list[float]) -> np.ndarray:
    odds = np.exp(np.array(logits))
    return odds / odds.sum()


def test_the_mean_of_the_probabilities_decides_whatever_the_order_of_rows() -> None:
    network = predictions(1, 2, NAMES, ("best_on_test", "last"))
    machine = predictions(2, 1, NAMES[::-1])
    found = together(network, machine, LABELS).to_pylist()
    theirs = {row["utterance"]: row["logits"] for row in machine.to_pylist()}
    ours = [row for row in network.to_pylist() if row["epoch_kind"] == "last"]
    assert len(found) == len(ours) == 24
    for row, one in zip(found, ours, strict=True):
        assert (row["utterance"], row["seed"]) == (one["utterance"], one["seed"])
        expected = (softmax(one["logits"]) + softmax(theirs[one["utterance"]])) / 2
        np.testing.assert_allclose(np.exp(row["logits"]), expected, rtol=1e-5)


def test_other_utterances_are_refused() -> None:
    network = predictions(1, 2, NAMES)
    for machine in (
        predictions(2, 1, NAMES[1:]),
        predictions(2, 2, NAMES),  # of several seeds there is no one answer
    ):
        with pytest.raises(ArtifactError):
            together(network, machine, LABELS)
