"""What the tables and the report are made of: results of runs and validations of corpora."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from timnet import records
from timnet.errors import ParameterError
from timnet.evaluation import results
from timnet.evaluation.compare import changes
from timnet.paths import Workspace, write_text
from timnet.reporting import figures as drawn
from timnet.reporting import render, tables
from timnet.reporting.render import Table
from timnet.reporting.tables import ScoredRun


def scored_runs(workspace: Workspace, names: Iterable[str]) -> list[ScoredRun]:
    """What the tables need of some runs.

    Raises:
        ParameterError: there is none.
        ArtifactError: one was not scored.
    """
    found = []
    for name in names:
        folder = workspace.run_results(name)
        record = records.read_artifact(folder / "run.json", records.Run)
        scores = records.read_artifact(folder / "scores.json", records.Scores)
        found.append(ScoredRun(name, record, scores))
    if not found:
        raise ParameterError("params.yaml has no runs, so there is no table to make.")
    return found


def validations(workspace: Workspace, corpora: Iterable[str]) -> dict[str, dict]:
    """Summaries of validation by corpus."""
    return {
        corpus: records.read_artifact(workspace.published_validation(corpus), records.Validation)
        for corpus in corpora
    }


def all_tables(workspace: Workspace, runs: list[ScoredRun], found: dict[str, dict]) -> list[Table]:
    """Every table of the report.

    Args:
        found: as of `validations`.
    """
    losses = {
        run.name: changes(
            results.read(workspace.run_results(run.name)),
            results.read(workspace.run_results(whole.name)),
        )
        for run, whole in tables.ablated(runs)
    }
    made = tables.all_tables(runs, found, losses)
    made[0].notes.extend(_leaks(runs, found))
    return made


def write_tables(made: list[Table], runs: list[ScoredRun], folder: Path) -> None:
    """Write tables as Markdown, CSV and LaTeX, and a figure of the first of them."""
    for table in made:
        for ending, text in (
            ("md", render.markdown(table)),
            ("csv", render.as_csv(table)),
            ("tex", render.latex(table)),
        ):
            write_text(folder / f"{table.name}.{ending}", text)
    rows = [
        (run.corpus, protocol, scored, run.chance, tables.printed(run, protocol)[0])
        for run in sorted(runs, key=lambda run: run.corpus)
        for protocol, scored in run.by_protocol()
        if run.variant == "tim-net" and protocol != "cross"
    ]
    drawn.save(drawn.protocols(rows), folder / made[0].name)


def _leaks(runs: list[ScoredRun], found: dict[str, dict]) -> list[str]:
    """Corpora of random folds that hold a recording twice, as their validation found it."""
    random = (run.corpus for run in runs if run.record["folds"]["protocol"] == "random")
    return [
        f"{corpus}: {check['message']}. Under random folds a copy may be trained on while the "
        "other is tested: a leak, kept since the paper has it."
        for corpus in dict.fromkeys(random)
        for check in found[corpus]["checks"]
        if check["check"] == "documented copies" and not check["passed"]
    ]
