"""The results of a run: the files that git keeps of it, made from what was trained."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from timnet import records, schemas
from timnet.errors import ArtifactError
from timnet.evaluation import protocols, score
from timnet.evaluation.score import Sexes, Tested
from timnet.paths import replacing, write_json, write_text

KEPT = ("predictions.parquet", "history.parquet", "run.json")  # as `timnet train` left them


@dataclass(frozen=True)
class Result:
    """What a revision says of a run."""

    record: dict[str, Any]  # run.json
    predictions: pa.Table  # of `schemas.predictions`

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.record["labels"])

    @property
    def corpora(self) -> list[str]:
        """What is tested."""
        return records.tested_on(self.record)

    @cached_property
    def tests(self) -> dict[str, Tested]:
        """By protocol."""
        folds = self.record["folds"]["protocol"]
        return score.tests(self.predictions, self.labels, folds, self.corpora[0])


def keep(trained: Path, results: Path) -> None:
    """Copy what a run left to its results, and the weights of its time scales beside it.

    Args:
        trained: the run's folder below build/train.
        results: the run's folder below results/runs.

    Raises:
        ArtifactError: a file is missing, or the weights are damaged; then none is copied.
    """
    for name in KEPT:
        if not (trained / name).is_file():
            raise ArtifactError(f"{trained / name}: no such file. Run `dvc repro`.")
    path = trained / "weights.npz"
    try:
        with np.load(path) as weights:
            scales = score.scale_rows(weights)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path}: not the weights of a run ({error}). Run `dvc repro`."
        ) from None
    for name in KEPT:
        with replacing(results / name) as partial:
            shutil.copyfile(trained / name, partial)
    write_text(results / "scales.csv", scales.write_csv())


def put(results: Path, record: dict[str, Any], predictions: pa.Table) -> None:
    """Write what a source says of another corpus to its results; it has no history of its own.

    Args:
        results: the transfer's folder below results/runs.
        record: run.json.
    """
    schemas.write(predictions, results / "predictions.parquet", schemas.predictions_of(record))
    write_json(results / "run.json", record)


def read(results: Path) -> Result:
    """What the results of a run say.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    record = records.read_artifact(results / "run.json", records.RunRecord)
    path = results / "predictions.parquet"
    predictions = schemas.read(path, schemas.predictions_of(record))
    try:
        refuse_gaps(record, predictions)
    except schemas.DamagedTable as error:
        raise ArtifactError(
            f"{path}: {error}. Restore it from git, or delete it and run `dvc repro`."
        ) from None
    return Result(record, predictions)


def refuse_gaps(record: dict[str, Any], predictions: pa.Table) -> None:
    """Refuse predictions that are not all of a run's, or no numbers.

    Raises:
        schemas.DamagedTable: other seeds than the record's, an utterance that is missing or there
            twice, logits that are not finite.
    """
    frame = pl.DataFrame(predictions.select(["fold_seed", "seed", "epoch_kind", "utterance"]))
    draws = frame.group_by("fold_seed", "seed", "epoch_kind").agg(
        pl.len().alias("rows"), pl.col("utterance").n_unique()
    )
    seeds = set(record["seeds"])
    tests = len(seeds) * len(record["folds"].get("seeds", [0])) * draws["epoch_kind"].n_unique()
    if len(draws) != tests or set(draws["seed"]) != seeds or not tests:
        raise schemas.DamagedTable(
            f"not the predictions of run.json's seeds {', '.join(map(str, sorted(seeds)))}"
        )
    expected = record["utterances"]
    for *draw, rows, utterances in draws.sort(pl.all()).iter_rows():
        if not rows == utterances == expected:
            raise schemas.DamagedTable(
                f"{rows} rows of {utterances} utterances (folds' seed {draw[0]}, seed {draw[1]}, "
                f"epoch {draw[2]}), expected one of each of {expected}"
            )
    if not np.isfinite(predictions["logits"].combine_chunks().flatten().to_numpy()).all():
        raise schemas.DamagedTable("logits that are not finite")


def write_scores(results: Path, sexes: Sexes | None = None) -> dict[str, dict]:
    """Compute UAR, WAR and confusion matrices of a run, with the settings it was trained with.

    Args:
        results: the run's folder below results/runs.
        sexes: as of `score.scores`.

    Returns:
        as of `score.scores`.
    """
    result = read(results)
    predictions, labels = result.predictions, result.labels
    folds = result.record["folds"]["protocol"]
    parts = list(score.parts(predictions, labels, folds, result.corpora[0]))
    by_fold = pl.DataFrame(
        {
            "protocol": part.protocol,
            "fold_seed": part.fold_seed,
            "seed": part.seed,
            "fold": part.fold,
            "corpus": part.corpus,
            "utterances": int(part.confusion.sum()),
            "uar": round(part.uar, 4),
            "war": round(part.war, 4),
        }
        for part in parts
        if part.fold is not None
    )
    scores = score.scores(predictions, labels, folds, result.corpora[0], sexes)
    write_text(results / "folds.csv", by_fold.write_csv())
    write_text(results / "confusion.csv", score.confusion_rows(parts, labels).write_csv())
    write_text(results / "predicted.csv", score.predicted_rows(predictions, labels).write_csv())
    if folds != protocols.CROSS:
        history = schemas.read(results / "history.parquet", schemas.HISTORY)
        write_text(results / "curves.csv", score.curves(history).write_csv())
    write_json(results / "scores.json", scores)
    write_json(results / "metrics.json", score.summary(scores))
    return scores
