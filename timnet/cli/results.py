"""From what was trained to what people read: the stages score, tables, figures and report."""

from __future__ import annotations

from pathlib import Path

from timnet.cli.common import app, open_workspace, say
from timnet.cli.models import one_thread_each
from timnet.cli.stages import STAGES, RunName
from timnet.errors import ParameterError, listing
from timnet.paths import Workspace, replacing_folder, write_text
from timnet.project.dvc import ask_dvc
from timnet.project.leftovers import leftovers

OFFLINE_PLOTS = "tmp/offline-plots.html"  # below .dvc, where git looks at nothing


@app.command(rich_help_panel=STAGES)
def score(run: RunName) -> None:
    """Compute UAR, WAR and confusion matrices of a run and put them where git keeps them."""
    from timnet import records
    from timnet.evaluation import results

    workspace, params = open_workspace()
    params.run(run)
    target = workspace.run_results(run)
    if workspace.training(run).exists():  # in a clone without it, git has what was copied
        results.keep(workspace.training(run), target)
    paths = {corpus: workspace.description(corpus) for corpus in params.corpora}
    sexes = {
        corpus: records.read_artifact(path, records.Description)["speakers"]
        for corpus, path in paths.items()
        if path.exists()
    }
    for protocol, figures in results.write_scores(target, sexes).items():
        bounds = f"95 % {figures['uar']['low']:.2f} to {figures['uar']['high']:.2f}"
        say(
            f"{run}: {protocol}: UAR {figures['uar']['value']:.2f} % ({bounds}), "
            f"WAR {figures['war']['value']:.2f} %"
        )


@app.command(rich_help_panel=STAGES)
def tables() -> None:
    """Put the paper's figures beside ours, as Markdown, CSV and LaTeX."""
    from timnet.reporting import gather, render, write

    workspace, params = open_workspace()
    runs = gather.scored_runs(workspace, params.runs)
    found = gather.validations(workspace, params.corpora)
    described = gather.descriptions(workspace, params.corpora)
    made = gather.all_tables(workspace, runs, found, described)
    write.write_tables(made, runs, workspace.tables)
    say(render.markdown(made[0]))
    say(f"{len(made)} tables in {workspace.tables}")
    if left := leftovers(workspace, params):
        say(
            f"no longer in params.yaml, and in no table: {listing(map(str, left))}. `timnet runs "
            "--prune` removes them."
        )


@app.command(rich_help_panel=STAGES)
def figures(run: RunName) -> None:
    """Draw a run: confusion matrices, curves, fused vectors, time scales, speakers."""
    one_thread_each()  # t-SNE and BLAS on small arrays: more threads only wait for each other
    from timnet.reporting import figures as stage

    workspace, params = open_workspace()
    params.run(run)
    source, target = workspace.run_results(run), workspace.figures(run)
    with replacing_folder(target) as partial:
        for name, figure in stage.all_figures(source):
            stage.save(figure, partial / name)
            say(f"{run}: {name}")


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Make the report: one HTML page with all tables and figures, for any browser, offline."""
    from timnet.reporting import gather
    from timnet.reporting import report as stage

    workspace, params = open_workspace()
    runs = gather.scored_runs(workspace, params.runs)
    found = gather.validations(workspace, params.corpora)
    described = gather.descriptions(workspace, params.corpora)
    made = gather.all_tables(workspace, runs, found, described)
    drawn = {run.name: workspace.figures(run.name) for run in runs}
    overview = workspace.tables / f"{made[0].name}.svg"
    page = stage.page(made, overview, runs, drawn, found, described)
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
