"""Models from trained runs: the folds' networks as they are, or one network of the whole corpus.

Settings, figures and calibration are the run's, since its folds alone have anything held out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from timnet import schemas
from timnet.dataset import audio, features
from timnet.dataset.features import FeatureSettings
from timnet.errors import ArtifactError, AudioError, listing
from timnet.evaluation import calibration, metrics, score
from timnet.evaluation.protocols import MEANING
from timnet.models import model as models
from timnet.models import out_of_domain
from timnet.models.card import Calibration, Card, FeatureRecord, Figures, Source
from timnet.models.out_of_domain import Measurement
from timnet.models.predict import Model
from timnet.training import network, stack
from timnet.training.network import TIMNet
from timnet.training.stack import Split, State, TrainSettings, load_state, save_state, train_stack

CHECKPOINT_SECONDS = 30
DESCRIBED = ("title", "language", "licence", "citation", "source")  # of the corpus, in the card


@dataclass(frozen=True)
class TrainedRun:
    """What a trained run left; of several seeds the first, for a model has one network per fold."""

    name: str
    record: dict[str, Any]  # run.json
    predictions: pa.Table  # `schemas.predictions`
    networks: TIMNet

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.record["labels"])

    @property
    def settings(self) -> FeatureSettings:
        return FeatureSettings(**self.record["features"]["settings"])


@dataclass(frozen=True)
class Recordings:
    """The utterances of a corpus that a run trained on."""

    table: pa.Table  # `schemas.MANIFEST`
    mfcc: np.ndarray  # (utterances, frames, coefficients)
    measured: list[Measurement]


def read_run(name: str, folder: Path, record: dict[str, Any]) -> TrainedRun:
    """A run as `timnet train` leaves it.

    Args:
        record: the content of its run.json.

    Raises:
        ArtifactError: a file is missing, damaged or of other labels.
    """
    labels, coefficients = record["labels"], record["features"]["settings"]["coefficients"]
    schema = schemas.predictions(len(labels), coefficients)
    table = schemas.read(folder / "predictions.parquet", schema)
    path = folder / "weights.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = {key: file[key] for key in file.files}
        drawn = [weights.pop(key) for key in ("fold_seed", "seed", "fold")]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path}: not the weights of a run ({error}). Run `dvc repro`."
        ) from None
    fold_seed, seed = drawn[0][0], drawn[1][0]
    rows = np.flatnonzero((drawn[0] == fold_seed) & (drawn[1] == seed))
    networks = TIMNet(
        len(rows), len(labels), record["train"]["tabs"], coefficients, record["train"]["variant"]
    )
    for place, row in enumerate(rows):
        networks.load_arrays(
            place, {key: torch.from_numpy(value[row]) for key, value in weights.items()}
        )
    same = pc.and_(pc.equal(table["fold_seed"], fold_seed), pc.equal(table["seed"], seed))
    return TrainedRun(name, record, table.filter(same), networks.eval())


def read_recordings(
    manifest: pa.Table,
    folder: Path,
    run: TrainedRun,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> Recordings:
    """Read the recordings that a run trained on, as prediction will read others.

    Args:
        manifest: table of `schemas.MANIFEST`, of all utterances of the corpus.

    Raises:
        ArtifactError: other recordings than the run's, or another revision of the features.
        AudioError: recordings that cannot be read.
    """
    found = features.fingerprint(manifest, run.settings)
    for name in ("revision", "source"):
        if found[name] != run.record["features"][name]:
            raise ArtifactError(
                f"run {run.name} was trained on another {name} of the features of "
                f"{run.record['trained_on']} than is here. Run `dvc repro`."
            )
    table = manifest.filter(pc.is_in(manifest["emotion"], pa.array(run.labels)))
    filters = features.mel_filters()

    def read(name: str) -> tuple[np.ndarray, Measurement] | str:
        try:
            with audio.opened(folder / name) as recording:
                samples, rate = recording.whole(), recording.sample_rate
            audio.check_samples(samples)
        except AudioError as error:
            return f"{name} ({error})"
        mfcc = features.mfcc(samples, rate, run.settings, filters)
        return mfcc, out_of_domain.measure(samples, rate, mfcc, run.settings)

    results = []
    with ThreadPoolExecutor(workers) as pool:
        for each in pool.map(read, table["path"].to_pylist()):
            results.append(each)
            if progress:
                progress(1)
    broken = [each for each in results if isinstance(each, str)]
    if broken:
        raise AudioError(f"{folder}: recordings that cannot be read: {listing(broken, 20)}.")
    mfcc, measured = zip(*results, strict=True)
    return Recordings(table, np.stack(mfcc), list(measured))


def of_folds(
    name: str, run: TrainedRun, recordings: Recordings, description: dict[str, Any]
) -> Model:
    """The model whose networks are those of the folds."""
    return _model(name, "folds", run, recordings, description, run.networks, run.record)


def of_whole(
    name: str,
    run: TrainedRun,
    recordings: Recordings,
    description: dict[str, Any],
    provenance: dict[str, Any],
    checkpoints: Path,
    device: str = "cpu",
    report: Callable[[int, float], None] | None = None,
) -> Model:
    """The model of one network, trained on all utterances with the run's settings and first seed.

    Args:
        provenance: `commit`, `device_name` and `versions` of this training.
        checkpoints: folder of this model's alone, from which a stopped training of the same
            settings, data and code goes on; removed at the end.
        report: called after every epoch with its number and the training loss.
    """
    order = {label: index for index, label in enumerate(run.labels)}
    labels = np.array([order[emotion] for emotion in recordings.table["emotion"].to_pylist()])
    everyone = np.arange(len(labels))
    split = Split(0, 0, run.record["seeds"][0], everyone, everyone[:0])
    settings = TrainSettings(**run.record["train"])
    identity = _identity(recordings, run, device)
    checkpoint = checkpoints / f"{identity[:16]}.pt"
    saved = time.monotonic()

    def resume(state: State) -> None:
        if checkpoint.exists():
            load_state(state, checkpoint, identity)

    def after_epoch(state: State) -> None:
        nonlocal saved
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(state, checkpoint, identity)
            saved = time.monotonic()
        if report:
            report(state.epoch, float(state.history[-1][0, 0]))

    state = train_stack(
        recordings.mfcc, labels, [split], len(order), settings, device, after_epoch, resume
    )
    shutil.rmtree(checkpoints, ignore_errors=True)  # those of other settings too
    trained = TIMNet(1, len(order), settings.tabs, run.networks.channels, settings.variant)
    trained.load_arrays(0, state.network.cpu().arrays(0))
    return _model(
        name, "whole", run, recordings, description, trained.eval(), {**run.record, **provenance}
    )


def _identity(recordings: Recordings, run: TrainedRun, device: str) -> str:
    """Hash of all that a checkpoint's numbers depend on."""
    told = [run.record["train"], run.record["seeds"], run.labels, device, torch.__version__]
    identity = hashlib.sha256(json.dumps(told).encode())
    for path in (Path(network.__file__), Path(stack.__file__)):
        identity.update(path.read_bytes())
    identity.update(json.dumps(recordings.table["emotion"].to_pylist()).encode())
    identity.update(recordings.mfcc.tobytes())
    return identity.hexdigest()


