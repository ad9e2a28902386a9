"""Commands that use what was trained: make a model, predict with it, show it, take it elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import (
    app,
    bar,
    device,
    need_compiler,
    open_workspace,
    read_json,
    say,
    timed,
    workers,
)
from timnet.cli.stages import STAGES
from timnet.errors import ArtifactError, AudioError, ParameterError, TrainingError, listing
from timnet.paths import Workspace, replacing
from timnet.processes import WORKER_ENVIRONMENT
from timnet.project import git

if TYPE_CHECKING:
    from timnet.models.build import Recordings, Run
    from timnet.models.model import Model
    from timnet.project.params import TrainedModel

USE = "Use what was trained"
# endings of what libsndfile reads and people record
ENDINGS = frozenset((".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga"))
ENDINGS |= {".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav", ".wave"}

ModelOfParams = Annotated[str, typer.Argument(metavar="MODEL", help="A model of params.yaml.")]
ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name (emovo), a version (emovo@v1.2) or a file."),
]
Single = Annotated[bool, typer.Option("--single", help="Ask one network; else all vote.")]


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.command(rich_help_panel=USE)
def predict(
    recordings: Annotated[
        list[Path], typer.Argument(metavar="FILE_OR_FOLDER...", help="Sound, of any usual format.")
    ],
    model: Annotated[str, typer.Option(help="A name (emovo), a version (emovo@v1.2) or a file.")],
    single: Single = False,
    form: Annotated[
        Format, typer.Option("--format", help="A table for people, CSV, or one JSON object a line.")
    ] = Format.table,
) -> None:
    """Say which emotion recordings have, and which of them the model knows nothing about."""
    _one_thread_each()
    from timnet.cli import answers

    paths, failures = _recordings(recordings)
    loaded = _load(model)
    writer: Any = {
        Format.table: lambda: answers.Table(loaded.labels, paths),
        Format.csv: lambda: answers.Csv(loaded.labels),
        Format.json: answers.Json,
    }[form]()
    head, strange, done = writer.head(), 0, 0
    try:
        if head and paths:
            say(head)
        for path, found in loaded.predict_files(paths, single=single, workers=workers()):
            if isinstance(found, str):
                failures.append(f"{answers.name(path)} ({found})")
                continue
            say(writer.line(path, found))
            done, strange = done + 1, strange + bool(found.unlike)
    except BrokenPipeError:  # `| head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if form is Format.table and strange:
        data = loaded.card.data
        say(
            f"\n{strange} of {done} recordings are unlike what {loaded.card.name} was trained on "
            f"({data.title}, {data.language}):\nthere its answers mean little. A distance of MFCC "
            "tells of another microphone, room, noise or language."
        )
    if failures:
        lines = "\n".join(f"  - {failure}" for failure in failures)
        raise AudioError(f"{len(failures)} recording(s) could not be read:\n{lines}")


def _recordings(given: list[Path]) -> tuple[list[Path], list[str]]:
    """Files as given and those in folders, in natural order; and what of it is not there."""
    from timnet.cli.answers import name
    from timnet.corpora.corpus import is_litter, namesake, natural_key
    from timnet.dataset.foreign import FOREIGN

    endings = ENDINGS | FOREIGN.keys()

    found: dict[Path, None] = {}
    missing = []
    for path in given:
        if any(len(os.fsencode(part)) > 255 for part in path.parts):
            missing.append(f"{name(path)[:80]}… (no file has so long a name)")
        elif path.is_dir():
            files = [
                file
                for file in path.rglob("*")
                if file.suffix.lower() in endings
                and file.is_file()
                and file.name[0] != "."
                and not is_litter(file.relative_to(path))
            ]
            if not files:
                missing.append(f"{name(path)} (no recordings in this folder)")
            found |= dict.fromkeys(sorted(files, key=lambda file: natural_key(str(file))))
        elif path.is_file():
            found[path] = None
        else:
            near = f"; {found_near}" if (found_near := namesake(path)) else ""
            missing.append(f"{name(path)} (no such file{near})")
    return list(found), missing


@app.command(rich_help_panel=USE)
def card(model: ModelName) -> None:
    """Print what a model is, what it was trained on and how good it is, as Markdown."""
    from timnet.models import card as cards
    from timnet.models import model as models

    say(cards.markdown(models.read_card(_file(model))))


@app.command(rich_help_panel=USE)
def fit(name: ModelOfParams) -> None:
    """Train one network on a whole corpus, with the settings that the folds vouch for."""
    workspace, params = open_workspace()
    chosen = params.model(name)
    _fit(workspace, chosen, f"{name}-whole")


@app.command(rich_help_panel=USE)
def export(
    model: ModelName,
    onnx: Annotated[Path, typer.Option(help="The file to write.")],
    with_features: Annotated[
        bool, typer.Option("--with-features", help="Put the MFCC into the file too.")
    ] = False,
    single: Single = False,
) -> None:
    """Write a model as ONNX, for programs without PyTorch, checked against PyTorch."""
    _one_thread_each()
    from timnet.models import export as stage

    loaded = _load(model)
    done = stage.write(loaded, onnx, with_features, single)
    say(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB, {_input(loaded, with_features)}")
    say(f"probabilities within {done.difference:.0e} of PyTorch's")
    say(
        f"{done.milliseconds:.1f} ms a recording in onnxruntime, "
        f"{done.milliseconds_torch:.1f} ms in PyTorch, on one thread"
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
    workspace, params = open_workspace()
    chosen = params.model(name)
    if chosen.networks == "whole":
        _fit(workspace, chosen, name)
        return
    _one_thread_each()
    from timnet.models import build as stage
    from timnet.models import model as models

    with timed(workspace, f"model@{name}"):
        run, heard, recipe = _listen(workspace, chosen)
        made = stage.of_folds(name, run, heard, recipe)
        models.save(made, workspace.model(name))
    _tell(made, workspace.model(name))


def _fit(workspace: Workspace, chosen: TrainedModel, name: str) -> None:
    _one_thread_each()
    import torch

    from timnet.models import build as stage
    from timnet.models import model as models
    from timnet.project import provenance

    torch.use_deterministic_algorithms(True)
    place = device()
    about = {
        "commit": provenance.commit(workspace.root),
        "device_name": provenance.device_name(place),
        "versions": provenance.versions(),
    }
    with timed(workspace, f"model@{name}"):
        run, heard, recipe = _listen(workspace, chosen)
        if run.record["train"]["compiled"]:
            need_compiler(place)
        epochs = run.record["train"]["epochs"]
        with bar(f"train {name}", epochs) as advance:
            checkpoints = workspace.checkpoints(f"model@{name}")  # a run may have the same name
            done = 0

            def report(epoch: int, loss: float) -> None:
                nonlocal done
                advance(epoch - done)  # a training that goes on starts further up
                done = epoch

            try:
                made = stage.of_whole(name, run, heard, recipe, about, checkpoints, place, report)
            except torch.OutOfMemoryError:
                raise TrainingError(
                    "the GPU has too little free memory for this network. Free some, or train on "
                    "the CPU: TIMNET_DEVICE=cpu."
                ) from None
        models.save(made, workspace.model(name))
    _tell(made, workspace.model(name))


def _listen(workspace: Workspace, chosen: TrainedModel) -> tuple[Run, Recordings, Any]:
    """A model's run and the recordings that it was trained on."""
    from timnet import corpora, records, schemas
    from timnet.models import build as stage

    folder = workspace.training(chosen.run)
    record = read_json(folder / "run.json", records.Run)
    run = stage.read_run(chosen.run, folder, record)
    table = schemas.read(workspace.manifest(chosen.corpus), schemas.MANIFEST)
    with bar(f"listen to {chosen.corpus}", len(table)) as advance:
        heard = stage.listen(table, workspace.corpus(chosen.corpus), run, workers(), advance)
    return run, heard, corpora.corpus(chosen.corpus, workspace.data)


