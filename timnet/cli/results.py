"""From what was trained to what people read: the stages score, tables, figures and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timnet.cli.common import app, open_workspace, say
from timnet.cli.models import one_thread_each
from timnet.cli.stages import STAGES, RunName
from timnet.errors import counted, listing
from timnet.evaluation.protocols import CROSS
from timnet.paths import Workspace, replacing_folder, write_text
from timnet.project.leftovers import leftovers

if TYPE_CHECKING:
    from timnet.project.params import Params
    from timnet.records import Description, Validation
    from timnet.reporting.render import Table
    from timnet.reporting.scored import ScoredRun

TransferName = Annotated[str, typer.Argument(metavar="TRANSFER", help="A transfer of params.yaml.")]


@app.command(rich_help_panel=STAGES)
def score(run: RunName) -> None:
    """Compute UAR, WAR and confusion matrices of a run and put them where git keeps them."""
    from timnet.evaluation import results

    workspace, params = open_workspace()
    params.run(run)
    if workspace.training(run).exists():  # in a clone without it, git has what was copied
        results.keep(workspace.training(run), workspace.run_results(run))
    _score(workspace, params, run)


def _score(workspace: Workspace, params: Params, run: str) -> None:
    """Score what lies in the results of a run or transfer, and say it."""
    from timnet import records
    from timnet.evaluation import results

    paths = {corpus: workspace.description(corpus) for corpus in params.corpora}
    sexes = {
        corpus: records.read_artifact(path, records.Description)["speakers"]
        for corpus, path in paths.items()
        if path.exists()
    }
    for protocol, scored in results.write_scores(workspace.run_results(run), sexes).items():
        bounds = f"95 % {scored['uar']['low']:.2f} to {scored['uar']['high']:.2f}"
        say(
            f"{run}: {protocol}: UAR {scored['uar']['value']:.2f} % ({bounds}), "
            f"WAR {scored['war']['value']:.2f} %"
        )


@app.command(rich_help_panel=STAGES)
def tables() -> None:
    """Put the paper's scores beside ours, as Markdown, CSV and LaTeX."""
    from timnet.reporting import render, write

    workspace, params = open_workspace()
    runs, *_, made = _gathered(workspace, params)
    write.write_tables(made, runs, workspace.tables)
    say(render.markdown(made[0]))
    say(f"{len(made)} tables in {workspace.tables}")
    if left := leftovers(workspace, params):
        say(
            f"no longer in params.yaml, and in no table: {listing(map(str, left))}. `timnet runs "
            "--prune` removes them."
        )


def _gathered(
    workspace: Workspace, params: Params
) -> tuple[list[ScoredRun], dict[str, Validation], dict[str, Description], list[Table]]:
    """What tables and report are made of, and the tables: runs, corpora's validations, recipes."""
    from timnet.reporting import gather

    runs = gather.scored_runs(workspace, params.scored, params.tuned_on)
    found = gather.validations(workspace, params.corpora)
    described = gather.descriptions(workspace, params.corpora)
    return runs, found, described, gather.all_tables(workspace, runs, found, described)


@app.command(rich_help_panel=STAGES)
def figures(run: RunName) -> None:
    """Draw a run: confusion matrices, curves, fused vectors, time scales, speakers."""
    one_thread_each()  # t-SNE and BLAS on small arrays: more threads only wait for each other
    workspace, params = open_workspace()
    params.run(run)
    _draw(workspace, run)


def _draw(workspace: Workspace, run: str) -> None:
    """Draw the figures of a run or transfer."""
    from timnet import records
    from timnet.reporting import figures as stage

    source, target = workspace.run_results(run), workspace.figures(run)
    records.read_artifact(source / "run.json", records.RunRecord)  # was it scored?
    with replacing_folder(target) as partial:
        for name, figure in stage.all_figures(source):
            stage.save(figure, partial / name)
            say(f"{run}: {name}")


@app.command(rich_help_panel=STAGES)
def transfer(name: TransferName) -> None:
    """Test a source on another corpus, score what it says there and draw it."""
    one_thread_each()
    from timnet import records
    from timnet.dataset import features
    from timnet.dataset.features import FeatureSettings
    from timnet.evaluation import results
    from timnet.training import outcome
    from timnet.training import transfer as stage

    workspace, params = open_workspace()
    settings = params.transfer(name)
    trained = workspace.training(settings.source)
    if trained.exists():  # in a clone without it, git has what it said
        record = records.read_artifact(trained / "run.json", records.TrainedRecord)
        wanted = FeatureSettings(**record["features"]["settings"])
        place = workspace.features(f"{settings.tested_on}-{wanted.signal_length}")
        target, _ = features.read(place, wanted)
        weights = outcome.read_weights(trained / "weights.npz")
        told = stage.predictions(record, weights, target)
        about = {
            "folds": {"protocol": CROSS},
            "source": settings.source,
            "tested_on": settings.tested_on,
            "utterances": len(told) // len(weights["seed"]),
        }
        results.put(workspace.run_results(name), record | about, told)
    _score(workspace, params, name)
    _draw(workspace, name)


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Make the report: one HTML page with all tables and figures, for any browser, offline."""
    from timnet.reporting import report as stage

    workspace, params = open_workspace()
    runs, found, described, made = _gathered(workspace, params)
    drawn = {run.name: workspace.figures(run.name) for run in runs}
    overview = workspace.tables / f"{made[0].name}.svg"
    page = stage.page(made, overview, runs, drawn, found, described)
    write_text(workspace.report, page)
    say(
        f"{workspace.report}: {len(made)} tables, {counted(len(runs), 'run')}, "
        f"{len(page) / 1e6:.1f} MB"
    )


@app.command(name="offline-plots")
def offline_plots() -> None:
    """Let the pages of `dvc plots` show without a network, in this checkout."""
    from timnet.project.plots import show_offline

    show_offline(Path())
