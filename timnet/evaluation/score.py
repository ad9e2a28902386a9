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

from timnet.evaluation import calibration, intervals, metrics
from timnet.evaluation.protocols import PROTOCOLS


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


@dataclass(frozen=True)
class Tested:
    """The utterances that a protocol tested, and what they were taken for."""

    utterances: list[str]
    speakers: np.ndarray  # (utterances,)
    truth: np.ndarray  # (utterances,) label indices
    predicted: np.ndarray  # (draws, utterances); a draw is a seed of folds with one of the model

    @property
    def hits(self) -> np.ndarray:
        return self.predicted == self.truth


def parts(predictions: pa.Table, labels: tuple[str, ...], folds: str) -> Iterator[Part]:
    """Every protocol, seeds and fold of a run, the pooled ones first.

    Args:
        predictions: table of `schemas.predictions`.
        labels: the emotions in the order of their indices.
        folds: how the run was split, "random", "speaker" or "cross-corpus".
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


def scores(predictions: pa.Table, labels: tuple[str, ...], folds: str) -> dict[str, dict]:
    """The figures of a run a protocol.

    Args: as of `parts`.

    Returns:
        a protocol: uar and war, each with value (mean over draws of the pooled figure), low and
        high (95 %, over utterances), fold_mean and, with two folds or more, fold_sd (sample
        standard deviation over the folds of all draws); draws: what each seed gave; speakers:
        UAR, WAR and number of utterances of each speaker, mean over draws. A draw is one seed of
        the folds with one of the model. Where several folds were tested after the last epoch:
        calibration, of the first draw, with temperature, error_before and error_after.
    """
    every = list(parts(predictions, labels, folds))
    result: dict[str, dict] = {}
    for protocol, tested in tests(predictions, labels, folds).items():
        own = [part for part in every if part.protocol == protocol]
        pooled = [part for part in own if part.fold is None]
        by_fold = [part for part in own if part.fold is not None]
        bounds = intervals.interval(tested.truth, tested.hits)
        figures: dict = {}
        for name in intervals.METRICS:
            of_folds = [getattr(part, name) for part in by_fold]
            low, high = bounds[name]
            figures[name] = {
                "value": _round(np.mean([getattr(part, name) for part in pooled])),
                "low": _round(low),
                "high": _round(high),
                "fold_mean": _round(np.mean(of_folds)),
            }
            if len(of_folds) > 1:
                figures[name]["fold_sd"] = _round(np.std(of_folds, ddof=1))
        figures["draws"] = [
            {
                "fold_seed": part.fold_seed,
                "seed": part.seed,
                "uar": _round(part.uar),
                "war": _round(part.war),
            }
            for part in pooled
        ]
        figures["speakers"] = {
            speaker: _of_speaker(tested, tested.speakers == speaker, len(labels))
            for speaker in sorted(set(tested.speakers))
        }
        several = len({part.fold for part in by_fold}) > 1  # held out: fitted on the other folds
        if several and protocol != "best-epoch":  # its epochs were chosen on the test fold
            figures["calibration"] = _calibration(predictions, labels)
        result[protocol] = figures
    return result


def _calibration(predictions: pa.Table, labels: tuple[str, ...]) -> dict[str, float]:
    """Of the last epoch, of the first draw: errors in percent, before and after a temperature."""
    last = np.array(predictions["epoch_kind"].to_pylist()) == "last"
    for name in ("fold_seed", "seed"):
        values = predictions[name].to_numpy()
        last &= values == values[0]
    truth, logits = (values[last] for values in truth_and_logits(predictions, labels))
    folds = predictions["fold"].to_numpy()[last]
    temperature, before, after = calibration.held_out(logits, truth, folds)
    return {
        "temperature": _round(temperature),
        "error_before": _round(100 * before),
        "error_after": _round(100 * after),
    }


def tests(predictions: pa.Table, labels: tuple[str, ...], folds: str) -> dict[str, Tested]:
    """What each protocol tested, args as of `parts`."""
    truth, predicted = _indices(predictions, labels)
    kinds = np.array(predictions["epoch_kind"].to_pylist())
    draws = len(
        set(zip(*(predictions[name].to_pylist() for name in ("fold_seed", "seed")), strict=True))
    )
    result = {}
    for (split, kind), protocol in PROTOCOLS.items():
        rows = np.flatnonzero(kinds == kind)
        if split == folds:
            first = rows[: len(rows) // draws]  # every draw tests the same utterances
            result[protocol] = Tested(
                predictions["utterance"].take(first).to_pylist(),
                np.array(predictions["speaker"].take(first).to_pylist()),
                truth[first],
                predicted[rows].reshape(draws, -1),
            )
    return result


def _of_speaker(tested: Tested, own: np.ndarray, classes: int) -> dict:
    """Figures of one speaker, whose utterances are `own`, mean over draws."""
    matrices = [
        metrics.confusion_matrix(tested.truth[own], said[own], classes) for said in tested.predicted
    ]
    return {
        "uar": _round(np.mean([100 * metrics.uar(matrix) for matrix in matrices])),
        "war": _round(np.mean([100 * metrics.war(matrix) for matrix in matrices])),
        "utterances": int(own.sum()),
    }


def summary(scored: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Pooled UAR and WAR a protocol: the few rows that `dvc metrics` shows."""
    return {
        protocol: {name: figures[name]["value"] for name in intervals.METRICS}
        for protocol, figures in scored.items()
    }


def curves(history: pa.Table) -> pl.DataFrame:
    """Means over the networks of a run by epoch: losses, and accuracies in percent."""
    columns = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    means = pl.DataFrame(pl.from_arrow(history)).group_by("epoch").mean().sort("epoch")
    return means.select(
        "epoch",
        *((pl.col(c).cast(float) * (100 if "acc" in c else 1)).round(4) for c in columns),
    )


def scale_rows(weights: dict[str, np.ndarray]) -> pl.DataFrame:
    """The learned weights over time scales: fold_seed, seed, fold, block (from 1), weight."""
    rows = [
        (int(fold_seed), int(seed), int(fold), block, round(float(weight), 6))
        for fold_seed, seed, fold, of_blocks in zip(
            weights["fold_seed"],
            weights["seed"],
            weights["fold"],
            weights.get("scale_weight", [[]] * len(weights["fold"])),
            strict=True,
        )
        for block, weight in enumerate(of_blocks, 1)
    ]
    columns = {"fold_seed": int, "seed": int, "fold": int, "block": int, "weight": float}
    return pl.DataFrame(rows, schema=columns, orient="row")


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


def truth_and_logits(
    predictions: pa.Table, labels: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true label (rows,) and logits (rows, K)."""
    order = {label: index for index, label in enumerate(labels)}
    truth = np.array([order[emotion] for emotion in predictions["emotion"].to_pylist()])
    logits = predictions["logits"].combine_chunks().flatten().to_numpy()
    return truth, logits.reshape(-1, len(labels))


def _indices(predictions: pa.Table, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true and of the predicted label, (rows,) each."""
    truth, logits = truth_and_logits(predictions, labels)
    return truth, logits.argmax(1)


def _round(value: float | np.floating) -> float:
    return round(float(value), 4)
