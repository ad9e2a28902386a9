"""Whether a result holds: against another revision, and against training it again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli import revisions
from timnet.cli.common import (
    app,
    device,
    need_compiler,
    open_workspace,
    read_json,
    say,
    workers,
)
from timnet.cli.people import measure_parity
from timnet.cli.results import result_of
from timnet.cli.stages import RunName, training_progress
from timnet.errors import ArtifactError, ParameterError, listing
from timnet.paths import Workspace
from timnet.project import git

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from timnet.evaluation.gate import Rule
    from timnet.training.stack import TrainSettings

CLOSED = 3  # exit status of `timnet gate`
TOLERANCE = 1.0  # points of UAR


class Protocol(StrEnum):
    published = "published"
    corrected = "corrected"
    speaker = "speaker"
    cross = "cross"


@app.command()
def compare(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="A commit, branch or tag.")],
) -> None:
    """Compare the results here with those of another revision, as Markdown for a pull request."""
    from timnet import records
    from timnet.evaluation import compare as changes
    from timnet.evaluation.score import MEANING
    from timnet.reporting import render
    from timnet.reporting.render import NO_FIGURE, Cell, Table, print_figure, signed

    workspace, params = open_workspace()
    theirs = revisions.commit_of(workspace.root, revision)
    here = {run for run in params.runs if (workspace.run_results(run) / "metrics.json").exists()}
    there = set(revisions.runs_of(workspace.root, theirs))
    rows, notes = [], []
    for run in sorted(here | there):
        if run not in here or run not in there:
            state = "new here" if run in here else f"not here, but in {theirs}"
            rows.append([Cell(run), Cell(state), *[Cell("")] * 5])
            continue
        ours = result_of(workspace, run)
        before = revisions.result_of(workspace.root, theirs, run)
        found = changes.changes(ours, before)
        differing = _differing(_made_with(ours.record), _made_with(before.record))
        if told := [f"{name} {new} here, {old} there" for name, (new, old) in differing]:
            notes.append(f"`{run}` was made in another way: {'; '.join(told)}.")
        path = workspace.run_results(run) / "metrics.json"
        new = read_json(path, records.Metrics)
        old = revisions.json_of(workspace.root, theirs, path, records.Metrics)
        for protocol in (p for p in MEANING if p in new):
            for name in ("uar", "war"):
                change = found.get(protocol)
                points = [signed(value) for value in change.points[name]] if change else []
                rows.append(
                    [
                        Cell(run),
                        Cell(protocol),
                        Cell(name.upper()),
                        Cell(print_figure(old.get(protocol, {}).get(name))),
                        Cell(print_figure(new[protocol][name])),
                        Cell(points[0] if points else NO_FIGURE),
                        Cell(f"{points[1]} to {points[2]}" if points else NO_FIGURE),
                    ]
                )
    columns = ("run", "protocol", "figure", theirs, "here", "change", "95 % of the change")
    table = Table(
        "compare",
        f"Results against {revision}",
        columns,
        rows,
        [*notes, *_notes(workspace, theirs)],
    )
    say(render.markdown(table))


def _notes(workspace: Workspace, revision: str) -> list[str]:
    """Which tables differ, and how sure the changes are."""
    names = ("diff", "--name-only", revision, "--", "results/tables/*.md")
    changed = git.ask(workspace.root, *names) or ""
    tables = sorted(Path(line).stem for line in changed.splitlines())
    return [
        "95 %: paired bootstrap over the utterances that both tested; an interval that holds 0 is "
        "no change that the corpus could show.",
        f"tables that changed: {', '.join(tables) or 'none'}.",
    ]


@app.command()
def gate(
    baseline: Annotated[
        str,
        typer.Argument(metavar="BASELINE", help="A commit, branch or tag to hold it against."),
    ],
    candidate: Annotated[str, typer.Option(help="The commit, branch or tag to judge.")] = "HEAD",
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option(help="Whose UAR counts; can be repeated. By default all honest ones."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Points by which a UAR may fall.")
    ] = TOLERANCE,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CORPUS=ZIP",
            help="The authors' weights, to check paper parity with; can be repeated.",
        ),
    ] = None,
) -> None:
    """Judge committed results: may they take the place of the baseline's? Exits with 3 if not."""
    from timnet.evaluation import gate as rules
    from timnet.reporting import render

    workspace = Workspace(Path())
    archives = dict(_weights_of(text) for text in weights or ())
    protocols = tuple(protocol or rules.HONEST)
    new, old = (revisions.commit_of(workspace.root, each) for each in (candidate, baseline))
    here, there = (
        {run: revisions.result_of(workspace.root, each, run) for run in runs}
        for each in (new, old)
        for runs in (revisions.runs_of(workspace.root, each),)
    )
    validations = revisions.validations_of(workspace.root, new)
    found = rules.judge(here, there, validations, protocols, tolerance)
    found += [_parity(corpus, archive, workspace) for corpus, archive in archives.items()]
    if not found:
        raise ArtifactError(f"{candidate} has no results that could be judged.")
    closed = rules.closed(found)
    notes = [
        f"Before: {baseline} at {old}. After: {candidate} at {new}. UAR in percent.",
        f"Tolerance in points of UAR: {tolerance:g}; protocols: {', '.join(protocols)}. The gate "
        f"closes where the whole interval of a change lies below {-tolerance:g}: paired bootstrap "
        "over the utterances that both tested.",
    ]
    title = f"The gate is {'closed' if closed else 'open'}"
    say(render.markdown(rules.table(found, title, notes)))
    if closed:
        lines = "\n".join(f"  - {each}" for each in closed)
        print(f"timnet: the gate is closed:\n{lines}", file=sys.stderr)
        raise typer.Exit(CLOSED)


