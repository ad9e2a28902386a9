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
