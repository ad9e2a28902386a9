"""Normalisation of cached features: whose mean and deviation are taken away.

Recordings are padded to one length, and padding must not count: statistics are those of the frames
that hold sound, and all others become zero, which is then every coefficient's mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NORMALISATIONS = ("none", "corpus", "utterance", "speaker")
FLOOR = 1e-3  # a frame without sound has one level in all mel bands, so nothing but its first MFCC
SMALLEST = 1e-2  # deviation of a coefficient below which it is left as it is


def sounding_frames(mfcc: np.ndarray) -> np.ndarray:
    """Frames that are neither padding nor digital silence.

    Args:
        mfcc: (utterances, frames, coefficients), not normalised.

    Returns:
        (utterances, frames) bool. On EMOVO, EMODB, SAVEE and RAVDESS no padded frame is missed.
    """
    return np.abs(mfcc[:, :, 1:]).max(2) > FLOOR


def statistics(mfcc: np.ndarray, sounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each coefficient over sounding frames, (coefficients,) float32 each.

    Args:
        mfcc: (utterances, frames, coefficients).
        sounding: (utterances, frames) bool, as of `sounding_frames`.
    """
    values = mfcc[sounding].astype(np.float64)
    if not len(values):
        return np.zeros(mfcc.shape[2], np.float32), np.ones(mfcc.shape[2], np.float32)
    deviation = values.std(0)
    deviation[deviation < SMALLEST] = 1
    return values.mean(0).astype(np.float32), deviation.astype(np.float32)


def apply(
    mfcc: np.ndarray, sounding: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """(mfcc - mean) / deviation where there is sound, zero elsewhere; shapes as of `statistics`."""
    return np.where(sounding[:, :, None], (mfcc - mean) / deviation, np.float32(0))


def by_group(mfcc: np.ndarray, groups: Sequence) -> np.ndarray:
    """Each utterance by the statistics of all of its group: a speaker, or itself.

    No label is used, so that a speaker who is tested may be normalised too.

    Args:
        mfcc: (utterances, frames, coefficients) float32.
        groups: (utterances,) to whom each belongs.
    """
    sounding, result = sounding_frames(mfcc), np.empty_like(mfcc)
    rows_of: dict = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    for rows in rows_of.values():
        own, sound = mfcc[rows], sounding[rows]
        result[rows] = apply(own, sound, *statistics(own, sound))
    return result
