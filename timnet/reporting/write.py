"""Tables as files, and the figure of the first of them."""

from __future__ import annotations

from pathlib import Path

from timnet.paths import write_text
from timnet.reporting import figures, render, tables
from timnet.reporting.render import Table
from timnet.reporting.scored import ScoredRun


def write_tables(made: list[Table], runs: list[ScoredRun], folder: Path) -> None:
    """Write tables as Markdown, CSV and LaTeX, and a figure of the first of them."""
    for table in made:
        for ending, text in (
            ("md", render.markdown(table)),
            ("csv", render.as_csv(table)),
            ("tex", render.latex(table)),
        ):
            write_text(folder / f"{table.name}.{ending}", text)
    figures.save(figures.protocols(tables.figure_rows(runs)), folder / made[0].name)
