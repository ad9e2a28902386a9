"""What a run leaves in Prefect for people: tables, figures, progress; each with the commit.

Keys are the same in every run, so that Prefect shows the history of each.
"""

import base64
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
from timnet.project import git, params
from timnet.project.dvc import ask_dvc
from timnet.project.provenance import commit

TABLE = "single-corpus"  # results/tables/<TABLE>.md, made by the stage `tables`; artifact's key
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
        for figure in sorted((root / "results" / "figures" / run).glob("confusion-*.svg")):
            image = base64.b64encode(figure.read_bytes()).decode()
            url = f"data:image/svg+xml;base64,{image}"
            create_image_artifact(url, key=key(f"{run}-{figure.stem}"), description=source)
    if "tables" in items:
        table = (workspace.tables / f"{TABLE}.md").read_text(encoding="utf-8")
        create_markdown_artifact(table, key=TABLE, description=source)
        if against := against_main(root):
            create_markdown_artifact(against, key="against-main", description=source)
    if "report" in items:
        link = address(root / "results" / "report.html")
        create_link_artifact(link, "report.html", key="report", description=source)


def metrics(workspace: Workspace) -> list[dict[str, Any]]:
    """One row per run and protocol, of the runs that are scored."""
    if not workspace.params.is_file():
        return []
    rows = []
    for run in params.read(workspace.params).runs:
        path = workspace.run_results(run) / "metrics.json"
        if path.is_file():
            scored = json.loads(path.read_text(encoding="utf-8"))
            for protocol, figures in scored.items():
                rounded = {name: round(value, 2) for name, value in figures.items()}
                rows.append({"run": run, "protocol": protocol, **rounded})
    return rows


def validation(workspace: Workspace, corpora: list[str]) -> str:
    """One row per corpus: checks, and what they found; Markdown."""
    rows = ["# Validation", "", "| corpus | checks | warnings |", "| --- | ---: | --- |"]
    for corpus in corpora:
        path = workspace.validation(corpus)
        checks = json.loads(path.read_text(encoding="utf-8"))["checks"]
        warnings = "; ".join(check["message"] for check in checks if not check["passed"])
        rows.append(f"| {corpus} | {len(checks)} | {warnings or 'none'} |")
    return "\n".join([*rows, ""])


def against_main(root: Path) -> str | None:
    """Metrics that differ from those of the branch `main`, as Markdown; None if there is none."""
    if git.ask(root, "rev-parse", "--verify", "--quiet", "main") is None:
        return None
    try:
        difference = ask_dvc(root, "metrics", "diff", "main", "--md").strip()
    except TimnetError:  # a `main` without metrics that can be read
        return None
    if difference.count("\n") < 2:  # a head without rows
        difference = "The metrics are those of `main`."
    return f"# Against main\n\n{difference}\n"


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
        said = f"{told['done']} of {told['total']} {told['unit']}, {told['figures']}"
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
