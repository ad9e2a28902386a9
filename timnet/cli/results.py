"""From what was trained to what people read: the stages score, tables, figures and report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from timnet.cli.common import app, as_json, copy_files, open_workspace, read_json, recipe_of, say
from timnet.cli.stages import STAGES, RunName
from timnet.cli.status import ask_dvc, locked
from timnet.errors import ParameterError, listing
from timnet.paths import Workspace, write_text
from timnet.project.leftovers import leftovers

OFFLINE_PLOTS = "tmp/offline-plots.html"  # below .dvc, where git looks at nothing

if TYPE_CHECKING:
    from timnet.evaluation.compare import Change, Result
    from timnet.project.params import Params
    from timnet.reporting.render import Table
    from timnet.reporting.tables import ScoredRun


@app.command(rich_help_panel=STAGES)
def score(run: RunName) -> None:
    """Compute UAR, WAR and confusion matrices of a run and put them where git keeps them."""
    import numpy as np
    import polars as pl

    from timnet import schemas
    from timnet.evaluation import score as stage

    workspace, params = open_workspace()
    params.run(run)
    source, target = workspace.training(run), workspace.run_results(run)
    if source.exists():  # in a clone without it, git has what was copied
        copy_files(source, target, ("predictions.parquet", "history.parquet", "run.json"))
        with np.load(source / "weights.npz") as weights:
            scales = stage.scale_rows({name: weights[name] for name in weights.files})
        write_text(target / "scales.csv", scales.write_csv())
    result = result_of(workspace, run)  # what was trained, whatever params.yaml says by now
    predictions, labels = result.predictions, result.labels
    folds = result.record["folds"]["protocol"]
    history = schemas.read(target / "history.parquet", schemas.HISTORY)
    parts = list(stage.parts(predictions, labels, folds))
    by_fold = pl.DataFrame(
        {
            "protocol": part.protocol,
            "fold_seed": part.fold_seed,
            "seed": part.seed,
            "fold": part.fold,
            "utterances": int(part.confusion.sum()),
            "uar": round(part.uar, 4),
            "war": round(part.war, 4),
        }
        for part in parts
        if part.fold is not None
    )
    scores = stage.scores(predictions, labels, folds)
    write_text(target / "folds.csv", by_fold.write_csv())
    write_text(target / "confusion.csv", stage.confusion_rows(parts, labels).write_csv())
    write_text(target / "predicted.csv", stage.predicted_rows(predictions, labels).write_csv())
    write_text(target / "curves.csv", stage.curves(history).write_csv())
    write_text(target / "scores.json", as_json(scores))
    write_text(target / "metrics.json", as_json(stage.summary(scores)))
    for protocol, figures in scores.items():
        bounds = f"95 % {figures['uar']['low']:.2f} to {figures['uar']['high']:.2f}"
        say(
            f"{run}: {protocol}: UAR {figures['uar']['value']:.2f} % ({bounds}), "
            f"WAR {figures['war']['value']:.2f} %"
        )


@app.command(rich_help_panel=STAGES)
def tables() -> None:
    """Put the paper's figures beside ours, as Markdown, CSV and LaTeX."""
    from timnet.reporting import figures as drawn
    from timnet.reporting import render
    from timnet.reporting import tables as stage

    workspace, params = open_workspace()
    runs = scored_runs(workspace, params)
    made = _all_tables(workspace, params, runs)
    for table in made:
        for ending, text in (
            ("md", render.markdown(table)),
            ("csv", render.as_csv(table)),
            ("tex", render.latex(table)),
        ):
            write_text(workspace.tables / f"{table.name}.{ending}", text)
    rows = [
        (run.corpus, protocol, scored, run.chance, stage.printed(run, protocol)[0])
        for run in sorted(runs, key=lambda run: run.corpus)
        for protocol, scored in run.by_protocol()
        if run.variant == "tim-net" and protocol != "cross"
    ]
    drawn.save(drawn.protocols(rows), workspace.tables / made[0].name)
    write_text(workspace.provenance, as_json(_provenance(workspace, runs)))
    say(render.markdown(made[0]))
    say(f"{len(made)} tables in {workspace.tables}")
    if found := leftovers(workspace, params):
        say(
            f"not in params.yaml any more, and in no table: {listing(map(str, found))}. "
            "`timnet runs --prune` removes them."
        )


