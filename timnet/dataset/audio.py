"""Read recordings to their end: the same samples for manifest, features and prediction.

libsndfile decodes, and believes what headers say of lengths. Some tell none, since the program that
wrote them could not go back to the beginning; some tell an estimate. Here

- WAV, RF64 and CAF without a length are shown to it with the one that they have,
- FLAC without a length is read until nothing more comes,
- Ogg whose last page lacks its mark is shown with it, and streams behind each other are all read,
- of MP3, whose length libsndfile estimates from the first frame, the frames are counted, and joined
  files are read one after the other.

A file that ends before the length that it does tell is truncated, and refused. So is MP3 or MP2
that ends within a frame, or has other bytes than tags between its frames.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile

from timnet.dataset import foreign, lengths
from timnet.errors import AudioError

LONGEST = 3600  # s of a recording of a corpus; headers that lie announce years
MAX_CHANNELS = 16
LOWEST_RATE, HIGHEST_RATE = 2000, 384_000  # Hz
LOUDEST = 1e9  # of full scale 1, or 32768 where someone forgot to divide; its power is finite
BLOCK = 1 << 20  # samples that are read at a time

UNRECOGNISED = 1  # libsndfile's error of a file that is of no format that it knows
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


class _Source(Protocol):
    """What a recording is read from: files of libsndfile, or what ffmpeg decodes."""

    samplerate: int
    channels: int
    frames: int
    subtype: str
    extra_info: str

    def read(self, frames: int, dtype: str) -> np.ndarray: ...
    def close(self) -> None: ...


class _Part(soundfile.SoundFile):
    """A file of libsndfile that is read forwards alone."""

    def seekable(self) -> bool:
        """Never: otherwise soundfile reads no more than is announced, and seeks after each read."""
        return False


class Recording:
    """An open recording: see `opened`."""

    def __init__(self, sources: Iterable[Callable[[], _Source]], counted: bool) -> None:
        """Open the first of them.

        Args:
            sources: each opens what is to be read next.
            counted: whether their lengths are known from elsewhere: libsndfile's are estimates.
        """
        self._sources = iter(sources)
        self._counted = counted
        self._part: _Source | None = None
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
        blocks = [self.read(BLOCK)]
        samples = len(blocks[0])
        for block in self.blocks():
            blocks.append(block)
            samples += len(block)
            refuse_length(samples, self.sample_rate)
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    @property
    def announced(self) -> int:
        """Samples that the header of the current part tells; 0 if it tells none."""
        if self._counted or self._part is None or "MPEG" in self._part.subtype:  # MP3 within WAV
            return 0
        return 0 if self._part.frames > UNTOLD_FRAMES else self._part.frames

    def close(self) -> None:
        if self._part is not None:
            self._part.close()

    def _next(self) -> None:
        """Go on to the next part; none of them is left at the end."""
        self.close()
        self._done = 0
        source = next(self._sources, None)
        self._part = None if source is None else source()
        if self._part is None:
            return
        cut = _CUT.search(self._part.extra_info)
        if cut and 0 < int(cut[1]) < lengths.UNTOLD_SIZE:
            raise lengths.truncated(int(cut[2]), int(cut[1]))
        form = (self._part.samplerate, self._part.channels)
        if hasattr(self, "channels") and form != (self.sample_rate, self.channels):
            raise AudioError(
                f"parts of different form: {self.sample_rate} Hz, {self.channels} channels, then "
                f"{form[0]} Hz, {form[1]} channels. Split it into its parts"
            )

    def _refuse_end(self, part: _Source) -> None:
        announced = self.announced
        if part is self._part and announced and self._done != announced:
            raise AudioError(
                f"truncated: {self._done} samples, but the header announces {announced}"
            )


@contextmanager
def opened(path: Path, ffmpeg: bool = False) -> Iterator[Recording]:
    """A recording, open to be read.

    Args:
        ffmpeg: let the program ffmpeg decode what libsndfile does not know, as phones record it.
            Not for a corpus, whose features are to be the same everywhere.

    Raises:
        AudioError: why it cannot be read, without its name; also of what is read meanwhile.
    """
    try:
        with path.open("rb") as file:
            recording = _recording(path, file, ffmpeg)
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
        raise AudioError(f"{samples / rate:.0f} s; longer than the {LONGEST} s limit")


def check_form(channels: int, rate: int) -> None:
    """Refuse what no recording has, with an AudioError."""
    if channels > MAX_CHANNELS:
        raise AudioError(f"{channels} channels; the limit is {MAX_CHANNELS}")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"{rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")


def check_samples(recording: np.ndarray) -> None:
    """Refuse samples that hold no signal, with an AudioError."""
    if not len(recording):
        raise AudioError("no samples")
    if not np.isfinite(recording).all():
        raise AudioError("samples that are not finite numbers")
    if (most := np.abs(recording).max()) > LOUDEST:
        raise AudioError(f"samples of up to {most:.0e}, where full scale is 1")


def _recording(path: Path, file: BinaryIO, ffmpeg: bool) -> Recording:
    program = shutil.which("ffmpeg") if ffmpeg else None
    try:
        sources, counted = _sources(path, file)
        return Recording((partial(_Part, source) for source in sources), counted)
    except soundfile.LibsndfileError as error:
        file.seek(0)
        head = file.read(foreign.HEAD)
        kind = foreign.kind_of(path, head, error.code)
        if kind is None:
            why = error.error_string
            if head.startswith(b"ID3") or path.suffix.lower() == ".mp3":
                # libsndfile says that there is no such file
                why = "no MP3 frame that can be read, or a damaged ID3 tag before it"
            elif program and error.code == UNRECOGNISED and not head.startswith(b"\xff"):  # MP3
                with suppress(AudioError):  # nor does ffmpeg recognise it
                    return _decoded(program, path)
            elif ffmpeg and error.code == UNRECOGNISED:
                why += " The program ffmpeg, which knows more formats, is not installed here"
            raise AudioError(f"{path.stat().st_size} bytes, not sound: {why}") from None
        if not ffmpeg:
            raise AudioError(
                f"{kind}, while corpora are read as plain WAV, FLAC, MP3, Ogg Vorbis and the like. "
                "Convert it: `ffmpeg -i IN OUT.wav`"
            ) from None
        if program is None:
            raise AudioError(
                f"{kind}, which the program ffmpeg can decode, but it is not installed here"
            ) from None
    return _decoded(program, path)


def _decoded(program: str, path: Path) -> Recording:
    return Recording([lambda: foreign.Decoded(program, path)], counted=True)


def _sources(path: Path, file: BinaryIO) -> tuple[list[bytes | BinaryIO], bool]:
    """What libsndfile is to read of a file; whether its lengths count for nothing."""
    plain = os.fsencode(path.absolute())
    size = path.stat().st_size
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        told = lengths.riff(file, size)
    elif head[:4] == b"caff":
        told = lengths.caf(file, size)
    elif head[:4] == b"OggS":
        parts = lengths.ogg(file, size)
        return (parts or [plain]), False
    else:
        with _Part(plain) as part:
            form = part.format
        parts = lengths.mp3(path.read_bytes()) if form == "MP3" else []
        return (parts or [plain]), bool(parts)
    return [lengths.Overlay(file, told)] if told else [plain], False  # type: ignore[list-item]