def _model(
    name: str,
    networks: Literal["folds", "whole"],
    run: TrainedRun,
    recordings: Recordings,
    description: dict[str, Any],
    trained: TIMNet,
    record: dict[str, Any],
) -> Model:
    speakers = recordings.table["speaker"].to_pylist()
    reference = out_of_domain.reference(recordings.measured, speakers)
    card = Card(
        name=name,
        networks=networks,
        labels=run.labels,
        variant=record["train"]["variant"],
        data=Source(
            corpus=description["id"],
            **{name: description[name] for name in DESCRIBED},
            utterances=len(speakers),
            speakers=len(set(speakers)),
        ),
        features=FeatureRecord.model_validate(record["features"]),
        training=record["train"],
        seeds=record["seeds"][:1],
        run=run.name,
        figures=figures(run),
        calibration=calibrated(run),
        typical=models.typical(reference),
        commit=record["commit"],
        device=record["device_name"],
        versions=record["versions"],
    )
    return Model(card, trained, reference)


def figures(run: TrainedRun) -> list[Figures]:
    """What the folds' networks reach, a protocol each; of cross runs on the other corpus."""
    result = []
    folds, classes = run.record["folds"]["protocol"], len(run.labels)
    for protocol, tested in score.tests(run.predictions, run.labels, folds).items():
        if not tested.utterances:
            continue
        (said,) = tested.predicted
        pooled = metrics.confusion_matrix(tested.truth, said, classes)
        bounds = tested.interval()
        by_speaker = {}
        for speaker in sorted(set(tested.speakers.tolist())):
            own = tested.speakers == speaker
            own_matrix = metrics.confusion_matrix(tested.truth[own], said[own], classes)
            by_speaker[speaker] = _percent(metrics.uar(own_matrix))
        result.append(
            Figures(
                protocol=protocol,
                meaning=MEANING[protocol],
                utterances=len(tested.utterances),
                uar=_percent(metrics.uar(pooled)),
                war=_percent(metrics.war(pooled)),
                uar_interval=bounds["uar"],
                war_interval=bounds["war"],
                uar_by_speaker=by_speaker,
            )
        )
    return result


def calibrated(run: TrainedRun) -> Calibration:
    """The temperature of all that was held out, and the calibration error before and after."""
    kinds = np.array(run.predictions["epoch_kind"].to_pylist())
    rows = kinds == ("last" if "last" in kinds else "best_on_test")
    truth, logits = (values[rows] for values in score.truth_and_logits(run.predictions, run.labels))
    fold_of = run.predictions["fold"].to_numpy()[rows]
    temperature, before, after = calibration.held_out(logits, truth, fold_of)
    return Calibration(
        temperature=temperature,
        utterances=len(truth),
        error_before=round(before, 4),
        error_after=round(after, 4),
    )


def _percent(share: float) -> float:
    return round(100 * float(share), 2)
