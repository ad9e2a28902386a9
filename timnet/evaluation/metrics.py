"""Weighted and unweighted average recall, in the words of the field.

WAR is the share of utterances that are recognised; UAR the mean of the emotions' recalls.
"""

from __future__ import annotations

import numpy as np


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, (classes, classes) int64: a row a true label, a column a predicted one.

    Args:
        truth, predicted: (utterances,) label indices below `classes`.
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def war(confusion: np.ndarray) -> float:
    """Weighted average recall, the accuracy, in 0 to 1."""
    return float(confusion.trace() / confusion.sum())


def uar(confusion: np.ndarray) -> float:
    """Unweighted average recall, in 0 to 1, over the labels that occur."""
    support = confusion.sum(1)
    occurs = support > 0
    return float((confusion.diagonal()[occurs] / support[occurs]).mean())
