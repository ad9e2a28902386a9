"""The protocols: which folds a run has, and which epoch's predictions are scored."""

from __future__ import annotations

# What the folds of a run and the epoch of its predictions make of a score.
PROTOCOLS = {
    ("random", "best_on_test"): "best-epoch",
    ("random", "last"): "last-epoch",
    ("speaker", "last"): "speaker-independent",
    ("cross-corpus", "last"): "cross-corpus",
}
MEANING = {
    "best-epoch": "random folds, the epoch chosen ON THE TEST FOLD: optimistic, as in the paper",
    "last-epoch": "random folds, the last epoch; the same speakers are in train and test",
    "speaker-independent": "speaker-independent cross-validation, the last epoch",
    "cross-corpus": "trained on one corpus, tested on others, the last epoch",
}
