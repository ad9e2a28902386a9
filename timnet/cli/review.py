"""Whether a result holds: against another revision, and against training it again."""

from __future__ import annotations

import shutil
import sys
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timnet.cli.common import (
    app,
    device,
    need_compiler,
    open_workspace,
    say,
    workers,
)
from timnet.cli.parity import measure_parity
from timnet.cli.stages import RunName, keeps_best_on_test, training_progress
from timnet.errors import ArtifactError, ParameterError, listing
from timnet.evaluation.protocols import NOT_OPTIMISTIC, ORDER
from timnet.paths import Workspace

if TYPE_CHECKING:
    from timnet.evaluation.gate import Rule
    from timnet.records import RunRecord
    from timnet.training.stack import TrainSettings

CLOSED = 3  # exit status of `timnet gate`
TOLERANCE = 1.0  # points of UAR


Protocol = StrEnum("Protocol", {name.replace("-", "_"): name for name in ORDER})  # type: ignore[misc]


@app.command()
def compare(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="A commit, branch or tag.")],
) -> None:
    """Compare the results here with those of another revision, as Markdown for a pull request."""
    from timnet.project import revisions
    from timnet.reporting import render

    workspace, params = open_workspace()
    say(render.markdown(revisions.compared(workspace, params.scored, revision)))


@app.command()
def gate(
    baseline: Annotated[
        str,
        typer.Argument(metavar="BASELINE", help="The commit, branch or tag to compare with."),
    ],
    candidate: Annotated[str, typer.Option(help="The commit, branch or tag to judge.")] = "HEAD",
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option(
            help=("Protocol whose UAR counts; can be repeated. By default all except best-epoch.")
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Points by which a UAR may fall.")
    ] = TOLERANCE,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CORPUS=ZIP",
            help="The authors' weights, to check parity with the paper; can be repeated.",
        ),
    ] = None,
) -> None:
    """Judge committed results: may they take the place of the baseline's? Exits with 3 if not."""
    from timnet.evaluation import gate as rules
    from timnet.project import revisions
    from timnet.reporting import render, verdicts

    workspace = Workspace(Path())
    archives = dict(_weights_of(text) for text in weights or ())
    protocols = tuple(protocol or NOT_OPTIMISTIC)
    new, old = (revisions.commit_of(workspace.root, each) for each in (candidate, baseline))
    here, there = (
        {run: revisions.result_of(workspace.root, each, run) for run in runs}
        for each in (new, old)
        for runs in (revisions.runs_of(workspace.root, each),)
    )
    validations = revisions.validations_of(workspace.root, new)
    named = revisions.named_in(workspace.root, new)
    found = rules.judge(here, there, validations, protocols, tolerance, named)
    found += [_parity(corpus, archive, workspace) for corpus, archive in archives.items()]
    if not found:
        raise ArtifactError(f"{candidate} has no results to compare.")
    closed = verdicts.closed(found)
    notes = [
        f"Before: {baseline} at {old}. After: {candidate} at {new}. UAR in percent.",
        f"Tolerance in points of UAR: {tolerance:g}; protocols: {', '.join(protocols)}. The gate "
        f"closes if the whole interval of a change is below {-tolerance:g}: paired bootstrap over "
        "the utterances that both tested, first over their speakers or folds of sentences where "
        "these are unseen.",
    ]
    title = f"The gate is {'closed' if closed else 'open'}"
    say(render.markdown(verdicts.gate_table(found, title, notes)))
    if closed:
        lines = "\n".join(f"  - {each}" for each in closed)
        print(f"timnet: the gate is closed:\n{lines}", file=sys.stderr)
        raise typer.Exit(CLOSED)


def _weights_of(text: str) -> tuple[str, Path]:
    """Corpus and archive of `--weights CORPUS=ZIP`."""
    from timnet import corpora
    from timnet.evaluation import parity

    corpus, _, path = text.partition("=")
    if not path:
        raise ParameterError(f"--weights {text}: give CORPUS=ZIP, such as emovo=EMOVO_1.zip.")
    parity.settings(corpora.corpus(corpus))  # refuses those that the paper does not have
    if not Path(path).is_file():
        raise ParameterError(
            f"--weights {text}: no file {path}. Give the ZIP of the authors' weights for {corpus}."
        )
    return corpus, Path(path)


def _parity(corpus: str, archive: Path, workspace: Workspace) -> Rule:
    from timnet.evaluation import gate

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
    from timnet.evaluation.verify import differing, of_fold, verdict
    from timnet.project import provenance
    from timnet.training import train as stage
    from timnet.training.stack import TrainSettings

    workspace, params = open_workspace()
    params.run(run)
    results = workspace.run_results(run)
    record: RunRecord = records.read_artifact(results / "run.json", records.RunRecord)
    split = schemas.read(workspace.folds(run), schemas.FOLDS)
    known = sorted(set(split["fold"].to_pylist()))
    if fold not in known:
        raise ParameterError(f"{run} has no fold {fold}; it has {known[0]} to {known[-1]}.")
    length = record["features"]["settings"]["signal_length"]
    file, labels = workspace.features(f"{record['trained_on']}-{length}"), tuple(record["labels"])
    if record.get("baseline"):
        place = "cpu"
        work = stage.Work([file], split, labels, TrainSettings(), record["seeds"])
        again = stage.train_baseline(work, record["train"]["normalise"], fold)
    else:
        training, place = _trained_with(record, results / "run.json"), device()
        if training.compiled:
            need_compiler(place)
        best = keeps_best_on_test(record["folds"])
        work = stage.Work([file], split, labels, training, record["seeds"], best)
        checkpoints = workspace.checkpoints(f"{run}-verify")
        with training_progress(f"{run}, fold {fold}", work, only=fold) as report:
            again = stage.train(work, checkpoints, place, workers(place), report, say, fold)
        shutil.rmtree(checkpoints)
    schema = again.predictions.schema
    kept = schemas.read(results / "predictions.parquet", schema)
    history = schemas.read(results / "history.parquet", schemas.HISTORY)
    said = verdict(of_fold(kept, fold), again.predictions, of_fold(history, fold), again.history)
    say(f"{run}, fold {fold}: {said}")
    now = {
        "commit": provenance.commit(workspace.root),
        "device_name": provenance.device_name(place),
    }
    for name, value in differing(now, record):
        say(f"  {name}: {value[0]} here, {value[1]} in the run")
    for change in provenance.changed_versions(record):
        say(f"  {change}")


def _trained_with(record: RunRecord, path: Path) -> TrainSettings:
    from timnet.training.stack import TrainSettings

    known, given = {field.name for field in fields(TrainSettings)}, record["train"]
    if unknown := given.keys() - known:  # what an older one lacks is off
        raise ArtifactError(
            f"{path}: trained with settings that this version does not have "
            f"({listing(sorted(unknown))}). Verify it with the version that trained "
            "it, or train it again: `dvc repro`."
        )
    return TrainSettings(**given)
