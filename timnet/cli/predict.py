"""`timnet predict`: which emotion recordings have."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import app, given_path, say, workers
from timnet.cli.models import USE, Single, load_model, one_thread_each, say_unenrolled
from timnet.errors import AudioError, ParameterError, counted
from timnet.paths import names_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from timnet.models.predict import Model, Prediction

# endings of what libsndfile reads and people record
ENDINGS = frozenset((".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga"))
ENDINGS |= {".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav", ".wave"}


MICROPHONE = Path("microphone")  # the name of what was recorded
USEFUL = 10  # recordings of a speaker, with which most is gained: benchmarks/enrolment.csv


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.command(rich_help_panel=USE)
def predict(
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE_OR_FOLDER...",
            parser=given_path,
            help="Sound files of any common format, or folders.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A name (emovo), a version (emovo@v1.2) or a file; else the one in the package."
        ),
    ] = None,
    single: Single = False,
    enrol: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE_OR_FOLDER",
            parser=given_path,
            help="Recordings of the speaker, without labels, to adapt to; may be repeated.",
        ),
    ] = None,
    one_speaker: Annotated[
        bool,
        typer.Option("--one-speaker", help="The recordings are one speaker's: adapt to them."),
    ] = False,
    microphone: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Record so long, in place of files.")
    ] = None,
    abstain_below: Annotated[
        float,
        typer.Option(
            metavar="P", min=0, max=1, help="Give no emotion of a lower probability; see the card."
        ),
    ] = 0.0,
    form: Annotated[
        Format, typer.Option("--format", help="A table to read, CSV, or one JSON object per line.")
    ] = Format.table,
) -> None:
    """Say which emotion recordings have, and which of them the model knows nothing about."""
    one_thread_each()
    from timnet.models import card as cards
    from timnet.models import formats

    if (microphone is None) == (not recordings):
        raise ParameterError("give recordings, or --microphone SECONDS: one of them.")
    if one_speaker and (enrol or microphone is not None):
        raise ParameterError("--one-speaker is of files alone: no --enrol, no --microphone.")
    paths, failures = _recordings(recordings or [])
    loaded = load_model(model, to_enrol=bool(enrol) or one_speaker)
    if enrol:
        own, missing = _recordings(enrol)
        failures += missing
        loaded = _enrolled(loaded, own, failures)
    elif one_speaker:
        loaded = _enrolled(loaded, paths, list(failures))  # predicting tells of the same ones again
    elif model is not None:
        say_unenrolled(loaded)
    writer: Any = {
        Format.table: lambda: formats.TableWriter(
            loaded.labels, paths or [MICROPHONE], abstain_below
        ),
        Format.csv: lambda: formats.CsvWriter(loaded.labels, abstain_below),
        Format.json: lambda: formats.JsonLinesWriter(abstain_below),
    }[form]()
    head, strange, unsure, done = writer.head(), 0, 0, 0
    predictions = loaded.predict_files(paths, single=single, workers=workers())
    if microphone is not None:
        predictions = _recorded(loaded, microphone, single)
    try:
        if head and (paths or microphone is not None):
            say(head)
        for path, found in predictions:
            if isinstance(found, str):
                failures.append(f"{formats.name(path)} ({found})")
                continue
            say(writer.line(path, found))
            done, strange = done + 1, strange + bool(found.out_of_domain)
            unsure += found.probability < abstain_below
    except BrokenPipeError:  # `| head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if form is Format.table and unsure:
        say(f"\n{unsure} of {done} recordings: no emotion reaches {abstain_below:g}")
    if form is Format.table and abstain_below and done:
        say(cards.vouched(loaded.card, abstain_below))
    if form is Format.table and strange:
        data = loaded.card.data
        say(
            f"\n{strange} of {done} recordings are out of domain: unlike the training set of "
            f"{loaded.card.name} ({data.title}, {data.language}):\npredictions for them are "
            "unreliable. A large MFCC distance suggests another microphone, room, noise or "
            "language."
        )
    if failures:
        raise AudioError(_unread(failures))


def _unread(failures: list[str]) -> str:
    lines = "\n".join(f"  - {failure}" for failure in failures)
    return f"{counted(len(failures), 'recording')} could not be read:\n{lines}"


def _enrolled(loaded: Model, paths: list[Path], failures: list[str]) -> Model:
    """A model adapted to the speaker of some files.

    Args:
        failures: what cannot be read, and why; is added to.

    Raises:
        AudioError: no sound, with all that could not be read.
    """
    from timnet.models import formats
    from timnet.models import predict as stage

    recordings, broken = stage.read_speaker(loaded, paths)
    failures += [f"{formats.name(path)} ({why})" for path, why in broken]
    try:
        loaded = stage.enrolled(loaded, recordings)
    except AudioError as error:
        raise AudioError(f"{error} {_unread(failures)}" if failures else str(error)) from None
    enough = sum(map(len, recordings)) >= USEFUL  # windows: a long recording is as good as many
    better = "" if enough else f": {USEFUL} or more, of several emotions, are better"
    number = counted(len(recordings), "recording")
    typer.echo(f"adapted to the speaker of {number}{better}\n", err=True)
    return loaded


def _recorded(
    loaded: Model, seconds: float, single: bool
) -> Iterator[tuple[Path, Prediction | str]]:
    """What is spoken into the microphone now, with its prediction."""
    from timnet.models.microphone import record

    print(f"recording {seconds:g} s ...", file=sys.stderr, flush=True)
    signal, rate = record(seconds, sorted(loaded.card.typical.sample_rates, reverse=True))
    print("done", file=sys.stderr)
    try:
        yield MICROPHONE, loaded.predict(signal, rate, single=single)
    except AudioError as error:
        yield MICROPHONE, str(error)


def _recordings(given: list[Path]) -> tuple[list[Path], list[str]]:
    """Files as given and those in folders, in natural order; and what of it is not there."""
    from timnet.corpora.corpus import is_litter, namesake, natural_key
    from timnet.dataset.foreign import FOREIGN
    from timnet.models.formats import name

    endings = ENDINGS | FOREIGN.keys()

    found: dict[Path, None] = {}
    missing = []

    def unread(error: OSError) -> None:
        missing.append(f"{name(Path(error.filename))} ({error.strerror})")

    for path in given:
        if any(len(os.fsencode(part)) > 255 for part in path.parts):
            missing.append(f"{name(path)[:80]}… (file name too long)")
            continue
        try:
            path.stat()
        except PermissionError as error:
            unread(error)
            continue
        except OSError:
            pass
        if path.is_dir():
            before = len(missing)
            named = [
                file
                for file in names_below(path, unread)
                if file.suffix.lower() in endings
                and not any(part[0] == "." for part in file.relative_to(path).parts)
                and not is_litter(file.relative_to(path))
            ]
            files = [file for file in named if file.is_file()]
            missing += [f"{name(file)} ({_no_file(file)})" for file in named if not file.is_file()]
            if not named and len(missing) == before:
                missing.append(f"{name(path)} (no recordings in this folder)")
            found |= dict.fromkeys(sorted(files, key=lambda file: natural_key(str(file))))
        elif path.is_file():
            found[path] = None
        elif path.exists() or path.is_symlink():
            missing.append(f"{name(path)} ({_no_file(path)})")
        else:
            near = f"; {similar}" if (similar := namesake(path)) else ""
            missing.append(f"{name(path)} (no such file{near})")
    return list(found), missing


def _no_file(path: Path) -> str:
    """Why a name that is there is no file."""
    return "a pipe or a device" if path.exists() else "a link that leads nowhere"
