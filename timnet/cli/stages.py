"""One command a stage of dvc.yaml: stage = command = function of the library."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
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
from timnet.errors import ParameterError
from timnet.paths import Workspace, as_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from timnet.project.params import Params, Trained
    from timnet.training.stack import TrainSettings
    from timnet.training.train import Work

STAGES = "Stages, as `dvc repro` calls them"

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus of params.yaml.")]
SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="A source of params.yaml.")]
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
        summary = stage.validate(recipe, table)
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
    """Say which utterance each fold of a run trains on, chooses its epoch by and tests."""
    from timnet import corpora, schemas
    from timnet.dataset import folds as stage

    workspace, params = open_workspace()
    settings = params.run(run)
    chosen, corpus = settings.folds, settings.trained_on
    listed = schemas.read(workspace.manifest(corpus), schemas.MANIFEST)
    table = stage.table(
        listed,
        chosen.protocol,
        chosen.number,
        chosen.seeds,
        chosen.validation,
        lambda: corpora.corpus(corpus, workspace.data),
    )
    schemas.write(table, workspace.folds(run), schemas.FOLDS)
    say(f"{run}: {len(set(table['fold'].to_pylist()))} folds of {chosen.protocol}")


@app.command(rich_help_panel=STAGES)
def train(run: RunName) -> None:
    """Train every fold and seed of a run; stopped, it goes on where it was."""
    from timnet import schemas

    workspace, params = open_workspace()
    settings = params.run(run)
    split = schemas.read(workspace.folds(run), schemas.FOLDS)
    about = {
        "folds": settings.folds.model_dump(exclude_defaults=True),
        "tested_on": settings.trained_on,
    }
    labels, made = _labels_and_features(workspace, params, settings)
    _train(workspace, params, f"train@{run}", settings, split, about | {"features": made}, labels)


@app.command(rich_help_panel=STAGES)
def source(name: SourceName) -> None:
    """Train the networks of a source on a whole corpus; stopped, it goes on where it was."""
    from timnet.corpora.corpus import SHARED_EMOTIONS
    from timnet.dataset import features
    from timnet.dataset.folds import whole_table

    workspace, params = open_workspace()
    settings = params.source(name)
    labels, made = _labels_and_features(workspace, params, settings)
    shared = settings.emotions == "shared"
    table, _ = features.read(workspace.features(settings.features))
    split = whole_table(table, shared)
    about = {"folds": {"protocol": "whole"}, "features": made}
    labels = SHARED_EMOTIONS if shared else labels
    _train(workspace, params, f"source@{name}", settings, split, about, labels)


def _train(
    workspace: Workspace,
    params: Params,
    stage: str,
    settings: Trained,
    split: pa.Table,
    about: dict[str, Any],
    labels: tuple[str, ...],
) -> None:
    """Train what a run or source asks for, and write it below build/train.

    Args:
        stage: its name, such as `train@NAME`.
        split: folds, of `schemas.FOLDS`.
        about: what the record says beside what is the same for both.
        labels: the emotions in the order of their indices.
    """
    from timnet.project import provenance
    from timnet.project.estimates import in_slow_bf16, training_work
    from timnet.project.machine import SLOW_BF16
    from timnet.training import outcome
    from timnet.training import train as training
    from timnet.training.stack import TrainSettings

    name, utterances = stage.partition("@")[2], len(set(split["utterance"].to_pylist()))
    file = workspace.features(settings.features)
    place = "cpu" if settings.baseline else device()
    record = {
        "baseline": settings.baseline,
        "commit": provenance.commit(workspace.root),
        "device": place,
        "device_name": provenance.device_name(place),
        "labels": labels,
        "recipe": settings.recipe,
        "seeds": settings.seeds or [0],
        "trained_on": settings.trained_on,
        "utterances": utterances,
        "versions": provenance.versions(),
        **about,
    }
    target = workspace.training(name)
    work = training.Work([file], split, labels, TrainSettings(), record["seeds"])
    if settings.baseline:
        by = params.recipes[settings.recipe].normalise
        with timed(workspace, stage):
            result = training.train_baseline(work, by)
            outcome.write(result, target, as_json(record | {"train": {"normalise": by}}))
        return
    chosen = training_settings(params, settings, place)
    work = replace(work, settings=chosen, keep_best=keeps_best_on_test(record["folds"]))
    if place == "cpu" and in_slow_bf16(params, [stage]):
        say(f"{name}: {SLOW_BF16}.")
    checkpoints = workspace.checkpoints(name)
    shown = training_progress(name, work, workspace.progress(stage))
    with timed(workspace, stage) as done, shown as report:
        result = training.train(work, checkpoints, place, workers(place), report, say)
        text = as_json(
            {k: v for k, v in record.items() if v is not None} | {"train": asdict(chosen)}
        )
        outcome.write(result, target, text)
        size = training_work(settings, utterances)
        done |= {"kind": f"train {settings.precision}", "work": size * report.epochs}
    shutil.rmtree(checkpoints)  # those of other settings too


def keeps_best_on_test(folds: Mapping[str, Any]) -> bool:
    """Whether a run keeps the epoch that was best ON THE TEST FOLD, as the paper does."""
    return folds["protocol"] == "random" and not folds.get("validation")


def _labels_and_features(
    workspace: Workspace, params: Params, settings: Trained
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The emotions of a corpus, and how its features were made.

    Labels are taken from the features and not from the recipe, which for custom corpora is
    among the recordings: machines that train need none of these.
    """
    from timnet.dataset import features

    wanted = features.FeatureSettings(settings.signal_length, params.features.resampler)
    table, made = features.read(workspace.features(settings.features), wanted)
    return tuple(sorted(set(table["emotion"].to_pylist()))), made


