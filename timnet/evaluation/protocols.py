"""The protocols: which folds a run has, and which epoch's predictions are scored."""

from __future__ import annotations

# What the folds of a run and the epoch of its predictions make of a figure.
PROTOCOLS = {
    ("random", "best_on_test"): "published",
    ("random", "last"): "corrected",
    ("speaker", "last"): "speaker",
    ("cross", "last"): "cross",
}
MEANING = {
    "published": "random folds, the best epoch ON THE TEST FOLD: optimistic",
    "corrected": "random folds, the last epoch; speakers stand on both sides",
    "speaker": "speakers left out, the last epoch",
    "cross": "all of one corpus trained on, all of another tested, the last epoch",
}
