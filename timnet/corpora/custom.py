"""Custom corpora, without writing code: a folder of recordings with a table of labels.

The table is a CSV file with the columns path (below the table's folder), speaker and emotion, and
if one likes sentence and sex ("female" or "male"), e.g.

    path,speaker,emotion
    anna/0001.wav,anna,happy

`timnet.acquire.table` copies what it lists to `data/<name>/`, beside it the table as `labels.csv`
and the contract that was found, `corpus.json`: classes and counts, speakers, rates, channels,
durations. From then on the contract stands: a file more or less, or another label, is refused.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from timnet import records
from timnet.corpora.corpus import (
    EMOTIONS,
    Corpus,
    Utterance,
    find,
    is_litter,
    namesake,
    refuse_unreadable,
)
from timnet.errors import CorpusError, counted, listing

CONTRACT = "corpus.json"
LABELS = "labels.csv"
REQUIRED = ("path", "speaker", "emotion")
OPTIONAL = ("sentence", "sex")
SEXES = ("female", "male", "unknown")
MOST_FAULTS = 10  # rows of a table that an error lists
MISSING = ("nan", "none", "null")  # what programs write into a table where a cell is empty
LEFT_OUT = (".git", ".hg", ".dvc", ".dvcignore")  # of which DVC takes nothing into data/


def load(folder: Path) -> Corpus:
    """The corpus whose contract was frozen in `folder`.

    Raises:
        CorpusError: no contract there, or not one that `timnet.acquire.table` wrote.
    """
    contract = read_contract(folder)
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


def read_contract(folder: Path) -> dict[str, Any]:
    """The contract in `folder`, of `records.Contract`."""
    path = folder / CONTRACT
    try:
        return records.read(path, records.Contract)
    except FileNotFoundError:
        raise CorpusError(
            f"{path}: no such file, so {folder.name} is not a corpus. Import it with `timnet "
            f"acquire {folder.name} --csv TABLE`."
        ) from None
    except records.DamagedRecord as error:
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
    rows = read_table(table)
    if extra := unlisted(folder, rows):
        raise CorpusError(
            f"{folder}: {counted(len(extra), 'recording')} not in {LABELS}: {listing(extra)}. The "
            f"corpus is fixed: remove them, or delete {CONTRACT}, list them and import it again."
        )
    if (folder / CONTRACT).exists() and (faults := _disagreements(rows, read_contract(folder))):
        raise CorpusError(
            f"{table} differs from {CONTRACT}, which is fixed: {listing(faults)}. Restore the "
            "table, or import the new one with its recordings under another name."
        )
    return [
        Utterance(_id(row["path"]), row["path"], row["speaker"], row["emotion"], row["sentence"])
        for row in rows
    ]


def unlisted(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Paths of recordings in a folder that the rows of its table do not list."""
    listed = {row["path"] for row in rows}
    suffixes = {PurePosixPath(path).suffix.lower() for path in listed}
    found = (path for path in find(folder, "*") if path.suffix.lower() in suffixes)
    names = {path.as_posix() for path in found if (folder / path).is_file()}
    return sorted(names - {*listed, LABELS, CONTRACT})


def _disagreements(rows: list[dict[str, Any]], contract: dict[str, Any]) -> list[str]:
    """Labels and speakers that the contract has not, or not as often."""
    counts, speakers = contract["counts"], contract["speakers"]
    found = Counter(row["emotion"] for row in rows)
    present = {row["speaker"] for row in rows}
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
    return faults + [
        (f"no recording of speaker {speaker}") for speaker in speakers if speaker not in present
    ]


def _id(path: str) -> str:
    """`anna/0001.wav` -> `anna-0001`."""
    return PurePosixPath(path).with_suffix("").as_posix().replace("/", "-")


