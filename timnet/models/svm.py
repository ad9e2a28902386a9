"""The SVM beside networks that adapt to a speaker: from the same recordings, with other errors.

A model's file holds what the SVM is trained on, and not the SVM, so that reading a file executes
nothing. It is trained when it is first asked, in a tenth of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from timnet.dataset.normalise import sounding_frames
from timnet.training import baseline
from timnet.training.baseline import Machine

# As how many recordings of a speaker the speakers of the training set count. More than of the
# networks: of few recordings, deviations are known badly. Chosen on EMOVO (benchmarks/README.md).
PRIOR = 3.0


@dataclass(frozen=True)
class Svm:
    """What it is trained on, and what a speaker's recordings are normalised by; all float32."""

    inputs: np.ndarray  # (utterances, statistics): normalised for each speaker
    targets: np.ndarray  # (utterances,) label indices
    mean: np.ndarray  # (statistics,) of a speaker: of those of the training set, or who is enrolled
    deviation: np.ndarray

    @cached_property
    def _machine(self) -> Machine:
        return baseline.trained(self.inputs, self.targets.astype(int), "the model's SVM")

    def enrolled(self, mfcc: np.ndarray) -> Svm:
        """The same for the speaker of some recordings, (recordings, T, C), as extracted."""
        seen = baseline.statistics(mfcc, sounding_frames(mfcc))
        share = len(seen) / (len(seen) + PRIOR)
        mean, deviation = (
            ((1 - share) * known + share * own).astype(np.float32)
            for known, own in ((self.mean, seen.mean(0)), (self.deviation, seen.std(0)))
        )
        return replace(self, mean=mean, deviation=deviation)

    def logits(self, mfcc: np.ndarray, classes: int) -> np.ndarray:
        """Decision values (recordings, classes) of (recordings, T, C), as extracted."""
        seen = baseline.statistics(mfcc, sounding_frames(mfcc)) - self.mean
        return self._machine.decide(seen / self.deviation, classes)[0]


def of(mfcc: np.ndarray, speakers: np.ndarray, targets: np.ndarray) -> Svm:
    """The SVM of a training set.

    Args:
        mfcc: (utterances, T, C), as extracted.
        speakers: (utterances,) who speaks.
        targets: (utterances,) label indices.
    """
    seen = baseline.statistics(mfcc, sounding_frames(mfcc))
    own = [seen[speakers == speaker] for speaker in np.unique(speakers)]
    deviation = np.mean([each.std(0) for each in own], 0)
    return Svm(
        baseline.normalised(seen, speakers).astype(np.float32),
        targets.astype(np.float32),
        np.mean([each.mean(0) for each in own], 0).astype(np.float32),
        np.where(deviation > 0, deviation, 1).astype(np.float32),
    )
