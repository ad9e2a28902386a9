"""`timnet runs`: what the paper's tables need, what of it is here, and entries for params.yaml."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import app, open_workspace, say
from timnet.corpora import CUSTOM
from timnet.corpora.custom import CONTRACT
from timnet.errors import ParameterError, suggestion
from timnet.paths import Workspace, write_text
from timnet.project.params import Params

if TYPE_CHECKING:
    from timnet.paper.runs import Entries


@app.command(name="runs")
def list_runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE...] [CORPUS...]",
            help="Of --add: which tables, and for which corpora (default: those of params.yaml); "
            "or one custom corpus.",
        ),
    ] = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Write what tables, or a custom corpus, need to params.yaml."),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Of --add: networks of each fold; 1 by default, 10 of table-2."
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove results of what params.yaml does not name.")
    ] = False,
) -> None:
    """List what the paper's tables need; --add writes it to params.yaml."""
    workspace, params = open_workspace()
    if seeds and not add:
        raise ParameterError("--seeds is for --add.")
    if prune:
        if names or add:
            raise ParameterError(
                "--prune cannot be combined with other options: it checks all results."
            )
        _prune(workspace, params)
    elif add:
        _refuse_paths(names or [])
        custom = [name for name in names or [] if (workspace.corpus(name) / CONTRACT).exists()]
        if custom and names != custom[:1]:
            raise ParameterError(
                f"{custom[0]} is a custom corpus: `timnet runs --add {custom[0]}` alone."
            )
        if custom:
            _add_custom(workspace, custom[0], seeds)
        else:
            _add(workspace, params, *_tables_and_corpora(names or []), seeds)
    elif names:
        raise ParameterError("all tables and corpora are listed; names are for --add.")
    else:
        _show(workspace, params)


def _refuse_paths(names: list[str]) -> None:
    """Stop at `data/mine/` for `mine`, as shells complete it."""
    for name in names:
        if Path(name).name != name:
            raise ParameterError(f"{name!r} is a path; give a name alone: {Path(name).name!r}.")


def _tables_and_corpora(names: list[str]) -> tuple[list[str], list[str]]:
    """Tables and corpora of the paper among some names, each once."""
    from timnet.paper import runs as paper_runs

    known = paper_runs.corpora_of("table-1")
    for name in names:
        if name not in (*paper_runs.TABLES, *known):
            near = suggestion(name, (*paper_runs.TABLES, *known))
            raise ParameterError(
                f"{name!r} is neither a table ({', '.join(paper_runs.TABLES)}) nor a corpus of the "
                f"paper ({', '.join(known)}), nor, named alone, a custom corpus in data/.{near}"
            )
    distinct = dict.fromkeys(names)
    tables = [name for name in distinct if name in paper_runs.TABLES]
    if not tables:
        raise ParameterError(f"name a table as well: {', '.join(paper_runs.TABLES)}.")
    return tables, [name for name in distinct if name in known]


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

    from timnet.paper import runs as paper_runs

    console = Console(width=None if sys.stdout.isatty() else 100)
    for table, meaning in paper_runs.TABLES.items():
        shown = Table(title=f"{table}: {meaning}", title_justify="left", box=None, pad_edge=False)
        for column, width in (("run", 18), ("recordings", 38), ("in params.yaml", 14)):
            shown.add_column(column, min_width=width)
        shown.add_column("results")
        made = paper_runs.entries(table, list(paper_runs.corpora_of(table)))
        # pairs, ablations and baselines of a corpus on one line
        lines: dict[str, list[str]] = {}
        for name, entry in (made.get("runs") or made["transfers"]).items():
            corpus = _corpora(entry, made)[0]
            endings = {"table-2": "to-*", "table-2-adapted": "adapted-to-*"}
            endings |= {"table-2-baseline": "svm*-to-*", "table-s3": "*", "baseline": "svm-*"}
            ending = endings.get(table)
            lines.setdefault(f"{corpus}-{ending}" if ending else name, []).append(name)
        for line, own in lines.items():
            entries = [(made.get("runs") or made["transfers"])[name] for name in own]
            needed = {corpus for entry in entries for corpus in _corpora(entry, made)}
            missing = sorted(c for c in needed if not workspace.corpus(c).is_dir())
            shown.add_row(
                line,
                f"missing: {', '.join(missing)}" if missing else "here",
                _count(name in params.scored for name in own),
                _count((workspace.run_results(name) / "metrics.json").exists() for name in own),
            )
        console.print(shown, "")
    say("`timnet runs --add TABLE... CORPUS...` writes entries to params.yaml.")


