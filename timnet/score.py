"""Metrics of a run from its predictions.

Headline figures are computed on the confusion matrix pooled over the folds, as the paper does;
the mean and spread over folds stand beside them. With several seeds, of the model or of the
folds, each is pooled and the mean over them is the headline. All figures are percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from timnet import metrics

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


@dataclass(frozen=True)
class Part:
    """Predictions that are scored together."""

    protocol: str
    fold_seed: int
    seed: int
    fold: int | None  # None: pooled over the folds
    confusion: np.ndarray  # (K, K) counts

    @property
    def uar(self) -> float:
        return 100 * metrics.uar(self.confusion)

    @property
    def war(self) -> float:
        return 100 * metrics.war(self.confusion)


def parts(predictions: pa.Table, labels: tuple[str, ...], folds: str) -> Iterator[Part]:
    """Every protocol, seeds and fold of a run, the pooled ones first.

    Args:
        predictions: table of `schemas.predictions`.
        labels: the emotions in the order of their indices.
        folds: how the run was split, "random", "speaker" or "cross".
    """
    truth, predicted = _indices(predictions, labels)
    kinds = np.array(predictions["epoch_kind"].to_pylist())
    fold_seeds, seeds, fold_of = (
        predictions[name].to_numpy() for name in ("fold_seed", "seed", "fold")
    )
    draws = sorted(set(zip(fold_seeds.tolist(), seeds.tolist(), strict=True)))
    for (split, kind), protocol in PROTOCOLS.items():
        if split != folds:
            continue
        for fold_seed, seed in draws:
            drawn = (kinds == kind) & (fold_seeds == fold_seed) & (seeds == seed)
            for fold in (None, *np.unique(fold_of[drawn]).tolist()):
                rows = drawn & (fold is None or fold_of == fold)
                confusion = metrics.confusion_matrix(truth[rows], predicted[rows], len(labels))
                yield Part(protocol, fold_seed, seed, fold, confusion)


def summary(scored: list[Part]) -> dict[str, dict[str, float]]:
    """A few figures a protocol: pooled UAR and WAR, their mean and spread over folds.

    The spread is the sample standard deviation over all folds of all seeds.
    """
    result: dict[str, dict[str, float]] = {}
    for protocol in dict.fromkeys(part.protocol for part in scored):
        own = [part for part in scored if part.protocol == protocol]
        pooled = [part for part in own if part.fold is None]
        folds = [part for part in own if part.fold is not None]
        result[protocol] = {}
        for name in ("uar", "war"):
            by_fold = [getattr(part, name) for part in folds]
            result[protocol][name] = _round(np.mean([getattr(part, name) for part in pooled]))
            result[protocol][f"{name}_fold_mean"] = _round(np.mean(by_fold))
            if len(by_fold) > 1:
                result[protocol][f"{name}_fold_sd"] = _round(np.std(by_fold, ddof=1))
    return result


def confusion_rows(scored: list[Part], labels: tuple[str, ...]) -> pl.DataFrame:
    """The pooled confusion matrices in long form: protocol, actual, predicted, utterances."""
    rows = []
    for protocol in dict.fromkeys(part.protocol for part in scored):
        pooled = np.sum(
            [p.confusion for p in scored if p.fold is None and p.protocol == protocol], axis=0
        )
        for actual, counts in zip(labels, pooled, strict=True):
            for predicted, count in zip(labels, counts, strict=True):
                rows.append((protocol, actual, predicted, int(count)))
    columns = ["protocol", "actual", "predicted", "utterances"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def predicted_rows(predictions: pa.Table, labels: tuple[str, ...]) -> pl.DataFrame:
    """Actual and predicted emotion of each utterance after the last epoch, for `dvc plots`."""
    last = np.array(predictions["epoch_kind"].to_pylist()) == "last"
    names = np.array(labels)
    truth, predicted = (names[indices[last]] for indices in _indices(predictions, labels))
    return pl.DataFrame({"actual": truth, "predicted": predicted})


def _indices(predictions: pa.Table, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true and of the predicted label, (rows,) each."""
    order = {label: index for index, label in enumerate(labels)}
    truth = np.array([order[emotion] for emotion in predictions["emotion"].to_pylist()])
    logits = predictions["logits"].combine_chunks().flatten().to_numpy()
    return truth, logits.reshape(-1, len(labels)).argmax(1)


def _round(value: float) -> float:
    return round(float(value), 4)
