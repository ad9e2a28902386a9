"""Recordings are read to their end, whatever their headers say; what was cut off is named."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from models import SETTINGS, small_model

from timnet.dataset import audio, features
from timnet.errors import AudioError

RATE = 48000
SECONDS = 4
CLOCK = np.arange(SECONDS * RATE) / RATE
NOISE = np.random.default_rng(0).standard_normal(len(CLOCK))
SOUND = (0.2 * np.sin(600 * np.pi * CLOCK) + 0.05 * NOISE * (CLOCK % 1 < 0.5)).astype("f4")


def encoded(form: str, codec: str, **options: object) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE, codec, format=form, **options)
    return file.getvalue()


def at(content: bytes, place: int, form: str, *values: int) -> bytes:
    """The content with numbers put in."""
    changed = bytearray(content)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)


def wav(riff: int, data: int) -> bytes:
    return at(at(encoded("WAV", "PCM_16"), 4, "<I", riff), 40, "<I", data)


def aiff(size: int) -> bytes:
    content = encoded("AIFF", "PCM_16")
    content = at(content, content.index(b"COMM") + 10, ">I", size)
    return at(at(content, content.index(b"SSND") + 4, ">I", size), 4, ">I", size)


def flac() -> bytes:
    content = encoded("FLAC", "PCM_16")
    field = int.from_bytes(content[18:26], "big") >> 36 << 36  # of STREAMINFO, in samples
    return content[:18] + field.to_bytes(8, "big") + content[26:]


def rf64(size: int) -> bytes:
    return at(encoded("RF64", "PCM_16"), 20, "<QQQ", size, size, 0)


def caf() -> bytes:
    content = encoded("CAF", "PCM_16")
    return at(content, content.index(b"data") + 4, ">q", -1)


def ogg(codec: str) -> bytes:
    """Ogg whose last page does not say that it is the last."""
    content = encoded("OGG", codec)
    last = content.rindex(b"OggS")
    page = bytearray(content[last:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    return content[:last] + at(bytes(page), 22, "<I", checksum(page))


def checksum(page: bytes) -> int:
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = total << 1 ^ (0x104C11DB7 if total >> 31 else 0)
    return total


UNTOLD: dict[str, Callable[[], bytes]] = {
    "WAV of 0": lambda: wav(0, 0),
    "WAV that was never finished": lambda: wav(36, 0),
    "WAV of ffmpeg": lambda: wav(0xFFFFFFFF, 0xFFFFFFFF),
    "WAV of sox": lambda: wav(0x7FFFF024, 0x7FFFF000),
    "WAV of 2 GB": lambda: wav(0x80000024, 0x80000000),
    "RF64 of 0": lambda: rf64(0),
    "RF64 of -1": lambda: rf64(2**64 - 1),
    "AIFF of 0": lambda: aiff(0),
    "AIFF of -1": lambda: aiff(0xFFFFFFFF),
    "AU": lambda: at(encoded("AU", "PCM_16"), 8, ">I", 0xFFFFFFFF),
    "CAF": caf,
    "FLAC": flac,
    "Vorbis": lambda: ogg("VORBIS"),
    "Opus": lambda: ogg("OPUS"),
}


def lengths(path: Path) -> set[int]:
    """Samples that the manifest, the features and the prediction each take from a file."""
    found = {audio.examine(path).samples}
    with audio.opened(path) as recording:
        found.add(len(recording.whole()))
    assert not isinstance(features.of_file(path, SETTINGS, features.mel_filters()), str)
    ((_, said),) = small_model(1).predict_files([path])
    assert not isinstance(said, str), said
    return found | {round(said.seconds * RATE)}


@pytest.mark.parametrize("case", UNTOLD)
def test_a_header_that_tells_no_length(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x"
    content = UNTOLD[case]()
    path.write_bytes(content)
    assert lengths(path) == {len(SOUND)}
    if case in ("FLAC", "Vorbis", "Opus"):  # elsewhere nothing tells
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(AudioError):
            audio.examine(path)


def test_a_length_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    empty = at(at(encoded("WAV", "PCM_16")[:44], 4, "<I", 36), 40, "<I", 0)
    for content in (empty, empty + b"LIST\4\0\0\0INFO"):
        path.write_bytes(content)
        with pytest.raises(AudioError, match="0 samples"):
            audio.examine(path)


@pytest.mark.parametrize("lost", [1, 2, 1000, 100_000])
def test_a_wav_that_was_cut_off(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(encoded("WAV", "PCM_16")[:-lost])
    with pytest.raises(AudioError, match="truncated"):
        audio.examine(path)


def test_streams_of_ogg_behind_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.ogg"
    for first, second in (("VORBIS", "VORBIS"), ("OPUS", "OPUS")):
        path.write_bytes(encoded("OGG", first) + ogg(second))
        assert lengths(path) == {2 * len(SOUND)}


# MP3

SIZES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
FRAME = 1152  # samples


def mp3(mode: str = "VARIABLE", told: bool = True) -> bytes:
    """MP3, with its first frame, which tells how many follow, or without."""
    content = encoded("MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5)
    size = 144 * SIZES[content[2] >> 4] * 1000 // RATE + (content[2] >> 1 & 1)
    assert b"Xing" in content[:size] or b"Info" in content[:size]
    return content if told else content[size:]


ID3 = b"ID3\4\0\0\0\0\1\0" + bytes(128)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 8, 1, 0) + bytes(8)
APE_1 = bytes(range(200)) * 40 + b"APETAGEX" + struct.pack("<IIII", 1000, 8032, 1, 0) + bytes(8)
LYRICS = b"LYRICSBEGIN" + b"INF0000210" * 900 + b"009011LYRICS200"
TAGS = b"TAG" + b"\xff\xfb" * 62 + b"x"  # what looks like headers of frames


MP3: dict[str, tuple[Callable[[], bytes], float]] = {
    "variable": (lambda: mp3(), 1),
    "constant": (lambda: mp3("CONSTANT"), 1),
    "variable, untold": (lambda: mp3(told=False), 1),
    "constant, untold": (lambda: mp3("CONSTANT", told=False), 1),
    "told as 0": (lambda: mp3().replace(b"Xing\0\0\0\x0f", b"Xing\0\0\0\0"), 1),
    "tags": (lambda: ID3 + mp3(told=False) + APE + TAGS, 1),
    "joined": (lambda: mp3() + mp3(), 2),
    "three, with tags": (lambda: (ID3 + mp3("CONSTANT") + TAGS) * 3, 3),
    "joined, untold": (lambda: mp3(told=False) * 2, 2),
    "told, then untold": (lambda: mp3() + mp3(told=False), 2),
    "untold, then told": (lambda: mp3(told=False) + mp3(), 2),
    "tags of other kinds": (lambda: ID3 + bytes(3000) + mp3(told=False) + LYRICS + APE_1 + TAGS, 1),
    "padding": (lambda: (mp3(told=False) + bytes(4000) + TAGS) * 2 + bytes(4000), 2),
    "joined, with padding": (lambda: (mp3() + bytes(4000)) * 2, 2),
    "junk before": (lambda: b"\xffjunk" * 999 + mp3(), 1),
    "junk around": (lambda: bytes(700) + mp3(told=False) + b"\xff\xfbjunk" * 9, 1),
}


@pytest.mark.parametrize("case", MP3)
def test_an_mp3_is_as_long_as_what_decodes(tmp_path: Path, case: str) -> None:
    make, times = MP3[case]
    path = tmp_path / "x.mp3"
    path.write_bytes(make())
    (samples,) = lengths(path)
    assert abs(samples - times * len(SOUND)) < 3 * FRAME * times


@pytest.mark.parametrize("case", ["variable", "constant", "joined"])
def test_an_mp3_that_tells_its_length_gives_the_samples_of_libsndfile(
    tmp_path: Path, case: str
) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(MP3[case][0]())
    expected, _ = soundfile.read(path, dtype="float32")
    with audio.opened(path) as recording:
        found = recording.whole()
    assert np.array_equal(found[: len(expected)], expected)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_that_was_cut_off(tmp_path: Path, mode: str, told: bool) -> None:
    path = tmp_path / "x.mp3"
    content = mp3(mode, told)
    for kept in (len(content) // 2 + 7, len(content) - 100):
        path.write_bytes(content[:kept])
        with pytest.raises(AudioError, match="truncated"):
            audio.examine(path)


LAYER_2 = (b"\xff\xfd\xc4\xc4" + bytes(764)) * 99  # 256 kbit/s, 48 kHz; frames of silence
JUNK = np.random.default_rng(1).integers(1, 255, 3000, np.uint8).tobytes()


@pytest.mark.parametrize(
    "content",
    [mp3("CONSTANT", told=False), mp3("VARIABLE", told=False), mp3(), LAYER_2],
    ids=["constant", "variable", "told", "layer 2"],
)
def test_an_mp3_that_is_damaged_within(tmp_path: Path, content: bytes) -> None:
    path, place = tmp_path / "x.mp3", len(content) // 2
    path.write_bytes(content)
    audio.examine(path)
    head = content.index(content[:2], place)  # of a frame
    for damaged in (
        content[:place] + bytes(3000) + content[place + 3000 :],
        content[:head] + b"\0" + content[head + 1 :],
        content[:place] + JUNK + content[place:],
        content[:place] + JUNK,
    ):
        path.write_bytes(damaged)
        with pytest.raises(AudioError, match=r"damaged: \d+ bytes from byte \d+ on"):
            audio.examine(path)
        ((_, said),) = small_model(1).predict_files([path])
        assert isinstance(said, str) and said.startswith("damaged")


def test_layer_2_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.mp2"
    for content, frames in ((LAYER_2, 99), (LAYER_2 * 2 + TAGS, 198)):
        path.write_bytes(content)
        assert lengths(path) == {frames * FRAME}
    path.write_bytes(LAYER_2[:-100])
    with pytest.raises(AudioError, match="truncated: it ends within a frame"):
        audio.examine(path)


def test_mp3_within_wav(tmp_path: Path) -> None:
    sound = mp3("CONSTANT", told=False)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 12000, 1, 0, 12, 1, 2, FRAME, 1, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(sound)) + sound
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    (samples,) = lengths(path)
    assert abs(samples - len(SOUND)) < 3 * FRAME
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(AudioError, match="truncated"):
        audio.examine(path)


@pytest.mark.parametrize("content", [b"", bytes(999), ID3, ID3[:6] + b"\x7f" * 4 + mp3()], ids=len)
def test_an_mp3_without_frames(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=f"^{len(content)} bytes, not sound: no MP3 frame"):
        audio.examine(path)


def test_joined_files_of_different_form(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    other = io.BytesIO()
    soundfile.write(other, SOUND, 44100, "MPEG_LAYER_III", format="MP3")
    path.write_bytes(mp3() + other.getvalue())
    with pytest.raises(AudioError, match="48000 Hz, 1 channels, then 44100 Hz"):
        audio.examine(path)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("wav", ""), ("flac", ""), ("mp3", ""), ("mp3", "-ar 22050 -q:a 6"), ("mp3", "-ar 8000"),
        ("ogg", "-c:a libvorbis"), ("ogg", "-c:a libopus"), ("au", ""), ("aiff", ""), ("caf", ""),
        ("w64", ""), ("mp2", ""),
    ],
)  # fmt: skip
def test_what_another_program_streams(tmp_path: Path, ending: str, options: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    command = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "-", *options.split(), "-f", ending, "-"]
    done = subprocess.run(command, input=encoded("WAV", "PCM_16"), capture_output=True)
    if done.returncode:
        pytest.skip(done.stderr.decode())
    path = tmp_path / "x"
    path.write_bytes(done.stdout)
    found = audio.examine(path)
    assert abs(found.samples / found.sample_rate - SECONDS) < 0.15