def _count(given: Any) -> str:
    found = list(given)
    if len(found) == 1:
        return "yes" if found[0] else "no"
    return f"{sum(found)} of {len(found)}"


def _corpora(entry: dict[str, Any], made: Entries) -> list[str]:
    """The corpora that an entry of some section needs."""
    if "source" in entry:
        return [made["sources"][entry["source"]]["trained_on"], entry["tested_on"]]
    return [entry["trained_on"]]


def _add(
    workspace: Workspace,
    params: Params,
    tables: list[str],
    corpora: list[str],
    seeds: int | None,
) -> None:
    """Write what tables need to params.yaml, with corpora and feature sets.

    Args:
        corpora: those of params.yaml that a table has, if none is named.
    """
    from timnet.paper import runs as paper_runs

    made = []
    for table in tables:
        known = paper_runs.corpora_of(table)
        own = corpora or [each for each in params.corpora if each in known]
        if not own:
            raise ParameterError(
                f"params.yaml has no corpus of {table}. Name one: {', '.join(known)}."
            )
        # ablations with the whole network, which they are held against
        for each in ("table-1", table) if table == "table-s3" else (table,):
            made.append(paper_runs.entries(each, own, seeds))
    written = _enter(workspace, made, {})
    if not written:
        of = f" for {', '.join(corpora)}" if corpora else ""
        kept = " Seeds of its entries stay as they are: change them there." if seeds else ""
        say(f"params.yaml already has all of {', '.join(tables)}{of}.{kept}")
        return
    say(f"added to params.yaml: {', '.join(written)}. `timnet status` estimates their cost.")


def _add_custom(workspace: Workspace, name: str, seeds: int | None) -> None:
    """A random and a speaker-independent run of a custom corpus, of lengths that fit it, and the
    model of the second.
    """
    from timnet import schemas
    from timnet.cli.common import bar
    from timnet.corpora import custom
    from timnet.dataset import manifest, proposals

    recipe = custom.load(workspace.corpus(name))
    if workspace.manifest(name).is_file():
        table = schemas.read(workspace.manifest(name), schemas.MANIFEST)
    else:
        with bar(f"manifest {name}", recipe.utterances) as advance:
            table = manifest.build(recipe, workspace.corpus(name), advance)
    length = proposals.signal_length(table)
    made = proposals.entries(name, table, length, seeds or 1)
    written = _enter(workspace, [made], {name: CUSTOM})
    seconds = length / proposals.SAMPLE_RATE
    whole = proposals.share_within(table, length)
    say(f"{name}: signals of {seconds:.1f} s hold {whole:.0%} of the recordings whole")
    if len(recipe.speakers) < 2:
        say(f"{name}: one speaker, so no speaker-independent run is possible")
    if not written:
        kept = " Their seeds stay as they are: change them there." if seeds else ""
        say(f"params.yaml already has runs of these names: {', '.join(made['runs'])}.{kept}")
        return
    say(f"added to params.yaml: {', '.join(written)}. `timnet status` estimates their cost.")


def _enter(workspace: Workspace, made: list[Entries], modules: dict[str, str]) -> list[str]:
    """Write entries to params.yaml with the corpora and features that they need; what is new.

    Args:
        modules: of `timnet.corpora`, that read these corpora; by default that of the same name.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(workspace.params)
    written = [name for each in made for name in _write(content, each, modules)]
    if written:
        text = io.StringIO()
        yaml.dump(content, text)
        write_text(workspace.params, text.getvalue())
    return written


def _write(content: Any, made: Entries, modules: dict[str, str]) -> list[str]:
    """Put entries into the content of params.yaml; the names of those that were not there."""
    from ruamel.yaml.comments import CommentedMap

    written = []
    for section, entries in made.items():
        if not content.get(section):  # `sources: {}`, which would stay in a line
            content[section] = CommentedMap()
        for name, entry in entries.items():
            if name in content[section]:
                continue
            for corpus in _corpora(entry, made) if section not in ("recipes", "models") else ():
                _append(content["corpora"], corpus, modules.get(corpus, corpus))
                length = entry["signal_length"]
                features = _in_a_line({"corpus": corpus, "signal_length": length})
                content["features"]["sets"].setdefault(f"{corpus}-{length}", features)
            if section == "recipes":  # before the last, whose comments end the section
                content[section].insert(0, name, _in_a_line(entry))
            elif section in ("transfers", "models"):
                _append(content[section], name, _in_a_line(entry))
            else:
                lines = {key: _in_a_line(value) for key, value in entry.items()}
                _append(content[section], name, lines)
            written.append(name)
    return written


def _append(entries: Any, name: str, value: Any) -> None:
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
