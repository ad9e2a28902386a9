"""What each network trains on, chooses its epoch by and is tested on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from timnet.errors import TrainingError


@dataclass(frozen=True)
class Split:
    """One network's utterances, as indices."""

    fold_seed: int  # which folds these are
    fold: int
    seed: int  # the model's: of weights, order and dropout
    train: np.ndarray
    test: np.ndarray
    # an epoch may be chosen by it: never trained on, never tested
    validation: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def tested(self) -> np.ndarray:
        """The test part and behind it the validation part."""
        return np.concatenate((self.test, self.validation))


def of_folds(folds: pa.Table, utterances: list[str], seeds: list[int]) -> list[Split]:
    """A split a fold and seed; indices point into `utterances`.

    Args:
        folds: table of `schemas.FOLDS`.
        utterances: those of the folds, in the order that training counts them in.
        seeds: the model's.

    Raises:
        TrainingError: a fold with nothing to train on.
    """
    row_of = {name: row for row, name in enumerate(utterances)}
    rows = np.array([row_of[name] for name in folds["utterance"].to_pylist()], np.int64)
    parts = np.array(folds["part"].to_pylist())
    fold_seeds, numbers = folds["fold_seed"].to_numpy(), folds["fold"].to_numpy()
    result = []
    for fold_seed in dict.fromkeys(fold_seeds.tolist()):
        own = fold_seeds == fold_seed
        for seed in seeds:
            for fold in sorted(set(numbers[own].tolist())):
                train, test, validation = (
                    rows[own & (numbers == fold) & (parts == part)]
                    for part in ("train", "test", "validation")
                )
                if not len(train):
                    raise TrainingError(
                        f"fold {fold} has no utterances to train on. Choose other folds."
                    )
                result.append(Split(fold_seed, fold, seed, train, test, validation))
    return result
