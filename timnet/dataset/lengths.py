"""Lengths of recordings that their headers do not tell, or tell wrong.

Each function gives what libsndfile is to be shown in place of a file: see `timnet.dataset.audio`.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from timnet.errors import AudioError

# What programs write for the size of sound that is still to come: 0, 0xFFFFFFFF, and 0x7FFFFFFF or
# 0x80000000 less some header. Sound of 2 GB would be refused as too long anyway.
UNTOLD_SIZE = 0x7FFF0000
FIRST_PAGE, LAST_PAGE = 2, 4  # flags of Ogg


def truncated(found: int, announced: int) -> AudioError:
    """Of a file that ends too early; both in bytes of sound."""
    return AudioError(f"truncated: {found} bytes of sound, but the header announces {announced}")


class Overlay:
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


def riff(file: BinaryIO, end: int) -> dict[int, bytes]:
    """Bytes that tell the length of a WAV or RF64 file whose header tells 0.

    Raises:
        AudioError: it ends before the length that it tells.
    """
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
    if rest < size < UNTOLD_SIZE:
        raise truncated(rest, size)
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


def caf(file: BinaryIO, end: int) -> dict[int, bytes]:
    """Bytes that tell the length of a CAF file, whose data may be of size -1.

    Raises:
        AudioError: it ends before the length that it tells.
    """
    place = 8
    while place + 12 <= end:
        file.seek(place)
        kind, size = struct.unpack(">4sq", file.read(12))
        if kind == b"data":
            rest = end - place - 12
            if size > rest:
                raise truncated(rest, size)
            return {place + 4: struct.pack(">q", rest)} if size == -1 else {}
        if size < 0:
            break
        place += 12 + size
    return {}


# Ogg


def ogg(file: BinaryIO, end: int) -> list[bytes | BinaryIO]:
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
            raise AudioError(f"truncated: it ends within a page, at byte {end}")
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
LONGEST_FRAME = 1729  # bytes, of layer 2 at 384 kbit/s and 32 kHz
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_LYRICS_END = re.compile(rb"LYRICS(?:200|END)")


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
            raise AudioError(
                f"truncated: {len(self.frames)} frames, but the header announces {self.told}"
            )
        right = self.info and len(self.frames) == self.told
        return (self.info if right else _info(self.frames)) + b"".join(self.frames)


def mp3(content: bytes) -> list[bytes | BinaryIO]:
    """The files that an MP3 file was joined from, each with a first frame that tells its length.

    None where there are no frames, or frames of layers 1 and 2, in which nothing tells it.

    Raises:
        AudioError: it ends within a frame, has fewer frames than it tells, or other bytes than
            tags stand where frames should.
    """
    files: list[_File] = []
    other = False  # than layer 3
    for place, frame in _frames(content):
        other = other or frame.layer != 3
        piece = content[place : place + frame.size]
        if (told := _told(frame, piece)) is not None:
            files.append(_File(piece, told or None, frame))
        else:
            if not files or files[-1].ends_before(frame):
                files.append(_File(b"", None, frame))
            files[-1].frames.append(piece)
    if other:
        return []
    return [io.BytesIO(file.content()) for file in files if file.frames or file.told]


def _frames(content: bytes) -> Iterator[tuple[int, _Frame]]:
    """The place of every frame, and what it is; raises as `mp3` does."""
    place, end = 0, len(content)
    before: _Frame | None = None  # the one that ends here
    sound, loose = False, 0  # whether there were frames; bytes since that are neither frame nor tag
    while place < end:
        frame = _frame(content, place)
        if frame and not ((before and frame.fits(before)) or _goes_on(content, place, frame)):
            frame = None
        size = frame.size if frame else _tag(content, place)
        if loose and frame and _told(frame, content[place : place + size]) is None:
            if sound or loose > LONGEST_FRAME:  # a stream may begin within a frame
                raise _damaged(place - loose, loose)
        elif loose and size:  # a tag, or a frame with which another file begins
            _refuse_loose(content, place, loose, sound)
        if frame:
            if place + size > end + 1:  # some leave out the last byte, which is padding
                raise AudioError(f"truncated: it ends within a frame, at byte {end}")
            yield place, frame
            sound = True
        if size:
            loose = 0
        else:
            size = _gap(content, place)
            loose += size
        place += size
        before = frame
    _refuse_loose(content, end, loose, sound)


def _refuse_loose(content: bytes, place: int, loose: int, sound: bool) -> None:
    """Refuse bytes between the last frame and a tag or the end, if they may have been sound.

    Zeros are padding, and less than a frame is left of what was cut out of a stream.
    """
    if items := _items_before(content, place):  # of a tag
        place, loose = place - items, loose - items
    if sound and loose > LONGEST_FRAME and content[place - loose : place].strip(b"\0"):
        raise _damaged(place - loose, loose)


def _damaged(place: int, size: int) -> AudioError:
    return AudioError(f"damaged: {size} bytes from byte {place} on are neither sound nor a tag")


def _goes_on(content: bytes, place: int, frame: _Frame) -> bool:
    """Whether a frame is followed by another one like it, so that it is none by chance."""
    after = _frame(content, place + frame.size)
    return after is not None and after.fits(frame)


def _tag(content: bytes, place: int) -> int:
    """Bytes of the tag that stands at a place, with zeros that pad it; 0 if none does."""
    head = content[place : place + 32]
    if head.startswith(b"ID3") and len(head) >= 10:
        size = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(reversed(head[6:10])))
        size += 10 + (10 if head[5] & 0x10 else 0)
    elif head.startswith(b"TAG"):
        size = 128
    elif head.startswith(b"APETAGEX") and len(head) == 32:
        length, _, flags = struct.unpack("<III", head[12:24])
        header = flags >> 29 & 1  # this is the header, and the length is of what follows
        size = 32 + (length if header else 0)
    elif head.startswith(b"LYRICSBEGIN") and (found := _LYRICS_END.search(content, place)):
        size = found.end() - place
    else:
        return 0
    while content[place + size : place + size + 1] == b"\0":
        size += 1
    return size


def _items_before(content: bytes, place: int) -> int:
    """Bytes that a tag has before its head: of APE tags that have their head at the end alone."""
    head = content[place : place + 32]
    if not head.startswith(b"APETAGEX") or len(head) < 32:
        return 0
    length, _, flags = struct.unpack("<III", head[12:24])
    return 0 if flags >> 29 & 1 else max(length - 32, 0)


def _gap(content: bytes, place: int) -> int:
    """Bytes to the next place where a frame or a tag may stand."""
    found = (content.find(mark, place + 1) for mark in (b"\xff", *_TAGS))
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
