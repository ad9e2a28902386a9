"""One command a stage of dvc.yaml: stage = command = function of the library."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import (
    app,
    bar,
    bars,
    device,
    need_compiler,
    open_workspace,
    say,
    timed,
    workers,
)
from timnet.paths import Workspace, as_json, write_json

if TYPE_CHECKING:
    from timnet.dataset.features import FeatureSettings
    from timnet.project.params import Params, Run
    from timnet.training.stack import TrainSettings

STAGES = "Stages, as `dvc repro` calls them"

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus of params.yaml.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run of params.yaml.")]


@app.command(rich_help_panel=STAGES)
def manifest(corpus: CorpusName) -> None:
    """List a corpus: utterance, speaker, emotion, headers and hash of every recording."""
    from timnet import corpora, schemas
    from timnet.dataset import manifest as stage

    workspace, params = open_workspace()
    recipe = corpora.corpus(params.corpus(corpus), workspace.data)
    shown = bar(corpus, recipe.utterances)
    with timed(workspace, f"manifest@{corpus}") as done, shown as advance:
        table = stage.build(recipe, workspace.corpus(corpus), advance)
        done["work"] = len(table)
        schemas.write(table, workspace.manifest(corpus), schemas.MANIFEST)
    say(f"{corpus}: {len(table)} utterances, {len(set(table['speaker'].to_pylist()))} speakers")


@app.command(rich_help_panel=STAGES)
def validate(corpus: CorpusName) -> None:
    """Check a manifest against the contract of its corpus; stop at what is wrong."""
    from timnet import corpora, records, schemas
    from timnet.dataset import validate as stage

    workspace, params = open_workspace()
    recipe = corpora.corpus(params.corpus(corpus), workspace.data)
    with timed(workspace, f"validate@{corpus}") as done:
        table = schemas.read(workspace.manifest(corpus), schemas.MANIFEST)
        done["work"] = len(table)
        summary = stage.validate(recipe, table, workspace.data_docs(corpus))
        stage.require_passed(summary)
        write_json(workspace.validation(corpus), summary)
        write_json(workspace.description(corpus), recipe.description)
    failed = [check["message"] for check in summary["checks"] if not check["passed"]]
    for message in failed:
        say(f"{corpus}: warning: {message}")
    say(f"{corpus}: {records.originals(summary)}")
    say(f"{corpus}: {len(summary['checks'])} checks, {len(failed)} warnings")


@app.command(rich_help_panel=STAGES)
def features(
    name: Annotated[str, typer.Argument(metavar="SET", help="A feature set of params.yaml.")],
) -> None:
    """Extract the MFCC of a corpus at a signal length."""
    from timnet import schemas
    from timnet.dataset import features as stage

    workspace, params = open_workspace()
    wanted = params.feature_set(name)
    settings = stage.FeatureSettings(wanted.signal_length, params.features.resampler)
    table = schemas.read(workspace.manifest(wanted.corpus), schemas.MANIFEST)
    folder = workspace.corpus(wanted.corpus)
    with timed(workspace, f"features@{name}") as done, bar(name, len(table)) as advance:
        done["work"] = len(table)
        target, shards = workspace.features(name), workspace.shards(name)
        stage.extract(table, folder, settings, target, shards, workers(), advance)
    say(f"{name}: {len(table)} utterances x {settings.frames} frames x {settings.coefficients}")


@app.command(rich_help_panel=STAGES)
def folds(run: RunName) -> None:
    """Say which utterance is tested in which fold."""
    from timnet import corpora, schemas
    from timnet.dataset import folds as stage

    workspace, params = open_workspace()
    settings = params.run(run)
    manifests = [
        schemas.read(workspace.manifest(corpus), schemas.MANIFEST) for corpus in settings.corpora
    ]
    number, seeds = settings.folds.number, settings.folds.seeds
    if settings.folds.protocol == "cross-corpus":
        table = stage.cross_table(*manifests)
    elif number is not None and seeds is not None:
        table = stage.random_table(manifests[0], number, seeds)
    else:
        recipe = corpora.corpus(settings.trained_on, workspace.data)
        table = stage.speaker_table(manifests[0], recipe)
    schemas.write(table, workspace.folds(run), schemas.FOLDS)
    say(f"{run}: {len(set(table['fold'].to_pylist()) - {-1})} folds of {settings.folds.protocol}")


@app.command(rich_help_panel=STAGES)
def train(run: RunName) -> None:
    """Train every fold and seed of a run; stopped, it goes on where it was."""
    from timnet import schemas
    from timnet.dataset import features
    from timnet.project import provenance
    from timnet.project.estimates import training_work
    from timnet.training import train as stage

    workspace, params = open_workspace()
    settings = params.run(run)
    training, place = training_settings(params, settings), device()
    sources = sources_of(workspace, settings)
    wanted = features.FeatureSettings(settings.signal_length, params.features.resampler)
    labels, made = _labels_and_features(sources, settings, wanted)
    split = schemas.read(workspace.folds(run), schemas.FOLDS)
    utterances = len(set(split["utterance"].to_pylist()))
    record = {
        "commit": provenance.commit(workspace.root),
        "device": place,
        "device_name": provenance.device_name(place),
        "features": made,
        "folds": settings.folds.model_dump(exclude_none=True),
        "labels": labels,
        "seeds": settings.seeds,
        "tested_on": settings.tested_on,
        "train": asdict(training),
        "trained_on": settings.trained_on,
        "utterances": utterances,
        "versions": provenance.versions(),
    }
    shown = training_progress(run, training.epochs, workspace.progress(f"train@{run}"))
    with timed(workspace, f"train@{run}") as done, shown as report:
        result = stage.train(
            sources,
            split,
            labels,
            training,
            settings.seeds,
            settings.folds.protocol == "random",
            workspace.checkpoints(run),
            place,
            workers(place),
            report,
            say,
        )
        stage.write(result, workspace.training(run), as_json(record))
        size = training_work(settings, utterances)
        done |= {"kind": f"train {settings.precision}", "work": size * report.epochs}
    shutil.rmtree(workspace.checkpoints(run))  # those of other settings too


def _labels_and_features(
    sources: list[Path], run: Run, wanted: FeatureSettings
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What a run's networks tell apart, and how their features were made.

    Labels are taken from the features and not from the recipe, which for custom corpora is
    among the recordings: machines that train need none of these.
    """
    from timnet.corpora.corpus import SHARED_EMOTIONS
    from timnet.dataset import features

    tables, records = zip(*(features.read(source, wanted) for source in sources), strict=True)
    if run.folds.protocol == "cross-corpus":
        return SHARED_EMOTIONS, records[0]
    return tuple(sorted(set(tables[0]["emotion"].to_pylist()))), records[0]