@app.command(rich_help_panel=STAGES)
def figures(run: RunName) -> None:
    """Draw a run: confusion matrices, curves, fused vectors, time scales, speakers."""
    from timnet.reporting import figures as stage

    workspace, params = open_workspace()
    params.run(run)
    source, target = workspace.run_results(run), workspace.figures(run)
    partial = target.with_name(f".{run}.{os.getpid()}.tmp")
    try:
        for name, figure in stage.all_figures(source):
            stage.save(figure, partial / name)
            say(f"{run}: {name}")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Make the report: one HTML page with all tables and figures, for any browser, offline."""
    from timnet import records
    from timnet.reporting import report as stage

    workspace, params = open_workspace()
    runs = scored_runs(workspace, params)
    found = validations(workspace, params)
    made = _all_tables(workspace, params, runs)
    drawn = {run.name: workspace.figures(run.name) for run in runs}
    recipes = {name: recipe_of(name, workspace.data) for name in found}
    overview = workspace.tables / f"{made[0].name}.svg"
    provenance = read_json(workspace.provenance, records.Provenance)
    page = stage.page(made, overview, runs, drawn, found, recipes, provenance)
    write_text(workspace.report, page)
    say(f"{workspace.report}: {len(made)} tables, {len(runs)} runs, {len(page) / 1e6:.1f} MB")


@app.command(name="offline-plots")
def offline_plots() -> None:
    """Let the pages of `dvc plots` show without a network, in this checkout."""
    import vl_convert

    workspace = Workspace(Path())
    if not workspace.dvc.is_dir():
        raise ParameterError("no DVC repository here; run this in the root of the project.")
    # DVC's specifications are of Vega-Lite 5
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version="5.21")
    scripts = scripts.replace("</script", "<\\/script")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>DVC plots</title>\n'
        f"{{refresh_tag}}<script>{scripts}</script></head>\n<body>{{plot_divs}}</body></html>\n"
    )
    write_text(workspace.dvc / OFFLINE_PLOTS, page)
    ask_dvc(workspace.root, "config", "--local", "plots.html_template", OFFLINE_PLOTS)


def _all_tables(workspace: Workspace, params: Params, runs: list[ScoredRun]) -> list[Table]:
    from timnet.evaluation.compare import changes
    from timnet.reporting import tables as stage

    losses: dict[str, dict[str, Change]] = {}
    for run, whole in stage.ablated(runs):
        ours, theirs = (result_of(workspace, each.name) for each in (run, whole))
        losses[run.name] = changes(ours, theirs)
    made = stage.all_tables(runs, validations(workspace, params), losses)
    made[0].notes.extend(_leaks(workspace, params))
    return made


def result_of(workspace: Workspace, run: str) -> Result:
    """What the results here say of a run."""
    from timnet import records, schemas
    from timnet.evaluation.compare import Result

    folder = workspace.run_results(run)
    record = read_json(folder / "run.json", records.Run)
    predictions = schemas.read(folder / "predictions.parquet", schemas.predictions_of(record))
    return Result(record, predictions)


def scored_runs(workspace: Workspace, params: Params) -> list[ScoredRun]:
    """What the tables need of every run of params.yaml.

    Raises:
        ParameterError: there is none.
        ArtifactError: one was not scored.
    """
    if not params.runs:
        raise ParameterError("params.yaml has no runs, so there is no table to make.")
    return [scored_run(workspace, name) for name in params.runs]


def scored_run(workspace: Workspace, name: str) -> ScoredRun:
    from timnet import records
    from timnet.reporting.tables import ScoredRun

    folder = workspace.run_results(name)
    record = read_json(folder / "run.json", records.Run)
    return ScoredRun(name, record, read_json(folder / "scores.json", records.Scores))


def validations(workspace: Workspace, params: Params) -> dict[str, dict]:
    """Summaries of validation by corpus."""
    from timnet import records

    paths = {corpus: workspace.published_validation(corpus) for corpus in params.corpora}
    return {corpus: read_json(path, records.Validation) for corpus, path in paths.items()}


def _provenance(workspace: Workspace, runs: list[ScoredRun]) -> dict[str, dict]:
    """Where each run's figures come from; hashes are DVC's, of what was trained on."""
    stages = {
        f"features@{run.record[part]}-{run.record['features']['settings']['signal_length']}"
        for run in runs
        for part in ("trained_on", "tested_on")
    }
    hashes = {
        entry["path"]: entry.get("md5")
        for stage in locked(workspace.root, *sorted(stages)).values()
        for part in ("deps", "outs")
        for entry in stage.get(part, [])
    }
    result = {}
    for run in runs:
        record = run.record
        corpora = dict.fromkeys((record["trained_on"], record["tested_on"]))
        length = record["features"]["settings"]["signal_length"]
        sets = {
            f"{corpus}-{length}": f"build/features/{corpus}-{length}.parquet" for corpus in corpora
        }
        result[run.name] = {
            "commit": record["commit"],
            "data": {corpus: hashes.get(f"data/{corpus}") for corpus in corpora},
            "device": record["device_name"],
            "features": {name: hashes.get(path) for name, path in sets.items()},
            "folds": record["folds"],
            "protocols": list(run.scores),
            "seeds": record["seeds"],
            "settings": record["train"],
            "versions": record["versions"],
        }
    return result


def _leaks(workspace: Workspace, params: Params) -> list[str]:
    """Corpora of random runs that hold a recording twice, as their validation found it."""
    notes, found = [], validations(workspace, params)
    for corpus in dict.fromkeys(
        run.trained_on for run in params.runs.values() if run.folds.protocol == "random"
    ):
        notes += [
            f"{corpus}: {check['message']}. Under random folds a copy may be trained on while the "
            "other is tested: a leak, kept since the paper has it."
            for check in found[corpus]["checks"]
            if check["check"] == "documented copies" and not check["passed"]
        ]
    return notes
