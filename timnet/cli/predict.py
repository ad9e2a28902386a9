"""`timnet predict`: which emotion recordings have."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from timnet.cli.common import app, say, workers
from timnet.cli.models import USE, Single, load_model, one_thread_each
from timnet.errors import AudioError, counted

# endings of what libsndfile reads and people record
ENDINGS = frozenset((".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga"))
ENDINGS |= {".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav", ".wave"}


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.command(rich_help_panel=USE)
def predict(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_FOLDER...", help="Sound files of any common format, or folders."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name (emovo), a version (emovo@v1.2) or a file; else the one in the package."
        ),
    ] = None,
    single: Single = False,
    form: Annotated[
        Format, typer.Option("--format", help="A table to read, CSV, or one JSON object per line.")
    ] = Format.table,
) -> None:
    """Say which emotion recordings have, and which of them the model knows nothing about."""
    one_thread_each()
    from timnet.models import formats

    paths, failures = _recordings(recordings)
    loaded = load_model(model)
    writer: Any = {
        Format.table: lambda: formats.TableWriter(loaded.labels, paths),
        Format.csv: lambda: formats.CsvWriter(loaded.labels),
        Format.json: formats.JsonLinesWriter,
    }[form]()
    head, strange, done = writer.head(), 0, 0
    try:
        if head and paths:
            say(head)
        for path, found in loaded.predict_files(paths, single=single, workers=workers()):
            if isinstance(found, str):
                failures.append(f"{formats.name(path)} ({found})")
                continue
            say(writer.line(path, found))
            done, strange = done + 1, strange + bool(found.out_of_domain)
    except BrokenPipeError:  # `| head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if form is Format.table and strange:
        data = loaded.card.data
        say(
            f"\n{strange} of {done} recordings are out of domain: unlike the training set of "
            f"{loaded.card.name} ({data.title}, {data.language}):\npredictions for them are "
            "unreliable. A large MFCC distance suggests another microphone, room, noise or "
            "language."
        )
    if failures:
        lines = "\n".join(f"  - {failure}" for failure in failures)
        raise AudioError(f"{counted(len(failures), 'recording')} could not be read:\n{lines}")


def _recordings(given: list[Path]) -> tuple[list[Path], list[str]]:
    """Files as given and those in folders, in natural order; and what of it is not there."""
    from timnet.corpora.corpus import is_litter, namesake, natural_key
    from timnet.dataset.foreign import FOREIGN
    from timnet.models.formats import name

    endings = ENDINGS | FOREIGN.keys()

    found: dict[Path, None] = {}
    missing = []
    for path in given:
        if any(len(os.fsencode(part)) > 255 for part in path.parts):
            missing.append(f"{name(path)[:80]}… (file name too long)")
        elif path.is_dir():
            files = [
                file
                for file in path.rglob("*")
                if file.suffix.lower() in endings
                and file.is_file()
                and file.name[0] != "."
                and not is_litter(file.relative_to(path))
            ]
            if not files:
                missing.append(f"{name(path)} (no recordings in this folder)")
            found |= dict.fromkeys(sorted(files, key=lambda file: natural_key(str(file))))
        elif path.is_file():
            found[path] = None
        else:
            near = f"; {similar}" if (similar := namesake(path)) else ""
            missing.append(f"{name(path)} (no such file{near})")
    return list(found), missing
