"""How the results of a run changed from one revision to another, on the same utterances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timnet.evaluation import intervals, metrics
from timnet.evaluation.results import Result
from timnet.evaluation.score import Tested


@dataclass(frozen=True)
class Change:
    """Of the figures of one protocol, on the utterances that both revisions tested."""

    utterances: int
    left_out: int  # that one of the two alone tested, or under another emotion
    before: float  # UAR, percent
    after: float
    points: dict[str, tuple[float, float, float]]  # "uar", "war": change, low, high


def compare(ours: Result, theirs: Result) -> dict[str, Change]:
    """The change of each protocol, in points with the interval of a paired bootstrap.

    Empty where the two have other emotions or folds of another kind, or no utterance in common.
    """
    if ours.labels != theirs.labels:
        return {}
    result = {}
    before = theirs.tests
    for protocol, after in ours.tests.items():
        if protocol in before and (change := _paired(after, before[protocol], len(ours.labels))):
            result[protocol] = change
    return result


def _paired(ours: Tested, theirs: Tested, classes: int) -> Change | None:
    places = {key: place for place, key in enumerate(_keys(theirs))}
    pairs = [(place, places[key]) for place, key in enumerate(_keys(ours)) if key in places]
    if not pairs:
        return None
    here, there = np.array(pairs).T
    points = intervals.difference(ours.truth[here], ours.hits[:, here], theirs.hits[:, there])
    return Change(
        len(pairs),
        len(ours.truth) + len(theirs.truth) - 2 * len(pairs),
        _uar(theirs, there, classes),
        _uar(ours, here, classes),
        points,
    )


def _keys(tested: Tested) -> list[tuple[str, int]]:
    return list(zip(tested.utterances, tested.truth.tolist(), strict=True))


def _uar(tested: Tested, rows: np.ndarray, classes: int) -> float:
    """Mean over draws of the pooled UAR of some utterances, percent."""
    matrices = [
        metrics.confusion_matrix(tested.truth[rows], said[rows], classes)
        for said in tested.predicted
    ]
    return float(np.mean([100 * metrics.uar(matrix) for matrix in matrices]))
