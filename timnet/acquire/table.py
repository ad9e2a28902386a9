"""Import a table of recordings as a custom corpus: copy, measure, freeze its contract.

See `timnet.corpora.custom` for the form of the table and for what is frozen.
"""

from __future__ import annotations

import filecmp
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from timnet.acquire.acquire import workplace
from timnet.acquire.download import Progress, hash_file, refuse_space, write_json
from timnet.corpora import CORPORA
from timnet.corpora.corpus import Corpus
from timnet.corpora.custom import CONTRACT, LABELS, load, read_contract, read_table, unlisted
from timnet.dataset import audio
from timnet.errors import AudioError, CorpusError, ParameterError, counted, listing
from timnet.paths import replacing

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SILENCE = 1e-4  # of full scale: three steps of 16 bits
LONGEST_NAME = 60  # characters; names of feature sets, runs and files are made from it


def import_table(
    table: Path,
    name: str,
    data: Path,
    scratch: Path | None = None,
    progress: Progress | None = None,
    language: str | None = None,
    licence: str | None = None,
) -> Corpus:
    """Make the recordings that `table` lists the corpus `name`, in `data/<name>`.

    If `table` lies in that folder already, nothing is copied and the contract is written there.

    Args:
        scratch, progress: as in `timnet.acquire.acquire.acquire`.
        language, licence: of the recordings; they may also be given later, with the same table.

    Raises:
        ParameterError: a language or licence that is empty, or of several lines.
        CorpusError: a table without its columns, rows that are wrong, recordings that are missing
            or not sound, or another corpus of that name.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise CorpusError(
            f"{name!r} is an invalid corpus name: use lower-case letters and digits with single "
            f"dashes between them, at most {LONGEST_NAME} characters."
        )
    if name in CORPORA:
        raise CorpusError(f"{name!r} is the name of a recipe. Choose another one.")
    told = {"language": language, "licence": licence}
    told = {key: text.strip() for key, text in told.items() if text is not None}
    for key, text in told.items():
        if not text or not text.isprintable():
            raise ParameterError(f"--{key} is {text!r}; expected words on one line.")
    rows = read_table(table)
    folder = data / name
    with workplace(name, data, scratch) as work:
        if (folder / CONTRACT).exists():
            frozen = _refuse_change(table, rows, folder)
            if told:
                write_json(folder / CONTRACT, read_contract(folder) | told)
            return load(folder) if told else frozen
        contract = _contract(name, table.parent, rows) | told
        if table.resolve().parent == folder.resolve():
            if extra := unlisted(folder, rows):
                raise CorpusError(
                    f"{folder}: {counted(len(extra), 'recording')} not in {table.name}: "
                    f"{listing(extra)}. List them, or move them away."
                )
            if table.name != LABELS:
                _refuse_other_labels(table, folder)
                with replacing(folder / LABELS) as partial:  # never through a link to an original
                    shutil.copyfile(table, partial)
            write_json(folder / CONTRACT, contract)
            return load(folder)
        if folder.exists() and any(folder.iterdir()):
            raise CorpusError(
                f"{folder} already exists without {CONTRACT}. Put the table into it, or move the "
                "folder away."
            )
        ready = work / "unpacked"
        _copy(table, rows, ready, progress)
        write_json(ready / CONTRACT, contract)
        os.replace(ready, folder)
    return load(folder)


def _contract(name: str, folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is there, in the words of a `Corpus` record."""
    sexes: dict[str, set[str]] = {}
    for row in rows:
        sexes.setdefault(row["speaker"], set()).update(filter(None, [row["sex"]]))
    unclear = [f"{who} ({', '.join(sorted(s))})" for who, s in sorted(sexes.items()) if len(s) > 1]
    if unclear:
        raise CorpusError(f"{folder}: more than one sex for {listing(unclear)}.")
    counts = Counter(row["emotion"] for row in rows)
    if len(counts) < 2:
        raise CorpusError(
            f"{folder}: all recordings are {next(iter(counts))}; expected two classes or more."
        )
    paths = [row["path"] for row in rows]
    rates, channels, seconds = zip(*_headers(folder, paths), strict=True)
    _refuse_copies(folder, paths)
    return {
        "id": name,
        "title": name,
        "language": "unknown",
        "licence": "unknown",
        "redistributable": False,
        "citation": "none",
        "source": "custom corpus",
        "speakers": {who: next(iter(found), "unknown") for who, found in sorted(sexes.items())},
        "counts": dict(sorted(counts.items())),
        "sample_rates": sorted(set(rates)),
        "channels": sorted(set(channels)),
        "seconds": [math.floor(min(seconds) * 100) / 100, math.ceil(max(seconds) * 100) / 100],
    }