def training_settings(params: Params, run: Run) -> TrainSettings:
    """How a run is trained here.

    Raises:
        ParameterError: kernels are to be compiled where there is nothing to do it with.
    """
    from timnet.training.stack import TrainSettings

    chosen = {**params.train.model_dump(), **run.network.model_dump(), "precision": run.precision}
    if chosen["compiled"]:
        need_compiler(device())
    return TrainSettings(**chosen)


def sources_of(workspace: Workspace, run: Run) -> list[Path]:
    """Files of the features that a run reads."""
    return [workspace.features(name) for name in run.features]


class TrainingReport:
    """Takes what training tells of itself; counts the epochs that were trained meanwhile."""

    def __init__(self, show: Callable[[Any, int], None]) -> None:
        self._show = show
        self._first, self._last = dict[int, int](), dict[int, int]()

    def __call__(self, message: Any) -> None:
        self._first.setdefault(message.part, message.epoch - 1)
        self._last[message.part] = message.epoch
        self._show(message, sum(self._last.values()))

    @property
    def epochs(self) -> int:
        """Of all networks, without those of checkpoints that training went on from."""
        return sum(self._last.values()) - sum(self._first.values())


@contextmanager
def training_progress(run: str, epochs: int, file: Path | None = None) -> Iterator[TrainingReport]:
    """One line: epochs done of all parts, loss, accuracy, time left. In a log, now and then.

    Once a second at most the same goes to `file`, for who watches from outside.
    """
    from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    told = written = time.monotonic()
    with bars(*columns) as progress:
        task = progress.add_task(run, total=None, figures="")

        def show(message: Any, done: int) -> None:
            nonlocal told, written
            total = message.parts * epochs
            figures = f"loss {message.loss:.3f}, test accuracy {100 * message.accuracy:.1f} %"
            progress.update(task, total=total, completed=done, figures=figures)
            if file and time.monotonic() - written > 1:
                written = time.monotonic()
                record = {"done": done, "total": total, "unit": "fold-epochs"}
                write_json(file, {**record, "figures": figures})
            if not progress.console.is_terminal and time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"{run}: {done} of {total} fold-epochs, {figures}")

        try:
            yield TrainingReport(show)
        finally:
            if file:
                file.unlink(missing_ok=True)
