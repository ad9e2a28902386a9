"""From recordings to emotions with a trained model.

What is no longer than the longest recording of the training set is heard as training heard it:
once, its middle where it is longer than the networks' window. Anything longer is heard in windows
that overlap by half, each as a recording of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from timnet.dataset import audio, features
from timnet.errors import AudioError
from timnet.evaluation import calibration
from timnet.models import out_of_domain as novelty
from timnet.models.out_of_domain import Measurement
from timnet.training.network import pad_channels

if TYPE_CHECKING:
    from timnet.models.model import Model

BATCH = 16  # windows that go through the networks together, and files that a thread takes
Read = Callable[[int], np.ndarray]  # the next samples of a recording, at most so many


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording with one emotion."""

    start: float  # s
    end: float
    emotion: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of a recording."""

    labels: tuple[str, ...]
    seconds: float
    unlike: list[str]  # in what the recording is unlike the training set, in words
    heard: np.ndarray  # (windows, 2) start and end, s
    logits: np.ndarray  # (windows, networks, K) float32
    temperature: float

    @cached_property
    def _by_network(self) -> np.ndarray:
        """(windows, networks, K)"""
        return calibration.probabilities(self.logits.astype(np.float64), self.temperature)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of each label, (K,): the mean over networks and windows."""
        return self._by_network.mean((0, 1))

    @property
    def emotion(self) -> str:
        return self.labels[self.probabilities.argmax()]

    @property
    def probability(self) -> float:
        return float(self.probabilities.max())

    @property
    def votes(self) -> int:
        """Networks that would give this emotion alone."""
        alone = self._by_network.mean(0).argmax(1)
        return int((alone == self.probabilities.argmax()).sum())

    @property
    def networks(self) -> int:
        return self.logits.shape[1]

    @cached_property
    def timeline(self) -> list[Segment]:
        """Emotions in time: neighbouring windows of one emotion together, cut half-way."""
        of_window = self._by_network.mean(1)
        winners = of_window.argmax(1)
        first = np.flatnonzero(np.diff(winners, prepend=-1))
        last = [*first[1:], len(winners)]
        middle = self.heard.mean(1)
        cuts = [0.0, *((middle[i - 1] + middle[i]) / 2 for i in first[1:]), self.seconds]
        return [
            Segment(
                float(start),
                float(end),
                self.labels[winners[i]],
                float(of_window[i:j, winners[i]].mean()),
            )
            for (start, end), i, j in zip(pairwise(cuts), first, last, strict=True)
        ]


@dataclass
class _Hearing:
    """A recording on its way through the networks."""

    seconds: float = 0.0
    windows: list[tuple[float, float]] = field(default_factory=list)  # start and end, s
    measured: list[Measurement] = field(default_factory=list)  # of each window
    logits: list[np.ndarray] = field(default_factory=list)  # of each window, (networks, K)
    refused: str = ""  # why there will be no prediction

    def prediction(self, model: Model) -> Prediction | str:
        if self.refused:
            return self.refused
        found = novelty.together(self.measured, self.seconds)
        return Prediction(
            model.labels,
            self.seconds,
            model.reference.unlike(found, model.settings),
            np.array(self.windows),
            np.stack(self.logits),
            model.card.calibration.temperature,
        )


def of_signal(model: Model, signal: np.ndarray, sample_rate: int, single: bool) -> Prediction:
    """See `Model.predict`."""
    signal = np.asarray(signal)
    if signal.dtype.kind == "i":
        signal = signal / -float(np.iinfo(signal.dtype).min)
    if signal.dtype.kind != "f" or signal.ndim not in (1, 2):
        raise AudioError(
            f"a signal of shape {signal.shape} and type {signal.dtype}; expected (samples,) or "
            "(samples, channels) of floats or signed integers"
        )
    audio.check_form(1 if signal.ndim == 1 else signal.shape[1], sample_rate)
    rest = signal.astype(np.float32, copy=False)

    def read(samples: int) -> np.ndarray:
        nonlocal rest
        taken, rest = rest[:samples], rest[samples:]
        return taken

    hearing = _Hearing()
    _answer(model, single, ((hearing, mfcc) for mfcc in _hear(model, read, sample_rate, hearing)))
    prediction = hearing.prediction(model)
    assert isinstance(prediction, Prediction)
    return prediction


