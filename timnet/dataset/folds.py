"""Which utterance is tested in which fold.

`random`: the paper's split, `KFold` over the utterances in the manifest's order. Utterances of one
speaker, and copies of one recording, stand on both sides of it.
`speaker`: speakers are left out, alone or in the groups that the recipe names.
`cross-corpus`: all of one corpus is trained on, all of another is tested.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from timnet import schemas
from timnet.corpora.corpus import SHARED_EMOTIONS, Corpus
from timnet.errors import CorpusError, ParameterError, listing


def random_folds(utterances: int, folds: int, seed: int) -> np.ndarray:
    """Fold that tests each utterance, (utterances,) int32.

    Raises:
        ParameterError: fewer utterances than folds.
    """
    from sklearn.model_selection import KFold

    if folds > utterances:
        raise ParameterError(
            f"{folds} folds need at least as many utterances; there are {utterances}."
        )
    result = np.empty(utterances, np.int32)
    splits = KFold(folds, shuffle=True, random_state=seed).split(np.empty(utterances))
    for fold, (_, test) in enumerate(splits):
        result[test] = fold
    return result


def speaker_folds(speakers: list[str], corpus: Corpus) -> np.ndarray:
    """Fold that tests each utterance when speakers are left out, (utterances,) int32.

    Raises:
        CorpusError: a speaker that the recipe does not know, or nobody to leave out.
    """
    groups = corpus.speaker_groups or tuple((speaker,) for speaker in corpus.speakers)
    fold_of = {speaker: fold for fold, group in enumerate(groups) for speaker in group}
    unknown = sorted(set(speakers) - set(fold_of))
    if unknown:
        raise CorpusError(
            f"{corpus.id}: speakers {', '.join(unknown)} are in no fold; "
            f"known are {', '.join(fold_of)}."
        )
    folds = np.array([fold_of[speaker] for speaker in speakers], np.int32)
    if len(set(folds)) < 2:
        raise CorpusError(
            f"{corpus.id}: all utterances are of one speaker or group, so none can be left out. "
            "Use protocol random."
        )
    return folds


def random_table(manifest: pa.Table, folds: int, seeds: list[int]) -> pa.Table:
    """Rows of `schemas.FOLDS` for `random_folds` under each seed."""
    rows = len(manifest)
    return pa.concat_tables(
        _table(manifest["utterance"], random_folds(rows, folds, seed), seed) for seed in seeds
    )


def speaker_table(manifest: pa.Table, corpus: Corpus) -> pa.Table:
    """Rows of `schemas.FOLDS` for `speaker_folds`."""
    return _table(manifest["utterance"], speaker_folds(manifest["speaker"].to_pylist(), corpus))


def cross_table(trained_on: pa.Table, tested_on: pa.Table) -> pa.Table:
    """Rows of `schemas.FOLDS` for the utterances of two manifests with a shared emotion.

    Raises:
        CorpusError: an utterance id that both corpora have, or a shared emotion that one lacks.
    """
    parts = []
    for fold, manifest in ((-1, trained_on), (0, tested_on)):
        emotions = manifest["emotion"].to_pylist()
        missing = [emotion for emotion in SHARED_EMOTIONS if emotion not in emotions]
        if missing:
            raise CorpusError(
                f"{'trained_on' if fold else 'tested_on'}: the corpus has no {', '.join(missing)}; "
                f"a run across corpora needs {', '.join(SHARED_EMOTIONS)} in both."
            )
        rows = np.flatnonzero(np.isin(emotions, SHARED_EMOTIONS))
        parts.append(_table(manifest["utterance"].take(rows), np.full(len(rows), fold, np.int32)))
    both = set(parts[0]["utterance"].to_pylist()) & set(parts[1]["utterance"].to_pylist())
    if both:
        raise CorpusError(
            f"both corpora have utterances named {listing(sorted(both))}. Rename those of one."
        )
    return pa.concat_tables(parts)


def _table(utterances: pa.ChunkedArray, folds: np.ndarray, seed: int = 0) -> pa.Table:
    return pa.table(
        [utterances, pa.array(np.full(len(folds), seed, np.int32)), pa.array(folds)],
        schema=schemas.FOLDS,
    )