def _tell(made: Model, path: Path) -> None:
    card = made.card
    number = made.network.networks
    say(
        f"{card.name}: {number} network{'s' * (number > 1)} of {card.data.title} in {path}, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )
    whose = card.name
    if card.networks == "whole":
        whose = card.run
        say(f"{card.name}: nothing is left to test it on; what follows is of run {card.run}")
    for each in card.figures:
        say(f"{whose}: {each.protocol}: UAR {each.uar:.2f} %, WAR {each.war:.2f} %")
    say(
        f"{whose}: expected calibration error {100 * card.calibration.error_before:.1f} %, "
        f"with temperature {card.calibration.temperature:.2f} "
        f"{100 * card.calibration.error_after:.1f} %"
    )
    _tell_terms(made)


def _tell_terms(made: Model) -> None:
    from timnet.models.card import terms

    say(f"{made.card.name}: {terms(made.card)}")


def _one_thread_each() -> None:
    """Keep libraries from threads of their own beside ours; called before torch is imported."""
    from threadpoolctl import threadpool_limits

    os.environ.update(WORKER_ENVIRONMENT)
    threadpool_limits(1)  # of what is imported already


def _load(name: str) -> Model:
    from timnet.models import model as models

    return models.load(_file(name))


def _file(name: str) -> Path:
    """A model's file by name or path; a version of the registry is brought here first."""
    from timnet.models import model as models

    if "@" in name and not Path(name).is_file():
        name = _version(name)
        target = Workspace(Path()).model(name)
        if not target.is_file():
            _get(name, target)
        return target
    return models.find(name)


def _version(name: str) -> str:
    """`emovo@v1.2` to the newest tag of it, `emovo@v1.2.5`."""
    from timnet.corpora.corpus import natural_key

    artifact, _, wanted = name.partition("@")
    listed = git.ask(Path(), "tag", "--list", f"{artifact}@v*") or ""
    tags = sorted(listed.split(), key=natural_key)
    fitting = [tag for tag in tags if tag == name or tag.startswith(f"{name}.")]
    if not fitting:
        raise ParameterError(
            f"no version {wanted!r} of model {artifact!r} in the registry (git tags "
            f"{artifact}@v1.2.3). " + (f"There are {listing(tags)}." if tags else "It has none.")
        )
    return fitting[-1]


def _get(tag: str, target: Path) -> None:
    """Let DVC bring the model of a tag from its cache or its remote."""
    registered = Workspace(Path()).model(tag.partition("@")[0])
    command = [sys.executable, "-m", "dvc", "get", ".", str(registered), "--rev", tag, "--out"]
    with replacing(target) as partial:
        result = subprocess.run([*command, str(partial)], capture_output=True, text=True)
        if result.returncode or not partial.is_file():
            raise ArtifactError(
                f"{tag}: DVC cannot bring this model; it says:\n{result.stderr.strip()}\n"
                "If it is in neither the cache nor the remote, `dvc push` it where it was made."
            )
