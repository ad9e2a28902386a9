"""Commands about models: make one, show its card, take it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timnet.cli.common import (
    app,
    bar,
    file_to_write,
    open_workspace,
    say,
    timed,
    workers,
)
from timnet.cli.stages import STAGES
from timnet.processes import WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from timnet.models.build import TrainedRun
    from timnet.models.model import Model

USE = "Use trained models"
ModelOfParams = Annotated[str, typer.Argument(metavar="MODEL", help="A model of params.yaml.")]
ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name (emovo), a version (emovo@v1.2) or a file."),
]
Single = Annotated[bool, typer.Option("--single", help="Use one network only; otherwise all vote.")]


@app.command(rich_help_panel=USE)
def card(model: ModelName) -> None:
    """Print what a model is, what it was trained on and how good it is, as Markdown."""
    from timnet.models import card as cards
    from timnet.models import model as models
    from timnet.project.registry import model_file

    say(cards.markdown(models.read_card(model_file(model))))


@app.command(rich_help_panel=USE)
def export(
    model: ModelName,
    onnx: Annotated[
        Path, typer.Option(metavar="FILE", parser=file_to_write, help="The file to write.")
    ],
    with_features: Annotated[
        bool, typer.Option("--with-features", help="Include the feature extraction (MFCC).")
    ] = False,
    single: Single = False,
) -> None:
    """Write a model as ONNX, for programs without PyTorch, checked against PyTorch."""
    one_thread_each()
    from timnet.models import export as stage

    loaded = load_model(model)
    say_unenrolled(loaded)
    done = stage.write(loaded, onnx, with_features, single)
    say(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB, {_input(loaded, with_features)}")
    say(f"probabilities within {done.difference:.0e} of PyTorch's")
    say(
        f"{done.milliseconds:.1f} ms per recording in onnxruntime, {done.milliseconds_torch:.1f} "
        "ms in PyTorch, on one thread"
    )
    _tell_terms(loaded)


def _input(loaded: Model, with_features: bool) -> str:
    settings = loaded.settings
    if with_features:
        return (
            f"from signals of {settings.signal_length} samples at {settings.sample_rate} Hz, mono"
        )
    return f"from MFCC of {settings.frames} frames x {settings.coefficients}"


@app.command(rich_help_panel=STAGES)
def model(name: ModelOfParams) -> None:
    """Put a model into one file: networks, statistics of its training set, card."""
    one_thread_each()
    from timnet import records, schemas
    from timnet.models import build as stage
    from timnet.models import model as models

    workspace, params = open_workspace()
    chosen = params.model(name)

    def read(trained: str) -> TrainedRun:
        folder = workspace.training(trained)
        record = records.read_artifact(folder / "run.json", records.TrainedRecord)
        return stage.read_run(trained, folder, record)

    with timed(workspace, f"model@{name}") as done:
        run = read(chosen.run)
        source = None if chosen.networks == chosen.run else read(chosen.networks)
        table = schemas.read(workspace.manifest(chosen.corpus), schemas.MANIFEST)
        done["work"] = len(table)
        with bar(f"read {chosen.corpus}", len(table)) as advance:
            recordings = stage.read_recordings(
                table, workspace.corpus(chosen.corpus), run, workers(), advance
            )
        described = records.read_artifact(workspace.description(chosen.corpus), records.Description)
        made = stage.of_run(name, run, recordings, described, source, chosen.svm)
        models.save(made, workspace.model(name))
    _tell(made, workspace.model(name))


def _tell(made: Model, path: Path) -> None:
    from timnet.models.card import without_enrolment

    card = made.card
    number = made.network.networks
    say(
        f"{card.name}: {number} network{'s' * (number > 1)} of {card.data.title} in {path}, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )
    whose = card.name
    if card.networks == "whole":
        whose = card.run
        say(
            f"{card.name}: no data are left to test it on; the following scores are those of "
            f"run {card.run}"
        )
    for each in card.figures:
        say(f"{whose}: {each.protocol}: UAR {each.uar:.2f} %, WAR {each.war:.2f} %")
    if told := without_enrolment(card):
        say(f"{whose}: without enrolment, {told}")
    say(
        f"{whose}: expected calibration error {100 * card.calibration.error_before:.1f} %, "
        f"with temperature {card.calibration.temperature:.2f} "
        f"{100 * card.calibration.error_after:.1f} %"
    )
    _tell_terms(made)


def _tell_terms(made: Model) -> None:
    from timnet.models.card import terms

    say(f"{made.card.name}: {terms(made.card)}")


def one_thread_each() -> None:
    """Keep libraries from threads of their own beside ours; called before torch is imported."""
    from threadpoolctl import threadpool_limits

    os.environ.update(WORKER_ENVIRONMENT)
    threadpool_limits(1)  # of what is imported already


def load_model(name: str | None, to_enrol: bool = False) -> Model:
    """A model by name; without one that in the package, saying on stderr what it is worth.

    Args:
        to_enrol: whether a speaker will be enrolled.
    """
    from timnet.models import card as cards
    from timnet.models import model as models
    from timnet.project.registry import model_file

    if name is not None:
        return models.load(model_file(name))
    loaded = models.load(models.in_the_box(to_enrol))
    typer.echo(f"{cards.in_short(loaded.card)}\n", err=True)
    return loaded


def say_unenrolled(loaded: Model) -> None:
    """What it costs networks that adapt to speakers to be adapted to none."""
    from timnet.models.card import without_enrolment

    if told := without_enrolment(loaded.card):
        typer.echo(f"no speaker is enrolled (`--enrol`): {told}\n", err=True)
