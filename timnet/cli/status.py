"""`timnet status`: what `dvc repro` would do, why, and what it would cost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from timnet.cli.common import app, device, open_workspace, say, workers


@app.command()
def status(
    allow_data_changes: Annotated[
        bool, typer.Option(help="Go on where data/ is not what data.dvc says.")
    ] = False,
) -> None:
    """Say what `dvc repro` would do for each run, why, and what it would cost."""
    from rich.console import Console
    from rich.table import Table

    from timnet.project import provenance
    from timnet.project.locks import Busy
    from timnet.project.status import (
        disk,
        groups,
        past_time,
        refuse_data_changes,
        stale_stages,
        training_stages,
    )

    workspace, params = open_workspace()
    try:
        if not allow_data_changes:
            refuse_data_changes(workspace.root)
        stale = stale_stages(workspace.root)
    except Busy as busy:
        say(f"{busy}. What is stale can be told at its end.")
        return
    columns = ("", "stale", "stale if these change it", "because", "time", "disk")
    table = Table(*columns, box=None, pad_edge=False)
    for title, stages in groups(params).items():
        own = [name for name in stages if name in stale]
        direct = [name for name in own if stale[name]]
        reasons = dict.fromkeys(cause for name in direct for cause in stale[name])
        table.add_row(
            title,
            ", ".join(name.split("@")[0] for name in direct) or "nothing",
            ", ".join(name.split("@")[0] for name in own if name not in direct),
            "\n".join(reasons),
            past_time(workspace, own) if own else "",
            disk(workspace.root, own) if own else "",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if training_stages(workspace) & stale.keys():
        place = device()
        where = f" in {workers()} processes" if place == "cpu" else ""
        say(f"\ntraining would run on {provenance.device_name(place)}{where}")