def training_settings(params: Params, settings: Trained, place: str) -> TrainSettings:
    """How networks are trained here.

    Args:
        place: "cpu" or "cuda".

    Raises:
        ParameterError: kernels are to be compiled where there is nothing to do it with, or a
            precision that the machine has not.
    """
    from timnet.training.stack import TrainSettings

    assert settings.network is not None and settings.precision is not None
    recipe = params.recipes[settings.recipe]
    if recipe.compiled:
        need_compiler(place)
    if settings.precision == "tf32" and place != "cuda":
        raise ParameterError("precision tf32 is of a GPU, and there is none here; take fp32.")
    return TrainSettings(
        **recipe.model_dump(), **settings.network.model_dump(), precision=settings.precision
    )


class TrainingReport:
    """Takes what training tells of itself; counts the epochs that were trained meanwhile."""

    def __init__(self, show: Callable[[Any, int], None], networks: int) -> None:
        self._show, self._networks, self._parts = show, networks, 0
        self._first, self._last = dict[int, int](), dict[int, int]()

    def __call__(self, message: Any) -> None:
        if message.parts != self._parts:  # also when a GPU's memory was too small for fewer
            self._parts, self._first, self._last = message.parts, {}, {}
        self._first.setdefault(message.part, message.epoch - 1)
        self._last[message.part] = message.epoch
        self._show(message, self._of_all(self._last))

    @property
    def epochs(self) -> int:
        """Of all networks, without those of checkpoints that training went on from."""
        return self._of_all(self._last) - self._of_all(self._first)

    def _of_all(self, epochs: Mapping[int, int]) -> int:
        """Epochs of each part, times its networks: the first parts have one more than the last."""
        each, more = divmod(self._networks, max(self._parts, 1))
        return sum(count * (each + (part < more)) for part, count in epochs.items())


@contextmanager
def training_progress(
    run: str, work: Work, file: Path | None = None, only: int | None = None
) -> Iterator[TrainingReport]:
    """One line: epochs done of all networks, loss, accuracy, time left. In a log, now and then.

    Once a second at most the same goes to `file`, for who watches from outside.

    Args:
        only: the fold that is trained alone.
    """
    from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    folds = set(zip(*(work.folds[name].to_pylist() for name in ("fold_seed", "fold")), strict=True))
    networks = len(work.seeds) * sum(only in (None, fold) for _, fold in folds)
    total = networks * work.settings.epochs
    told = written = time.monotonic()
    with bars(*columns) as progress:
        task = progress.add_task(run, total=None, said="")

        def show(message: Any, done: int) -> None:
            nonlocal told, written
            said = f"loss {message.loss:.3f}"
            if message.accuracy == message.accuracy:  # else nothing is tested
                said += f", test accuracy {100 * message.accuracy:.1f} %"
            progress.update(task, total=total, completed=done, said=said)
            if file and time.monotonic() - written > 1:
                written = time.monotonic()
                record = {"done": done, "total": total, "unit": "fold-epochs"}
                write_json(file, {**record, "said": said})
            if not progress.console.is_terminal and time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"{run}: {done} of {total} fold-epochs, {said}")

        try:
            yield TrainingReport(show, networks)
        finally:
            if file:
                file.unlink(missing_ok=True)
