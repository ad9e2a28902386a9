"""What networks take from a speaker's own recordings, without labels, where a recipe says so.

`by_speaker`: batch norm's statistics. `normalise: speaker`: each coefficient's mean and deviation.
Those of the training set count as much as PRIOR recordings of the speaker, since one recording
tells more of its emotion than of its speaker (benchmarks/enrolment.csv).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timnet.dataset import normalise
from timnet.training.network import TIMNet, pad_channels

PRIOR = 1.0
Scale = tuple[np.ndarray, np.ndarray]  # mean and deviation of each coefficient, (C,) float32


def adapted(
    network: TIMNet, scale: Scale | None, training: Mapping[str, Any], mfcc: np.ndarray
) -> tuple[TIMNet, Scale | None]:
    """Copies of networks that a speaker's recordings have adapted, and the speaker's scale.

    Args:
        scale: of the training set, where the recipe normalises.
        training: the settings that the networks were trained by.
        mfcc: (recordings, T, C) of the speaker, not normalised.
    """
    share = len(mfcc) / (len(mfcc) + PRIOR)
    if training.get("normalise") == "speaker" and scale:
        own = normalise.statistics(mfcc, normalise.sounding_frames(mfcc))
        mean, deviation = (
            np.float32(1 - share) * known + np.float32(share) * theirs
            for known, theirs in zip(scale, own, strict=True)
        )
        scale = mean, deviation
    if training.get("by_speaker"):
        trained, network = network, copy.deepcopy(network)
        values = frames(network, scale, mfcc)
        for row in range(network.networks):  # one after the other: activations stay in the cache
            network.adapt(values, slice(row, row + 1))
        for known, theirs in zip(trained.buffers(), network.buffers(), strict=True):
            theirs.mul_(share).add_(known, alpha=1 - share)
    return network, scale


def frames(network: TIMNet, scale: Scale | None, mfcc: np.ndarray) -> Tensor:
    """Features (B, T, C) as one network takes them, (1, T, B, C), padded to its width."""
    if scale:
        mfcc = normalise.apply(mfcc, normalise.sounding_frames(mfcc), *scale)
    values = torch.from_numpy(mfcc).transpose(0, 1)
    return pad_channels(values, network.width)[None].contiguous()
