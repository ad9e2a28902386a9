"""Uncertainty of UAR and WAR: percentile bootstrap (Efron, "Bootstrap Methods", 1979).

Utterances are drawn again with replacement, and the score is computed again. Where the protocol
tests on unseen speakers, speakers are drawn first and then utterances of each (two-stage cluster
bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8): the
interval then covers other speakers, not only other utterances of these. Several training seeds are
averaged before: their spread is told beside the interval and is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 95  # percent
METRICS = ("uar", "war")
FEW_CLUSTERS = 10  # below, an interval over clusters is rough, and more often too narrow


def interval(
    truth: np.ndarray,
    hits: np.ndarray,
    clusters: np.ndarray | None = None,
    corpora: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """Bounds of UAR and WAR, in percent.

    Args:
        truth: (utterances,) label indices.
        hits: (draws, utterances) whether each was recognised, in every seed's own predictions;
            the score is the mean over draws.
        clusters: (utterances,) what is drawn before utterances, such as speakers; None: nothing.
        corpora: (utterances,) the corpus of each; the score is the mean over them. None: one.
    """
    return _bounds(_resampled(truth, hits.mean(0), clusters, corpora))


def difference(
    truth: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    clusters: np.ndarray | None = None,
    corpora: np.ndarray | None = None,
) -> dict[str, tuple[float, float, float]]:
    """Ours minus theirs on the same utterances, (difference, low, high) in points by metric.

    The same utterances are drawn for both, so that what is hard for both does not blur it.

    Args:
        truth, clusters, corpora: as of `interval`.
        ours, theirs: (draws, utterances) hits, averaged over draws; their numbers may differ.
    """
    change = ours.mean(0) - theirs.mean(0)
    bounds = _bounds(_resampled(truth, change, clusters, corpora))
    parts = [
        _scores(truth[own], change[own], np.ones((1, own.sum()))) for own in _strata(truth, corpora)
    ]
    whole = {name: float(np.mean([part[name][0] for part in parts])) for name in METRICS}
    return {name: (whole[name], *bounds[name]) for name in METRICS}


def _strata(truth: np.ndarray, corpora: np.ndarray | None) -> list[np.ndarray]:
    """Which utterances each corpus has, (utterances,) bool each."""
    if corpora is None:
        return [np.ones(len(truth), bool)]
    return [corpora == corpus for corpus in np.unique(corpora)]


def _resampled(
    truth: np.ndarray,
    values: np.ndarray,
    clusters: np.ndarray | None,
    corpora: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """The scores of RESAMPLES draws, (RESAMPLES,) each; corpora are drawn apart."""
    rng = np.random.default_rng(0)  # the same utterances in every call with as many of them
    of_corpora = []
    for own in _strata(truth, corpora):
        groups = None if clusters is None else clusters[own]
        drawn = _weights(rng, own.sum(), groups)
        parts = [_scores(truth[own], values[own], weights) for weights in drawn]
        of_corpora.append({n: np.concatenate([part[n] for part in parts]) for n in METRICS})
    return {name: np.mean([one[name] for one in of_corpora], 0) for name in METRICS}


def _weights(
    rng: np.random.Generator, size: int, clusters: np.ndarray | None, batch: int = 250
) -> Iterator[np.ndarray]:
    """How often each utterance was drawn, (batch, utterances) at a time."""
    for _ in range(RESAMPLES // batch):
        if clusters is None:
            yield rng.multinomial(size, np.full(size, 1 / size), batch)
            continue
        names, group = np.unique(clusters, return_inverse=True)
        weights = np.empty((batch, size))
        # a cluster that was drawn c times gives c times as many utterances as it has
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), batch)
        for number in range(len(names)):
            own = np.flatnonzero(group == number)
            share = np.full(len(own), 1 / len(own))
            weights[:, own] = rng.multinomial(drawn[:, number] * len(own), share)
        yield weights


def _scores(truth: np.ndarray, values: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted UAR and WAR of one value per utterance, (resamples,) each, percent."""
    classes = np.eye(truth.max() + 1)[truth]  # utterances, K
    support = weights @ classes
    # a class that was not drawn at all counts for nothing
    with np.errstate(invalid="ignore"):
        recalls = (weights * values) @ classes / support
    return {
        "uar": 100 * np.nanmean(recalls, 1),
        "war": 100 * (weights @ values) / weights.sum(1),
    }


def _bounds(scores: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    tail = (100 - CONFIDENCE) / 2
    return {
        name: (float(low), float(high))
        for name in METRICS
        for low, high in [np.percentile(scores[name], (tail, 100 - tail))]
    }
