"""How the results of a run changed from one revision to another, on the same utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from timnet.evaluation import intervals
from timnet.evaluation.results import Result
from timnet.evaluation.score import Tested


@dataclass(frozen=True)
class Change:
    """Of the scores of one protocol, on the utterances that both revisions tested."""

    utterances: int
    left_out: int  # that one of the two alone tested, or under another emotion
    before: float  # UAR, percent
    after: float
    points: dict[str, tuple[float, float, float]]  # "uar", "war": change, low, high


def compare(ours: Result, theirs: Result) -> dict[str, Change]:
    """The change of each protocol, in points with the interval of a paired bootstrap.

    Empty where the two have other emotions or folds of another kind, or no utterance in common.
    """
    found = ((protocol, mean_change([(ours, theirs)], protocol)) for protocol in ours.tests)
    return {protocol: change for protocol, change in found if change is not None}


def mean_change(pairs: Sequence[tuple[Result, Result]], protocol: str) -> Change | None:
    """The mean over pairs of results, ours and theirs, each pair of corpora of its own.

    Each side is first averaged over its seeds, whose numbers may differ. None where a pair has
    other emotions, folds of another kind, or no utterance in common.
    """
    found = [_common(ours, theirs, protocol) for ours, theirs in pairs]
    if not found or any(common is None for common in found):
        return None
    known = [common for common in found if common is not None]
    after, before = zip(*((ours, theirs) for ours, theirs, _ in known), strict=True)
    clusters = None
    if all(tested.clusters is not None for tested in after):  # apart in each corpus
        clusters = np.concatenate([tested.clusters for tested in after])
    points = intervals.difference(
        np.concatenate([tested.truth for tested in after]),
        np.concatenate([tested.hits.mean(0) for tested in after])[None],
        np.concatenate([tested.hits.mean(0) for tested in before])[None],
        clusters,
        np.concatenate([tested.corpora for tested in after]),
    )
    return Change(
        sum(len(tested.truth) for tested in after),
        sum(left_out for *_, left_out in known),
        float(np.mean([_uar(tested) for tested in before])),
        float(np.mean([_uar(tested) for tested in after])),
        points,
    )


def _common(ours: Result, theirs: Result, protocol: str) -> tuple[Tested, Tested, int] | None:
    """What both tested, in one order, and how many utterances one alone tested."""
    after, before = ours.tests.get(protocol), theirs.tests.get(protocol)
    if ours.labels != theirs.labels or after is None or before is None:
        return None
    places = {key: place for place, key in enumerate(_keys(before))}
    pairs = [(place, places[key]) for place, key in enumerate(_keys(after)) if key in places]
    if not pairs:
        return None
    here, there = (np.array(rows) for rows in zip(*pairs, strict=True))
    left_out = len(after.truth) + len(before.truth) - 2 * len(pairs)
    return after.of(here), before.of(there), left_out


def _keys(tested: Tested) -> list[tuple[str, str, int]]:
    corpora, truth = tested.corpora.tolist(), tested.truth.tolist()
    return list(zip(corpora, tested.utterances, truth, strict=True))


def _uar(tested: Tested) -> float:
    """Mean over draws of the pooled UAR, percent."""
    classes = int(max(tested.truth.max(), tested.predicted.max())) + 1
    return float(np.mean([draw["uar"] for draw in tested.scores(classes)]))
