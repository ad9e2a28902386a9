"""The manifest of a corpus: what is in its folder, one row per utterance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from timnet import schemas
from timnet.corpora.corpus import Corpus, Utterance, natural_key
from timnet.dataset import audio
from timnet.errors import AudioError, CorpusError, listing


def build(corpus: Corpus, folder: Path, progress: Callable[[int], None] | None = None) -> pa.Table:
    """Read names and bytes of a corpus' recordings.

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
    try:
        found = audio.examine(path)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
    except AudioError as error:
        return f"{utterance.path} ({error})"
    except OSError as error:
        return f"{utterance.path} ({error.strerror})"
    return {
        "utterance": utterance.id,
        "speaker": utterance.speaker,
        "emotion": utterance.emotion,
        "sentence": utterance.sentence,
        "path": utterance.path,
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "samples": found.samples,
        "sha256": content.hexdigest(),
    }
