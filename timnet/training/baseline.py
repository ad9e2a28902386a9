"""A support vector machine on statistics of the MFCC: what a network has to beat.

Each utterance becomes five statistics of each coefficient over the frames that are not padding,
and the number of these frames. Trained in seconds; scored and compared as any network is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from timnet import schemas
from timnet.dataset.normalise import sounding_frames
from timnet.errors import ParameterError, TrainingError

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from timnet.training.splits import Split

PENALTY = 10.0  # C: how much a training utterance on the wrong side costs
NORMALISE = ("none", "utterance", "speaker")
NAME = "svm"  # as runs name it


def statistics(mfcc: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """What the machine sees, (utterances, 5 coefficients + 1) float64.

    Mean, standard deviation, 10th and 90th percentile, standard deviation of the differences from
    frame to frame, and the number of frames that are not padding.

    Args:
        mfcc: (utterances, frames, coefficients).
        speech: (utterances, frames) which frames are not padding; an utterance without any gets
            zeros.
    """
    rows = np.zeros((len(mfcc), 5 * mfcc.shape[2] + 1))
    for row, values, own in zip(rows, mfcc.astype(np.float64), speech, strict=True):
        if not own.any():
            continue
        spoken = values[own]
        change = np.diff(spoken, axis=0) if len(spoken) > 1 else np.zeros_like(spoken)
        low, high = np.percentile(spoken, (10, 90), axis=0)
        row[:] = *spoken.mean(0), *spoken.std(0), *low, *high, *change.std(0), len(spoken)
    return rows


def normalised(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1 in each group, (rows, columns).

    Args:
        values: (rows, columns).
        groups: (rows,) what each row is normalised with.
    """
    result = np.empty(values.shape)
    for group in np.unique(groups):
        own = values[groups == group].astype(np.float64)
        spread = own.std(0)
        result[groups == group] = (own - own.mean(0)) / np.where(spread > 0, spread, 1)
    return result


def inputs(
    mfcc: np.ndarray, speech: np.ndarray, speakers: np.ndarray, normalise: str
) -> np.ndarray:
    """`statistics` after a normalisation that needs no labels.

    Args:
        mfcc, speech: as of `statistics`.
        speakers: (utterances,) who speaks.
        normalise: "none"; "utterance": the coefficients of each utterance are brought to mean 0 and
            deviation 1 before its statistics are taken; "speaker": the statistics of each speaker's
            utterances are.

    Raises:
        ParameterError: a normalisation that the baseline does not have.
    """
    if normalise not in NORMALISE:
        raise ParameterError(
            f"normalise: the baseline has no {normalise!r}; choose one of {', '.join(NORMALISE)}."
        )
    if normalise == "utterance":
        result = np.zeros(mfcc.shape)
        own = np.nonzero(speech)[0]
        result[speech] = normalised(mfcc[speech], own)
        return statistics(result, speech)
    seen = statistics(mfcc, speech)
    return normalised(seen, speakers) if normalise == "speaker" else seen


def transferred(
    weights: dict[str, np.ndarray], mfcc: np.ndarray, speakers: np.ndarray, classes: int, by: str
) -> np.ndarray:
    """Decision values (utterances, classes) of a machine of a whole corpus on those of another.

    Args:
        weights: as of `train.train_baseline`.
        mfcc: (utterances, frames, coefficients), as extracted.
        speakers: (utterances,) who speaks.
        by: as `normalise` of `inputs`.
    """
    seen = inputs(mfcc, sounding_frames(mfcc), speakers, by)
    return trained(weights["inputs"], weights["targets"], "the source").decide(seen, classes)[0]


