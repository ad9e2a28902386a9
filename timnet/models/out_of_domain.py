"""Whether a recording is out of domain: unlike those that a model was trained on.

A network predicts an emotion for any input; for out-of-domain input the prediction is unreliable.
What is compared: length, level, the band that the sample rate leaves, and the MFCC's mean over the
recording, which microphone, room, noise and language move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from timnet.dataset.features import FeatureSettings, mean_of_channels

FEW = 0.02  # share of the training recordings that lies outside of each range
ENVELOPE = 13  # coefficients compared; in the finer ones strange sound drowns
CANCELLED = 20.0  # dB that the mean of the channels lies below the loudest if they cancel out
SILENCE = -150.0  # dB below full scale: fainter than the last of 24 bits


@dataclass(frozen=True)
class Measurement:
    """What is compared of a recording."""

    seconds: float
    level: float  # dB below full scale, root mean square of the mean of the channels
    sample_rate: int  # Hz
    mfcc: np.ndarray  # (ENVELOPE,) mean over the frames that hold sound
    loudest: float = SILENCE  # dB, of the loudest channel, before the mean


@dataclass(frozen=True)
class Reference:
    """The same of the recordings that a model was trained on."""

    seconds: tuple[float, float]  # all but FEW lie between
    longest: float  # seconds
    level: tuple[float, float]  # all but FEW lie between
    sample_rates: tuple[int, ...]  # Hz, those that occur
    distance: float  # all but FEW of the recordings lie within, each speaker left out in turn
    mean: np.ndarray  # (ENVELOPE,)
    precision: np.ndarray  # (ENVELOPE, ENVELOPE), inverse of the covariance

    def out_of_domain(self, found: Measurement, settings: FeatureSettings) -> list[str]:
        """In what a recording is unlike these, in words; nothing if it is like them."""
        cancelled = found.loudest - found.level > CANCELLED
        if found.level < SILENCE + 1 and not cancelled:
            return ["silence"]
        reasons = []
        if cancelled:
            reasons.append(
                f"channels that cancel out: the mean of the channels, which is analysed, is at "
                f"{found.level:.0f} dB, the loudest channel at {found.loudest:.0f}; give one "
                "channel alone"
            )
        low, high = self.seconds
        if found.seconds < low:  # what is too long is split into windows
            reasons.append(f"{found.seconds:.1f} s (training: {low:.1f} to {high:.1f})")
        low, high = self.level
        if not low <= found.level <= high:
            reasons.append(f"level {found.level:.1f} dB (training: {low:.1f} to {high:.1f})")
        bands = {min(rate, settings.sample_rate) for rate in self.sample_rates}
        if min(found.sample_rate, settings.sample_rate) not in bands:
            rates = ", ".join(map(str, self.sample_rates))
            reasons.append(f"{found.sample_rate} Hz (training: {rates})")
        distance = _distances(found.mfcc[None], self.mean, self.precision)[0]
        if distance > self.distance:
            reasons.append(f"MFCC {distance:.1f} away (training: within {self.distance:.1f})")
        return reasons


def measure(
    samples: np.ndarray, rate: int, mfcc: np.ndarray, settings: FeatureSettings
) -> Measurement:
    """Measure a recording, or a window of it.

    Args:
        samples: (samples,) or (samples, channels)
        rate: samples per second.
        mfcc: (frames, coefficients), its features under `settings`.
    """
    mono = mean_of_channels(samples)
    level = _decibels(mono)
    channels = [samples] if samples.ndim == 1 else samples.T
    # the mean is over frames whose middle lies in the sound, not in the padding around it
    length = min(-(-len(mono) * settings.sample_rate // rate), settings.signal_length)
    padding = (settings.signal_length - length) // 2
    first, last = -(-padding // settings.hop), (padding + length) // settings.hop
    mean = mfcc[min(first, last) : last + 1, :ENVELOPE].mean(0)
    return Measurement(len(mono) / rate, level, rate, mean, max(map(_decibels, channels)))


def _decibels(signal: np.ndarray) -> float:
    """Root mean square in dB below full scale, at least SILENCE."""
    square = float(signal @ signal) / len(signal)
    return max(10 * math.log10(square), SILENCE) if square else SILENCE


def together(windows: list[Measurement], seconds: float) -> Measurement:
    """A recording's measurement from those of its windows."""
    mfcc = np.mean([each.mfcc for each in windows], 0)
    level = _mean([each.level for each in windows])
    loudest = _mean([each.loudest for each in windows])
    return Measurement(seconds, level, windows[0].sample_rate, mfcc, loudest)


def _mean(levels: list[float]) -> float:
    """Mean of the power, dB."""
    return 10 * math.log10(np.mean([10 ** (level / 10) for level in levels]))


def reference(measured: list[Measurement], speakers: list[str]) -> Reference:
    """What the recordings of a training set are like.

    The distance beyond which a recording is strange is measured as it is used: on speakers that
    the mean and covariance do not know.
    """
    seconds = np.array([each.seconds for each in measured])
    level = np.array([each.level for each in measured])
    mfcc = np.stack([each.mfcc for each in measured]).astype(np.float64)
    mean, precision = _normal(mfcc)
    distances = _distances(mfcc, mean, precision)
    of = np.array(speakers)
    for speaker in set(speakers):
        if 0 < (of == speaker).sum() <= len(of) - 2:
            left_out = of == speaker
            distances[left_out] = _distances(mfcc[left_out], *_normal(mfcc[~left_out]))
    return Reference(
        _range(seconds),
        float(seconds.max()),
        _range(level),
        tuple(sorted({each.sample_rate for each in measured})),
        float(np.quantile(distances, 1 - FEW)),
        mean.astype(np.float32),
        precision.astype(np.float32),
    )


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (FEW / 2, 1 - FEW / 2))
    return float(low), float(high)


def _normal(mfcc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) and inverse covariance (C, C); shrunk, for there may be few recordings."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(mfcc)
    return fitted.location_, fitted.precision_


def _distances(mfcc: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mahalanobis distances, (recordings,)"""
    away = mfcc - mean
    return np.sqrt(np.einsum("rc,cd,rd->r", away, precision, away))
