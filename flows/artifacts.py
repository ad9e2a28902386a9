"""What a run leaves in Prefect to look at: tables, figures, progress; each with the commit.

Keys are the same in every run, so that Prefect shows the history of each.
"""

import csv
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from timnet.errors import TimnetError
from timnet.paths import Workspace
from timnet.project import git, params, revisions
from timnet.project.provenance import commit
from timnet.reporting import render

TABLE = "single-corpus"  # results/tables/<TABLE>.md, made by the stage `tables`; artifact's key
COLUMNS = ("corpus", "method", "protocol", "paper UAR", "UAR", "UAR, 95 % CI", "WAR")
RESULTS_URL = "TIMNET_RESULTS_URL"  # where `make ui` serves results/ of the current folder
EVERY = 5.0  # s between two reports of progress


def show(root: Path, done: Collection[str]) -> None:
    """Show what the stages that are `done` have made."""
    workspace, source = Workspace(root), f"commit {commit(root)}"
    items: dict[str, list[str]] = {}
    for stage in done:
        group, _, item = stage.partition("@")
        items.setdefault(group, []).append(item)
    if "validate" in items:
        text = validation(workspace, items["validate"])
        create_markdown_artifact(text, key="validation", description=source)
    if "score" in items and (rows := metrics(workspace)):
        create_table_artifact(rows, key="metrics", description=source)
    for run in items.get("figures", ()):
        for figure in sorted(workspace.figures(run).glob("confusion-*.svg")):
            link = address(figure)
            if not link.startswith("file:"):  # which no page of a server shows
                create_image_artifact(link, key=key(f"{run}-{figure.stem}"), description=source)
    if "tables" in items:
        create_markdown_artifact(first_table(workspace), key=TABLE, description=source)
        if against := against_main(workspace):
            create_markdown_artifact(against, key="against-main", description=source)
    if "report" in items:
        link = address(root / "results" / "report.html")
        create_link_artifact(link, "report.html", key="report", description=source)


def metrics(workspace: Workspace) -> list[dict[str, Any]]:
    """One row per run and protocol, of the runs that are scored: what fits on a page."""
    if not workspace.params.is_file():
        return []
    rows = []
    for run in params.read(workspace.params).runs:
        path = workspace.run_results(run) / "metrics.json"
        if path.is_file():
            scored = json.loads(path.read_text(encoding="utf-8"))
            for protocol, scores in scored.items():
                told = {name.upper(): round(scores[name], 2) for name in ("uar", "war")}
                rows.append({"run": run, "protocol": protocol, **told})
    return rows


def validation(workspace: Workspace, corpora: list[str]) -> str:
    """One row per corpus: checks, and what they found; Markdown."""
    rows = []
    for corpus in corpora:
        path = workspace.validation(corpus)
        checks = json.loads(path.read_text(encoding="utf-8"))["checks"]
        warnings = "; ".join(check["message"] for check in checks if not check["passed"])
        rows.append(render.row_of(corpus, str(len(checks)), warnings or "none"))
    head = ("corpus", "checks", "warnings")
    return render.markdown(render.Table("validation", "Validation", head, rows))


def first_table(workspace: Workspace) -> str:
    """The first table with as many columns as a page of Prefect has room for; Markdown."""
    path = workspace.tables / f"{TABLE}.csv"
    if not path.is_file():
        return path.with_suffix(".md").read_text(encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    kept = [name for name in COLUMNS if name in head]
    cells = [render.row_of(*(row[head.index(name)] for name in kept)) for row in rows]
    notes = ["All columns, and what they mean: `results/tables/`, and the report."]
    return render.markdown(render.Table(TABLE, "Single corpus", tuple(kept), cells, notes))


def against_main(workspace: Workspace) -> str | None:
    """What `timnet compare main` says, as Markdown; None where there is no such branch."""
    root = workspace.root
    if git.ask(root, "rev-parse", "--verify", "--quiet", "main") is None:
        return None
    if not workspace.params.is_file():
        return None
    try:
        runs = params.read(workspace.params).scored
        return render.markdown(revisions.compared(workspace, runs, "main"))
    except TimnetError as error:  # a `main` without results that can be read
        return f"# Results against main\n\n{render.plain(str(error))}\n"


def address(path: Path) -> str:
    """Where a browser finds a file of results/."""
    results = Path.cwd() / "results"
    if RESULTS_URL in os.environ and path.is_relative_to(results):
        return f"{os.environ[RESULTS_URL]}/{path.relative_to(results).as_posix()}"
    return path.as_uri()


def key(name: str) -> str:
    """A name as Prefect wants keys: lower-case letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def reported(root: Path, stage: str) -> Iterator[None]:
    """Show how far a stage is as an artifact while it runs, if it tells (`Workspace.progress`)."""
    progress, ended = Progress(root, stage), threading.Event()

    def report() -> None:
        while not ended.wait(1.0):
            progress.look()

    Workspace(root).progress(stage).unlink(missing_ok=True)  # of a run that was killed
    thread = threading.Thread(target=copy_context().run, args=(report,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.end()


class Progress:
    """The progress artifact of a stage."""

    def __init__(self, root: Path, stage: str) -> None:
        self._file, self._stage = Workspace(root).progress(stage), stage
        self._source = f"commit {commit(root)}"
        self._artifact: Any = None
        self._told = -EVERY

    def look(self) -> None:
        """Report what the stage tells, now and then."""
        if time.monotonic() - self._told < EVERY:
            return
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        self._told = time.monotonic()
        said = f"{told['done']} of {told['total']} {told['unit']}, {told['said']}"
        self._report(100 * told["done"] / told["total"], f"{said}; {self._source}")

    def end(self) -> None:
        """Report that the stage has ended, if it told of itself."""
        if self._artifact is not None:
            self._report(100.0, f"ended; {self._source}")

    def _report(self, percent: float, description: str) -> None:
        if self._artifact is not None:
            update_progress_artifact(self._artifact, percent, description)
        else:
            self._artifact = create_progress_artifact(
                percent, key=key(self._stage), description=description
            )
