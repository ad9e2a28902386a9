"""Read recordings to their end: the same samples for manifest, features and prediction.

libsndfile decodes, and believes what headers say of lengths. Some tell none, since the program that
wrote them could not go back to the beginning; some tell an estimate. Here

- WAV, RF64 and CAF without a length are shown to it with the one that they have,
- FLAC without a length is read until nothing more comes,
- Ogg whose last page lacks its mark is shown with it, and streams behind each other are all read,
- of MP3, whose length libsndfile estimates from the first frame, the frames are counted, and joined
  files are read one after the other.

A file that ends before the length that it does tell is cut off, and refused.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from timnet.errors import AudioError

LONGEST = 3600  # s of a recording of a corpus; headers that lie announce years
MAX_CHANNELS = 16
LOWEST_RATE, HIGHEST_RATE = 2000, 384_000  # Hz
LOUDEST = 1e9  # of full scale 1, or 32768 where someone forgot to divide; its power is finite
BLOCK = 1 << 20  # samples that are read at a time
FIRST_PAGE, LAST_PAGE = 2, 4  # flags of Ogg

# What programs write for the size of sound that is still to come: 0, 0xFFFFFFFF, and 0x7FFFFFFF or
# 0x80000000 less some header. Sound of 2 GB would be refused as too long anyway.
UNTOLD_SIZE = 0x7FFF0000
UNTOLD_FRAMES = 1 << 62  # libsndfile's for FLAC without a length

# libsndfile reads a file that was cut off without complaint, but notes it: WAV and W64, AIFF, AU
_CUT = re.compile(
    r"^ *(?:data|riff|Riff size|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)


@dataclass(frozen=True)
class Found:
    """What a recording is, going by its content."""

    sample_rate: int  # Hz
    channels: int
    samples: int  # a channel


class _Part(soundfile.SoundFile):
    """A file of libsndfile that is read forwards alone."""

    def seekable(self) -> bool:
        """Never: otherwise soundfile reads no more than is announced, and seeks after each read."""
        return False


class Recording:
    """An open recording: see `opened`."""

    def __init__(self, sources: list[bytes | BinaryIO], counted: bool) -> None:
        """Open the first of them.

        Args:
            sources: files, or their paths as bytes, to be read one after the other.
            counted: whether their lengths are known from elsewhere: libsndfile's are estimates.
        """
        self._sources = iter(sources)
        self._counted = counted
        self._part: _Part | None = None
        self._done = 0  # samples read of the part
        self._next()
        assert self._part is not None
        self.sample_rate: int = self._part.samplerate
        self.channels: int = self._part.channels
        check_form(self.channels, self.sample_rate)

    def read(self, samples: int) -> np.ndarray:
        """The next samples, (samples,) or (samples, channels) float32; fewer at the end alone.

        Raises:
            AudioError: the file ends before the length that its header tells.
        """
        taken: list[np.ndarray] = []
        missing = samples
        while missing and self._part is not None:
            got = self._part.read(missing, dtype="float32")
            self._done += len(got)
            if len(got) < missing:
                got = got.copy()  # lets go of the rest
                self._refuse_end(self._part)
                self._next()
            taken.append(got)
            missing -= len(got)
        if not taken:
            return np.empty((0,) if self.channels == 1 else (0, self.channels), np.float32)
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def blocks(self) -> Iterator[np.ndarray]:
        """All that is left, BLOCK samples at a time."""
        while len(block := self.read(BLOCK)):
            yield block

    def whole(self) -> np.ndarray:
        """All samples that are left; no more than LONGEST is read."""
        blocks, samples = [], 0
        for block in self.blocks():
            blocks.append(block)
            samples += len(block)
            refuse_length(samples, self.sample_rate)
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    @property
    def announced(self) -> int:
        """Samples that the header of the current part tells; 0 if it tells none."""
        frames = 0 if self._part is None else self._part.frames
        return 0 if self._counted or frames > UNTOLD_FRAMES else frames

    def close(self) -> None:
        if self._part is not None:
            self._part.close()

    def _next(self) -> None:
        """Go on to the next part; none of them is left at the end."""
        self.close()
        self._done = 0
        source = next(self._sources, None)
        self._part = None if source is None else _Part(source)
        if self._part is None:
            return
        cut = _CUT.search(self._part.extra_info)
        if cut and 0 < int(cut[1]) < UNTOLD_SIZE:
            raise AudioError(f"cut off: {cut[2]} bytes of sound where {cut[1]} are announced")
        form = (self._part.samplerate, self._part.channels)
        if hasattr(self, "channels") and form != (self.sample_rate, self.channels):
            raise AudioError(
                f"parts of different form: {self.sample_rate} Hz, {self.channels} channels, then "
                f"{form[0]} Hz, {form[1]} channels. Split it into its parts"
            )

    def _refuse_end(self, part: _Part) -> None:
        announced = self.announced
        if part is self._part and announced and self._done != announced:
            raise AudioError(f"cut off: {self._done} samples where {announced} are announced")


@contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """A recording, open to be read.

    Raises:
        AudioError: why it cannot be read, without its name; also of what is read meanwhile.
    """
    try:
        with path.open("rb") as file:
            recording = Recording(*_sources(path, file))
            try:
                yield recording
            finally:
                recording.close()
    except soundfile.LibsndfileError as error:
        raise AudioError(error.error_string) from None
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(str(getattr(error, "strerror", "") or error)) from None


def examine(path: Path) -> Found:
    """What a recording of a corpus is; all of it is read.

    Raises:
        AudioError: why it is none that features can be made from.
    """
    with opened(path) as recording:
        refuse_length(recording.announced, recording.sample_rate)
        samples = 0
        for block in recording.blocks():
            check_samples(block)
            samples += len(block)
            refuse_length(samples, recording.sample_rate)
        if not samples:
            raise AudioError(f"0 samples at {recording.sample_rate} Hz")
        return Found(recording.sample_rate, recording.channels, samples)


def refuse_length(samples: int, rate: int) -> None:
    """Refuse what is longer than recordings of a corpus are, with an AudioError."""
    if samples > LONGEST * rate:
        raise AudioError(f"{samples / rate:.0f} s; at most {LONGEST} are believed")


def check_form(channels: int, rate: int) -> None:
    """Refuse what no recording has, with an AudioError."""
    if channels > MAX_CHANNELS:
        raise AudioError(f"{channels} channels; at most {MAX_CHANNELS} are believed")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"{rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are believed")


def check_samples(recording: np.ndarray) -> None:
    """Refuse samples that hold no signal, with an AudioError."""
    if not len(recording):
        raise AudioError("no samples")
    if not np.isfinite(recording).all():
        raise AudioError("samples that are not finite numbers")
    if (most := np.abs(recording).max()) > LOUDEST:
        raise AudioError(f"samples of up to {most:.0e}, where full scale is 1")


def _sources(path: Path, file: BinaryIO) -> tuple[list[bytes | BinaryIO], bool]:
    """What libsndfile is to read of a file; whether its lengths count for nothing."""
    plain = os.fsencode(path.absolute())
    size = path.stat().st_size
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        told = _riff(file, size)
    elif head[:4] == b"caff":
        told = _caf(file, size)
    elif head[:4] == b"OggS":
        parts = _ogg(file, size)
        return (parts or [plain]), False
    else:
        with _Part(plain) as part:
            form = part.format
        parts = _mp3(path.read_bytes()) if form == "MP3" else []
        return (parts or [plain]), bool(parts)
    return [_Overlay(file, told)] if told else [plain], False  # type: ignore[list-item]


class _Overlay:
    """A file with other bytes in some places, as soundfile reads files."""

    def __init__(self, file: BinaryIO, places: dict[int, bytes]) -> None:
        self.file, self.places = file, places
        file.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        start = self.file.tell()
        content = bytearray(self.file.read(size))
        for place, other in self.places.items():
            for offset, byte in enumerate(other, place - start):
                if 0 <= offset < len(content):
                    content[offset] = byte
        return bytes(content)


# WAV and CAF


def _riff(file: BinaryIO, end: int) -> dict[int, bytes]:
    """Bytes that tell the length of a WAV or RF64 file whose header tells 0."""
    place, long = 12, None
    while place + 8 <= end:
        file.seek(place)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"ds64":
            long = place + 8  # 64-bit sizes of the file, then of the data
        if kind == b"data":
            break
        place += 8 + size + size % 2
    else:
        return {}
    start, rest = place + 8, end - place - 8
    if not rest:
        return {}
    if long is not None and size == 0xFFFFFFFF:
        file.seek(long + 8)
        (data,) = struct.unpack("<Q", file.read(8))
        return {long: struct.pack("<QQ", end - 8, rest)} if data in (0, 2**64 - 1) else {}
    if size or _chunks(file, start, end):
        return {}
    most = 0xFFFFFFFE
    return {4: struct.pack("<I", min(end - 8, most)), place + 4: struct.pack("<I", min(rest, most))}


def _chunks(file: BinaryIO, place: int, end: int) -> bool:
    """Whether from here on there are chunks of RIFF, to the end."""
    while place + 8 <= end:
        file.seek(place)
        kind, size = struct.unpack("<4sI", file.read(8))
        if not kind.isascii() or not kind.decode().isprintable():
            return False
        place += 8 + size + size % 2
    return place in (end, end + 1)


def _caf(file: BinaryIO, end: int) -> dict[int, bytes]:
    """Bytes that tell the length of a CAF file, whose data may be of size -1."""
    place = 8
    while place + 12 <= end:
        file.seek(place)
        kind, size = struct.unpack(">4sq", file.read(12))
        if kind == b"data":
            return {place + 4: struct.pack(">q", end - place - 12)} if size == -1 else {}
        if size < 0:
            break
        place += 12 + size
    return {}


# Ogg


def _ogg(file: BinaryIO, end: int) -> list[bytes | BinaryIO]:
    """The streams of an Ogg file, where there are several or a last page lacks its mark."""
    starts, ends, place, sound = [0], list[tuple[int, int, int]](), 0, False
    page = (0, 0, 0)  # begin, end, flags
    while place < end:
        file.seek(place)
        head = file.read(27)
        if head[:4] != b"OggS"[: len(head[:4])]:
            break  # something else stands behind it
        lacing = file.read(head[26]) if len(head) == 27 else b""
        after = place + 27 + len(lacing) + sum(lacing)
        if len(head) < 27 or len(lacing) < head[26] or after > end:
            raise AudioError(f"cut off: it ends within a page, at byte {end}")
        if head[5] & FIRST_PAGE and sound:
            starts.append(place)
            ends.append(page)
        sound = not head[5] & FIRST_PAGE
        page = (place, after, head[5])
        place = after
    ends.append(page)
    if len(starts) == 1 and page[2] & LAST_PAGE:
        return []
    streams: list[bytes | BinaryIO] = []
    for start, (begin, stop, flags) in zip(starts, ends, strict=True):
        file.seek(start)
        content = bytearray(file.read(stop - start))
        if not flags & LAST_PAGE:
            marked = content[begin - start :]
            marked[5] |= LAST_PAGE
            marked[22:26] = bytes(4)
            marked[22:26] = struct.pack("<I", _checksum(bytes(marked)))
            content[begin - start :] = marked
        streams.append(io.BytesIO(bytes(content)))
    return streams


def _checksum(page: bytes) -> int:
    """CRC of an Ogg page (RFC 3533), whose own field is 0."""
    total = 0
    for byte in page:
        total = (total << 8 & 0xFFFFFFFF) ^ _checksums()[total >> 24 ^ byte]
    return total


@lru_cache(maxsize=1)
def _checksums() -> list[int]:
    found = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value >> 31 else 0)
            value &= 0xFFFFFFFF
        found.append(value)
    return found


# MP3


class _Frame(NamedTuple):
    """A frame of MPEG audio, going by its header (ISO 11172-3, 13818-3)."""

    version: int  # 1, 2, or 3 for 2.5
    layer: int
    rate: int  # Hz
    mono: bool
    size: int  # bytes

    def fits(self, other: _Frame) -> bool:
        return self[:4] == other[:4]


_BIT_RATES = {  # kbit/s by (version is 1, layer) and index from 1
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {1: (44100, 48000, 32000), 2: (22050, 24000, 16000), 3: (11025, 12000, 8000)}


def _frame(content: bytes, place: int) -> _Frame | None:
    """The frame whose header stands at a place; None if no header does."""
    if place + 4 > len(content) or content[place] != 0xFF or content[place + 1] < 0xE0:
        return None
    _, second, third, fourth = content[place : place + 4]
    version = {0: 3, 2: 2, 3: 1}.get(second >> 3 & 3)
    layer, bits, rates = 4 - (second >> 1 & 3), third >> 4, third >> 2 & 3
    if version is None or layer == 4 or bits in (0, 15) or rates == 3:
        return None
    rate = _RATES[version][rates]
    bit_rate = 1000 * _BIT_RATES[version == 1, layer][bits - 1]
    padding = third >> 1 & 1
    if layer == 1:
        size = 4 * (12 * bit_rate // rate + padding)
    else:
        size = (72 if layer == 3 and version > 1 else 144) * bit_rate // rate + padding
    return _Frame(version, layer, rate, fourth >> 6 == 3, size)


@dataclass
class _File:
    """One of the files that an MP3 file was joined from."""

    info: bytes  # its first frame, if that tells the length; empty otherwise
    told: int | None  # frames, going by that
    first: _Frame | None = None
    frames: list[bytes] = field(default_factory=list)

    def ends_before(self, frame: _Frame) -> bool:
        """Whether a frame belongs to another file."""
        if self.first is not None and not frame.fits(self.first):
            return True
        return self.told is not None and len(self.frames) == self.told

    def content(self) -> bytes:
        """With a first frame that tells the length."""
        if self.told is not None and len(self.frames) < self.told - 1:  # some count the first one
            raise AudioError(f"cut off: {len(self.frames)} frames where {self.told} are announced")
        right = self.info and len(self.frames) == self.told
        return (self.info if right else _info(self.frames)) + b"".join(self.frames)


def _mp3(content: bytes) -> list[bytes | BinaryIO]:
    """The files that an MP3 file was joined from, each with a first frame that tells its length.

    None where there are no frames, or frames of layers 1 and 2, in which nothing tells it.

    Raises:
        AudioError: it ends within a frame, or has fewer frames than it tells.
    """
    files: list[_File] = []
    place, end = 0, len(content)
    before: _Frame | None = None  # the one that ends here
    while place < end:
        frame = _frame(content, place)
        if frame is None or not (
            (before and frame.fits(before)) or _goes_on(content, place, frame)
        ):
            place += _tag(content, place) or _gap(content, place)
            before = None
            continue
        if frame.layer != 3:
            return []
        if place + frame.size > end + 1:  # some leave out the last byte, which is padding
            raise AudioError(f"cut off: it ends within a frame, at byte {end}")
        piece = content[place : place + frame.size]
        if (told := _told(frame, piece)) is not None:
            files.append(_File(piece, told or None, frame))
        else:
            if not files or files[-1].ends_before(frame):
                files.append(_File(b"", None, frame))
            files[-1].frames.append(piece)
        before = frame
        place += frame.size
    return [io.BytesIO(file.content()) for file in files if file.frames or file.told]


def _goes_on(content: bytes, place: int, frame: _Frame) -> bool:
    """Whether a frame is followed by another one like it, so that it is none by chance."""
    after = _frame(content, place + frame.size)
    return after is not None and after.fits(frame)


def _tag(content: bytes, place: int) -> int:
    """Bytes of the tag that stands at a place, 0 if none does."""
    head = content[place : place + 32]
    if head.startswith(b"ID3") and len(head) >= 10:
        size = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(reversed(head[6:10])))
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        size, _, flags = struct.unpack("<III", head[12:24])
        header = flags >> 29 & 1  # this is the header, and `size` is of what follows
        return 32 + (size if header else 0)
    return 0


def _gap(content: bytes, place: int) -> int:
    """Bytes to the next place where a frame or a tag may stand."""
    found = (content.find(mark, place + 1) for mark in (b"\xff", b"ID3", b"TAG", b"APETAGEX"))
    return min((at for at in found if at >= 0), default=len(content)) - place


def _told(frame: _Frame, piece: bytes) -> int | None:
    """Frames that this frame says will follow; 0 if it says nothing, None if it holds sound."""
    offset = _info_offset(frame)
    for at in (offset, offset + 2):  # with a checksum before it
        if piece[at : at + 4] in (b"Xing", b"Info"):
            flags, number = struct.unpack(">II", piece[at + 4 : at + 12].ljust(8, b"\0"))
            return number if flags & 1 else 0
    return 0 if piece[36:40] == b"VBRI" else None


def _info_offset(frame: _Frame) -> int:
    if frame.version == 1:
        return 4 + (17 if frame.mono else 32)
    return 4 + (9 if frame.mono else 17)


def _info(frames: list[bytes]) -> bytes:
    """A first frame, without sound, that tells how many follow."""
    first = _frame(frames[0], 0)
    assert first is not None
    second, third, fourth = frames[0][1:4]
    rate = 5 if first.version == 1 else 8  # index of 64 kbit/s: room enough at every sample rate
    head = bytes((0xFF, second | 1, rate << 4 | third & 0b1100, fourth))
    frame = _frame(head, 0)
    assert frame is not None
    tag = bytes(_info_offset(frame) - 4) + b"Info" + struct.pack(">II", 1, len(frames))
    return (head + tag).ljust(frame.size, b"\0")
