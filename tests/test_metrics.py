from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics import confusion_matrix as by_sklearn

from timnet.evaluation import metrics

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label")
@given(pairs)
def test_metrics_are_scikit_learn_s(values: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(values).T
    confusion = metrics.confusion_matrix(truth, predicted, 5)
    assert confusion.tolist() == by_sklearn(truth, predicted, labels=range(5)).tolist()
    assert metrics.war(confusion) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.uar(confusion) == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_coverage_falls_with_the_threshold() -> None:
    """Against counting by hand."""
    from timnet.evaluation.calibration import coverage, probabilities

    drawn = np.random.default_rng(0)
    logits, truth = drawn.normal(size=(200, 4)) * 2, drawn.integers(0, 4, 200)
    thresholds = (0.0, 0.5, 0.9, 1.0)
    rows = coverage(logits, truth, 1.5, thresholds)
    for threshold, answered, correct in rows:
        kept = [
            (max(row), row.argmax() == label)
            for row, label in zip(probabilities(logits, 1.5), truth, strict=True)
            if max(row) >= threshold
        ]
        assert answered == len(kept) / 200
        expected = sum(right for _, right in kept) / len(kept) if kept else None
        assert correct == expected
    assert [row[0] for row in rows] == list(thresholds)
    assert rows[0][1] == 1 and rows[-1][2] is None
