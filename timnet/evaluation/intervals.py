"""How sure a figure is: bootstrap over utterances.

The confidence interval is the percentile one (Efron, "Bootstrap Methods", 1979): utterances are
drawn anew, with replacement, and the figure is computed again. It tells how the figure would
vary with other utterances of the same kind and speakers, not with other speakers or trainings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 95  # percent
METRICS = ("uar", "war")


def interval(truth: np.ndarray, hits: np.ndarray) -> dict[str, tuple[float, float]]:
    """Bounds of UAR and WAR, in percent.

    Args:
        truth: (utterances,) label indices.
        hits: (draws, utterances) whether each was recognised, in every seed's own predictions;
            the figure is the mean over draws.
    """
    return _bounds(_resampled(truth, hits.mean(0)))


def difference(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict[str, tuple]:
    """Ours minus theirs on the same utterances, (difference, low, high) in points a metric.

    Args:
        truth: (utterances,) label indices.
        ours, theirs: (draws, utterances) hits; the numbers of draws may differ.
    """
    change = ours.mean(0) - theirs.mean(0)
    whole = _figures(truth, change, np.ones((1, len(truth))))
    bounds = _bounds(_resampled(truth, change))
    return {name: (float(whole[name][0]), *bounds[name]) for name in METRICS}


def _resampled(truth: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)  # the same utterances in every call with as many of them
    parts = [_figures(truth, values, weights) for weights in _weights(rng, len(truth))]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _weights(rng: np.random.Generator, size: int, batch: int = 250) -> Iterator[np.ndarray]:
    """How often each utterance was drawn, (batch, utterances) at a time."""
    for _ in range(RESAMPLES // batch):
        yield rng.multinomial(size, np.full(size, 1 / size), batch)


def _figures(truth: np.ndarray, values: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted WAR and UAR of a value an utterance, (resamples,) each, percent."""
    classes = np.eye(truth.max() + 1)[truth]  # utterances, K
    support = weights @ classes
    with np.errstate(invalid="ignore"):  # a class that was not drawn at all counts for nothing
        recalls = (weights * values) @ classes / support
    return {
        "uar": 100 * np.nanmean(recalls, 1),
        "war": 100 * (weights @ values) / weights.sum(1),
    }


def _bounds(figures: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    tail = (100 - CONFIDENCE) / 2
    return {
        name: (float(low), float(high))
        for name in METRICS
        for low, high in [np.percentile(figures[name], (tail, 100 - tail))]
    }
