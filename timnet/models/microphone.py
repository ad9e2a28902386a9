"""Record from a microphone, through the optional package sounddevice (PortAudio)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timnet.errors import AudioError, ParameterError

LONGEST = 600  # s


def record(seconds: float, rates: Sequence[int]) -> tuple[np.ndarray, int]:
    """Sound of the default microphone, (samples,) float32, and its samples a second.

    Args:
        rates: wanted, the best first; where the device takes none of them, its own.

    Raises:
        ParameterError: more or fewer seconds than make sense, or sounddevice is not installed.
        AudioError: no PortAudio, no microphone, or it cannot be used.
    """
    if not 0 < seconds <= LONGEST:
        raise ParameterError(f"--microphone {seconds:g}: expected up to {LONGEST} seconds.")
    try:
        import sounddevice
    except ImportError:
        raise ParameterError(
            "--microphone needs the package sounddevice: `pip install 'timnet[microphone]'`."
        ) from None
    except OSError as error:  # the package is there, the library that it loads is not
        raise AudioError(
            f"microphone: {error}. Install PortAudio, for example `apt-get install libportaudio2`."
        ) from None
    try:
        rate = _rate(sounddevice, rates)
        sound = sounddevice.rec(round(seconds * rate), rate, channels=1, dtype="float32")
        sounddevice.wait()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(
            f"microphone: {error}. Is one connected, and allowed to be used?"
        ) from None
    return sound[:, 0], rate


def _rate(sounddevice, rates: Sequence[int]) -> int:
    """The first of these rates that the microphone takes, otherwise its own."""
    own = sounddevice.query_devices(kind="input")["default_samplerate"]
    for rate in rates:
        try:
            sounddevice.check_input_settings(channels=1, dtype="float32", samplerate=rate)
        except (sounddevice.PortAudioError, ValueError):
            continue
        return rate
    return round(own)
