"""Resampling with a windowed sinc, exact to the filter that the paper's features were made with.

The paper's features come from resampy 0.2.2 and its filter `kaiser_best`: a sinc under a Kaiser
window, 64 zero crossings, 512 table entries per crossing, read by linear interpolation (J. O.
Smith, "Digital Audio Resampling"). The network reads raw log energies, so another filter, however
good, costs it up to a quarter of its accuracy.

For a rational ratio P/Q the table is read at the same P places over and over, one set for each
output sample of a period. Sampled once, these sets are a bank of filters, and the whole signal is
resampled by matrix products over overlapping blocks of it.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np

ZERO_CROSSINGS = 64
TABLE_STEPS = 512  # entries of the table a zero crossing
ROLL_OFF = 0.9475937167399596
KAISER_BETA = 14.769656459379492
GROUP = 160  # outputs of one matrix product: more waste multiplications, fewer waste calls


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """Right half of the windowed sinc, centre first: (ZERO_CROSSINGS * TABLE_STEPS + 1,)."""
    size = ZERO_CROSSINGS * TABLE_STEPS
    sinc = ROLL_OFF * np.sinc(ROLL_OFF * np.linspace(0, ZERO_CROSSINGS, size + 1))
    return sinc * np.kaiser(2 * size + 1, KAISER_BETA)[size:]


def _interpolate(position: np.ndarray, scale: float) -> np.ndarray:
    """Table values at `position` (in entries), zero beyond its end, as resampy reads them."""
    table = _table() * scale
    slope = np.append(np.diff(table), 0.0)
    index = position.astype(np.int64)
    inside = index < len(table)
    index = np.where(inside, index, 0)
    return np.where(inside, table[index] + (position - index) * slope[index], 0.0)


@lru_cache(maxsize=8)
def _bank(up: int, down: int) -> tuple[int, list[tuple[int, np.ndarray]]]:
    """The bank of filters for the ratio up/down.

    Returns:
        The reach of a filter to either side in input samples, and a list of (offset, weights): a
        group of up to GROUP outputs of a period of `up`; its weights (inputs, outputs) meet the
        input from `offset` - reach on, counted from the period's first sample.
    """
    scale = min(1.0, up / down)
    step = int(scale * TABLE_STEPS)  # resampy truncates here, so we do
    reach = len(_table()) // step + 1
    groups = []
    for first in range(0, up, GROUP):
        outputs = np.arange(first, min(first + GROUP, up))
        centre, remainder = np.divmod(outputs * down, up)
        fraction = remainder / up
        taps = np.arange(reach + 1)
        # left wing: the input at the centre and before it; right wing: what comes after it
        left = (scale * fraction * TABLE_STEPS)[:, None]
        right = ((scale - scale * fraction) * TABLE_STEPS)[:, None]
        left_weights = _wing(left, taps, step, scale)
        right_weights = _wing(right, taps, step, scale)
        offset = int(centre[0])
        weights = np.zeros((int(centre[-1]) - offset + 2 * reach + 2, len(outputs)))
        for column, position in enumerate(centre - offset + reach):
            weights[position - taps, column] = left_weights[column]
            weights[position + 1 + taps, column] += right_weights[column]
        groups.append((offset, weights.astype(np.float32)))
    return reach, groups


def _wing(start: np.ndarray, taps: np.ndarray, step: int, scale: float) -> np.ndarray:
    """Weights of one wing, (outputs, taps): the table from `start` on, every `step` entries."""
    weights = _interpolate(start + taps * step, scale)
    # resampy takes (entries - offset) // step taps, which leaves out the table's last entry
    inside = taps < (len(_table()) - start.astype(np.int64)) // step
    return np.where(inside, weights, 0.0)


def resample(signal: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample a mono signal.

    Args:
        signal: (samples,) float32.
        rate: its samples per second.
        target: samples per second wanted.

    Returns:
        (ceil(samples * target / rate),) float32; within 1e-5 of the signal's peak of what
        `resampy.resample` 0.2.2 gives with `kaiser_best`.
    """
    if rate == target:
        return signal.astype(np.float32, copy=False)
    # the ratio in lowest terms, then widened so that a product has columns enough to be fast
    repeat = max(1, GROUP * gcd(rate, target) // target)
    up, down = (repeat * part // gcd(rate, target) for part in (target, rate))
    # as librosa does: what resampy gives, filled with zero to the ceiling
    length = len(signal) * target // rate
    result = np.zeros(-(-len(signal) * target // rate), np.float32)
    reach, groups = _bank(up, down)
    periods = -(-length // up)
    widest = max(offset + len(weights) for offset, weights in groups)
    padded = np.zeros((periods - 1) * down + widest + reach, np.float32)
    padded[reach : reach + len(signal)] = signal[: len(padded) - reach]
    whole = np.empty((periods, up), np.float32)
    first = 0
    for offset, weights in groups:
        blocks = np.lib.stride_tricks.as_strided(
            padded[offset:],
            (periods, len(weights)),
            (down * padded.itemsize, padded.itemsize),
            writeable=False,
        )
        np.matmul(blocks, weights, out=whole[:, first : first + weights.shape[1]])
        first += weights.shape[1]
    result[:length] = whole.reshape(-1)[:length]
    return result
