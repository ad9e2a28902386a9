"""The manifest of a corpus: what is in its folder, one row per utterance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import soundfile

from timnet import schemas
from timnet.corpora.corpus import Corpus, Utterance, natural_key
from timnet.errors import AudioError, CorpusError, listing

LONGEST = 3600  # s, the limit of a recording; wrong headers announce years

# libsndfile reads a file that was cut off without complaint, but notes it: WAV and W64, AIFF, AU
_CUT = re.compile(
    r"^ *(?:data|riff|Riff size|SSND|Data Size) *: (\d+) \(should be (\d+)\)"
    r"|^Ogg: Last page lacks an end-of-stream bit",
    re.MULTILINE,
)


def build(corpus: Corpus, folder: Path, progress: Callable[[int], None] | None = None) -> pa.Table:
    """Read names, headers and bytes of a corpus' recordings.

    Args:
        corpus: the recipe.
        folder: where its recordings lie.
        progress: called with the number of recordings done since the last call.

    Returns:
        A table of `schemas.MANIFEST`, sorted by (label index, natural order of the file name).

    Raises:
        CorpusError: no such folder, or names that fit no rule of the recipe.
        AudioError: files that are not sound; all of them are named.
    """
    if not folder.is_dir():
        raise CorpusError(
            f"{folder}: no such folder, so corpus {corpus.id} is missing. Put its recordings there "
            f"(source: {corpus.source}), or remove {corpus.id} from params.yaml."
        )
    order = {label: index for index, label in enumerate(corpus.labels)}
    utterances = sorted(
        corpus.read(folder),
        key=lambda utterance: (order[utterance.emotion], natural_key(utterance.id)),
    )
    with ThreadPoolExecutor() as pool:
        rows = []
        for row in pool.map(lambda utterance: _row(folder, utterance), utterances):
            rows.append(row)
            if progress:
                progress(1)
    broken = [row for row in rows if isinstance(row, str)]
    if broken:
        raise AudioError(
            f"{folder}: {len(broken)} of {len(rows)} recordings cannot be read: "
            f"{listing(broken, 20)}. Restore them from the original archive."
        )
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


def _row(folder: Path, utterance: Utterance) -> dict | str:
    """The manifest's row of one utterance, or in words why there is none."""
    path = folder / utterance.path
    info = header(path)
    if isinstance(info, str):
        return f"{utterance.path} ({info})"
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
    except OSError as error:
        return f"{utterance.path} ({error.strerror})"
    return {
        "utterance": utterance.id,
        "speaker": utterance.speaker,
        "emotion": utterance.emotion,
        "sentence": utterance.sentence,
        "path": utterance.path,
        "sample_rate": info.samplerate,
        "channels": info.channels,
        "samples": info.frames,
        "sha256": content.hexdigest(),
    }


def header(path: Path) -> Any:
    """What a recording's header says, as of `soundfile.info`, or in words why it is none."""
    try:
        path.open("rb").close()  # says what libsndfile calls a system error
        info = soundfile.info(path, verbose=True)
    except soundfile.LibsndfileError as error:
        return f"{path.stat().st_size} bytes, not sound: {error.error_string}"
    except OSError as error:
        return str(error.strerror)
    if info.frames == 0 or info.samplerate == 0:
        return f"{info.frames} samples at {info.samplerate} Hz"
    if fault := cut_off(info.extra_info):
        return fault
    if info.frames > LONGEST * info.samplerate:
        return f"{info.frames / info.samplerate:.0f} s; longer than the {LONGEST} s limit"
    return info


def cut_off(told: str) -> str | None:
    """A message if the header shows that a recording is truncated, otherwise None.

    Args:
        told: what libsndfile notes of it, `soundfile.SoundFile.extra_info`.
    """
    cut = _CUT.search(told)
    if cut is None:
        return None
    announced, held = cut.groups()
    sizes = f": {held} bytes of sound, but the header announces {announced}" if announced else ""
    return f"truncated{sizes}"
