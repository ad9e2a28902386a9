from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import recall_score

from timnet.evaluation import intervals


def answers(share: float, seed: int = 0, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """True labels of four classes of unequal size, and whether each was recognised."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, size, p=(0.4, 0.3, 0.2, 0.1))
    return truth, rng.random((1, size)) < share


def test_the_interval_is_the_percentile_bootstrap_s() -> None:
    truth, hits = answers(0.7)
    said = np.where(hits[0], truth, (truth + 1) % 4)

    def uar(truth: np.ndarray, said: np.ndarray) -> float:
        return 100 * recall_score(truth, said, average="macro", zero_division=np.nan)

    options = {"n_resamples": 600, "paired": True, "vectorized": False, "method": "percentile"}
    expected = bootstrap((truth, said), uar, rng=np.random.default_rng(1), **options)
    low, high = intervals.interval(truth, hits)["uar"]
    assert low == pytest.approx(expected.confidence_interval.low, abs=1)
    assert high == pytest.approx(expected.confidence_interval.high, abs=1)


def test_an_interval_holds_the_figure_it_is_of() -> None:
    truth, hits = answers(0.8)
    low, high = intervals.interval(truth, hits)["war"]
    assert low < 100 * hits.mean() < high
    assert 6 < high - low < 10  # about 4 * sqrt(0.8 * 0.2 / 400)


def test_several_draws_narrow_nothing_that_they_agree_about() -> None:
    truth, hits = answers(0.8)
    one, three = (intervals.interval(truth, np.repeat(hits, n, 0)) for n in (1, 3))
    assert one["uar"] == pytest.approx(three["uar"])


def test_a_difference_is_paired() -> None:
    """Five utterances more out of 400, all others alike: unpaired, nobody could see it."""
    truth, hits = answers(0.8)
    better = hits.copy()
    better[0, np.flatnonzero(~hits[0])[:12]] = True
    change, low, high = intervals.difference(truth, better, hits)["war"]
    assert change == pytest.approx(3)
    assert 0 < low < 3 < high < 6
    assert intervals.difference(truth, hits, hits)["uar"] == (0, 0, 0)


def test_a_class_of_one_utterance_may_miss_in_a_resample() -> None:
    truth = np.array([0] * 30 + [1])
    hits = np.ones((1, 31), bool)
    assert intervals.interval(truth, hits)["uar"] == (100, 100)