def of_files(
    model: Model, paths: list[Path], single: bool, workers: int
) -> Iterator[tuple[Path, Prediction | str]]:
    """See `Model.predict_files`.

    Threads and not processes: nearly all time is spent in libraries that let other threads run,
    and nothing has to be started or sent.
    """
    features.mel_filters()  # once, before the threads need it
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[list[Path], Future]] = deque()
    try:
        for first in range(0, len(paths), BATCH):
            chunk = paths[first : first + BATCH]
            waiting.append((chunk, pool.submit(_of_chunk, model, chunk, single)))
            if len(waiting) > 2 * workers:  # enough to do; what is done waits for its turn
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _of_chunk(model: Model, paths: list[Path], single: bool) -> list[Prediction | str]:
    hearings = [_Hearing() for _ in paths]

    def heard() -> Iterator[tuple[_Hearing, np.ndarray]]:
        for path, hearing in zip(paths, hearings, strict=True):
            try:
                with audio.opened(path, ffmpeg=True) as file:
                    for mfcc in _hear(model, file.read, file.sample_rate, hearing):
                        yield hearing, mfcc
            except AudioError as error:
                hearing.refused = str(error)

    _answer(model, single, heard())
    return [hearing.prediction(model) for hearing in hearings]


def _hear(model: Model, read: Read, rate: int, hearing: _Hearing) -> Iterator[np.ndarray]:
    """Features of each window of a recording, (T, C); what else is known of it to `hearing`."""
    longest = math.ceil(model.reference.longest * rate)
    window = min(round(model.window * rate), longest)
    for start, samples in windows(read, longest, window):
        audio.check_samples(samples)
        hearing.seconds = (start + len(samples)) / rate
        mfcc = features.mfcc(samples, rate, model.settings)
        hearing.measured.append(novelty.measure(samples, rate, mfcc, model.settings))
        outside = max(len(samples) - window, 0) / 2  # of the middle, of a recording heard once
        hearing.windows.append(((start + outside) / rate, hearing.seconds - outside / rate))
        yield mfcc


def windows(read: Read, longest: int, window: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a recording that is read bit by bit, so that its length does not matter.

    Args:
        read: gives the next samples, fewer than asked for at the end.
        longest: samples up to which a recording is left whole.
        window: samples of a window, at most `longest`.

    Yields:
        First sample and samples of each window: all, or windows that overlap by half, the last
        one ending with the recording.
    """
    buffer = read(longest + 1)
    if len(buffer) <= longest:
        yield 0, buffer
        return
    first, step = 0, max(window // 2, 1)
    before = buffer[:0]  # what stands before the buffer
    while True:
        if len(buffer) < window and len(more := read(longest)):
            buffer = np.concatenate((buffer, more))
        elif len(buffer) < window:
            break
        else:
            yield first, buffer[:window]
            first += step
            before, buffer = buffer[:step], buffer[step:]
    if len(buffer) > window - step:  # samples that no window held yet
        last = np.concatenate((before, buffer))[-window:]
        yield first + len(buffer) - window, last


def _answer(model: Model, single: bool, heard: Iterator[tuple[_Hearing, np.ndarray]]) -> None:
    """Send windows through the networks, BATCH at a time; the logits to their recordings."""
    network = model.network
    asked = 1 if single else network.networks
    while batch := list(islice(heard, BATCH)):
        values = torch.from_numpy(np.stack([mfcc for _, mfcc in batch])).transpose(0, 1)
        values = pad_channels(values, network.width)[None].contiguous()
        # one network after the other: its activations stay in the cache
        logits = [network(values, rows=slice(row, row + 1))[0][0] for row in range(asked)]
        for (hearing, _), answer in zip(batch, torch.stack(logits, 1).numpy(), strict=True):
            hearing.logits.append(answer)
