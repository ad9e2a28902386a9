"""The resampler of the authors' code, as today's resampy can still be told to be it.

What the project's resampler is checked against (tests) and timed against (benchmarks).
"""

from __future__ import annotations

import numpy as np
import resampy
from scipy.signal.windows import kaiser

from timnet.dataset.resample import KAISER_BETA, ROLL_OFF


def by_resampy(signal: np.ndarray, rate: int) -> np.ndarray:
    """To 22,050 Hz with resampy 0.2.2's `kaiser_best`, through the interface of today's."""
    return resampy.resample(
        signal,
        rate,
        22050,
        filter="sinc_window",
        num_zeros=64,
        precision=9,
        rolloff=ROLL_OFF,
        window=lambda n: kaiser(n, KAISER_BETA),
    )
