"""Formats that libsndfile does not read, most of them of phones, decoded by the program ffmpeg."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from subprocess import PIPE
from threading import Thread

import numpy as np

from timnet.errors import AudioError

FOREIGN = {  # endings of what libsndfile does not read, most of it from phones
    ".3g2": "3G2",
    ".3gp": "3GP",
    ".aac": "AAC",
    ".ac3": "AC-3",
    ".amr": "AMR",
    ".ape": "APE",
    ".awb": "AMR-WB",
    ".m4a": "M4A",
    ".m4b": "M4B",
    ".mka": "Matroska",
    ".mkv": "Matroska",
    ".mov": "QuickTime",
    ".mp4": "MP4",
    ".webm": "WebM",
    ".wma": "WMA",
    ".wv": "WavPack",
}
_MARKS = {
    b"#!AMR": "AMR",
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"0&\xb2u\x8ef\xcf\x11": "WMA",
    b"wvpk": "WavPack",
    b"MAC ": "APE",
}


def kind_of(path: Path, head: bytes) -> str | None:
    """Name of a format that libsndfile does not know; None if this is none of those known here.

    Args:
        head: the first 16 bytes of the file.
    """
    if head[4:8] == b"ftyp":
        return FOREIGN.get(path.suffix.lower(), "MPEG-4")
    for mark, kind in _MARKS.items():
        if head.startswith(mark):
            return kind
    if head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0:
        return "AAC"
    return FOREIGN.get(path.suffix.lower())


class Decoded:
    """Sound that ffmpeg decodes while it is read."""

    frames = 0
    subtype = extra_info = ""

    def __init__(self, program: str, path: Path) -> None:
        command = (
            program,
            "-v",
            "error",
            "-nostdin",
            "-xerror",
            "-i",
            b"file:" + os.fsencode(path),
        )
        form = ("-map", "0:a:0", "-bitexact", "-c:a", "pcm_f32le", "-f", "wav", "-")
        self._process = subprocess.Popen((*command, *form), stdout=PIPE, stderr=PIPE)
        assert self._process.stdout and self._process.stderr
        self._sound = self._process.stdout
        self._said = list[bytes]()
        stderr = self._process.stderr
        self._listener = Thread(target=lambda: self._said.append(stderr.read()), daemon=True)
        self._listener.start()
        self.channels, self.samplerate = self._form()

    def _form(self) -> tuple[int, int]:
        """Channels and sample rate, from the head of the WAV that comes."""
        self._sound.read(12)
        form = (0, 0)
        while len(head := self._sound.read(8)) == 8:
            kind, size = struct.unpack("<4sI", head)
            if kind == b"data":
                return form
            content = self._sound.read(size + size % 2)
            if kind == b"fmt ":
                form = struct.unpack_from("<HI", content, 2)
        self._refuse()
        raise AudioError("ffmpeg finds no sound in it")

    def read(self, frames: int, dtype: str) -> np.ndarray:
        content = self._sound.read(frames * self.channels * 4)
        if len(content) < frames * self.channels * 4:
            self._refuse()
        values = np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(dtype)
        return values if self.channels == 1 else values.reshape(-1, self.channels)

    def _refuse(self) -> None:
        """Stop with what ffmpeg complained of, at the end of what it gave."""
        status = self._process.wait()
        self._listener.join()
        lines = b"".join(self._said).decode("utf-8", "replace").strip().splitlines()
        if status or lines:
            raise AudioError(f"ffmpeg: {lines[-1].strip() if lines else f'ended with {status}'}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._sound.close()
