"""Whether a result holds: against another revision, and against training it again."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import app, device, open_workspace, read_json, say, workers
from timnet.cli.stages import RunName, sources_of, training_progress, training_settings
from timnet.errors import ArtifactError, ParameterError
from timnet.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@app.command()
def compare(
    revision: Annotated[str, typer.Argument(help="A commit, branch or tag.")],
) -> None:
    """Compare the results here with those of another revision, as Markdown for a pull request."""
    from timnet import records, render, tables
    from timnet.score import MEANING
    from timnet.tables import Cell, Table

    workspace, _ = open_workspace()
    commit = _git(workspace, "rev-parse", "--short=10", "--verify", f"{revision}^{{commit}}")
    if commit is None:
        raise ParameterError(f"{revision!r} is no revision of this repository.")
    theirs = commit.decode().strip()
    here = {path.parent.name for path in workspace.run_results("x").parent.glob("*/metrics.json")}
    listed = _git(workspace, "ls-tree", "-r", "--name-only", theirs, "results/") or b""
    names = listed.decode().splitlines()
    there = {Path(name).parent.name for name in names if name.endswith("/metrics.json")}
    rows = []
    for run in sorted(here | there):
        if run not in here or run not in there:
            state = "new here" if run in here else f"not here, but in {theirs}"
            rows.append([Cell(run), Cell(state), *[Cell("")] * 5])
            continue
        folder = f"results/runs/{run}"
        shapes = {"metrics.json": records.Metrics, "run.json": records.Run}
        mine = {p: read_json(workspace.root / folder / p, shape) for p, shape in shapes.items()}
        old = {p: _old(workspace, theirs, f"{folder}/{p}", shape) for p, shape in shapes.items()}
        changes = _changes(workspace, theirs, run, mine["run.json"], old["run.json"])
        for protocol in (p for p in MEANING if p in mine["metrics.json"]):
            for name in ("uar", "war"):
                before = old["metrics.json"].get(protocol, {}).get(name)
                after = mine["metrics.json"][protocol][name]
                points = [tables.signed(value) for value in changes.get(protocol, {}).get(name, ())]
                rows.append(
                    [
                        Cell(run),
                        Cell(protocol),
                        Cell(name.upper()),
                        Cell(tables.print_figure(before)),
                        Cell(tables.print_figure(after)),
                        Cell(points[0] if points else tables.NO_FIGURE),
                        Cell(f"{points[1]} to {points[2]}" if points else tables.NO_FIGURE),
                    ]
                )
    columns = ("run", "protocol", "figure", theirs, "here", "change", "95 % of the change")
    table = Table(
        "compare", f"Results against {revision}", columns, rows, _notes(workspace, theirs)
    )
    say(render.markdown(table))


def _changes(
    workspace: Workspace, revision: str, run: str, mine: dict, old: dict
) -> dict[str, dict[str, tuple]]:
    """Points of each protocol with their interval, where both tested the same utterances."""
    import pyarrow.parquet as pq

    from timnet import intervals, score

    if mine["labels"] != old["labels"] or mine["folds"]["protocol"] != old["folds"]["protocol"]:
        return {}
    path = f"results/runs/{run}/predictions.parquet"
    ours = pq.read_table(workspace.root / path)
    theirs = pq.read_table(io.BytesIO(_show(workspace, revision, path)))
    labels, folds = tuple(mine["labels"]), mine["folds"]["protocol"]
    here, there = (score.tests(predictions, labels, folds) for predictions in (ours, theirs))
    return {
        protocol: intervals.difference(tested.truth, tested.hits, there[protocol].hits)
        for protocol, tested in here.items()
        if there[protocol].utterances == tested.utterances
    }


def _notes(workspace: Workspace, revision: str) -> list[str]:
    """Which tables differ, and how sure the changes are."""
    changed = _git(workspace, "diff", "--name-only", revision, "--", "results/tables/*.md") or b""
    tables = sorted(Path(line).stem for line in changed.decode().splitlines())
    return [
        "95 %: paired bootstrap over the utterances that both tested; an interval that holds 0 is "
        "no change that the corpus could show.",
        f"tables that changed: {', '.join(tables) or 'none'}.",
    ]


def _old(workspace: Workspace, revision: str, path: str, shape: Any) -> Any:
    """The content of a JSON file at another revision."""
    from timnet import records

    try:
        return records.parse(_show(workspace, revision, path), shape)
    except records.Damaged as error:
        raise ArtifactError(f"{path} at {revision}: {error}. Compare with another one.") from None


def _show(workspace: Workspace, revision: str, path: str) -> bytes:
    content = _git(workspace, "show", f"{revision}:./{path}")
    if content is None:
        raise ArtifactError(f"{revision} has no {path}, though other files of that run.")
    return content


def _git(workspace: Workspace, *arguments: str) -> bytes | None:
    """What git prints; None if it fails."""
    done = subprocess.run(["git", *arguments], cwd=workspace.root, capture_output=True)
    return None if done.returncode else done.stdout


@app.command()
def verify(
    run: RunName,
    fold: Annotated[int, typer.Option(help="The fold to train again, from 0.")] = 0,
) -> None:
    """Train a fold of a committed run again, and say whether the same bits come out.

    Reads the cached features and leaves results/ and build/train/ as they are.
    """
    from timnet import provenance, records, schemas
    from timnet import train as stage

    workspace, params = open_workspace()
    settings = params.run(run)
    results = workspace.run_results(run)
    record = read_json(results / "run.json", records.Run)
    split = schemas.read(workspace.folds(run), schemas.FOLDS)
    known = sorted(set(split["fold"].to_pylist()) - {-1})
    if fold not in known:
        raise ParameterError(f"{run} has no fold {fold}; it has {known[0]} to {known[-1]}.")
    training, place = training_settings(params, settings), device()
    checkpoints = workspace.checkpoints(f"{run}-verify")
    with training_progress(f"{run}, fold {fold}", training.epochs) as report:
        again = stage.train(
            sources_of(workspace, settings),
            split,
            tuple(record["labels"]),
            training,
            settings.seeds,
            settings.folds.protocol == "random",
            checkpoints,
            place,
            workers(),
            report,
            say,
            fold,
        )
    shutil.rmtree(checkpoints)
    schema = again.predictions.schema
    kept = schemas.read(results / "predictions.parquet", schema)
    history = schemas.read(results / "history.parquet", schemas.HISTORY)
    said = _verdict(_of_fold(kept, fold), again.predictions, _of_fold(history, fold), again.history)
    say(f"{run}, fold {fold}: {said}")
    now = {
        "commit": provenance.commit(workspace.root),
        "device_name": provenance.device_name(place),
        "versions": provenance.versions(),
        "train": asdict(training),
    }
    for name, value in _differing(now, record):
        say(f"  {name}: {value[0]} here, {value[1]} then")


def _of_fold(table: pa.Table, fold: int) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["fold"], fold))


def _verdict(kept: pa.Table, again: pa.Table, history: pa.Table, new: pa.Table) -> str:
    import numpy as np

    if kept.equals(again) and history.equals(new):
        return f"the same bits, {len(kept)} predictions and {len(history)} epochs"
    if kept["utterance"].to_pylist() != again["utterance"].to_pylist():
        return "other utterances are tested: the folds or the features are not those of the run"

    def last(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(table["epoch_kind"].to_pylist()) == "last"
        logits = np.array(table["logits"].to_pylist())[rows]
        return logits, logits.argmax(1)

    (logits, told), (others, tells) = last(kept), last(again)
    losses = [np.array(table["train_loss"]) for table in (history, new)]
    apart = np.flatnonzero(losses[0] != losses[1])
    since = f"training losses differ from epoch {apart[0] + 1} on; " if len(apart) else ""
    return (
        f"NOT the same bits: {since}logits of the last epoch differ by up to "
        f"{np.abs(logits - others).max():.2g}, {int((told != tells).sum())} of {len(told)} "
        "utterances are recognised as another emotion"
    )


def _differing(now: dict, then: dict) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Entries of `now` that were different, those of inner mappings by their own name."""
    for name, value in now.items():
        if isinstance(value, dict):
            yield from _differing(value, then[name])
        elif then.get(name) != value:
            yield name.removesuffix("_name"), (value, then.get(name))
