"""Metrics of a run from its predictions.

Headline scores are computed on the confusion matrix pooled over the folds, as the paper does;
the mean and spread over folds stand beside them. With several seeds, of the model or of the
folds, each is pooled and the mean over them is the headline, with their spread beside it. A run
tested on several corpora has the mean over them as its headline. All scores are percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from timnet.evaluation import calibration, intervals, metrics, protocols

Sexes = Mapping[str, Mapping[str, str]]  # corpus -> speaker -> "female" or "male"


@dataclass(frozen=True)
class Part:
    """Predictions that are scored together."""

    protocol: str
    fold_seed: int
    seed: int
    fold: int | None  # None: pooled over the folds
    corpus: str  # that was tested
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
    corpora: np.ndarray  # (utterances,) the corpus of each
    clusters: np.ndarray | None  # (utterances,) what intervals draw first; None: utterances alone

    @property
    def hits(self) -> np.ndarray:
        return self.predicted == self.truth

    def of(self, rows: np.ndarray) -> Tested:
        """Some of the utterances, (utterances,) bool or indices."""
        chosen = np.arange(len(self.truth))[rows]
        return Tested(
            [self.utterances[row] for row in chosen],
            self.speakers[chosen],
            self.truth[chosen],
            self.predicted[:, chosen],
            self.corpora[chosen],
            None if self.clusters is None else self.clusters[chosen],
        )

    def by_corpus(self) -> dict[str, Tested]:
        return {name: self.of(self.corpora == name) for name in np.unique(self.corpora).tolist()}

    def interval(self) -> dict[str, tuple[float, float]]:
        """Bounds of UAR and WAR, percent, mean over corpora."""
        return intervals.interval(self.truth, self.hits, self.clusters, self.corpora)

    def scores(self, classes: int) -> list[dict[str, float]]:
        """UAR and WAR of each draw, percent, mean over corpora."""
        by_draw = []
        for draw in range(len(self.predicted)):
            matrices = [
                metrics.confusion_matrix(one.truth, one.predicted[draw], classes)
                for one in self.by_corpus().values()
            ]
            by_draw.append(
                {
                    "uar": 100 * float(np.mean([metrics.uar(matrix) for matrix in matrices])),
                    "war": 100 * float(np.mean([metrics.war(matrix) for matrix in matrices])),
                }
            )
        return by_draw


def parts(
    predictions: pa.Table, labels: tuple[str, ...], folds: str, tested_on: str = ""
) -> Iterator[Part]:
    """Every protocol, seeds, corpus and fold of a run, the pooled ones first.

    Args:
        predictions: table of `schemas.predictions`.
        labels: the emotions in the order of their indices.
        folds: how the run was split: the kind of folds of a `protocols.Protocol`.
        tested_on: the corpus of utterances of which the table does not tell it.
    """
    truth, predicted = _indices(predictions, labels)
    kinds = np.array(predictions["epoch_kind"].to_pylist())
    fold_seeds, seeds, fold_of = (
        predictions[name].to_numpy() for name in ("fold_seed", "seed", "fold")
    )
    corpora = _corpora(predictions, tested_on)
    draws = sorted(set(zip(fold_seeds.tolist(), seeds.tolist(), strict=True)))
    for protocol in protocols.of_folds(folds):
        for fold_seed, seed in draws:
            drawn = (kinds == protocol.epoch) & (fold_seeds == fold_seed) & (seeds == seed)
            for corpus in np.unique(corpora[drawn]).tolist():
                own = drawn & (corpora == corpus)
                for fold in (None, *np.unique(fold_of[own]).tolist()):
                    rows = own & (fold is None or fold_of == fold)
                    confusion = metrics.confusion_matrix(truth[rows], predicted[rows], len(labels))
                    yield Part(protocol.name, fold_seed, seed, fold, corpus, confusion)


def scores(
    predictions: pa.Table,
    labels: tuple[str, ...],
    folds: str,
    tested_on: str = "",
    sexes: Sexes | None = None,
) -> dict[str, dict]:
    """The scores of a run by protocol.

    Args:
        predictions, labels, folds, tested_on: as of `parts`.
        sexes: of the speakers of each corpus, as far as they are known.

    Returns:
        by protocol: uar and war, each with value (mean over draws of the pooled score), low and
        high (95 %: see `timnet.evaluation.intervals`), fold_mean and, with two folds or more,
        fold_sd (sample standard deviation over the folds of all draws), and with two draws or more
        seed_sd (over the draws' pooled scores); draws: what each seed gave; clusters: how many
        speakers or folds the interval draws, where it draws them; speakers and sexes: UAR, WAR and
        number of utterances of each, mean over draws. A draw is one seed of the folds with one of
        the model. Across corpora all of this stands in corpora, by corpus, and uar, war, draws are
        the mean over them. Where several folds were tested after the last epoch: calibration, of
        the first draw, with temperature, error_before and error_after.
    """
    every = list(parts(predictions, labels, folds, tested_on))
    across = folds == protocols.CROSS
    result: dict[str, dict] = {}
    for protocol, tested in tests(predictions, labels, folds, tested_on).items():
        own = [part for part in every if part.protocol == protocol]
        of_run = _scores_of(tested, own, len(labels))
        by_corpus = {
            corpus: {
                **_scores_of(one, [part for part in own if part.corpus == corpus], len(labels)),
                **_groups_of(one, len(labels), (sexes or {}).get(corpus, {})),
            }
            for corpus, one in tested.by_corpus().items()
        }
        if across:
            of_run["corpora"] = by_corpus
        else:
            (of_run,) = by_corpus.values()
        several = len({part.fold for part in own if part.fold is not None}) > 1
        if several and protocols.named(protocol).epoch == protocols.LAST:  # fitted on other folds
            of_run["calibration"] = _calibration(predictions, labels)
        result[protocol] = of_run
    return result


def _scores_of(tested: Tested, own: list[Part], classes: int) -> dict:
    """UAR and WAR, draws and clusters of what was tested, whose parts are `own`."""
    drawn = tested.scores(classes)
    seeds = list(dict.fromkeys((part.fold_seed, part.seed) for part in own))
    by_fold: dict[tuple, list[Part]] = {}
    for part in own:
        if part.fold is not None:
            by_fold.setdefault((part.fold_seed, part.seed, part.fold), []).append(part)
    bounds = tested.interval()
    result: dict = {}
    for name in intervals.METRICS:
        values = [draw[name] for draw in drawn]
        of_folds = [np.mean([getattr(part, name) for part in each]) for each in by_fold.values()]
        low, high = bounds[name]
        result[name] = {
            "value": _round(np.mean(values)),
            "low": _round(low),
            "high": _round(high),
            "fold_mean": _round(np.mean(of_folds)),
        }
        if len(of_folds) > 1:
            result[name]["fold_sd"] = _round(np.std(of_folds, ddof=1))
        if len(values) > 1:
            result[name]["seed_sd"] = _round(np.std(values, ddof=1))
    result["draws"] = [
        {
            "fold_seed": fold_seed,
            "seed": seed,
            **{name: _round(draw[name]) for name in intervals.METRICS},
        }
        for (fold_seed, seed), draw in zip(seeds, drawn, strict=True)
    ]
    if tested.clusters is not None:
        result["clusters"] = len(set(zip(tested.corpora, tested.clusters, strict=True)))
    return result


def _groups_of(tested: Tested, classes: int, sexes: Mapping[str, str]) -> dict:
    """Scores of each speaker of a corpus, and of women and men where their sexes are known."""
    result: dict = {
        "speakers": {
            speaker: _of_rows(tested, tested.speakers == speaker, classes)
            for speaker in sorted(set(tested.speakers.tolist()))
        }
    }
    sex_of = np.array([sexes.get(speaker, "unknown") for speaker in tested.speakers.tolist()])
    known = [sex for sex in ("female", "male") if sex in sex_of]
    if known:
        result["sexes"] = {
            sex: {
                **_of_rows(tested, sex_of == sex, classes),
                "speakers": len(set(tested.speakers[sex_of == sex].tolist())),
            }
            for sex in known
        }
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


def tests(
    predictions: pa.Table, labels: tuple[str, ...], folds: str, tested_on: str = ""
) -> dict[str, Tested]:
    """What each protocol tested, args as of `parts`."""
    truth, predicted = _indices(predictions, labels)
    kinds = np.array(predictions["epoch_kind"].to_pylist())
    draws = len(
        set(zip(*(predictions[name].to_pylist() for name in ("fold_seed", "seed")), strict=True))
    )
    corpora = _corpora(predictions, tested_on)
    result = {}
    for protocol in protocols.of_folds(folds):
        rows = np.flatnonzero(kinds == protocol.epoch)
        if not len(rows):
            continue
        first = rows[: len(rows) // draws]  # every draw tests the same utterances
        speakers = np.array(predictions["speaker"].take(first).to_pylist())
        fold_of = predictions["fold"].to_numpy()[first]
        result[protocol.name] = Tested(
            predictions["utterance"].take(first).to_pylist(),
            speakers,
            truth[first],
            predicted[rows].reshape(draws, -1),
            corpora[first],
            {"utterances": None, "speakers": speakers, "folds": fold_of}[protocol.varies],
        )
    return result


def _corpora(predictions: pa.Table, tested_on: str) -> np.ndarray:
    """The corpus of each row, (rows,)."""
    if "corpus" not in predictions.column_names:
        return np.full(len(predictions), tested_on)
    return np.array([corpus or tested_on for corpus in predictions["corpus"].to_pylist()])


def _of_rows(tested: Tested, own: np.ndarray, classes: int) -> dict:
    """Scores of some utterances of a corpus, mean over draws."""
    drawn = tested.of(own).scores(classes)
    return {
        "uar": _round(np.mean([draw["uar"] for draw in drawn])),
        "war": _round(np.mean([draw["war"] for draw in drawn])),
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


def scale_rows(weights: Mapping[str, np.ndarray]) -> pl.DataFrame:
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
