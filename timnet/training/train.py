"""Training of a run: every fold and seed, spread over processes, stoppable at any moment.

Each part of the stack is trained by `stack.train_stack` and leaves one checkpoint, which after the
last epoch is its result. A run that was killed goes on from there, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from timnet import schemas
from timnet.dataset import features as feature_files
from timnet.dataset import normalise
from timnet.dataset.normalise import sounding_frames
from timnet.errors import ArtifactError, TrainingError, listing
from timnet.processes import end_with, worker_environment
from timnet.training import augment, baseline, network, splits, stack, streams
from timnet.training.outcome import NETWORKS, TrainedRun, outcome
from timnet.training.splits import Split, of_folds
from timnet.training.stack import (
    State,
    TrainSettings,
    fresh_state,
    load_state,
    save_state,
    train_stack,
)

CODE = (augment, network, normalise, splits, stack, streams)  # whose change changes numbers
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
class Work:
    """What is to be trained: every fold of a run under every seed."""

    features: list[Path]  # files of `dataset.features`, with all utterances of the folds
    folds: pa.Table  # of `schemas.FOLDS`
    labels: tuple[str, ...]  # the emotions in the order of their indices
    settings: TrainSettings
    seeds: list[int]  # the model's, one network each a fold: initial weights, data order, dropout
    # whether the epoch that was best ON THE TEST FOLD is kept where no validation part chooses it
    keep_best: bool = False

    def load(self, only: int | None = None) -> Material:
        """Read and normalise the features, and make the splits; `only`: of this fold.

        Raises:
            ArtifactError: features and folds do not fit each other.
        """
        table = _utterances(self.features, self.folds)
        splits = of_folds(self.folds, table["utterance"].to_pylist(), self.seeds)
        mfcc = schemas.mfcc(table)
        if self.settings.normalise == "speaker":
            mfcc = normalise.by_group(mfcc, table["speaker"].to_pylist())
        elif self.settings.normalise == "utterance":
            mfcc = normalise.by_group(mfcc, range(len(mfcc)))
        order = {label: index for index, label in enumerate(self.labels)}
        targets = np.array([order[emotion] for emotion in table["emotion"].to_pylist()])
        chosen = [split for split in splits if only in (None, split.fold)]
        _, speakers = np.unique(table["speaker"].to_pylist(), return_inverse=True)
        return Material(table, mfcc, targets, speakers, chosen)

    def best(self, splits: list[Split]) -> str | None:
        """The kind of epoch that is kept beside the last one."""
        if any(len(split.validation) for split in splits):
            return "best_on_validation"
        return "best_on_test" if self.keep_best else None


@dataclass(frozen=True)
class Material:
    """The utterances of a run, and what each network does with them."""

    table: pa.Table  # utterance, speaker, emotion
    mfcc: np.ndarray  # (utterances, frames, coefficients)
    targets: np.ndarray  # (utterances,) label indices
    speakers: np.ndarray  # (utterances,) numbers of who speaks
    splits: list[Split]


@dataclass(frozen=True)
class _Part:
    """What one process trains together; plain values and paths, so that it travels cheaply."""

    number: int
    parts: int
    work: Work
    splits: list[Split]
    device: str
    checkpoint: Path
    fingerprint: str


def train(
    work: Work,
    checkpoints: Path,
    device: str = "cpu",
    workers: int = 1,
    report: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = lambda _: None,
    only: int | None = None,
) -> TrainedRun:
    """Train and test every fold of a run under every seed.

    Args:
        checkpoints: folder for this run's checkpoints; removing it is the caller's business.
        device: "cpu" (a network per process: measured fastest, for it stays in the cache) or
            "cuda" (all networks in one stack in this process, or in as few as its memory needs).
        workers: processes on the CPU, one thread each.
        report: called after every epoch of every part.
        notify: called with a sentence that the user should read.
        only: train just this fold, to the same bits on the CPU as among the others.

    Raises:
        ArtifactError: features, folds or a checkpoint do not fit each other.
        TrainingError: stopped by a signal (run again to continue), a worker died, or a loss is
            not finite.
    """
    material = work.load(only)
    splits = material.splits
    fingerprint = _fingerprint(work, splits, device)
    number = 1 if device == "cuda" else len(splits)
    while True:
        parts = _parts(work, splits, number, device, checkpoints / fingerprint[:16], fingerprint)
        try:
            if device == "cuda":
                _train_here(parts, material, report)
            else:
                _train_in_processes(parts, min(workers, number), report)
            break
        except torch.OutOfMemoryError:
            if number == len(splits):
                raise TrainingError(
                    "the GPU has too little free memory for a single network. Free some, lower "
                    "the recipe's batch_size, or train on the CPU: TIMNET_DEVICE=cpu."
                ) from None
        torch.cuda.empty_cache()  # after the failed stack is let go of
        number = min(2 * number, len(splits))
        notify(f"out of GPU memory: training {len(splits)} networks in {number} parts")
    states = [_finished(part, material) for part in parts]
    best, normalised = work.best(splits), work.settings.normalise
    return outcome(splits, states, material.table, material.mfcc, work.labels, best, normalised)


def train_baseline(work: Work, normalise: str, only: int | None = None) -> TrainedRun:
    """Train and test the machine of `baseline` on every fold of a run, in this process.

    It has no epochs, so no history. Of a whole corpus, which tests nothing, its "weights" are what
    it is trained on: `inputs` and `targets`, from which `baseline.transferred` makes it again.

    Args:
        work: of which the settings and seeds are of no account.
        normalise: as of `baseline.inputs`.
        only: just this fold.

    Raises:
        ArtifactError: features and folds do not fit each other.
        ParameterError, TrainingError: as of `baseline.predictions`.
    """
    material = replace(work, settings=TrainSettings(), seeds=[0]).load(only)
    mfcc, table, splits = material.mfcc, material.table, material.splits
    weights = {
        name: np.array([getattr(split, name) for split in splits], np.int32) for name in NETWORKS
    }
    if any(len(split.test) for split in splits):
        told = baseline.predictions(mfcc, table, work.labels, splits, normalise)
    else:
        (split,) = splits
        speakers = np.array(table["speaker"].to_pylist())
        seen = baseline.inputs(mfcc, sounding_frames(mfcc), speakers, normalise)
        weights |= {"inputs": seen[split.train], "targets": material.targets[split.train]}
        told = schemas.predictions(len(work.labels), mfcc.shape[2]).empty_table()
    return TrainedRun(schemas.HISTORY.empty_table(), told, weights)


def _parts(
    work: Work, splits: list[Split], number: int, device: str, folder: Path, fingerprint: str
) -> list[_Part]:
    """The networks of a run as `number` parts, as equal as can be."""
    groups = [[splits[i] for i in group] for group in np.array_split(range(len(splits)), number)]
    return [
        _Part(place, number, work, group, device, folder / _checkpoint_name(group), fingerprint)
        for place, group in enumerate(groups)
    ]


def _checkpoint_name(splits: list[Split]) -> str:
    first = splits[0]
    return f"{first.fold_seed}-{first.seed}-{first.fold}-{len(splits)}.pt"


def _utterances(features: list[Path], folds: pa.Table) -> pa.Table:
    """The rows of several files of features that the folds name, in the files' order."""
    table = pa.concat_tables([feature_files.read(path)[0] for path in features])
    wanted = pc.unique(folds["utterance"])
    missing = wanted.filter(pc.invert(pc.is_in(wanted, table["utterance"])))
    if len(missing):
        raise ArtifactError(
            f"{', '.join(map(str, features))}: no features of {listing(missing.to_pylist())}, "
            "which the folds name. Run `dvc repro`."
        )
    return table.filter(pc.is_in(table["utterance"], wanted))


