"""The external anchor: the authors' weights on features extracted here give the paper's scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import torch

from timnet import schemas
from timnet.corpora.corpus import Corpus
from timnet.dataset import features, folds, manifest
from timnet.dataset.features import FeatureSettings
from timnet.errors import ArtifactError, CorpusError, ParameterError
from timnet.evaluation import authors_weights, metrics
from timnet.paper import paper
from timnet.training.network import TIMNet, pad_channels


@dataclass(frozen=True)
class Parity:
    """What the authors' networks say, each of the fold that it was not trained on."""

    logits: np.ndarray  # (utterances, K) float32, in the manifest's order
    confusion: np.ndarray  # (K, K) counts
    paper: tuple[float, float]  # UAR and WAR as printed, percent
    paper_confusion: np.ndarray | None  # row-normalised whole percents, where known

    @property
    def correct(self) -> int:
        return int(self.confusion.trace())

    @property
    def uar(self) -> float:
        return 100 * metrics.uar(self.confusion)

    @property
    def war(self) -> float:
        return 100 * metrics.war(self.confusion)

    @property
    def holds(self) -> bool:
        """Whether ours are the paper's scores, to the last digit that tells utterances apart."""
        one = 100 / self.confusion.sum()  # an utterance more or less, in points of WAR
        agree = abs(self.war - self.paper[1]) < one / 2 and abs(self.uar - self.paper[0]) < one / 2
        rows = 100 * self.confusion / self.confusion.sum(1, keepdims=True)
        return agree and (
            self.paper_confusion is None
            # printed in whole percent
            or bool((np.floor(rows + 0.5) == self.paper_confusion).all())
        )


def settings(corpus: Corpus) -> FeatureSettings:
    """Features as the paper has them for a corpus.

    Raises:
        ParameterError: the paper has no scores for the corpus.
    """
    lengths = paper()["signal_length"]
    if corpus.id not in lengths:
        raise ParameterError(
            f"the paper has no results for {corpus.id}; it has some for {', '.join(lengths)}."
        )
    return FeatureSettings(lengths[corpus.id])


def read_networks(corpus: Corpus, weights: Path) -> TIMNet:
    """The authors' networks for a corpus, one per fold.

    Args:
        weights: the authors' archive.

    Raises:
        ArtifactError: no such archive, or one that does not fit the corpus.
    """
    network = authors_weights.read_networks(weights)
    if network.classes != len(corpus.labels):
        raise ArtifactError(
            f"{weights}: networks for {network.classes} emotions, while {corpus.id} has "
            f"{len(corpus.labels)}. Give the archive of {corpus.id}."
        )
    return network


def refuse_incomplete(corpus: Corpus, folder: Path, manifest: pa.Table) -> None:
    """Refuse a corpus that lacks utterances: it has other folds, and its scores mean nothing.

    Args:
        folder: where its recordings lie, for the message.
        manifest: of `schemas.MANIFEST`.

    Raises:
        CorpusError: names how many utterances of how many are there, in all and by emotion.
    """
    found = Counter(manifest["emotion"].to_pylist())
    if found != Counter(corpus.counts):
        lacking = ", ".join(
            f"{label} {found[label]} of {expected}"
            for label, expected in corpus.counts.items()
            if found[label] != expected
        )
        raise CorpusError(
            f"{folder}: {found.total()} of {corpus.utterances} utterances of {corpus.id} "
            f"({lacking}). The authors' networks were tested on all of them, and fewer give other "
            "folds. Restore the missing recordings."
        )


def parity(corpus: Corpus, table: pa.Table, network: TIMNet) -> Parity:
    """Score the authors' networks on features of a corpus.

    Args:
        corpus: its recipe.
        table: features of all its utterances (`refuse_incomplete`) under `settings`.
        network: what `read_networks` gives for the corpus.
    """
    printed = paper()
    values = pad_channels(torch.from_numpy(schemas.mfcc(table)), network.width)
    fold_of = folds.random_folds(len(table), network.networks, printed["fold_seed"][corpus.id])
    logits = np.zeros((len(table), network.classes), np.float32)
    for fold in range(network.networks):
        test = np.flatnonzero(fold_of == fold)
        batch = values[test].transpose(0, 1)[None]
        logits[test] = network(batch, rows=slice(fold, fold + 1))[0][0].numpy()
    truth = np.array([corpus.labels.index(emotion) for emotion in table["emotion"].to_pylist()])
    confusion = printed["figure_s3_confusion"].get(corpus.id)
    return Parity(
        logits,
        metrics.confusion_matrix(truth, logits.argmax(1), network.classes),
        tuple(printed["table_1_single_corpus"][corpus.id]["TIM-Net"]),
        np.array(confusion["rows"]) if confusion else None,
    )


def measure(
    corpus: Corpus,
    folder: Path,
    weights: Path,
    workers: int,
    progress: Callable[[str, int, int], None],
) -> Parity:
    """`parity` from the recordings on.

    Args:
        folder: the corpus' recordings.
        weights: the authors' archive.
        workers: processes that compute features.
        progress: called with the step, utterances done since the last call, and utterances in all.

    Raises:
        ArtifactError, AudioError, CorpusError, ParameterError: as each step does.
    """
    wanted = settings(corpus)
    network = read_networks(corpus, weights)  # before the minute that features take
    total = corpus.utterances
    table = manifest.build(corpus, folder, lambda done: progress("manifest", done, total))
    refuse_incomplete(corpus, folder, table)
    with TemporaryDirectory() as scratch:
        target, shards = Path(scratch, "features.parquet"), Path(scratch, "shards")
        features.extract(
            table,
            folder,
            wanted,
            target,
            shards,
            workers,
            lambda done: progress("features", done, len(table)),
        )
        found, _ = features.read(target, wanted)
    return parity(corpus, found, network)