def predictions(
    mfcc: np.ndarray,
    utterances: pa.Table,
    labels: tuple[str, ...],
    splits: Sequence[Split],
    normalise: str = "none",
) -> pa.Table:
    """What the machine says of each test utterance: rows of `schemas.predictions`.

    `logits` are the one-against-rest decision values, whose highest names the emotion; as of a
    network, one temperature makes probabilities of them. `fused` are the standardised means of the
    coefficients, the part of the machine's input that has their size. Nothing is drawn at random,
    so another seed gives the same rows.

    Args:
        mfcc: (utterances, frames, coefficients), as extracted.
        utterances: table with `utterance`, `speaker` and `emotion` of each of them, and across
            corpora with `corpus`, which the predictions then have in place of `fused`.
        labels: the emotions in the order of their indices.
        splits: one machine is trained and tested on each.
        normalise: as of `inputs`.

    Raises:
        ParameterError: a normalisation that the baseline does not have.
        TrainingError: a fold trains on one emotion alone.
    """
    order = {label: index for index, label in enumerate(labels)}
    truth = np.array([order.get(emotion, -1) for emotion in utterances["emotion"].to_pylist()])
    speakers = np.array(utterances["speaker"].to_pylist())
    across = "corpus" in utterances.column_names
    if across:  # two corpora may have speakers of one name
        corpora = utterances["corpus"].to_pylist()
        speakers = np.array([f"{c}/{s}" for c, s in zip(corpora, speakers, strict=True)])
    seen = inputs(mfcc, sounding_frames(mfcc), speakers, normalise)
    channels = mfcc.shape[2]
    parts = []
    for split in sorted(splits, key=lambda split: (split.fold_seed, split.seed)):
        train = split.train
        machine = trained(seen[train], truth[train], f"fold {split.fold}")
        logits, told = machine.decide(seen[split.test], len(labels))
        tested = utterances.take(split.test)
        rows = len(split.test)
        columns = {
            "utterance": tested["utterance"],
            "speaker": tested["speaker"],
            "fold_seed": np.full(rows, split.fold_seed, np.int32),
            "fold": np.full(rows, split.fold, np.int32),
            "seed": np.full(rows, split.seed, np.int32),
            "epoch_kind": ["last"] * rows,
            "epoch": np.ones(rows, np.int32),
            "emotion": tested["emotion"],
            "logits": _lists(logits),
            "fused": _lists(told[:, :channels]),
            "row": split.test,
        }
        if across:
            columns["corpus"] = tested["corpus"]
        parts.append(pa.table(columns))
    order_of = [("fold_seed", "ascending"), ("seed", "ascending"), ("row", "ascending")]
    table = pa.concat_tables(parts).sort_by(order_of).drop_columns("row")
    schema = schemas.predictions(len(labels), channels)
    if across:
        fused = schema.get_field_index("fused")
        schema = schema.remove(fused).append(pa.field("corpus", pa.string()))
    return table.select(schema.names).cast(schema)


@dataclass(frozen=True)
class Machine:
    """A trained machine, and the scale of its inputs."""

    scale: StandardScaler
    machine: SVC

    def decide(self, seen: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Decision values (rows, classes) and standardised inputs, shaped as `seen`.

        Args:
            seen: (rows, statistics), as of `inputs`.
        """
        told = self.scale.transform(seen)
        values = self.machine.decision_function(told)
        if values.ndim == 1:  # of two emotions scikit-learn tells one value
            values = np.stack([-values, values], 1)
        logits = np.full((len(told), classes), values.min() - 1)  # of an emotion never trained on
        logits[:, self.machine.classes_] = values
        return logits, told


def trained(seen: np.ndarray, truth: np.ndarray, what: str) -> Machine:
    """A machine trained on (rows, statistics) as of `inputs`, and label indices (rows,).

    Args:
        what: is trained, for errors.

    Raises:
        TrainingError: there is one emotion alone.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(set(truth)) < 2:
        raise TrainingError(f"{what}: its training part has only one emotion. Choose other folds.")
    scale = StandardScaler().fit(seen)
    return Machine(scale, SVC(C=PENALTY).fit(scale.transform(seen), truth))


def _lists(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