def _fingerprint(work: Work, splits: list[Split], device: str) -> str:
    """Hash of all that a checkpoint's numbers depend on: data, settings, code, torch."""
    networks = [
        (s.fold_seed, s.fold, s.seed, s.train.tolist(), s.test.tolist(), s.validation.tolist())
        for s in splits
    ]
    told = [asdict(work.settings), work.labels, networks, device, torch.__version__]
    identity = hashlib.sha256(json.dumps(told).encode())
    code = [Path(module.__file__ or "") for module in CODE]
    code.append(Path(network.__file__).with_name("gpu_kernels.py"))  # imported on a GPU alone
    for path in (*work.features, *code):
        identity.update(hashlib.sha256(path.read_bytes()).digest())
    return identity.hexdigest()


def _train_here(
    parts: list[_Part], material: Material, report: Callable[[Progress], None] | None
) -> None:
    """Train the parts one after the other in this process, as a GPU wants it."""
    stop = threading.Event()
    with worker_environment(), _on_signal(stop.set) as received:
        torch.use_deterministic_algorithms(True)
        for part in parts:
            if not stop.is_set():
                _train_part(part, material, stop.is_set, report or (lambda _: None))
    _refuse_stopped(received)


def _train_in_processes(
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
        futures: list[Future] = [pool.submit(_train_in_worker, part) for part in parts]
        try:
            going = True
            while going:
                going = bool(wait(futures, 0.2, FIRST_EXCEPTION).not_done)
                while not messages.empty():  # also what came at the very end
                    message = messages.get()
                    if report:
                        report(message)
                for future in futures:
                    if future.done():
                        future.result()  # a failure ends the others at their next epoch
        except BrokenProcessPool:
            raise TrainingError(
                "a training process died, possibly for lack of memory. Its checkpoint is kept: "
                "run the command again to continue, if necessary with fewer workers."
            ) from None
        except BaseException:
            stop.set()
            raise
    _refuse_stopped(received)


def _refuse_stopped(received: list[int]) -> None:
    if received:
        raise TrainingError(
            f"stopped by {signal.Signals(received[0]).name}; checkpoints are written. Run the "
            "command again to continue."
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


# of a worker: what its parent gave it, whether no part is being trained, why it cannot train
_stop: Any
_messages: Any
_idle = threading.Event()
_fault = ""


def _start(stop: Any, messages: Any, parent: int) -> None:
    """Set up a worker; a stop comes from the parent, or from its death, after the checkpoint."""
    global _stop, _messages, _fault
    _stop, _messages = stop, messages
    _idle.set()

    def finish() -> None:
        stop.set()
        _idle.wait()

    try:
        end_with(parent, finish)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
    except Exception as error:  # raised here, it would look like a process that died
        _fault = f"{type(error).__name__}: {error}"


def _train_in_worker(part: _Part) -> None:
    """Train one part in this worker, unless it is to stop."""
    if _fault:
        raise TrainingError(f"a training process cannot start: {_fault}")
    material = part.work.load()
    if _stop.is_set():
        return
    _idle.clear()
    try:
        _train_part(part, material, _stop.is_set, _messages.put)
    finally:
        _idle.set()


def _train_part(
    part: _Part,
    material: Material,
    stopping: Callable[[], bool],
    report: Callable[[Progress], None],
) -> None:
    """Train one part from its checkpoint, or from the start, to its last epoch or a stop."""
    settings = part.work.settings
    saved = time.monotonic()

    def resume(state: State) -> None:
        if part.checkpoint.exists():
            load_state(state, part.checkpoint, part.fingerprint)
            tell(state)

    def tell(state: State) -> None:
        loss, _, _, accuracy = state.history[-1].mean(0)
        report(Progress(part.number, part.parts, state.epoch, float(loss), float(accuracy)))

    def checkpoint(state: State) -> None:
        nonlocal saved
        done = state.epoch == settings.epochs
        if stopping() or done or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(state, part.checkpoint, part.fingerprint)
            saved = time.monotonic()
        tell(state)
        if stopping() and not done:
            raise _Stopped

    with suppress(_Stopped):
        train_stack(
            material.mfcc,
            material.targets,
            part.splits,
            len(part.work.labels),
            settings,
            part.device,
            checkpoint,
            resume,
            material.speakers,
        )


class _Stopped(Exception):
    """Raised inside a worker after its checkpoint is written."""


def _finished(part: _Part, material: Material) -> State:
    """The final state of a part, from its last checkpoint."""
    settings, channels = part.work.settings, material.mfcc.shape[2]
    state = fresh_state(part.splits, len(part.work.labels), channels, settings, "cpu")
    load_state(state, part.checkpoint, part.fingerprint)
    assert state.epoch == settings.epochs
    return state
