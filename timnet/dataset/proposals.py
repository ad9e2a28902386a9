"""Settings that fit a corpus for which nobody has published any."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from timnet.dataset.features import HOP, SAMPLE_RATE

WHOLE = 0.95  # share of the recordings that a signal is to hold without cropping
STEP = SAMPLE_RATE // 10  # samples: lengths are multiples of 0.1 s
SHORTEST, LONGEST = SAMPLE_RATE, 15 * SAMPLE_RATE  # longer ones cost more than they tell
FEW_SPEAKERS = 10  # each is left out alone; of more, in groups
RECIPE = "paper"
SPEAKER_FOLDS = 5
RANDOM_FOLDS = 10


def signal_length(manifest: pa.Table) -> int:
    """Samples at SAMPLE_RATE that hold most of the recordings whole.

    Args:
        manifest: table of `schemas.MANIFEST`.
    """
    longest = float(np.quantile(_samples(manifest), WHOLE, method="higher"))
    return int(min(max(math.ceil(longest / STEP) * STEP, SHORTEST), LONGEST))


def share_within(manifest: pa.Table, length: int) -> float:
    """Share of the recordings that are no longer than `length` samples at SAMPLE_RATE."""
    return float((_samples(manifest) <= length).mean())


def blocks(length: int) -> int:
    """Temporal-aware blocks whose last one reaches back over a whole signal: 2^blocks frames.

    With this the paper's numbers come out for its corpora.
    """
    return math.ceil(math.log2(1 + length // HOP))


def entries(
    corpus: str, manifest: pa.Table, length: int, seeds: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Entries of params.yaml: a random run and, if there are speakers to leave out, one of them
    and its model.

    Args:
        length: of signals, samples.
        seeds: networks of each fold.

    Returns:
        By section and name.
    """
    speakers = len(set(manifest["speaker"].to_pylist()))
    folds: dict[str, dict[str, Any]] = {
        "random": {
            "protocol": "random",
            "number": min(RANDOM_FOLDS, len(manifest)),
            "seeds": [1],
        }
    }
    if speakers > FEW_SPEAKERS:
        folds["speaker"] = {"protocol": "speaker", "number": SPEAKER_FOLDS}
    elif speakers > 1:
        folds["speaker"] = {"protocol": "speaker"}
    runs = {
        f"{corpus}-{protocol}": {
            "trained_on": corpus,
            "signal_length": length,
            "folds": chosen,
            "recipe": RECIPE,
            "network": {"tabs": blocks(length), "variant": "tim-net"},
            "precision": "fp32",
            "seeds": list(range(seeds)),
        }
        for protocol, chosen in folds.items()
    }
    made: dict[str, dict[str, dict[str, Any]]] = {"recipes": {RECIPE: {}}, "runs": runs}
    if "speaker" in folds:  # a model whose card tells what it is worth on unseen speakers
        run = f"{corpus}-speaker"
        made["models"] = {corpus: {"run": run, "corpus": corpus, "networks": run}}
    return made


def _samples(manifest: pa.Table) -> np.ndarray:
    """Length of each recording, samples at SAMPLE_RATE."""
    return manifest["samples"].to_numpy() * SAMPLE_RATE / manifest["sample_rate"].to_numpy()
