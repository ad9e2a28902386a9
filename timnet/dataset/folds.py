"""Which utterances a fold trains on, chooses its epoch by and tests.

`random`: the paper's split, `KFold` over the utterances in the manifest's order. The same speakers,
and copies of one recording, are in train and test.
`speaker`: speakers are left out, alone or in the groups that the recipe names.
`sentence`: sentences are left out.
`speaker-sentence`: both at once: a fold tests some speakers saying some sentences, and trains on
other speakers saying other sentences. What has one of the two is left out of that fold.
`whole`: one fold that trains on everything and tests nothing, for models and other corpora.

Groups of utterances are told apart by numbers; a fold tests one group (or pair of groups), and
`validation` takes the next ones, round the end, away from its training part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from timnet import schemas
from timnet.corpora.corpus import SHARED_EMOTIONS, Corpus, natural_key
from timnet.errors import CorpusError, ParameterError

PARTS = ("train", "validation", "test")


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


def speaker_folds(speakers: list[str], corpus: Corpus, number: int | None = None) -> np.ndarray:
    """Group of each utterance's speaker, (utterances,) int32.

    Args:
        number: deal the speakers to that many groups; None: the recipe's groups, or each alone.

    Raises:
        CorpusError: a speaker that the recipe does not know, or nobody to leave out.
    """
    known = corpus.speaker_groups or tuple((speaker,) for speaker in corpus.speakers)
    group_of = {speaker: place for place, group in enumerate(known) for speaker in group}
    unknown = sorted(set(speakers) - set(group_of))
    if unknown:
        raise CorpusError(
            f"{corpus.id}: speakers {', '.join(unknown)} are in no fold; "
            f"known are {', '.join(group_of)}."
        )
    if number is not None:
        group_of = _dealt(set(speakers), number, f"{corpus.id}: speakers")
    groups = np.array([group_of[speaker] for speaker in speakers], np.int32)
    if len(set(groups.tolist())) < 2:
        raise CorpusError(
            f"{corpus.id}: all utterances are of one speaker or group, so speaker-independent "
            "folds are impossible. Use random folds."
        )
    return groups


def sentence_folds(
    sentences: list[str | None], corpus: str, number: int | None = None
) -> np.ndarray:
    """Group of each utterance's sentence, (utterances,) int32; args as of `speaker_folds`.

    Raises:
        CorpusError: utterances of which the corpus does not tell the sentence, or one sentence.
    """
    known = {sentence for sentence in sentences if sentence is not None}
    if None in sentences or len(known) < 2:
        raise CorpusError(
            f"{corpus}: folds over sentences need the sentence of every utterance, and two or "
            f"more; {sentences.count(None)} utterances have none."
        )
    group_of = _dealt(known, number or len(known), f"{corpus}: sentences")
    return np.array([group_of[str(sentence)] for sentence in sentences], np.int32)


def _dealt(names: set[str], number: int, what: str) -> dict[str, int]:
    """Names dealt to groups in their natural order, one after the other."""
    if number > len(names):
        raise ParameterError(f"{what}: {number} groups of {len(names)}. Choose a smaller number.")
    return {name: place % number for place, name in enumerate(sorted(names, key=natural_key))}


def table(
    manifest: pa.Table,
    protocol: str,
    number: int | None,
    seeds: list[int] | None,
    validation: int,
    recipe: Callable[[], Corpus],
) -> pa.Table:
    """Rows of `schemas.FOLDS` as params.yaml asks for them.

    Args:
        manifest: table of `schemas.MANIFEST`.
        protocol: "random", "speaker", "sentence" or "speaker-sentence".
        number: of random folds, of groups of speakers or of groups of sentences; None: see
            `speaker_folds` and `sentence_folds`.
        seeds: of random folds.
        validation: how many groups, or random folds, choose a fold's epoch.
        recipe: of the corpus, asked for where speakers or sentences are left out.

    Raises:
        CorpusError, ParameterError: as of what it calls.
    """
    if protocol == "random":
        assert number is not None and seeds is not None
        return random_table(manifest, number, seeds, validation)
    corpus = recipe()
    sentences = manifest["sentence"].to_pylist()
    if protocol == "sentence":
        return grouped_table(
            manifest, sentence_folds(sentences, corpus.id, number), None, validation
        )
    speakers = manifest["speaker"].to_pylist()
    if protocol == "speaker":
        return grouped_table(manifest, speaker_folds(speakers, corpus, number), None, validation)
    both = speaker_folds(speakers, corpus), sentence_folds(sentences, corpus.id, number)
    return grouped_table(manifest, *both, validation)


def random_table(manifest: pa.Table, folds: int, seeds: list[int], validation: int = 0) -> pa.Table:
    """Rows of `schemas.FOLDS` for random folds under each seed."""
    return pa.concat_tables(
        grouped_table(
            manifest, random_folds(len(manifest), folds, seed), validation=validation, seed=seed
        )
        for seed in seeds
    )


def grouped_table(
    manifest: pa.Table,
    groups: np.ndarray,
    others: np.ndarray | None = None,
    validation: int = 0,
    seed: int = 0,
) -> pa.Table:
    """Rows of `schemas.FOLDS`, a fold a group, or a pair of groups where there are two kinds.

    Args:
        manifest: table with `utterance`, such as of `schemas.MANIFEST`.
        groups: (utterances,) group of each.
        others: (utterances,) its group of another kind; a fold leaves both out.
        validation: how many groups (of the first kind) choose a fold's epoch.

    Raises:
        ParameterError: so many groups for validation that nothing is left to train on, or a fold
            without an utterance to choose its epoch by.
    """
    number = int(groups.max()) + 1
    if validation > number - 2:
        raise ParameterError(
            f"folds: {validation} groups for validation and one to test leave none of {number} to "
            "train on."
        )
    second = np.zeros(len(groups), np.int32) if others is None else others
    tables, fold = [], 0
    for group in range(number):
        distance = (groups - group) % number  # 0: tested; up to `validation`: chooses the epoch
        for other in range(int(second.max()) + 1):
            apart = others is None or second != other
            parts = np.full(len(groups), "", dtype=object)
            parts[apart & (distance > validation)] = "train"
            parts[apart & (distance > 0) & (distance <= validation)] = "validation"
            parts[(distance == 0) & (second == other)] = "test"
            if (parts == "test").any():
                if validation and not (parts == "validation").any():
                    raise ParameterError(
                        f"folds: fold {fold} has no utterances for validation: those of its "
                        "validation groups are all left out. Choose another validation, or 0."
                    )
                tables.append(_table(manifest, fold, parts, seed))
                fold += 1
    return pa.concat_tables(tables)


def whole_table(manifest: pa.Table, shared: bool = False) -> pa.Table:
    """Rows of `schemas.FOLDS` of one fold that trains on everything.

    Args:
        manifest: table with `utterance` and `emotion`, such as of features.
        shared: on the utterances of SHARED_EMOTIONS alone.

    Raises:
        CorpusError: the corpus lacks one of them.
    """
    emotions = manifest["emotion"].to_pylist()
    if shared and (missing := sorted(set(SHARED_EMOTIONS) - set(emotions))):
        raise CorpusError(
            f"the corpus has no {', '.join(missing)}; a cross-corpus run needs "
            f"{', '.join(SHARED_EMOTIONS)}."
        )
    known = SHARED_EMOTIONS if shared else set(emotions)
    parts = np.array(["train" if emotion in known else "" for emotion in emotions], dtype=object)
    return _table(manifest, 0, parts, 0)


def _table(manifest: pa.Table, fold: int, parts: np.ndarray, seed: int) -> pa.Table:
    rows = np.flatnonzero(parts != "")
    size = len(rows)
    return pa.table(
        [
            pa.array(np.full(size, seed, np.int32)),
            pa.array(np.full(size, fold, np.int32)),
            manifest["utterance"].take(rows).combine_chunks(),
            pa.array(parts[rows].tolist()),
        ],
        schema=schemas.FOLDS,
    )
