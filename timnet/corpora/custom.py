"""One's own recordings as a corpus, without writing code: a folder with a table of labels.

The table is a CSV file with the columns path (below the table's folder), speaker and emotion, and
if one likes sentence and sex ("female" or "male"), e.g.

    path,speaker,emotion
    anna/0001.wav,anna,happy

`take` copies what it lists to `data/<name>/`, beside it the table as `labels.csv` and the contract
that was found, `corpus.json`: classes and counts, speakers, rates, channels, durations. From then
on the contract stands: a file more or less, or another label, is refused.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from timnet import records
from timnet.acquire.acquire import workplace
from timnet.acquire.download import Progress, refuse_space, write_json
from timnet.corpora import CORPORA
from timnet.corpora.corpus import (
    EMOTIONS,
    Corpus,
    Utterance,
    find,
    is_litter,
    namesake,
    refuse_unreadable,
)
from timnet.errors import AudioError, CorpusError, listing
from timnet.paths import replacing

CONTRACT = "corpus.json"
LABELS = "labels.csv"
REQUIRED = ("path", "speaker", "emotion")
OPTIONAL = ("sentence", "sex")
SEXES = ("female", "male", "unknown")

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 60  # characters; names of feature sets, runs and files are made from it


def take(
    table: Path,
    name: str,
    data: Path,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Make the recordings that `table` lists the corpus `name`, in `data/<name>`.

    If `table` lies in that folder already, nothing is copied and the contract is written there.

    Args:
        scratch, progress: as in `timnet.acquire.acquire.acquire`.

    Raises:
        CorpusError: a table without its columns, rows that are wrong, recordings that are missing
            or not sound, or another corpus of that name.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise CorpusError(
            f"{name!r} is no name for a corpus: lower-case letters and digits, dashes between "
            f"them, at most {LONGEST_NAME} in all."
        )
    if name in CORPORA:
        raise CorpusError(f"{name!r} is the name of a recipe. Choose another one.")
    rows = _rows(table)
    folder = data / name
    with workplace(name, data, scratch) as work:
        if (folder / CONTRACT).exists():
            return _refuse_change(table, rows, folder)
        contract = _contract(name, table.parent, rows)
        if table.resolve().parent == folder.resolve():
            if table.name != LABELS:
                _copy_file(table, folder / LABELS)
            read(folder)  # recordings that the table forgets
            write_json(folder / CONTRACT, contract)
            return load(folder)
        if folder.exists() and any(folder.iterdir()):
            raise CorpusError(
                f"{folder} is there already and has no {CONTRACT}. Put the table into it, or move "
                "the folder away."
            )
        ready = work / "unpacked"
        _copy(table, rows, ready, progress)
        write_json(ready / CONTRACT, contract)
        os.replace(ready, folder)
    return load(folder)


def load(folder: Path) -> Corpus:
    """The corpus whose contract was frozen in `folder`.

    Raises:
        CorpusError: no contract there, or not one that `take` wrote.
    """
    contract = _frozen(folder)
    return Corpus(
        **{key: contract[key] for key in ("id", "title", "language", "licence", "citation")},
        source=contract["source"],
        redistributable=contract.get("redistributable", False),
        read=read,
        speakers=contract["speakers"],
        counts=contract["counts"],
        sample_rates=tuple(contract["sample_rates"]),
        channels=tuple(contract["channels"]),
        seconds=tuple(contract["seconds"]),
    )


def _frozen(folder: Path) -> dict[str, Any]:
    """The contract in `folder`, of `records.Contract`."""
    path = folder / CONTRACT
    try:
        return records.read(path, records.Contract)
    except FileNotFoundError:
        raise CorpusError(
            f"{path}: no such file, so {folder.name} is no corpus. Make it one with "
            f"`timnet acquire {folder.name} --csv TABLE`."
        ) from None
    except records.Damaged as error:
        raise CorpusError(
            f"{path}: not a contract ({error}). Restore it, or delete it and run `timnet acquire "
            f"{folder.name} --csv {folder / LABELS}`."
        ) from None


def read(folder: Path) -> list[Utterance]:
    """The utterances that the table in `folder` lists.

    Raises:
        CorpusError: the table is wrong or says other than the contract, a recording is missing,
            or one is there that it does not list.
    """
    table = folder / LABELS
    rows = _rows(table)
    listed = {row["path"] for row in rows}
    described = {*listed, LABELS, CONTRACT}
    suffixes = {PurePosixPath(path).suffix.lower() for path in listed}
    found = (path for path in find(folder, "*") if path.suffix.lower() in suffixes)
    names = (path.as_posix() for path in found if (folder / path).is_file())
    extra = sorted(name for name in names if name not in described)
    if extra:
        raise CorpusError(
            f"{folder}: {len(extra)} recording(s) are not in {LABELS}: {listing(extra)}. The "
            f"corpus is frozen: remove them, or delete {CONTRACT}, list them and take it anew."
        )
    if (folder / CONTRACT).exists() and (faults := _disagreements(rows, _frozen(folder))):
        raise CorpusError(
            f"{table} says other than {CONTRACT}, which is frozen: {listing(faults)}. Restore the "
            "table, or take the new one with its recordings as a corpus of another name."
        )
    return [
        Utterance(_id(row["path"]), row["path"], row["speaker"], row["emotion"], row["sentence"])
        for row in rows
    ]


def _disagreements(rows: list[dict[str, Any]], contract: dict[str, Any]) -> list[str]:
    """Labels and speakers that the contract has not, or not as often."""
    counts, speakers = contract["counts"], contract["speakers"]
    found = Counter(row["emotion"] for row in rows)
    heard = {row["speaker"] for row in rows}
    faults = []
    for row in rows:
        if row["emotion"] not in counts:
            faults.append(f"{row['path']} is {row['emotion']}")
        if row["speaker"] not in speakers:
            faults.append(f"{row['path']} is of {row['speaker']}")
    faults += [
        f"{found[label]} utterances of {label}, expected {count}"
        for label, count in counts.items()
        if found[label] != count
    ]
    return faults + [f"none of speaker {speaker}" for speaker in speakers if speaker not in heard]


def _id(path: str) -> str:
    """`anna/0001.wav` -> `anna-0001`."""
    return PurePosixPath(path).with_suffix("").as_posix().replace("/", "-")


def _rows(table: Path) -> list[dict[str, Any]]:
    """The rows of a table, every one of them checked."""
    columns, raw = _cells(table)
    lacking = [column for column in REQUIRED if column not in columns]
    if lacking:
        raise CorpusError(
            f"{table}: no column {', '.join(lacking)}; it has {', '.join(columns) or 'none'}. "
            f"Expected a first line {','.join(REQUIRED)}, separated by commas."
        )
    twice = [name for name, times in Counter(filter(None, columns)).items() if times > 1]
    if twice:
        raise CorpusError(
            f"{table}, line 1: more than one column {listing(twice)}. Which one counts? Rename or "
            "delete the others."
        )
    if not raw:
        raise CorpusError(f"{table}: no rows. Expected one a recording.")
    rows, faults, seen, spelt = [], [], dict[str, int](), dict[str, str]()
    for number, cells in raw:
        if len(cells) != len(columns):
            more = " (a comma within a cell needs quotes)" if len(cells) > len(columns) else ""
            faults.append(f"line {number}: cells {len(cells)}, expected {len(columns)}{more}")
            continue
        line = dict(zip(columns, cells, strict=True))
        row = {key: line.get(key, "").strip() or None for key in (*REQUIRED, *OPTIONAL)}
        fault = _fault(row, table.parent)
        if not fault:
            first = seen.setdefault(_normal(_id(row["path"] or "")), number)
            speaker = str(row["speaker"])
            same = spelt.setdefault(_normal(speaker), speaker)
            if first != number:
                fault = f"{row['path']} gives the same utterance as line {first}"
            elif same != speaker:
                fault = f"speaker {speaker!r} stands before in another Unicode normal form"
        if fault:
            faults.append(f"line {number}: {fault}")
        rows.append(row)
    if faults:
        raise CorpusError(
            f"{table}: {len(faults)} row(s) are wrong: {listing(faults)}. Nothing was taken."
        )
    refuse_unreadable(table.parent, (Path(str(row["path"])) for row in rows))
    return rows


def _cells(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and the cells of each row with the line where it begins."""
    number = 0
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = []
            for cells in reader:
                if cells:  # no blank line
                    rows.append((number + 1, cells))
                number = reader.line_num
    except csv.Error as error:
        raise CorpusError(
            f"{table}: cannot be read as a table: the row that begins in line {number + 1}: "
            f'{error}. A cell with a quote in it is written "so: "" and so".'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{table}: cannot be read as a table ({error}). Expected CSV in UTF-8."
        ) from None
    if not rows:
        return [], []
    return [column.strip() for column in rows[0][1]], rows[1:]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fault(row: dict[str, str | None], folder: Path) -> str | None:
    empty = [column for column in REQUIRED if not row[column]]
    if empty:
        return f"no {' and no '.join(empty)}"
    path, emotion = str(row["path"]), str(row["emotion"])
    parts = PurePosixPath(path).parts
    if "\\" in path or PurePosixPath(path).is_absolute() or ".." in parts:
        return f"path {path!r} is not below the table's folder, with forward slashes"
    if path != "/".join(parts):
        return f"path {path!r} is written as {'/'.join(parts)!r}"
    if any(len(os.fsencode(part)) > 255 for part in parts) or not (folder / path).is_file():
        near = f"; {found}" if len(path) < 256 and (found := namesake(folder / path)) else ""
        return f"no file {folder / path}{near}"
    if is_litter(PurePosixPath(path)):
        return f"path {path!r} is of what file managers leave behind, which DVC leaves out"
    if path in (LABELS, CONTRACT):
        return f"path {path!r} is the name of what describes the recordings: rename it"
    if not re.fullmatch(r"[a-z][a-z-]*", emotion):
        return f"emotion {emotion!r} is no lower-case word such as {', '.join(EMOTIONS)}"
    if not str(row["speaker"]).isprintable():
        return f"speaker {row['speaker']!r} has characters that cannot be printed"
    if row["sex"] not in (None, *SEXES):
        return f"sex {row['sex']!r} is none of {', '.join(SEXES)}"
    return None


