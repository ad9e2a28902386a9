"""What training leaves: tables of `schemas`, weights by name, written as one folder."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from timnet import schemas
from timnet.dataset import normalise
from timnet.errors import ArtifactError
from timnet.paths import replacing_folder
from timnet.training.network import TIMNet

if TYPE_CHECKING:
    from timnet.training.splits import Split
    from timnet.training.stack import State

NETWORKS = ("fold_seed", "fold", "seed")  # beside the weights: which network each row is


@dataclass(frozen=True)
class TrainedRun:
    """What training leaves: tables of `schemas`, and weights by name, a row per network."""

    history: pa.Table
    predictions: pa.Table
    weights: dict[str, np.ndarray]


def write(run: TrainedRun, folder: Path, record: str) -> None:
    """Write a trained run: history, predictions, weights, and `record` as run.json.

    Equal runs give equal bytes. The folder appears whole or not at all.
    """
    with replacing_folder(folder) as partial:
        schemas.write(run.history, partial / "history.parquet", schemas.HISTORY)
        schemas.write(run.predictions, partial / "predictions.parquet", run.predictions.schema)
        np.savez(partial / "weights.npz", allow_pickle=False, **run.weights)
        (partial / "run.json").write_text(record, encoding="utf-8")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights of a trained run by name, as `write` left them.

    Raises:
        ArtifactError: no such file, or not the weights of a run.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = {name: file[name] for name in file.files}
        for name in NETWORKS:
            weights[name]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path}: not the weights of a run ({error}). Run `dvc repro`."
        ) from None
    return weights


def networks(record: dict[str, Any], weights: dict[str, np.ndarray], rows: np.ndarray) -> TIMNet:
    """Some of a run's networks as a stack that evaluates.

    Args:
        record: the content of the run's run.json.
        weights: as of `read_weights`.
        rows: which of them.
    """
    train, channels = record["train"], record["features"]["settings"]["coefficients"]
    stack = TIMNet(
        len(rows),
        len(record["labels"]),
        train["tabs"],
        channels,
        train["variant"],
        standardised=train.get("standardised", False),
    )
    names = stack.state_dict().keys()
    for place, row in enumerate(rows):
        stack.load_arrays(place, {name: torch.from_numpy(weights[name][row]) for name in names})
    return stack.eval()


def outcome(
    splits: list[Split],
    states: list[State],
    table: pa.Table,
    mfcc: np.ndarray,
    labels: tuple[str, ...],
    best: str | None,
    normalised: str,
) -> TrainedRun:
    """What the final states of a run's parts say and hold.

    Args:
        splits: of all parts, one after the other.
        table: utterances that the splits' indices point to: utterance, speaker, emotion.
        mfcc: (utterances, T, C) that was trained on.
        best: kind of the best epoch, to be kept beside the last one; None where nothing chose it.
        normalised: one of `normalise.NORMALISATIONS`.
    """
    return TrainedRun(
        _history(splits, states),
        _predictions(splits, states, table, labels, best),
        _weights(splits, states, mfcc if normalised == "corpus" else None),
    )


def _history(splits: list[Split], states: list[State]) -> pa.Table:
    """Rows of `schemas.HISTORY`, by network and epoch."""
    values = np.concatenate([np.stack(state.history, 1) for state in states])  # networks epochs 4
    networks, epochs, _ = values.shape
    networks_of = np.array([(split.fold_seed, split.fold, split.seed) for split in splits])
    columns = [
        *np.repeat(networks_of, epochs, 0).T.astype(np.int32),
        np.tile(np.arange(1, epochs + 1, dtype=np.int32), networks),
        *values.reshape(-1, 4).T.astype(np.float32),
    ]
    return pa.table([pa.array(column) for column in columns], schema=schemas.HISTORY)


def _predictions(
    splits: list[Split],
    states: list[State],
    table: pa.Table,
    labels: tuple[str, ...],
    best: str | None,
) -> pa.Table:
    """Rows of `schemas.predictions`, by seeds, kind of epoch and utterance."""
    classes, channels = len(labels), states[0].network.channels
    schema = schemas.predictions(classes, channels)
    if not any(len(split.test) for split in splits):
        return schema.empty_table()
    rows: list[tuple] = []
    for kind in ("last", best) if best else ("last",):
        scored = (
            (int(scores.epoch[row]), scores.logits[row].numpy(), scores.fused[row].numpy())
            for state in states
            for scores in (state.last if kind == "last" else state.best,)
            for row in range(state.network.networks)
        )
        for split, (epoch, *vectors) in zip(splits, scored, strict=True):
            for row, utterance in enumerate(split.test):
                key = (split.fold_seed, split.seed, kind, int(utterance))
                rows.append((*key, split.fold, epoch, *(values[row] for values in vectors)))
    rows.sort(key=lambda row: row[:4])
    fold_seeds, seeds, kinds, tested, folds, epochs, logits, fused = zip(*rows, strict=True)

    def lists(values: Sequence[np.ndarray], size: int) -> pa.Array:
        flat = np.stack(values)[:, :size].ravel()  # without what only pads to the network's width
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), size)

    columns = {
        "utterance": table["utterance"].take(tested),
        "speaker": table["speaker"].take(tested),
        "fold_seed": pa.array(fold_seeds, pa.int32()),
        "fold": pa.array(folds, pa.int32()),
        "seed": pa.array(seeds, pa.int32()),
        "epoch_kind": pa.array(kinds),
        "epoch": pa.array(epochs, pa.int32()),
        "emotion": table["emotion"].take(tested),
        "logits": lists(logits, classes),
        "fused": lists(fused, channels),
    }
    return pa.table(columns, schema=schema)


def _weights(
    splits: list[Split], states: list[State], mfcc: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Weights of the last epoch by name, a row per network, with its fold and seed.

    Of mfcc, where given, mean and deviation of each training part, to normalise others by.
    """
    networks = [
        state.network.arrays(row) for state in states for row in range(state.network.networks)
    ]
    weights = {
        name: torch.stack([arrays[name] for arrays in networks]).numpy() for name in networks[0]
    }
    for name in NETWORKS:
        weights[name] = np.array([getattr(split, name) for split in splits], np.int32)
    if mfcc is not None:
        sounding = normalise.sounding_frames(mfcc)
        parts = [normalise.statistics(mfcc[split.train], sounding[split.train]) for split in splits]
        weights["mean"], weights["deviation"] = map(np.stack, zip(*parts, strict=True))
    return weights
