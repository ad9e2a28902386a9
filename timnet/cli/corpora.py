"""Commands about corpora: get them, and see what is here."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import app, bars, given_path, say
from timnet.errors import CorpusError, ParameterError, TimnetError
from timnet.paths import Workspace

if TYPE_CHECKING:
    from timnet.corpora.corpus import Corpus


@app.command()
def acquire(
    names: Annotated[list[str], typer.Argument(metavar="CORPUS...", help="Corpora to acquire.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", parser=given_path, help="A local archive or folder."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="URL of the archive, instead of the recipe's.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=given_path,
            help="Table of a custom corpus: path, speaker, emotion.",
        ),
    ] = None,
    language: Annotated[str | None, typer.Option(help="With --csv: the language spoken.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="With --csv: the licence of the recordings.")
    ] = None,
    add: Annotated[
        bool, typer.Option(help="Run `dvc add data` at the end; needs a DVC repository here.")
    ] = True,
) -> None:
    """Bring corpora to data/, whole or not at all, and put them under DVC.

    TIMNET_MIRROR may name the address of an institute's own copies.
    """
    workspace = Workspace(Path())
    if len(names) > 1 and (source or url or csv):
        raise ParameterError("--from, --url and --csv accept one corpus at a time.")
    if csv and (source or url):
        raise ParameterError(
            "--csv finds the recordings beside the table; it cannot be combined with --from or "
            "--url."
        )
    if (language or licence) and not csv:
        raise ParameterError("--language and --licence are for recordings of --csv.")
    if add:  # before a download
        from timnet.project.dvc import refuse_without_dvc

        refuse_without_dvc(workspace.root)
    brought: dict[str, Corpus] = {}
    failures: list[str] = []
    for name in names:
        try:
            if csv is not None:
                brought[name] = _import_table(workspace, name, csv, language, licence)
            else:
                brought[name] = _acquire_one(workspace, name, source, url)
        except CorpusError as error:  # the others go on
            failures.append(str(error) if repr(name) in str(error) else f"{name}: {error}")
    if add and brought:
        try:
            _put_under_dvc(workspace, brought)
        except TimnetError as error:
            failures.append(str(error))
    if failures:
        raise TimnetError("\n".join(failures))


def _import_table(
    workspace: Workspace, name: str, csv: Path, language: str | None, licence: str | None
) -> Corpus:
    """A custom corpus from its table; says what is not known of it."""
    from timnet.acquire import table
    from timnet.corpora.custom import CONTRACT

    found = "already there, " if (workspace.corpus(name) / CONTRACT).exists() else ""
    with _transfer(name) as progress:
        recipe = table.import_table(
            csv, name, workspace.data, progress=progress, language=language, licence=licence
        )
        say(f"{name}: {found}{recipe.utterances} utterances in {workspace.corpus(name)}")
        if missing := [key for key in ("language", "licence") if vars(recipe)[key] == "unknown"]:
            say(
                f"{name}: {' and '.join(missing)} unknown. Cards of models tell them: "
                f"run this again with {' and '.join(f'--{key}' for key in missing)}."
            )
    return recipe


def _acquire_one(workspace: Workspace, name: str, source: Path | None, url: str | None) -> Corpus:
    """A corpus of a recipe, from where it is to be had."""
    from timnet import corpora
    from timnet.acquire import acquire as stage

    mirror = os.environ.get("TIMNET_MIRROR")
    with _transfer(name) as progress:
        recipe = corpora.corpus(name, workspace.data)
        got = stage.acquire(recipe, workspace.data, source, url, mirror, progress=progress)
        found = "already there, " if got.found else ""
        say(f"{name}: {found}{got.utterances} utterances in {got.folder}")
    return recipe


def _put_under_dvc(workspace: Workspace, brought: dict[str, Corpus]) -> None:
    """`dvc add data`, unless recordings would get lost or left out."""
    from timnet.project.dvc import ask_dvc, repository
    from timnet.project.status import noted, nothing_to_add
    from timnet.project.tracked import refuse_ignore_files, refuse_left_out, restored

    root = workspace.root
    refuse_ignore_files(root)
    with repository(root) as repo:
        why = nothing_to_add(repo, list(brought))
    if not why:
        with restored(root / "data.dvc"):
            ask_dvc(root, "add", "data")
            refuse_left_out(root, brought)
    say(why or noted(root))


@contextmanager
def _transfer(name: str) -> Iterator[Any]:
    """Bars for what `timnet.acquire.acquire` reports: bytes downloaded, unpacked, copied."""
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with bars(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as progress:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"{name}: {what}")
            progress.update(tasks[what], completed=done, total=total)

        yield report


@app.command()
def corpora(
    name: Annotated[
        str | None, typer.Argument(metavar="[CORPUS]", help="Show one corpus in detail.")
    ] = None,
) -> None:
    """Show which corpora are here, complete or not, and where the rest comes from."""
    from rich.console import Console
    from rich.table import Table

    from timnet import corpora as registry
    from timnet.acquire import acquire as stage

    workspace = Workspace(Path())
    data = workspace.data
    if not workspace.params.is_file() and not data.is_dir():
        raise ParameterError(
            "no params.yaml and no data/ here. Run timnet in the root of the project, which "
            "contains them."
        )
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    if name is not None:
        _describe(registry.corpus(name, data), console)
        return
    own = sorted(path.parent.name for path in data.glob("*/corpus.json"))
    table = Table(
        "corpus", "language", "utterances", "here", "what to do", box=None, pad_edge=False
    )
    for each in [*sorted(registry.CORPORA), *own]:
        try:
            recipe = registry.corpus(each, data)
            state = stage.state(recipe, data)
            detail = "" if state.status == "complete" else state.detail
            table.add_row(each, recipe.language, str(recipe.utterances), state.status, detail)
        except CorpusError as error:
            table.add_row(each, "", "", "broken", str(error))
    console.print(table)


def _describe(recipe: Any, console: Any) -> None:
    """A corpus in full, as its recipe has it."""
    from rich.table import Table

    from timnet.acquire import acquire as stage

    state = stage.state(recipe, Workspace(Path()).data)
    sexes = Counter(recipe.speakers.values())
    told = ", ".join(f"{sexes[sex]} {sex}" for sex in ("female", "male", "unknown") if sexes[sex])
    counts = ", ".join(f"{label} {recipe.counts[label]}" for label in recipe.labels)
    folds = len(recipe.speaker_groups or recipe.speakers)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "corpus": f"{recipe.title} ({recipe.language})",
        "here": f"{state.status}, {state.utterances} of {recipe.utterances} utterances",
        "": state.detail,
        "emotions": counts,
        "speakers": f"{len(recipe.speakers)} ({told}), {folds} speaker-independent folds",
        "sample rates": ", ".join(f"{rate} Hz" for rate in recipe.sample_rates),
        "durations": f"{recipe.seconds[0]:g} to {recipe.seconds[1]:g} s",
        "licence": recipe.licence,
        "source": recipe.source,
        "cite": recipe.citation,
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, value)
    for quirk, utterances in recipe.quirks.items():
        named = f": {', '.join(utterances[:6])}" if utterances else ""
        table.add_row("known fault", quirk + named)
    console.print(table)