def _contract(name: str, folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is there, in the words of a `Corpus` record."""
    sexes: dict[str, set[str]] = {}
    for row in rows:
        sexes.setdefault(row["speaker"], set()).add(row["sex"] or "unknown")
    unclear = sorted(speaker for speaker, found in sexes.items() if len(found) > 1)
    if unclear:
        raise CorpusError(f"{folder}: more than one sex for speaker(s) {listing(unclear)}.")
    counts = Counter(row["emotion"] for row in rows)
    if len(counts) < 2:
        raise CorpusError(f"{folder}: all recordings are {next(iter(counts))}; expected classes.")
    rates, channels, seconds = zip(*_headers(folder, (row["path"] for row in rows)), strict=True)
    return {
        "id": name,
        "title": name,
        "language": "unknown",
        "licence": "unknown",
        "redistributable": False,
        "citation": "none",
        "source": "one's own recordings",
        "speakers": {speaker: found.pop() for speaker, found in sorted(sexes.items())},
        "counts": dict(sorted(counts.items())),
        "sample_rates": sorted(set(rates)),
        "channels": sorted(set(channels)),
        "seconds": [math.floor(min(seconds) * 100) / 100, math.ceil(max(seconds) * 100) / 100],
    }


def _headers(folder: Path, paths: Iterable[str]) -> list[tuple[int, int, float]]:
    """(sample rate, channels, seconds) of each recording."""
    from timnet.dataset import audio

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
            f"{folder}: {len(broken)} file(s) are not sound: {listing(broken)}. Restore them, or "
            "take them out of the table."
        )
    return [fault for fault in found if not isinstance(fault, str)]


def _refuse_change(table: Path, rows: list[dict[str, Any]], folder: Path) -> Corpus:
    """The frozen corpus, if `table` still says what it was made from."""
    if rows != _rows(folder / LABELS):
        raise CorpusError(
            f"{folder} was made from another table than {table}, and its contract is frozen. "
            f"Take the table as a corpus of another name, or move {folder} away first."
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


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; where `target` is a link, what it leads to stays as it is."""
    with replacing(target) as partial:
        shutil.copyfile(source, partial)