def _headers(folder: Path, paths: Iterable[str]) -> list[tuple[int, int, float]]:
    """(sample rate, channels, seconds) of each recording."""

    def header(path: str) -> tuple[int, int, float] | str:
        try:
            found = audio.examine(folder / path)
            if _silent(folder / path):
                return f"{path} (no sound: the mean of its channels is silence)"
        except AudioError as error:
            return f"{path} ({error})"
        return found.sample_rate, found.channels, found.samples / found.sample_rate

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(header, paths))
    broken = [fault for fault in found if isinstance(fault, str)]
    if broken:
        raise CorpusError(
            f"{folder.resolve()}: {counted(len(broken), 'recording')} cannot be used: "
            f"{listing(broken)}. Restore them, or take them out of the table."
        )
    return [fault for fault in found if not isinstance(fault, str)]


def _silent(path: Path) -> bool:
    """Whether what features are computed from, the mean of the channels, is next to nothing."""
    with audio.opened(path) as recording:
        mono = (block if block.ndim == 1 else block.mean(1) for block in recording.blocks())
        return not any(abs(block).max(initial=0) > SILENCE for block in mono)


def _refuse_copies(folder: Path, paths: list[str]) -> None:
    """Stop at recordings that are equal: folds would test what they trained on."""
    sizes: dict[int, list[str]] = {}
    for path in paths:
        sizes.setdefault((folder / path).stat().st_size, []).append(path)
    found: dict[str, list[str]] = {}
    for path in (path for same in sizes.values() if len(same) > 1 for path in same):
        found.setdefault(hash_file(folder / path, "sha256"), []).append(path)
    copies = [f"({listing(same)})" for same in found.values() if len(same) > 1]
    if copies:
        raise CorpusError(
            f"{folder}: equal recordings: {listing(copies)}. Take all but one of them out of the "
            "table."
        )


def _refuse_other_labels(table: Path, folder: Path) -> None:
    """Stop before a table of somebody else is overwritten."""
    labels = folder / LABELS
    if labels.is_symlink():
        return  # only the link goes
    if labels.exists() and labels.read_bytes() != table.read_bytes():
        raise CorpusError(
            f"{labels} is there already, with another content than {table}, which would take its "
            "place. Rename it, or move it away."
        )


def _refuse_change(table: Path, rows: list[dict[str, Any]], folder: Path) -> Corpus:
    """The frozen corpus, if `table` and its recordings are still what it was made from."""
    if rows != read_table(folder / LABELS):
        raise CorpusError(
            f"{folder} was made from another table than {table}, and its contract is fixed. Import "
            f"the table under another name, or move {folder} away first."
        )
    paths = [] if table.resolve().parent == folder.resolve() else [row["path"] for row in rows]
    _, other, absent = filecmp.cmpfiles(table.parent, folder, paths, shallow=False)
    if changed := other + absent:
        raise CorpusError(
            f"{counted(len(changed), 'recording')} beside {table} differ from those in {folder}, "
            f"which are fixed: {listing(changed)}. Import them under another name, or move "
            f"{folder} away first."
        )
    return load(folder)


def _copy(table: Path, rows: list[dict[str, Any]], target: Path, progress: Progress | None) -> None:
    sizes = {row["path"]: (table.parent / row["path"]).stat().st_size for row in rows}
    target.mkdir()
    refuse_space(target, sum(sizes.values()))
    done = 0
    for path, size in sizes.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table.parent / path, target / path)
        done += size
        if progress:
            progress("copy", done, sum(sizes.values()))
    shutil.copyfile(table, target / LABELS)
