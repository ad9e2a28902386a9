"""Training of a run: every fold and seed, spread over processes, stoppable at any moment.

Each part of the stack is trained by `stack.train_stack` and leaves one checkpoint, which after the
last epoch is its result. A run that was killed goes on from there, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from timnet import schemas
from timnet.dataset import features as feature_files
from timnet.errors import ArtifactError, TrainingError, listing
from timnet.processes import end_with, worker_environment
from timnet.training import network, stack
from timnet.training.stack import (
    Split,
    State,
    TrainSettings,
    fresh_state,
    load_state,
    save_state,
    train_stack,
)

CHECKPOINT_SECONDS = 30


@dataclass(frozen=True)
class Progress:
    """One epoch of one part has ended, now or before a restart."""

    part: int
    parts: int
    epoch: int
    loss: float  # training loss, mean over the part's networks
    accuracy: float  # on the test folds, likewise


@dataclass(frozen=True)
class TrainedRun:
    """What training leaves: tables of `schemas`, and weights by name, a row a network."""

    history: pa.Table
    predictions: pa.Table
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Part:
    """What one process trains together; plain values and paths, so that it travels cheaply."""

    number: int
    parts: int
    features: list[Path]
    utterances: list[str]
    labels: tuple[str, ...]
    splits: list[Split]
    settings: TrainSettings
    device: str
    checkpoint: Path
    fingerprint: str


def train(
    features: list[Path],
    folds: pa.Table,
    labels: tuple[str, ...],
    settings: TrainSettings,
    seeds: list[int],
    keep_best: bool,
    checkpoints: Path,
    device: str = "cpu",
    workers: int = 1,
    report: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    only: int | None = None,
) -> TrainedRun:
    """Train and test every fold of a run under every seed.

    Args:
        features: files of `dataset.features`, (utterances, frames, 39), with all utterances of
            the folds.
        folds: table of `schemas.FOLDS`.
        labels: the emotions in the order of their indices.
        seeds: the model's, one network each a fold: initial weights, data order, dropout.
        keep_best: also give the predictions of the epoch that was best ON THE TEST FOLD.
        checkpoints: folder for this run's checkpoints; removing it is the caller's business.
        device: "cpu" (a network a process: measured fastest, for it stays in the cache) or
            "cuda" (all networks in one stack, or in as few as its memory needs).
        workers: processes on the CPU, one thread each.
        report: called after every epoch of every part.
        notify: called with a sentence that the user should read.
        only: train just this fold, to the same bits on the CPU as among the others.

    Raises:
        ArtifactError: features, folds or a checkpoint do not fit each other.
        TrainingError: stopped by a signal (run again to continue), a worker died, or a loss is
            not finite.
    """
    seeds_of_folds = folds["fold_seed"].to_numpy()
    assignments = {
        int(seed): folds["fold"].to_numpy()[seeds_of_folds == seed]
        for seed in dict.fromkeys(seeds_of_folds)
    }
    utterances = folds["utterance"].to_pylist()[: len(folds) // len(assignments)]
    table = _utterances(features, utterances)
    splits = [
        Split(fold_seed, fold, seed, np.flatnonzero(of != fold), np.flatnonzero(of == fold))
        for fold_seed, of in assignments.items()
        for seed in seeds
        for fold in range(of.max() + 1)
        if only in (None, fold)
    ]
    for split in splits:
        if not len(split.train) or not len(split.test):
            raise TrainingError(
                f"fold {split.fold} has {len(split.train)} utterances to train on and "
                f"{len(split.test)} to test: both parts need some. Choose other folds."
            )
    fingerprint = _fingerprint(features, utterances, settings, labels, splits, device)

    def parts(number: int) -> list[_Part]:
        groups = [
            [splits[i] for i in group] for group in np.array_split(range(len(splits)), number)
        ]
        return [
            _Part(
                number,
                len(groups),
                features,
                utterances,
                labels,
                group,
                settings,
                device,
                checkpoints / fingerprint[:16] / _checkpoint_name(group),
                fingerprint,
            )
            for number, group in enumerate(groups)
        ]

    number = 1 if device == "cuda" else len(splits)
    while True:
        try:
            trained = parts(number)
            _train_parts(trained, min(workers, number), report)
            break
        except torch.OutOfMemoryError:
            if number == len(splits):
                raise TrainingError(
                    "the GPU has too little free memory for a single network. Free some, lower "
                    "train.batch_size, or train on the CPU: TIMNET_DEVICE=cpu."
                ) from None
            number += 1
            notify(f"out of GPU memory: training {len(splits)} networks in {number} parts")
    states = [_finished(part, table) for part in trained]
    return TrainedRun(
        _history(splits, states),
        _predictions(splits, states, table, labels, keep_best),
        _weights(splits, states),
    )


def _checkpoint_name(splits: list[Split]) -> str:
    first = splits[0]
    return f"{first.fold_seed}-{first.seed}-{first.fold}-{len(splits)}.pt"


def _utterances(features: list[Path], wanted: list[str]) -> pa.Table:
    """The wanted rows of several files of features, in that order."""
    table = pa.concat_tables([feature_files.read(path)[0] for path in features])
    row_of = {utterance: row for row, utterance in enumerate(table["utterance"].to_pylist())}
    missing = [utterance for utterance in wanted if utterance not in row_of]
    if missing:
        raise ArtifactError(
            f"{', '.join(map(str, features))}: no features of {listing(missing)}, which the folds "
            "name. Run `dvc repro`."
        )
    return table.take([row_of[utterance] for utterance in wanted])


def _fingerprint(
    features: list[Path],
    utterances: list[str],
    settings: TrainSettings,
    labels: tuple[str, ...],
    splits: list[Split],
    device: str,
) -> str:
    """Hash of all that a checkpoint's numbers depend on: data, settings, code, torch."""
    networks = [
        (split.fold_seed, split.fold, split.seed, split.train.tolist(), split.test.tolist())
        for split in splits
    ]
    told = [asdict(settings), utterances, labels, networks, device, torch.__version__]
    identity = hashlib.sha256(json.dumps(told).encode())
    for path in (*features, Path(network.__file__), Path(stack.__file__)):
        identity.update(hashlib.sha256(path.read_bytes()).digest())
    return identity.hexdigest()


