"""The voice of the demo's recordings: glottal pulses and noise through moving formants.

A source-filter model: each sound of a sentence sets formants, voicing and friction, and how it is
said sets pitch, tempo, loudness and the voice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timnet.corpora.demo import PROSODY, SAMPLE_RATE, SENTENCES, VOICES, Prosody, Voice
from timnet.paths import replacing

Array = NDArray[np.float64]

HOP = 80  # samples between two settings of the vocal tract: 5 ms
WINDOW = 4 * HOP
FFT = 2 * WINDOW  # room for the formants to ring: 20 ms until they wrap around

# An utterance goes this share of the way from neutral to its emotion, drawn uniformly: the weak
# ones are those that are taken for neutral.
STRENGTH = (0.6, 1.25)
# Standard deviation of what has nothing to do with emotion, cut off at two. It decides how much
# neighbours overlap: with half of it, a known speaker is nearly always recognised.
SPREAD = Prosody(1.2, 0.6, 1.0, 0.08, 1.8, 0.05, 0.35, 2.5, 0.003)


class Sound(NamedTuple):
    """A speech sound of a man of average size."""

    formants: tuple[float, float, float]  # Hz; those of a consonant bend its neighbours
    seconds: float
    voice: float  # amplitude of voicing, relative to an open vowel
    noise: float = 0.0  # amplitude of friction or burst, likewise
    band: float = 1000  # Hz, where the noise is strongest


# Vowels after Peterson and Barney (1952); sentences write the stressed ones in upper case.
SOUNDS = {
    "a": Sound((730, 1090, 2440), 0.100, 1.0),
    "e": Sound((530, 1840, 2480), 0.095, 0.9),
    "i": Sound((290, 2290, 3010), 0.085, 0.7),
    "o": Sound((570, 840, 2410), 0.095, 0.9),
    "u": Sound((310, 870, 2240), 0.085, 0.7),
    "m": Sound((250, 1000, 2200), 0.060, 0.3),
    "n": Sound((250, 1500, 2400), 0.055, 0.3),
    "l": Sound((360, 1200, 2700), 0.050, 0.5),
    "v": Sound((300, 1000, 2200), 0.055, 0.3, 0.04, 4000),
    "f": Sound((350, 1000, 2200), 0.085, 0.0, 0.06, 4500),
    "s": Sound((350, 1700, 2600), 0.090, 0.0, 0.16, 5800),
    "p": Sound((350, 900, 2200), 0.014, 0.0, 0.12, 900),
    "t": Sound((350, 1750, 2600), 0.018, 0.0, 0.20, 4200),
    "k": Sound((350, 2000, 2400), 0.024, 0.0, 0.18, 2000),
    "_": Sound((350, 1500, 2500), 0.050, 0.0),  # closure before the burst of p, t, k
    ",": Sound((500, 1500, 2500), 0.100, 0.0),  # pause
}
STRESSED = 1.4  # factor on the length of a stressed vowel
FINAL = 1.35  # likewise of the last three sounds
UPPER_FORMANTS = (3500, 4500)  # Hz, the same in all sounds
BANDWIDTHS = np.array([70, 90, 130, 200, 280])  # Hz, of the five formants
LEVEL = -34.0  # dB of full scale of vowels in neutral speech: leaves the loudest unclipped
ROOM = -74.0  # dB of full scale of the noise of room and microphone


def generate(folder: Path, seed: int = 0, progress: Callable[[int], None] | None = None) -> None:
    """Write the whole corpus below `folder`, over files of the same names.

    Args:
        folder: gets one folder per speaker.
        seed: not negative; a seed gives the same bytes each time, another gives other takes.
        progress: called with 1 after each file.
    """
    for speaker in VOICES:
        (folder / speaker).mkdir(parents=True, exist_ok=True)
        for emotion in PROSODY:
            for sentence in SENTENCES:
                path = folder / speaker / f"{emotion}-{speaker}-{sentence}.wav"
                _write(path, synthesise(emotion, speaker, sentence, seed))
                if progress is not None:
                    progress(1)


def _write(path: Path, signal: Array) -> None:
    import soundfile

    with replacing(path) as partial:
        soundfile.write(partial, signal, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def synthesise(emotion: str, speaker: str, sentence: str, seed: int = 0) -> Array:
    """One utterance, (samples,) at SAMPLE_RATE, within -1 and 1.

    Depends on nothing but the arguments, not on what was synthesised before.
    """
    rng = np.random.default_rng([seed, *f"{emotion}-{speaker}-{sentence}".encode()])
    voice = VOICES[speaker]
    prosody = _draw(emotion, voice, rng)
    formants, voicing, friction, band, accent = _articulate(sentence, prosody, voice, rng)
    f0 = _pitch(accent, prosody, voice, rng)
    pulses, opening = _glottis(_to_samples(f0), prosody, rng)
    aspiration, hiss, room = rng.standard_normal((3, len(pulses)))

    breath = 10 ** (prosody.breath / 20) * (0.3 + opening) * aspiration
    source = _to_samples(voicing) * (pulses + breath)
    voiced = _filter(source, _resonances(formants, BANDWIDTHS))
    mouth = _resonances(band[:, None], 0.35 * band[:, None])
    mouth *= np.linspace(0, 1, mouth.shape[1])  # friction has no lows
    mouth /= np.sqrt(np.mean(np.abs(mouth) ** 2, axis=1, keepdims=True))
    unvoiced = _filter(_to_samples(friction) * hiss, mouth)

    # Vowels are brought to one level, so that loudness does not hang on the voice quality.
    vowels = voiced[np.repeat(voicing > 0.6, HOP)].std()
    level = 10 ** ((LEVEL + prosody.loudness) / 20)
    signal = level * (voiced / vowels + unvoiced) + 10 ** (ROOM / 20) * room
    return signal / max(1.0, np.abs(signal).max() / 0.99)


def _draw(emotion: str, voice: Voice, rng: np.random.Generator) -> Prosody:
    """The settings of one utterance."""
    neutral, full = np.array(PROSODY["neutral"]), np.array(PROSODY[emotion])
    strength = voice.expression * rng.uniform(*STRENGTH)
    scatter = SPREAD * np.clip(rng.standard_normal(len(SPREAD)), -2, 2)
    drawn = Prosody(*(neutral + strength * (full - neutral) + scatter))
    habits = {name: getattr(voice, name) for name in ("loudness", "closure", "tilt")}
    return drawn._replace(**{name: getattr(drawn, name) + x for name, x in habits.items()})


def _articulate(
    sentence: str, prosody: Prosody, voice: Voice, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array, Array]:
    """Tracks of a sentence: formants (frames, 5); voicing, friction, its band, accent (frames,)."""
    letters = re.sub("([ptk])", r"_\1", f",{SENTENCES[sentence]},".replace(" ", ""))
    sounds = [SOUNDS[letter.lower()] for letter in letters]
    stressed = np.array([letter.isupper() for letter in letters], float)
    seconds = np.array([sound.seconds for sound in sounds]) * STRESSED**stressed
    seconds[-4:-1] *= FINAL
    seconds *= np.exp2(-prosody.tempo) * np.exp(0.1 * rng.standard_normal(len(sounds)))
    lengths = np.maximum(2, np.rint(seconds * SAMPLE_RATE / HOP)).astype(int)
    formants = np.array([(*sound.formants, *UPPER_FORMANTS) for sound in sounds]) * voice.tract
    formants *= np.exp(0.03 * rng.standard_normal(formants.shape))  # no sound is said twice alike
    voicing, friction, band = np.array([sound[2:] for sound in sounds]).T

    def track(targets: Array, glide: int) -> Array:
        kernel = np.hanning(glide + 2)
        steps = np.repeat(targets, lengths, axis=0)
        from scipy.ndimage import convolve1d  # heavy, and of no use to other corpora

        return convolve1d(steps, kernel / kernel.sum(), axis=0, mode="nearest")

    return (
        track(formants, 11),  # the tongue takes about 50 ms
        track(voicing, 5),
        track(friction, 3),  # bursts stay sharp
        track(band, 1),
        track(stressed, 27),  # an accent reaches into the neighbouring syllables
    )


def _pitch(accent: Array, prosody: Prosody, voice: Voice, rng: np.random.Generator) -> Array:
    """F0 (frames,) in Hz: declination, accents, the final turn and a slow wander."""
    time = np.linspace(0, 1, len(accent))
    wander = np.interp(time, np.linspace(0, 1, 8), 0.5 * rng.standard_normal(8))
    turn = prosody.final * np.clip((time - 0.7) / 0.2, 0, 1)
    semitones = prosody.pitch + prosody.range * (0.5 - time + accent) + turn + wander
    return voice.pitch * np.exp2(semitones / 12)


def _glottis(f0: Array, prosody: Prosody, rng: np.random.Generator) -> tuple[Array, Array]:
    """Derivative of the glottal flow, of unit power, and the opening, 0 to 1: (samples,) each.

    The flow of a cycle is u^2 - u^3 over its open share, and nothing while closed: D. Klatt,
    L. Klatt, "Analysis, synthesis, and perception of voice quality variations among female
    and male talkers", JASA 87 (1990).
    """
    phase = np.cumsum(f0) / SAMPLE_RATE
    cycles = np.arange(int(phase[-1]) + 2)
    shaken = cycles + prosody.jitter * rng.standard_normal(len(cycles))
    phase = np.interp(phase, shaken, cycles)
    shimmer = np.exp(4 * prosody.jitter * rng.standard_normal(len(cycles)))
    u = np.minimum(phase % 1 / (1 - prosody.closure), 1)
    pulses = shimmer[phase.astype(int)] * np.where(u < 1, 2 * u - 3 * u**2, 0)
    decay = np.exp(-2 * np.pi * 1000 * 2**prosody.tilt / SAMPLE_RATE)
    from scipy.signal import lfilter

    pulses = lfilter([1 - decay], [1, -decay], pulses)
    return pulses / pulses.std(), 27 / 4 * (u**2 - u**3)


def _to_samples(track: Array) -> Array:
    """(frames,) -> (frames x HOP,)"""
    return np.interp(np.arange(len(track) * HOP) / HOP, np.arange(len(track)), track)


def _resonances(centres: Array, bandwidths: Array) -> Array:
    """Response of resonators in series, 1 at 0 Hz: (frames, N) and N in Hz -> (frames, bins)."""
    z = np.exp(-2j * np.pi * np.arange(FFT // 2 + 1) / FFT)
    radius = np.broadcast_to(np.exp(-np.pi * bandwidths / SAMPLE_RATE), centres.shape)
    response = np.ones((len(centres), len(z)), complex)
    for r, cosine in zip(radius.T, np.cos(2 * np.pi * centres / SAMPLE_RATE).T, strict=True):
        b, c = (2 * r * cosine)[:, None], (r**2)[:, None]
        response *= (1 - b + c) / (1 - b * z + c * z**2)
    return response


def _filter(signal: Array, response: Array) -> Array:
    """Filter (frames x HOP,) with a response (frames, bins) that changes from frame to frame."""
    padded = np.pad(signal, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(response)]
    hann = np.hanning(WINDOW + 1)[:-1] / 2  # four overlap: they sum to 1
    blocks = np.fft.irfft(np.fft.rfft(windows * hann, FFT) * response)
    blocks = blocks.reshape(len(response), -1, HOP)
    out = np.zeros((len(response) + FFT // HOP, HOP))
    for late in range(FFT // HOP):  # overlap and add
        out[late : late + len(response)] += blocks[:, late]
    return out.ravel()[WINDOW // 2 :][: len(signal)]
