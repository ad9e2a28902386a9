"""From recordings to emotions with a trained model.

A recording no longer than the longest of the training set is processed as in training: once, and
only its middle if it is longer than the networks' window. Longer ones are processed in windows
that overlap by half, each as a recording of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from timnet.dataset import audio, features, normalise
from timnet.dataset.features import FeatureSettings
from timnet.errors import AudioError, ParameterError, counted, listing
from timnet.evaluation import calibration
from timnet.models import enrolment, out_of_domain
from timnet.models.card import Card
from timnet.models.enrolment import Scale
from timnet.models.out_of_domain import Measurement, Reference
from timnet.models.svm import Svm
from timnet.records import adapts_to_speakers
from timnet.training.network import TIMNet

BATCH = 16  # windows that go through the networks together, and files that a thread takes
ENOUGH = 500  # windows that adapt networks to a speaker, evenly out of what is given
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
    out_of_domain: list[str]  # in what it is unlike the training set, in words
    windows: np.ndarray  # (windows, 2) start and end, s
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
        middle = self.windows.mean(1)
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


@dataclass(frozen=True)
class Model:
    """Networks in evaluation mode, ready to predict."""

    card: Card
    network: TIMNet  # a stack of all networks, padded as `TIMNet` is
    reference: Reference
    scale: Scale | None = None  # of `normalise: speaker`: the speaker's, else the training set's
    svm: Svm | None = None  # joined with each network, once a speaker is enrolled

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels

    @property
    def temperature(self) -> float:
        """By which logits are divided, of a speaker who is enrolled or not."""
        unenrolled = None if self.card.enrolled else self.card.unenrolled
        return (unenrolled or self.card).calibration.temperature

    @property
    def settings(self) -> FeatureSettings:
        return self.card.features.settings

    @cached_property
    def window(self) -> float:
        """Seconds that the networks process at a time."""
        return self.settings.signal_length / self.settings.sample_rate

    def predict(self, signal: np.ndarray, sample_rate: int, *, single: bool = False) -> Prediction:
        """The emotion of a recording in memory.

        Args:
            signal: (samples,) or (samples, channels), floats of full scale 1, or integers of at
                most 32 bits.
            sample_rate: samples per second.
            single: ask the first network alone; otherwise all of them vote.

        Raises:
            AudioError: no samples, samples that are not finite, a rate out of range.
        """
        return of_signal(self, signal, sample_rate, single)

    def predict_files(
        self, paths: Iterable[Path | str], *, single: bool = False, workers: int = 1
    ) -> Iterator[tuple[Path, Prediction | str]]:
        """Each recording with its prediction, or in words why there is none, in their order.

        Args:
            single: ask the first network alone; otherwise all of them vote.
            workers: threads; more than one per core gains nothing.
        """
        return of_files(self, [Path(path) for path in paths], single, workers)

    def enrol(self, signals: Iterable[np.ndarray], sample_rate: int) -> Model:
        """This model adapted to one speaker, by recordings of theirs without labels.

        Args:
            signals: recordings in memory, as of `predict`; several emotions are better than one.
            sample_rate: samples per second.

        Raises:
            ParameterError: a model whose recipe takes nothing from a speaker's recordings, or
                that is adapted to one already.
            AudioError: as of `predict`, or no recordings.
        """
        recordings = []
        for signal in signals:
            read, rate = _from_memory(signal, sample_rate)
            recordings.append(list(_features_of_windows(self, read, rate, _Analysis())))
        return enrolled(self, recordings)

    def enrol_files(self, paths: Iterable[Path | str]) -> Model:
        """As `enrol`, by files.

        Raises:
            ParameterError: as of `enrol`.
            AudioError: recordings that cannot be read, or none.
        """
        recordings, unread = read_speaker(self, [Path(path) for path in paths])
        if unread:
            told = listing((f"{path} ({why})" for path, why in unread), 20)
            raise AudioError(f"recordings that cannot be read: {told}.")
        return enrolled(self, recordings)


@dataclass
class _Analysis:
    """A recording on its way through the networks."""

    seconds: float = 0.0
    windows: list[tuple[float, float]] = field(default_factory=list)  # start and end, s
    measured: list[Measurement] = field(default_factory=list)  # of each window
    logits: list[np.ndarray] = field(default_factory=list)  # of each window, (networks, K)
    refused: str = ""  # why there will be no prediction

    def prediction(self, model: Model) -> Prediction | str:
        if self.refused:
            return self.refused
        found = out_of_domain.together(self.measured, self.seconds)
        return Prediction(
            model.labels,
            self.seconds,
            model.reference.out_of_domain(found, model.settings),
            np.array(self.windows),
            np.stack(self.logits),
            model.temperature,
        )


def of_signal(model: Model, signal: np.ndarray, sample_rate: int, single: bool) -> Prediction:
    """See `Model.predict`."""
    (read, rate), analysis = _from_memory(signal, sample_rate), _Analysis()
    _run_networks(
        model,
        single,
        ((analysis, mfcc) for mfcc in _features_of_windows(model, read, rate, analysis)),
    )
    prediction = analysis.prediction(model)
    assert isinstance(prediction, Prediction)
    return prediction


def _from_memory(signal: np.ndarray, sample_rate: float) -> tuple[Read, int]:
    """A recording in memory, checked, to be read bit by bit; and its samples per second."""
    signal = np.asarray(signal)
    rate = int(sample_rate)
    if rate != sample_rate:
        raise AudioError(f"{sample_rate:g} samples per second; expected a whole number")
    if signal.dtype == np.int64:
        raise AudioError("a signal of int64, whose full scale is unknown; expected int16 or int32")
    if signal.dtype.kind == "i":
        signal = signal / -float(np.iinfo(signal.dtype).min)
    if signal.dtype.kind != "f" or signal.ndim not in (1, 2):
        raise AudioError(
            f"a signal of shape {signal.shape} and type {signal.dtype}; expected (samples,) or "
            "(samples, channels) of floats or signed integers"
        )
    audio.check_form(1 if signal.ndim == 1 else signal.shape[1], rate)
    rest = signal.astype(np.float32, copy=False)

    def read(samples: int) -> np.ndarray:
        nonlocal rest
        taken, rest = rest[:samples], rest[samples:]
        return taken

    return read, rate


def read_speaker(
    model: Model, paths: list[Path]
) -> tuple[list[list[np.ndarray]], list[tuple[Path, str]]]:
    """Features of a speaker's recordings, (T, C) a window; and which cannot be read, and why.

    Of many recordings as many as are of use, from all over the list.
    """
    recordings: list[list[np.ndarray]] = []
    unread: list[tuple[Path, str]] = []
    for path in paths[:: -(-len(paths) // ENOUGH) or 1]:
        try:
            with audio.opened(path, ffmpeg=True) as file:
                found = _features_of_windows(model, file.read, file.sample_rate, _Analysis())
                recordings.append(list(islice(found, ENOUGH)))
        except AudioError as error:
            unread.append((path, str(error)))
    return recordings, unread


def enrolled(model: Model, recordings: list[list[np.ndarray]]) -> Model:
    """A model adapted to the speaker of some recordings.

    Args:
        recordings: features of each recording, (T, C) a window.

    Raises:
        ParameterError: as of `Model.enrol`.
        AudioError: no sound.
    """
    card = model.card
    if not adapts_to_speakers(card.training):
        raise ParameterError(
            f"{card.name} cannot be adapted to a speaker: its recipe, "
            f"{card.recipe or 'the paper'}'s, takes nothing from a speaker's recordings."
        )
    if card.enrolled:
        raise ParameterError(
            f"{card.name} is adapted to a speaker already; enrol others by the model before."
        )
    windows = [w for each in recordings for w in each if normalise.sounding_frames(w[None]).any()]
    if not windows:
        heard = f": {counted(len(recordings), 'recording')} of silence" if recordings else ""
        raise AudioError(f"no sound to enrol a speaker with{heard}.")
    evenly = np.stack(windows[:: -(-len(windows) // ENOUGH)])
    network, scale = enrolment.adapted(model.network, model.scale, card.training, evenly)
    told = card.model_copy(update={"enrolled": len(recordings)})
    svm = model.svm.enrolled(evenly) if model.svm else None
    return Model(told, network, model.reference, scale, svm)


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
    analyses = [_Analysis() for _ in paths]

    def all_windows() -> Iterator[tuple[_Analysis, np.ndarray]]:
        for path, analysis in zip(paths, analyses, strict=True):
            try:
                with audio.opened(path, ffmpeg=True) as file:
                    for mfcc in _features_of_windows(model, file.read, file.sample_rate, analysis):
                        yield analysis, mfcc
            except AudioError as error:
                analysis.refused = str(error)

    _run_networks(model, single, all_windows())
    return [analysis.prediction(model) for analysis in analyses]


def _features_of_windows(
    model: Model, read: Read, rate: int, analysis: _Analysis
) -> Iterator[np.ndarray]:
    """Features of each window of a recording, (T, C); what else is known of it to `analysis`."""
    longest = math.ceil(model.reference.longest * rate)
    window = min(round(model.window * rate), longest)
    for start, samples in windows(read, longest, window):
        audio.check_samples(samples)
        analysis.seconds = (start + len(samples)) / rate
        mfcc = features.mfcc(samples, rate, model.settings)
        analysis.measured.append(out_of_domain.measure(samples, rate, mfcc, model.settings))
        outside = max(len(samples) - window, 0) / 2  # of the middle, of a recording processed once
        analysis.windows.append(((start + outside) / rate, analysis.seconds - outside / rate))
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


def _run_networks(
    model: Model, single: bool, prepared: Iterator[tuple[_Analysis, np.ndarray]]
) -> None:
    """Send windows through the networks, BATCH at a time; the logits to their recordings."""
    network = model.network
    asked = 1 if single else network.networks
    while batch := list(islice(prepared, BATCH)):
        mfcc = np.stack([each for _, each in batch])
        values = enrolment.frames(network, model.scale, mfcc)
        # one network after the other: its activations stay in the cache
        rows = [network(values, rows=slice(row, row + 1))[0][0] for row in range(asked)]
        logits = torch.stack(rows, 1).numpy()
        if model.svm and model.card.enrolled:
            logits = calibration.joined(logits, model.svm.logits(mfcc, len(model.labels))[:, None])
        for (analysis, _), answer in zip(batch, logits, strict=True):
            analysis.logits.append(answer)
