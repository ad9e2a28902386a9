"""Protocols of scores, from optimistic to strict: what was held out, and how the epoch was chosen.

The kind of folds of a run and the kind of epoch of its predictions make one. The only list of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LAST, VALIDATED, ON_TEST = "last", "best_on_validation", "best_on_test"
BEST_EPOCH = "best-epoch"
LAST_EPOCH = "last-epoch"
VALIDATED_EPOCH = "validated-epoch"
SPEAKER = "speaker-independent"
SENTENCE = "sentence-independent"
BOTH = "speaker-and-sentence-independent"
CROSS = "cross-corpus"


Varies = Literal["utterances", "speakers", "folds"]


@dataclass(frozen=True)
class Protocol:
    """How an evaluation was set up."""

    name: str
    folds: str  # kind of folds, as in params.yaml
    epoch: str  # kind of epoch, as in the predictions
    meaning: str
    # what the interval draws first: utterances alone, or speakers, or folds of sentences
    varies: Varies

    @property
    def optimistic(self) -> bool:
        """Whether the test fold chose the epoch."""
        return self.epoch == ON_TEST

    @property
    def validated(self) -> bool:
        """Whether the epoch was chosen on a validation part, held out from training."""
        return self.epoch == VALIDATED

    @property
    def base(self) -> str:
        """The protocol with the same folds and the last epoch."""
        return next(one.name for one in PROTOCOLS if (one.folds, one.epoch) == (self.folds, LAST))


CHOSEN = "epoch chosen on validation {}, not on the test fold"
# name, folds, meaning, what the interval draws, what a validation part holds out
_STRICT: tuple[tuple[str, str, str, Varies, str], ...] = (
    (SPEAKER, "speaker", "speaker-independent cross-validation", "speakers", "speakers"),
    (
        SENTENCE,
        "sentence",
        "sentence-independent cross-validation, the same speakers in train and test",
        "folds",
        "sentences",
    ),
    (
        BOTH,
        "speaker-sentence",
        "neither speaker nor sentence in both train and test",
        "speakers",
        "speakers",
    ),
)
PROTOCOLS = (
    Protocol(
        BEST_EPOCH,
        "random",
        ON_TEST,
        "random folds, the epoch chosen ON THE TEST FOLD: optimistic, as in the paper",
        "utterances",
    ),
    Protocol(
        VALIDATED_EPOCH,
        "random",
        VALIDATED,
        f"random folds, {CHOSEN.format('utterances')}; the same speakers are in train and test",
        "utterances",
    ),
    Protocol(
        LAST_EPOCH,
        "random",
        LAST,
        "random folds, the last epoch; the same speakers are in train and test",
        "utterances",
    ),
    *(
        Protocol(f"{name}{ending}", folds, kind, f"{meaning}, {epoch}", varies)
        for name, folds, meaning, varies, held_out in _STRICT
        for ending, kind, epoch in (
            ("-validated", VALIDATED, CHOSEN.format(held_out)),
            ("", LAST, "the last epoch"),
        )
    ),
    Protocol(
        CROSS, CROSS, LAST, "trained on one corpus, tested on others, the last epoch", "speakers"
    ),
)
MEANING = {protocol.name: protocol.meaning for protocol in PROTOCOLS}
ORDER = tuple(MEANING)
NOT_OPTIMISTIC = tuple(each.name for each in PROTOCOLS if not each.optimistic)


def named(name: str) -> Protocol:
    """The protocol with a name."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def of_folds(folds: str) -> list[Protocol]:
    """Those that a run with this kind of folds has scores under, if it kept the epochs."""
    return [protocol for protocol in PROTOCOLS if protocol.folds == folds]


def known(name: str) -> bool:
    return name in MEANING
