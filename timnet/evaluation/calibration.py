"""Probabilities that mean what they say: one temperature, fitted on held-out predictions.

C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
A temperature divides all logits: it changes no winner, only how sure the network claims to be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 15  # of equal width, as in the paper
COLDEST, HOTTEST = 0.05, 20.0


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax over the last axis, (..., K)."""
    scaled = (logits - logits.max(-1, keepdims=True)) / temperature
    odds = np.exp(scaled)
    return odds / odds.sum(-1, keepdims=True)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Logits whose softmax is the mean of that of two, (..., K); nothing is fitted."""
    both = probabilities(first.astype(np.float64)) + probabilities(second.astype(np.float64))
    return np.log(both / 2).astype(np.float32)


def coverage(
    logits: np.ndarray, truth: np.ndarray, temperature: float, thresholds: Sequence[float]
) -> list[tuple[float, float, float | None]]:
    """What remains, and how much of it is right, if answers below a probability are held back.

    Args:
        logits: (utterances, K), truth (utterances,): as of `fit_temperature`.

    Returns:
        Threshold, share of utterances that are answered, share of these that are right; None for
        the last if none is answered.
    """
    given = probabilities(logits.astype(np.float64), temperature)
    right = given.argmax(1) == truth
    rows = []
    for threshold in thresholds:
        answered = given.max(1) >= threshold
        share = float(right[answered].mean()) if answered.any() else None
        rows.append((threshold, float(answered.mean()), share))
    return rows


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature of the smallest cross entropy.

    Args:
        logits: (utterances, K), each from a network that was not trained on the utterance.
        truth: (utterances,) label indices.
    """
    from scipy.optimize import minimize_scalar

    values = logits.astype(np.float64)
    rows = np.arange(len(truth))

    def cross_entropy(log_temperature: float) -> float:
        given = probabilities(values, np.exp(log_temperature))[rows, truth]
        return -float(np.log(np.maximum(given, 1e-300)).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def held_out(
    logits: np.ndarray, truth: np.ndarray, folds: np.ndarray
) -> tuple[float, float, float]:
    """The temperature of all that was held out, and the expected error before and after it.

    For the error after it, each fold is given the temperature of the others: with one fold alone
    there is nothing to fit it on, and the error after is that of a temperature fitted on itself.

    Args:
        logits, truth: as of `fit_temperature`.
        folds: (utterances,) the fold that each was tested in.
    """
    temperature = fit_temperature(logits, truth)
    cooled = probabilities(logits, temperature)
    for fold in set(folds.tolist()):
        own, others = folds == fold, folds != fold
        if others.any():
            cooled[own] = probabilities(logits[own], fit_temperature(logits[others], truth[others]))
    before = expected_error(probabilities(logits), truth)
    return temperature, before, expected_error(cooled, truth)


def expected_error(given: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error, in 0 to 1: how far claimed certainty is from the share right.

    Utterances are sorted into BINS by the probability of their winner; the error is the mean over
    utterances of the distance between the bin's mean probability and its accuracy.

    Args:
        given: (utterances, K) probabilities.
        truth: (utterances,) label indices.
    """
    certainty, right = given.max(1), given.argmax(1) == truth
    bins = np.minimum((certainty * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, certainty - right, BINS)
    return float(np.abs(gaps).sum() / len(truth))
