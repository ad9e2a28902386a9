from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import recall_score

from timnet.evaluation import intervals


def predictions(share: float, seed: int = 0, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """True labels of four classes of unequal size, and whether each was recognised."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, size, p=(0.4, 0.3, 0.2, 0.1))
    return truth, rng.random((1, size)) < share


def test_the_interval_is_the_percentile_bootstrap_s() -> None:
    truth, hits = predictions(0.7)
    said = np.where(hits[0], truth, (truth + 1) % 4)

    def uar(truth: np.ndarray, said: np.ndarray) -> float:
        return 100 * recall_score(truth, said, average="macro", zero_division=np.nan)

    options = {"n_resamples": 600, "paired": True, "vectorized": False, "method": "percentile"}
    expected = bootstrap((truth, said), uar, rng=np.random.default_rng(1), **options)
    low, high = intervals.interval(truth, hits)["uar"]
    assert low == pytest.approx(expected.confidence_interval.low, abs=1)
    assert high == pytest.approx(expected.confidence_interval.high, abs=1)


def test_an_interval_holds_the_figure_it_is_of() -> None:
    truth, hits = predictions(0.8)
    low, high = intervals.interval(truth, hits)["war"]
    assert low < 100 * hits.mean() < high
    assert 6 < high - low < 10  # about 4 * sqrt(0.8 * 0.2 / 400)


def test_several_draws_narrow_nothing_that_they_agree_about() -> None:
    truth, hits = predictions(0.8)
    one, three = (intervals.interval(truth, np.repeat(hits, n, 0)) for n in (1, 3))
    assert one["uar"] == pytest.approx(three["uar"])


def test_a_difference_is_paired() -> None:
    """Five utterances more out of 400, all others alike: unpaired, nobody could see it."""
    truth, hits = predictions(0.8)
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


def grouped(between: float, groups: int = 12, of_a_group: int = 40, seed: int = 0):
    """Truth, hits and groups, whose shares of hits differ by a standard deviation `between`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), of_a_group)
    share = np.clip(0.6 + between * rng.standard_normal(groups), 0, 1)[group]
    return np.arange(len(group)) % 4, rng.random((1, len(group))) < share, group


def width(bounds: tuple[float, float]) -> float:
    return bounds[1] - bounds[0]


def test_speakers_who_differ_widen_the_interval() -> None:
    truth, hits, group = grouped(between=0.2)
    over_utterances = intervals.interval(truth, hits)["uar"]
    over_speakers = intervals.interval(truth, hits, group)["uar"]
    assert width(over_speakers) > 1.8 * width(over_utterances)
    # close to what the speakers' own scores tell: 1.96 standard errors to either side
    own = [100 * hits[0, group == each].mean() for each in range(12)]
    expected = 2 * 1.96 * np.std(own, ddof=1) / np.sqrt(12)
    assert width(over_speakers) == pytest.approx(expected, rel=0.25)


def test_speakers_who_do_not_differ_widen_it_little() -> None:
    truth, hits, group = grouped(between=0)
    ratio = width(intervals.interval(truth, hits, group)["war"]) / width(
        intervals.interval(truth, hits)["war"]
    )
    assert 0.8 < ratio < 1.6


def test_every_utterance_a_speaker_of_its_own_is_no_clustering() -> None:
    truth, hits, _ = grouped(between=0.1)
    alone = intervals.interval(truth, hits, np.arange(len(truth)))["uar"]
    assert alone == pytest.approx(intervals.interval(truth, hits)["uar"], abs=0.8)


def test_a_single_speaker_s_interval_is_over_utterances() -> None:
    truth, hits, _ = grouped(between=0.1)
    alone = intervals.interval(truth, hits, np.zeros(len(truth)))["uar"]
    assert alone == pytest.approx(intervals.interval(truth, hits)["uar"], abs=0.8)


def test_a_paired_difference_keeps_speakers_together() -> None:
    """All speakers gain alike: the difference is sure though the speakers differ widely."""
    truth, hits, group = grouped(between=0.25)
    better = hits | (np.arange(len(truth)) % 10 == 0)
    change, low, high = intervals.difference(truth, better, hits, group)["war"]
    assert 0 < low < change < high
    assert high - low < width(intervals.interval(truth, hits, group)["war"]) / 2


def test_the_score_across_corpora_is_their_mean_however_large_they_are() -> None:
    truth = np.array([0, 1] * 210)
    corpora = np.array(["large"] * 400 + ["small"] * 20)
    hits = (corpora == "large")[None]
    nothing = np.zeros_like(hits)
    assert intervals.difference(truth, hits, nothing, None, corpora)["uar"] == (50, 50, 50)
    assert intervals.interval(truth, hits, None, corpora)["war"] == (50, 50)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_bounds_hold_the_score_or_lie_near_it(seed: int) -> None:
    truth, hits, group = grouped(0.1, groups=5, of_a_group=8, seed=seed)
    for name, (low, high) in intervals.interval(truth, hits, group).items():
        assert 0 <= low <= high <= 100, name
    assert low - 1e-9 <= 100 * hits.mean() <= high + 1e-9
