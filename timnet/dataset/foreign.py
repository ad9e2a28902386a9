"""Formats that libsndfile does not read, most of them of phones, decoded by the program ffmpeg."""

from __future__ import annotations

import os
import re
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


_IN_WAV = {  # by the tag of the format; what ffmpeg does not decode whole is not here
    0x20: "Yamaha ADPCM",
    0x42: "G.723.1",
    0x45: "G.726",
    0x50: "MP2",
    0x64: "G.726",
    0xFF: "AAC",
    0x160: "WMA",
    0x161: "WMA",
    0x162: "WMA",
    0x28F: "G.722",
    0x1600: "AAC",
    0x1610: "AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0xF1AC: "FLAC",
}
_IN_OGG = {b"\x7fFLAC": "FLAC", b"Speex": "Speex"}
HEAD = 1 << 16  # bytes of a file by which its kind is told
UNSUPPORTED = 4  # libsndfile's error of a format that it knows, with sound that it does not decode


def kind_of(path: Path, head: bytes, error: int) -> str | None:
    """Name of a format that libsndfile does not know; None if this is none of those known here.

    Args:
        head: the first HEAD bytes of the file.
        error: number of the error with which libsndfile refused it.
    """
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        tag = head.partition(b"fmt ")[2][4:6]
        if codec := _IN_WAV.get(int.from_bytes(tag, "little")):
            return f"WAV with {codec}"
    if head[:4] == b"caff" and error == UNSUPPORTED:
        codec = re.sub(rb"\W", b"", head[28:32]).decode("ascii")
        return f"CAF with {codec.upper()}"
    if head[:4] == b"OggS":
        for mark, codec in _IN_OGG.items():
            if head[28:].startswith(mark):
                return f"Ogg with {codec}"
    if head[4:8] == b"ftyp":
        return FOREIGN.get(path.suffix.lower(), "MPEG-4")
    for mark, kind in _MARKS.items():
        if head.startswith(mark):
            return kind
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "AAC"
    return FOREIGN.get(path.suffix.lower())


class Decoded:
    """Sound that ffmpeg decodes while it is read."""

    frames = 0
    subtype = extra_info = ""

    def __init__(self, program: str, path: Path) -> None:
        self._file = b"file:" + os.fsencode(path)
        # no `Last message repeated`, and no addresses that a playlist names
        options = ("-v", "repeat+error", "-nostdin", "-xerror", "-protocol_whitelist", "file")
        command = (program, *options, "-i", self._file)
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
        """Stop with what ffmpeg complained of first, at the end of what it gave."""
        status = self._process.wait()
        self._listener.join()
        said = b"".join(self._said).strip()
        if b"matches no streams" in said:
            raise AudioError("ffmpeg finds no sound in it")
        if status or said:
            first = said.partition(b"\n")[0].removeprefix(self._file + b": ")
            # `[aac @ 0x55c6ba9e7b40] channel element 0.0 is not allocated`
            first = re.sub(rb"^\[([^]]+?) @ \w+\] ", rb"\1: ", first).strip()
            told = first.decode("utf-8", "replace") or f"ended with {status}"
            raise AudioError(f"ffmpeg: {told}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._sound.close()
