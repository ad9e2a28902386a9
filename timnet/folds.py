"""Which utterance is tested in which fold.

`random`: the paper's split, `KFold` over the utterances in the manifest's order. Utterances of one
speaker, and copies of one recording, stand on both sides of it.
`speaker`: speakers are left out, alone or in the groups that the recipe names.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from timnet import schemas
from timnet.corpora.corpus import Corpus
from timnet.errors import CorpusError, ParameterError


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


def table(utterances: pa.ChunkedArray, folds: np.ndarray) -> pa.Table:
    """Rows of `schemas.FOLDS`."""
    return pa.table([utterances, pa.array(folds)], schema=schemas.FOLDS)