def read_table(table: Path) -> list[dict[str, Any]]:
    """The rows of a table, every one of them checked."""
    columns, raw = _cells(table)
    known = {*REQUIRED, *OPTIONAL}
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
    capitals = [name for name in columns if name not in known and name.lower() in known]
    if capitals:
        raise CorpusError(
            f"{table}, line 1: column {listing(capitals)}: write it in small letters, or rename it "
            "if it is something else."
        )
    if not raw:
        raise CorpusError(f"{table}: no rows. Expected one per recording.")
    rows, faults, seen = [], [], dict[str, int]()
    spelt: dict[tuple[str, str], str] = {}  # a speaker or sentence, by what all spellings share
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
            if first != number:
                fault = f"{row['path']} gives the same utterance as line {first}"
            else:
                fault = _other_spelling(row, spelt)
        if fault:
            faults.append(f"line {number}: {fault}")
        rows.append(row)
    if faults:
        told = faults[:MOST_FAULTS]
        if len(told) < len(faults):
            told.append(f"and {len(faults) - len(told)} more")
        lines = "".join(f"\n  - {fault}" for fault in told)
        raise CorpusError(f"{table}: {counted(len(faults), 'wrong row')}:{lines}")
    refuse_unreadable(table.parent, (Path(str(row["path"])) for row in rows))
    return rows


def _cells(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and the cells of each row with the line where it begins."""
    number = 0
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
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
    except FileNotFoundError:
        raise CorpusError(f"{table}: no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{table}: cannot be read as a table ({error}). Expected CSV in UTF-8."
        ) from None
    if not rows:
        return [], []
    return [column.strip() for column in rows[0][1]], rows[1:]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _other_spelling(row: dict[str, str | None], spelt: dict[tuple[str, str], str]) -> str | None:
    """That a row spells a speaker or sentence in another way than one before; notes its own.

    Otherwise one person would stand in train and test of speaker-independent folds.
    """
    for column in ("speaker", "sentence"):
        text = row[column]
        if text is None:
            continue
        same = spelt.setdefault((column, _spelling(text)), text)
        if _normal(same) != _normal(text):
            return f"{column} {text!r} stands before as {same!r}: are they the same?"
        if same != text:
            return f"{column} {text!r} stands before in another Unicode normal form"
    return None


def _spelling(text: str) -> str:
    """What spellings of one name share: letters and numbers, without width, case and spacing."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return str(int(match[1])) if (match := re.fullmatch(r"0*(\d{1,99})(\.0*)?", text)) else text


def _fault(row: dict[str, str | None], folder: Path) -> str | None:
    empty = [column for column in REQUIRED if not row[column]]
    if empty:
        return f"no {' and no '.join(empty)}"
    for column in ("speaker", "emotion", "sentence"):
        if (row[column] or "").casefold() in MISSING:
            return f"{column} {row[column]!r} is what programs write where a cell is empty"
    path, emotion = str(row["path"]), str(row["emotion"])
    parts = PurePosixPath(path).parts
    if "\\" in path or PurePosixPath(path).is_absolute() or ".." in parts:
        return f"path {path!r} is not below the table's folder, with forward slashes"
    if path != "/".join(parts):
        return f"path {path!r} is written as {'/'.join(parts)!r}"
    too_long = any(len(os.fsencode(part)) > 255 for part in parts)
    if not too_long and (folder / path).exists() and not (folder / path).is_file():
        return f"{folder / path} is a folder, a pipe or a device"
    if too_long or not (folder / path).is_file():
        near = f"; {found}" if len(path) < 256 and (found := namesake(folder / path)) else ""
        return f"no file {folder / path}{near}"
    if is_litter(PurePosixPath(path)):
        return f"path {path!r} is of what file managers leave behind, which DVC leaves out"
    if left_out := [part for part in parts if part in LEFT_OUT]:
        return f"path {path!r}: DVC leaves out {left_out[0]}. Give the recording another place"
    if parts[0] in (LABELS, CONTRACT):
        return f"path {path!r} is reserved for the description of the corpus: rename it"
    if not re.fullmatch(r"[a-z][a-z-]*", emotion):
        return f"emotion {emotion!r} is not a lower-case word such as {', '.join(EMOTIONS)}"
    if not str(row["speaker"]).isprintable():
        return f"speaker {row['speaker']!r} has characters that cannot be printed"
    if row["sex"] not in (None, *SEXES):
        return f"sex {row['sex']!r} is not one of {', '.join(SEXES)}"
    return None