def _weights_of(text: str) -> tuple[str, Path]:
    corpus, equals, path = text.partition("=")
    if not equals:
        raise ParameterError(f"--weights {text}: give CORPUS=ZIP, such as emovo=EMOVO_1.zip.")
    return corpus, Path(path)


def _parity(corpus: str, archive: Path, workspace: Workspace) -> Rule:
    from timnet.evaluation import gate

    if not archive.is_file():
        return gate.unchecked_parity(corpus, f"no file {archive}")
    folder = workspace.corpus(corpus)
    if not folder.is_dir():
        return gate.unchecked_parity(corpus, f"no recordings in data/{corpus}")
    found = measure_parity(corpus, folder, archive)
    of = int(found.confusion.sum())
    return gate.parity(corpus, found.uar, found.paper[0], found.correct, of, found.holds)


@app.command()
def verify(
    run: RunName,
    fold: Annotated[int, typer.Option(help="The fold to train again, from 0.")] = 0,
) -> None:
    """Train a fold of a committed run again, and say whether the same bits come out.

    With the settings that it was trained with, whatever params.yaml says by now. Reads the cached
    features and leaves results/ and build/train/ as they are.
    """
    from timnet import records, schemas
    from timnet.project import provenance
    from timnet.training import train as stage

    workspace, params = open_workspace()
    params.run(run)
    results = workspace.run_results(run)
    record = read_json(results / "run.json", records.Run)
    split = schemas.read(workspace.folds(run), schemas.FOLDS)
    known = sorted(set(split["fold"].to_pylist()) - {-1})
    if fold not in known:
        raise ParameterError(f"{run} has no fold {fold}; it has {known[0]} to {known[-1]}.")
    training, place = _trained_with(record, results / "run.json"), device()
    if training.compiled:
        need_compiler(place)
    length = record["features"]["settings"]["signal_length"]
    corpora = dict.fromkeys((record["trained_on"], record["tested_on"]))
    checkpoints = workspace.checkpoints(f"{run}-verify")
    with training_progress(f"{run}, fold {fold}", training.epochs) as report:
        again = stage.train(
            [workspace.features(f"{corpus}-{length}") for corpus in corpora],
            split,
            tuple(record["labels"]),
            training,
            record["seeds"],
            record["folds"]["protocol"] == "random",
            checkpoints,
            place,
            workers(place),
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
    }
    for name, value in _differing(now, record):
        say(f"  {name}: {value[0]} here, {value[1]} then")


def _trained_with(record: dict, path: Path) -> TrainSettings:
    from timnet.training.stack import TrainSettings

    known, given = {field.name for field in fields(TrainSettings)}, record["train"]
    if known != given.keys():
        raise ArtifactError(
            f"{path}: not trained with the settings that this version has "
            f"({listing(sorted(known ^ given.keys()))}). Verify it with the version that trained "
            "it, or train it again: `dvc repro`."
        )
    return TrainSettings(**given)


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


def _made_with(record: dict) -> dict:
    """Settings of a run: what its figures depend on, apart from code and data."""
    folds = {f"folds' {name}": value for name, value in record["folds"].items()}
    features = record["features"]["settings"]
    return {"seeds": record["seeds"], **folds, **features, **record["train"]}


def _differing(now: dict, then: dict) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Entries of `now` that were different, those of inner mappings by their own name."""
    for name, value in now.items():
        if isinstance(value, dict):
            yield from _differing(value, then[name])
        elif then.get(name) != value:
            yield name.removesuffix("_name"), (value, then.get(name))
