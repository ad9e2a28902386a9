"""`timnet init`: a project of its own for a custom corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timnet.cli.common import app, given_path, say


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            parser=given_path,
            help="A new folder; with --update, the folder of the project.",
        ),
    ] = Path(),
    update: Annotated[
        bool, typer.Option("--update", help="Update a project to the installed version of timnet.")
    ] = False,
) -> None:
    """Start a project for a custom corpus: stages and parameters, no results of ours."""
    from timnet.project import template

    if update:
        changed = template.update(folder)
        word = "module" if len(changed) == 1 else "modules"
        say(f"{len(changed)} {word} changed; `timnet status` lists what is stale now")
        return
    template.write(folder)
    say(f"started a project in {folder}/. Next, in that folder:")
    say("  timnet acquire NAME --csv TABLE   copies the recordings that a table lists, for DVC")
    say("  timnet runs --add NAME            writes runs of them and a model to params.yaml")
    say("  timnet status                     lists what would run, and how long it takes")
