"""Broken sound files and hostile file names, made from real recordings where there are any."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

RATE = 16000  # Hz
# what libsndfile writes; each is later read under a name that ends in .wav
CODECS = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)
LIES = (0, 1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
# no sound, whatever the name says
OTHERS = {
    "empty": b"",
    "zeros": bytes(3000),
    "page": b"<!DOCTYPE html><title>Sign in</title>" * 40,
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
    "film": b"\0\0\0\x20ftypisom" + bytes(range(256)) * 4,
    "program": b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 4,
    "archive": b"PK\x03\x04" + bytes(range(256)) * 4,
    "header alone": b"RIFF\x24\0\0\0WAVE",
    "text": "Grüße, kein Ton\n".encode() * 50,
}


def encoded(sound: np.ndarray, rate: int, form: str, codec: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, codec, format=form)
    return file.getvalue()


def flipped(content: bytes, drawn: random.Random, within: int) -> bytes:
    """Some bits turned, all of them in the first `within` bytes."""
    data = bytearray(content)
    for _ in range(drawn.randint(1, 8)):
        data[drawn.randrange(min(within, len(data)))] ^= 1 << drawn.randrange(8)
    return bytes(data)


def lying(content: bytes, drawn: random.Random) -> bytes:
    """A size, rate, number of channels or of bits in the header says something else."""
    data = bytearray(content)
    form, offset = drawn.choice((("<I", 4), ("<I", 16), ("<H", 20), ("<H", 22), ("<I", 24),
                                 ("<I", 28), ("<H", 32), ("<H", 34), ("<I", 40)))  # fmt: skip
    most = 0xFFFF if form == "<H" else 0xFFFFFFFF
    struct.pack_into(form, data, offset, min(drawn.choice(LIES), most))
    return bytes(data)


def inserted(content: bytes, drawn: random.Random) -> bytes:
    """A chunk of junk before the data, of a size that may be a lie."""
    kind = drawn.choice((b"LIST", b"junk", b"fact", b"cue ", b"PAD ", b"data", b"fmt "))
    size = drawn.choice((*LIES, 8))
    return content[:36] + kind + struct.pack("<I", size) + bytes(8) + content[36:]


def mutants(sounds: list[tuple[np.ndarray, int]], number: int) -> Iterator[tuple[str, bytes]]:
    """So many files that are broken, or that at least are not what they seem, each with its kind.

    Args:
        sounds: (samples,) and samples a second of what they are made from.
    """
    drawn = random.Random(12)
    kinds: tuple[Callable[[bytes], bytes], ...] = (
        lambda content: flipped(content, drawn, 64),
        lambda content: flipped(content, drawn, len(content)),
        lambda content: content[: drawn.randrange(1, 64)],
        lambda content: content[: drawn.randrange(64, len(content))],
        lambda content: lying(content, drawn),
        lambda content: inserted(content, drawn),
        lambda content: content + content,
        lambda content: drawn.randbytes(drawn.randrange(1, 40)) + content,
        lambda content: content[: len(content) // 2] + drawn.randbytes(len(content) // 2),
    )
    yield from OTHERS.items()
    for count in range(number - len(OTHERS)):
        sound, rate = sounds[count % len(sounds)]
        form, codec = CODECS[0] if count % 3 else drawn.choice(CODECS)
        rate = 48000 if codec == "OPUS" else rate
        mutate = kinds[count % len(kinds)]
        yield f"{codec} {count}", mutate(encoded(sound, rate, form, codec))
