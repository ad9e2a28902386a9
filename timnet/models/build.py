"""Models from trained runs: the folds' networks, or those of a source, trained on the whole corpus.

Scores and calibration are the run's, since its folds alone have anything held out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timnet import schemas
from timnet.dataset import audio, features, normalise
from timnet.dataset.features import FeatureSettings
from timnet.errors import ArtifactError, AudioError, ParameterError, listing
from timnet.evaluation import calibration, metrics, score
from timnet.evaluation.protocols import MEANING
from timnet.evaluation.together import together
from timnet.models import enrolment, out_of_domain
from timnet.models import model as models
from timnet.models import svm as svms
from timnet.models.card import (
    Calibration,
    Card,
    Coverage,
    FeatureRecord,
    Figures,
    Source,
    Unenrolled,
)
from timnet.models.enrolment import Scale
from timnet.models.out_of_domain import Measurement
from timnet.models.predict import Model
from timnet.records import adapts_to_speakers
from timnet.training import baseline, outcome
from timnet.training.network import TIMNet
from timnet.training.splits import Split

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # for `--abstain-below`
ENROLLED = "who is tested is enrolled by all of their own recordings, without labels"
NOT_ENROLLED = "who is tested is not enrolled"
DESCRIBED = ("title", "language", "licence", "citation", "source")  # of the corpus, in the card


@dataclass(frozen=True)
class TrainedRun:
    """What a trained run left; of several seeds the first, for a model has one network per fold."""

    name: str
    record: dict[str, Any]  # run.json
    predictions: pa.Table  # `schemas.predictions`
    networks: TIMNet
    folds: tuple[int, ...] = ()  # of each network

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
    weights = outcome.read_weights(folder / "weights.npz")
    fold_seed, seed = weights["fold_seed"][0], weights["seed"][0]
    rows = np.flatnonzero((weights["fold_seed"] == fold_seed) & (weights["seed"] == seed))
    networks = outcome.networks(record, weights, rows)
    same = pc.and_(pc.equal(table["fold_seed"], fold_seed), pc.equal(table["seed"], seed))
    folds = tuple(weights["fold"][rows].tolist())
    return TrainedRun(name, record, table.filter(same), networks, folds)


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


def of_run(
    name: str,
    run: TrainedRun,
    recordings: Recordings,
    description: dict[str, Any],
    source: TrainedRun | None = None,
    svm: bool = False,
) -> Model:
    """The model of a run's own networks, one a fold, or of those of a source.

    Args:
        run: whose scores and calibration the model has.
        source: trained on the whole corpus, with the same features, recipe and network.
        svm: put an SVM beside them, for speakers who are enrolled.

    Raises:
        ArtifactError: the source was trained in another way than the run.
        ParameterError: an SVM beside networks that do not adapt to speakers.
    """
    networks = source or run
    record = networks.record
    for what in ("features", "labels"):
        if record[what] != run.record[what]:
            raise ArtifactError(
                f"{networks.name} was trained on other {what} than {run.name}. Run `dvc repro`."
            )
    speakers = recordings.table["speaker"].to_pylist()
    reference = out_of_domain.reference(recordings.measured, speakers)
    asked = with_svm(name, run, recordings) if svm else run
    fitted, unenrolled, scale = calibrated(asked), None, None
    if adapts_to_speakers(record["train"]):
        without = not_enrolled(run, recordings)
        cooled = calibrated(without)
        unenrolled = Unenrolled(
            figures=figures(without, NOT_ENROLLED),
            calibration=cooled,
            coverage=coverages(without, cooled.temperature),
        )
        scale = _scale(record["train"], recordings.mfcc)
    card = Card(
        name=name,
        networks="whole" if source else "folds",
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
        recipe=record.get("recipe", ""),
        svm=svm,
        seeds=record["seeds"][:1],
        run=run.name,
        figures=figures(asked, ENROLLED if unenrolled else ""),
        calibration=fitted,
        coverage=coverages(asked, fitted.temperature),
        unenrolled=unenrolled,
        typical=models.typical(reference),
        commit=record["commit"],
        device=record["device_name"],
        versions=record["versions"],
    )
    beside = None
    if svm:
        targets = [run.labels.index(name) for name in recordings.table["emotion"].to_pylist()]
        beside = svms.of(recordings.mfcc, np.array(speakers), np.array(targets))
    return Model(card, networks.networks, reference, scale, beside)


def with_svm(name: str, run: TrainedRun, recordings: Recordings) -> TrainedRun:
    """A run each of whose networks is joined with an SVM that was trained on the same fold.

    Raises:
        ParameterError: its networks do not adapt to speakers, or it has no folds of speakers.
    """
    folds = run.record["folds"]
    if not adapts_to_speakers(run.record["train"]) or folds != {"protocol": "speaker"}:
        raise ParameterError(
            f"models.{name}: svm: needs a run of folds of speakers, and a recipe that adapts to "
            f"them, such as `adapted`. {run.name} is none."
        )
    of = dict(
        zip(*(run.predictions[key].to_pylist() for key in ("utterance", "fold")), strict=True)
    )
    fold_of = np.array([of[utterance] for utterance in recordings.table["utterance"].to_pylist()])
    splits = [
        Split(0, fold, 0, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in run.folds
    ]
    machine = baseline.predictions(recordings.mfcc, recordings.table, run.labels, splits, "speaker")
    return replace(run, predictions=together(run.predictions, machine, run.labels))


def not_enrolled(run: TrainedRun, recordings: Recordings) -> TrainedRun:
    """A run as if no speaker had been enrolled: by the statistics of each fold's training part.

    Its predictions are those of the last epoch alone, whose networks are at hand.
    """
    told = run.predictions.filter(pc.equal(run.predictions["epoch_kind"], "last"))
    of = {name: row for row, name in enumerate(recordings.table["utterance"].to_pylist())}
    place = np.array([of[utterance] for utterance in told["utterance"].to_pylist()])
    fold_of = told["fold"].to_numpy()
    logits = np.empty((len(told), len(run.labels)), np.float32)
    for row, fold in enumerate(run.folds):
        own = fold_of == fold
        tested = recordings.mfcc[place[own]]
        scale = _scale(run.record["train"], np.delete(recordings.mfcc, place[own], 0))
        inputs = enrolment.frames(run.networks, scale, tested)
        logits[own] = run.networks(inputs, rows=slice(row, row + 1))[0][0].numpy()
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), len(run.labels))
    at = told.schema.get_field_index("logits")
    return replace(run, predictions=told.set_column(at, told.schema.field(at), column))


def _scale(training: dict[str, Any], mfcc: np.ndarray) -> Scale | None:
    """By what a speaker who is not enrolled is normalised, where the recipe normalises."""
    if training.get("normalise") != "speaker":
        return None
    return normalise.statistics(mfcc, normalise.sounding_frames(mfcc))


def figures(run: TrainedRun, enrolled: str = "") -> list[Figures]:
    """What the folds' networks reach, a protocol each; of cross runs on the other corpus.

    Args:
        enrolled: how tested speakers are enrolled, where networks adapt to speakers.
    """
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
                meaning=f"{MEANING[protocol]}; {enrolled}" if enrolled else MEANING[protocol],
                utterances=len(tested.utterances),
                uar=_percent(metrics.uar(pooled)),
                war=_percent(metrics.war(pooled)),
                uar_interval=bounds["uar"],
                war_interval=bounds["war"],
                uar_by_speaker=by_speaker,
            )
        )
    return result


def held_out(run: TrainedRun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (N,), logits (N, K) and fold (N,) of what networks said of utterances new to them."""
    kinds = np.array(run.predictions["epoch_kind"].to_pylist())
    rows = kinds == ("last" if "last" in kinds else "best_on_test")
    truth, logits = score.truth_and_logits(run.predictions, run.labels)
    return truth[rows], logits[rows], run.predictions["fold"].to_numpy()[rows]


def coverages(run: TrainedRun, temperature: float) -> list[Coverage]:
    """What answers that are held back would bring, by the probability below which they are."""
    truth, logits, _ = held_out(run)
    return [
        Coverage(below=below, answered=round(answered, 4), correct=share and round(share, 4))
        for below, answered, share in calibration.coverage(logits, truth, temperature, THRESHOLDS)
    ]


def calibrated(run: TrainedRun) -> Calibration:
    """The temperature of all that was held out, and the calibration error before and after."""
    truth, logits, fold_of = held_out(run)
    temperature, before, after = calibration.held_out(logits, truth, fold_of)
    return Calibration(
        temperature=temperature,
        utterances=len(truth),
        error_before=round(before, 4),
        error_after=round(after, 4),
    )


def _percent(share: float) -> float:
    return round(100 * float(share), 2)
