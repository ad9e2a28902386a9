from __future__ import annotations

import numpy as np
import pytest
from old_resampy import by_resampy

from timnet.dataset.resample import resample

RATES = (48000, 44100, 32000, 24000, 16000, 8000, 11025, 96000, 48001)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", (1, 150, 7001))
def test_equals_resampy_to_1e_5_of_the_peak(rate: int, samples: int) -> None:
    signal = np.random.default_rng(rate).normal(size=samples).astype(np.float32)
    expected = by_resampy(signal, rate) if samples * 22050 // rate else np.zeros(0)
    actual = resample(signal, rate, 22050)
    assert actual.dtype == np.float32
    assert len(actual) == -(-samples * 22050 // rate)
    assert np.abs(actual[: len(expected)] - expected).max(initial=0) < 1e-5 * np.abs(signal).max()
    assert not actual[len(expected) :].any()


def test_the_target_rate_is_left_alone() -> None:
    signal = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert resample(signal, 22050, 22050) is signal
