"""How the results of a run changed from one revision to another, on the same utterances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from timnet.evaluation import intervals, score
from timnet.evaluation.score import Tested


@dataclass(frozen=True)
class Result:
    """What a revision says of a run."""

    record: dict[str, Any]  # run.json
    predictions: pa.Table  # of `schemas.predictions`

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.record["labels"])

    @property
    def corpus(self) -> str:
        """What is tested."""
        return self.record["tested_on"]

    @property
    def tests(self) -> dict[str, Tested]:
        """By protocol."""
        folds = self.record["folds"]["protocol"]
        return score.tests(self.predictions, self.labels, folds, self.corpus)


@dataclass(frozen=True)
class Change:
    """Of the figures of one protocol, on the utterances that both revisions tested."""

    utterances: int
    left_out: int  # that one of the two alone tested, or under another emotion
    before: float  # UAR, percent
    after: float
    points: dict[str, tuple[float, float, float]]  # "uar", "war": change, low, high


def changes(ours: Result, theirs: Result) -> dict[str, Change]:
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
    here, there = (np.array(rows) for rows in zip(*pairs, strict=True))
    after, before = ours.of(here), theirs.of(there)
    points = intervals.difference(
        after.truth, after.hits, before.hits, after.clusters, after.corpora
    )
    return Change(
        len(pairs),
        len(ours.truth) + len(theirs.truth) - 2 * len(pairs),
        _uar(before, classes),
        _uar(after, classes),
        points,
    )


def _keys(tested: Tested) -> list[tuple[str, str, int]]:
    corpora, truth = tested.corpora.tolist(), tested.truth.tolist()
    return list(zip(corpora, tested.utterances, truth, strict=True))


def _uar(tested: Tested, classes: int) -> float:
    """Mean over draws of the pooled UAR, percent."""
    return float(np.mean([draw["uar"] for draw in tested.scores(classes)]))
