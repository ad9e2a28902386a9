"""`timnet runs`: what the paper's tables need, what of it is here, and entries for params.yaml."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer

from timnet.cli.common import app, open_workspace, say
from timnet.errors import ParameterError
from timnet.paths import Workspace, write_text
from timnet.project.params import Params


@app.command(name="runs")
def list_runs(
    corpora: Annotated[
        list[str] | None, typer.Argument(metavar="[CORPUS...]", help="Corpora for --add.")
    ] = None,
    add: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Write the runs of a table to params.yaml.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove results of runs that params.yaml does not name.")
    ] = False,
) -> None:
    """List the runs that the paper's tables need; --add writes them to params.yaml."""
    workspace, params = open_workspace()
    if prune:
        if corpora or add:
            raise ParameterError(
                "--prune cannot be combined with other options: it checks all results."
            )
        _prune(workspace, params)
    elif add is None:
        if corpora:
            raise ParameterError("name a table as well: `timnet runs --add TABLE CORPUS...`.")
        _show(workspace, params)
    else:
        _add(workspace, params, add, corpora or list(params.corpora))


def _prune(workspace: Workspace, params: Params) -> None:
    from timnet.project.leftovers import leftovers, remove

    found = leftovers(workspace, params)
    for path in found:
        say(f"{path}: not in params.yaml")
    remove(workspace, found)
    say("removed; git has them still." if found else "every result is of a run in params.yaml.")


def _show(workspace: Workspace, params: Params) -> None:
    from rich.console import Console
    from rich.table import Table

    from timnet.paper import paper
    from timnet.paper import runs as paper_runs

    console = Console(width=None if sys.stdout.isatty() else 100)
    for table, meaning in paper_runs.TABLES.items():
        shown = Table(title=f"{table}: {meaning}", title_justify="left", box=None, pad_edge=False)
        for column, width in (("run", 18), ("recordings", 38), ("in params.yaml", 14)):
            shown.add_column(column, min_width=width)
        shown.add_column("results")
        known = paper_runs.CROSS_CORPORA if table == "table-2" else paper()["fold_seed"]
        runs = paper_runs.runs(table, list(known))
        # pairs and ablations of a corpus on one line
        lines: dict[str, list[str]] = {}
        for name, run in runs.items():
            ending = {"table-2": "to-*", "table-s3": "*"}.get(table)
            lines.setdefault(f"{run['trained_on']}-{ending}" if ending else name, []).append(name)
        for line, names in lines.items():
            needed = {corpus for name in names for corpus in _corpora(runs[name])}
            missing = sorted(c for c in needed if not workspace.corpus(c).is_dir())
            shown.add_row(
                line,
                f"missing: {', '.join(missing)}" if missing else "here",
                _count(name in params.runs for name in names),
                _count((workspace.run_results(name) / "metrics.json").exists() for name in names),
            )
        console.print(shown, "")
    say("`timnet runs --add TABLE CORPUS...` writes entries to params.yaml.")


def _count(given: Any) -> str:
    found = list(given)
    if len(found) == 1:
        return "yes" if found[0] else "no"
    return f"{sum(found)} of {len(found)}"


def _corpora(run: dict) -> set[str]:
    return {run["trained_on"], run["tested_on"]}


def _add(workspace: Workspace, params: Params, table: str, corpora: list[str]) -> None:
    from ruamel.yaml import YAML

    from timnet.paper import runs as paper_runs

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(workspace.params)
    corpora = list(dict.fromkeys(corpora))
    wanted = paper_runs.runs(table, corpora)
    if table == "table-s3":  # with the whole network, which ablations are held against
        wanted = paper_runs.runs("table-1", corpora) | wanted
    added = []
    for name, run in wanted.items():
        if name in content["runs"]:
            continue
        for corpus in sorted(_corpora(run)):
            _append(content["corpora"], corpus, corpus)
            features = {"corpus": corpus, "signal_length": run["signal_length"]}
            content["features"]["sets"].setdefault(
                f"{corpus}-{run['signal_length']}", _in_a_line(features)
            )
        for part in ("folds", "network"):
            run[part] = _in_a_line(run[part])
        run["seeds"] = _in_a_line(run["seeds"])
        content["runs"][name] = run
        added.append(name)
    if not added:
        say(f"params.yaml already has the runs of {table} for {', '.join(corpora)} already.")
        return
    text = io.StringIO()
    yaml.dump(content, text)
    write_text(workspace.params, text.getvalue())
    say(f"added to params.yaml: {', '.join(added)}. `timnet status` estimates their cost.")


def _append(entries: Any, name: str, value: str) -> None:
    """Append what a YAML mapping has not; the blank line after its last entry stays at the end."""
    if name not in entries:
        last = next(reversed(entries), None)
        entries[name] = value
        if last in entries.ca.items:
            entries.ca.items[name] = entries.ca.items.pop(last)


def _in_a_line(value: Any) -> Any:
    """A mapping or list that YAML writes as `{a: 1}` or `[1]`, lists inside it too."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if not isinstance(value, (dict, list)):
        return value
    if isinstance(value, dict):
        value = {key: _in_a_line(inner) for key, inner in value.items()}
    result = (CommentedMap if isinstance(value, dict) else CommentedSeq)(value)
    result.fa.set_flow_style()
    return result