def write(run: TrainedRun, folder: Path, record: str) -> None:
    """Write a trained run: history, predictions, weights, and `record` as run.json.

    Equal runs give equal bytes. The folder appears whole or not at all.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    partial.mkdir(parents=True)
    try:
        schemas.write(run.history, partial / "history.parquet", schemas.HISTORY)
        schemas.write(run.predictions, partial / "predictions.parquet", run.predictions.schema)
        np.savez(partial / "weights.npz", allow_pickle=False, **run.weights)
        (partial / "run.json").write_text(record, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _train_parts(
    parts: list[_Part], workers: int, report: Callable[[Progress], None] | None
) -> None:
    """Train all parts in processes; on a signal let them write their checkpoints first."""
    context = get_context("spawn")
    stop, messages = context.Event(), context.SimpleQueue()
    with (
        worker_environment(),
        _on_signal(stop.set) as received,
        ProcessPoolExecutor(workers, context, _start, (stop, messages, os.getpid())) as pool,
    ):
        futures: list[Future] = [pool.submit(_train_part, part) for part in parts]
        try:
            while wait(futures, 0.2, FIRST_EXCEPTION).not_done:
                for future in futures:
                    if future.done():
                        future.result()  # a failure ends the others at their next epoch
                while not messages.empty():
                    message = messages.get()
                    if report:
                        report(message)
            for future in futures:
                future.result()
        except BrokenProcessPool:
            raise TrainingError(
                "a training process died, for want of memory perhaps. What it had trained is "
                "kept: run the command again to go on, with fewer workers if need be."
            ) from None
        except BaseException:
            stop.set()
            raise
    if received:
        raise TrainingError(
            f"stopped by {signal.Signals(received[0]).name}; checkpoints are written. "
            "Run the command again to go on from there."
        )


@contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[list[int]]:
    """Call `act` on SIGINT or SIGTERM in place of dying; yields the list of signals received."""
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        act()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# of a worker: what its parent gave it, and whether no part is being trained
_stop: Any
_messages: Any
_idle = threading.Event()


def _start(stop: Any, messages: Any, parent: int) -> None:
    """Set up a worker; a stop comes from the parent, or from its death, after the checkpoint."""
    global _stop, _messages
    _stop, _messages = stop, messages
    _idle.set()

    def finish() -> None:
        stop.set()
        _idle.wait()

    end_with(parent, finish)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def _train_part(part: _Part) -> None:
    """Train one part from its checkpoint, or from the start, to its last epoch or a stop."""
    table = _utterances(part.features, part.utterances)
    saved = time.monotonic()

    def resume(state: State) -> None:
        if part.checkpoint.exists():
            load_state(state, part.checkpoint, part.fingerprint)
            tell(state)

    def tell(state: State) -> None:
        loss, _, _, accuracy = state.history[-1].mean(0)
        _messages.put(Progress(part.number, part.parts, state.epoch, float(loss), float(accuracy)))

    def checkpoint(state: State) -> None:
        nonlocal saved
        stopping = _stop.is_set()
        done = state.epoch == part.settings.epochs
        if stopping or done or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(state, part.checkpoint, part.fingerprint)
            saved = time.monotonic()
        tell(state)
        if stopping:
            raise _Stopped

    if _stop.is_set():
        return
    _idle.clear()
    try:
        train_stack(
            feature_files.array(table),
            _label_indices(table, part.labels),
            part.splits,
            len(part.labels),
            part.settings,
            part.device,
            checkpoint,
            resume,
        )
    except _Stopped:
        return
    finally:
        _idle.set()


class _Stopped(Exception):
    """Raised inside a worker after its checkpoint is written."""


def _label_indices(table: pa.Table, labels: tuple[str, ...]) -> np.ndarray:
    order = {label: index for index, label in enumerate(labels)}
    return np.array([order[emotion] for emotion in table["emotion"].to_pylist()])


def _finished(part: _Part, table: pa.Table) -> State:
    """The final state of a part, from its last checkpoint."""
    frames = table["frames"][0].as_py()
    channels = table["mfcc"].type.list_size // frames
    state = fresh_state(part.splits, len(part.labels), channels, part.settings, "cpu")
    load_state(state, part.checkpoint, part.fingerprint)
    assert state.epoch == part.settings.epochs
    return state


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
    keep_best: bool,
) -> pa.Table:
    """Rows of `schemas.predictions`, by seeds, kind of epoch and utterance."""
    rows: list[tuple] = []
    for kind in ("last", "best_on_test") if keep_best else ("last",):
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
    classes, channels = len(labels), states[0].network.channels

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
    return pa.table(columns, schema=schemas.predictions(classes, channels))


def _weights(splits: list[Split], states: list[State]) -> dict[str, np.ndarray]:
    """Weights of the last epoch by name, a row a network, with its fold and seed."""
    networks = [
        state.network.arrays(row) for state in states for row in range(state.network.networks)
    ]
    weights = {
        name: torch.stack([arrays[name] for arrays in networks]).numpy() for name in networks[0]
    }
    for name in ("fold_seed", "fold", "seed"):
        weights[name] = np.array([getattr(split, name) for split in splits], np.int32)
    return weights
