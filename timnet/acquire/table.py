"""Import a table of recordings as a custom corpus: copy, measure, freeze its contract.

See `timnet.corpora.custom` for the form of the table and for what is frozen.
"""

from __future__ import annotations

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
from timnet.acquire.download import Progress, refuse_space, write_json
from timnet.corpora import CORPORA
from timnet.corpora.corpus import Corpus
from timnet.corpora.custom import CONTRACT, LABELS, load, read, read_contract, read_table
from timnet.dataset import audio
from timnet.errors import AudioError, CorpusError, ParameterError, counted, listing
from timnet.paths import replacing

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
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
            if table.name != LABELS:
                with replacing(folder / LABELS) as partial:  # never through a link to an original
                    shutil.copyfile(table, partial)
            read(folder)  # recordings that the table forgets
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
        sexes.setdefault(row["speaker"], set()).add(row["sex"] or "unknown")
    unclear = sorted(speaker for speaker, found in sexes.items() if len(found) > 1)
    if unclear:
        raise CorpusError(f"{folder}: more than one sex for {listing(unclear)}.")
    counts = Counter(row["emotion"] for row in rows)
    if len(counts) < 2:
        raise CorpusError(
            f"{folder}: all recordings are {next(iter(counts))}; expected two classes or more."
        )
    rates, channels, seconds = zip(*_headers(folder, (row["path"] for row in rows)), strict=True)
    return {
        "id": name,
        "title": name,
        "language": "unknown",
        "licence": "unknown",
        "redistributable": False,
        "citation": "none",
        "source": "custom corpus",
        "speakers": {speaker: found.pop() for speaker, found in sorted(sexes.items())},
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
        except AudioError as error:
            return f"{path} ({error})"
        return found.sample_rate, found.channels, found.samples / found.sample_rate

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(header, paths))
    broken = [fault for fault in found if isinstance(fault, str)]
    if broken:
        raise CorpusError(
            f"{folder.resolve()}: {counted(len(broken), 'recording')} cannot be read: "
            f"{listing(broken)}. Restore them, or take them out of the table."
        )
    return [fault for fault in found if not isinstance(fault, str)]


def _refuse_change(table: Path, rows: list[dict[str, Any]], folder: Path) -> Corpus:
    """The frozen corpus, if `table` still says what it was made from."""
    if rows != read_table(folder / LABELS):
        raise CorpusError(
            f"{folder} was made from another table than {table}, and its contract is fixed. Import "
            f"the table under another name, or move {folder} away first."
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
