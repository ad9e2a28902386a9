"""`timnet status`: what `dvc repro` would do, why, and what it would cost."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from timnet.cli.common import app, device, open_workspace, say, workers
from timnet.errors import listing


@app.command()
def status(
    allow_data_changes: Annotated[
        bool, typer.Option(help="Continue although data/ differs from data.dvc.")
    ] = False,
) -> None:
    """Say what `dvc repro` would do for each run, why, and what it would cost."""
    from rich.console import Console
    from rich.table import Table

    from timnet.project import machine, provenance
    from timnet.project.dvc import repository
    from timnet.project.estimates import estimate, in_slow_bf16, speeds
    from timnet.project.locks import WorkspaceInUse
    from timnet.project.status import (
        disk,
        groups,
        refuse_data_changes,
        sizes,
        stages_of,
        stale_stages,
        training_stages,
    )

    gc.disable()  # none of DVC's 10^5 objects is garbage: looking takes a quarter of the time
    workspace, params = open_workspace()
    try:
        with repository(workspace.root) as repo:
            absent = [] if allow_data_changes else refuse_data_changes(repo, ())
            stale, known = stale_stages(repo), sizes(repo)
            gc.freeze()  # nor at the end
    except WorkspaceInUse as busy:
        say(f"{busy}. Run this again when it has ended.")
        return
    timed = speeds(workspace, params)
    columns = ("", "stale", "stale if their inputs change", "because", "time", "disk")
    table, every = Table(*columns, box=None, pad_edge=False), groups(params)
    if absent:
        say(f"not here, and left out with all that needs them: {listing(absent)}\n")
        here = [corpus for corpus in params.corpora if corpus not in absent]
        possible = {*(stages_of(workspace, here, ()) if here else ()), "tables", "report"}
        every = {title: stages for title, stages in every.items() if possible.issuperset(stages)}
        stale = {name: stale[name] for stages in every.values() for name in stages if name in stale}
    table.columns[0].no_wrap = True
    for title, stages in every.items():
        own = [name for name in stages if name in stale]
        if not own:
            continue
        direct = [name for name in own if stale[name]]
        reasons = dict.fromkeys(cause for name in direct for cause in stale[name])
        table.add_row(
            title,
            ", ".join(name.split("@")[0] for name in direct) or "-",
            ", ".join(name.split("@")[0] for name in own if name not in direct),
            "\n".join(reasons),
            str(estimate(workspace, params, own, timed)),
            disk(known, own),
        )
    if table.rows:
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    current = len(every) - len(table.rows)
    say(f"up to date: {current} of {len(every)} runs, corpora, models and tables")
    for change, runs in provenance.runs_by_change(workspace.root, params.scored).items():
        say(
            f"{change}: {listing(runs)}. This makes nothing stale; `timnet verify RUN` checks "
            "whether it matters."
        )
    if stale:
        whole = estimate(workspace, params, stale, timed)
        say(f"\nall of it, one stage after the other: {whole}")
    if training := training_stages(workspace) & stale.keys():
        say(f"training would run on {_where()}")
        if not machine.has_gpu() and (slow := in_slow_bf16(params, training)):
            say(f"{listing(slow)}: {machine.SLOW_BF16}.")


def _where() -> str:
    """The machine's device, without the second that it takes to import torch where it can."""
    from timnet.project import provenance
    from timnet.project.machine import has_gpu

    if os.environ.get("TIMNET_DEVICE", "cpu") == "cpu" and not has_gpu():
        return f"{provenance.cpu_name()} in {workers()} processes"
    place = device()
    where = f" in {workers()} processes" if place == "cpu" else ""
    return f"{provenance.device_name(place)}{where}"
