"""Augmentation of a training batch of features, each off by default.

Features are cached, so these act on MFCC and not on sound: time can be moved and stretched,
a microphone or a telephone line adds a constant to each coefficient, the length of a vocal tract
warps the frequency axis. All draw from `streams`, and so repeat to the bit. Those that set values
to zero want normalised features, of which zero is the mean.

Axes as in `network`: S networks, T frames, B utterances of a batch, C channels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timnet.training import streams

MEL_BANDS = 128  # of the features
WARPS = 33  # steps of the table of warps


# settings of `stack.TrainSettings` that change a batch: how far at most; each draws at every step
AUGMENTATIONS = (
    "shift",
    "speed",
    "vocal_tract",
    "channel",
    "noise",
    "time_mask",
    "coefficient_mask",
    "mixup",
)

# places of the numbers that each of them draws, within streams.AUGMENTATION
_SHIFT, _SPEED, _TRACT, _MASKS, _MIXUP, _CHANNEL, _NOISE = (k << 26 for k in range(7))


def augment(
    x: Tensor, seeds: Tensor, steps: Tensor, settings: Any, coefficients: int
) -> tuple[Tensor, Tensor | None]:
    """A batch (S, T, B, C) changed, and each utterance's share of mixup (S, B), None without.

    `settings` has what AUGMENTATIONS names, as `stack.TrainSettings`.

    Under mixup an utterance is mixed with the one that stands as far from the batch's other end.
    """
    _, t, b, c = x.shape
    share = None

    def draw(place: int, *shape: int) -> Tensor:
        return streams.uniform(seeds, steps, streams.AUGMENTATION + place, shape)

    def either_way(place: int, *shape: int) -> Tensor:
        return 2 * draw(place, *shape) - 1

    out = x.float()
    if settings.shift or settings.speed:
        rate = 1 + settings.speed * either_way(_SPEED, b)
        offset = torch.round((settings.shift + 0.49) * either_way(_SHIFT, b))
        out = _move(out, rate, offset)
    if settings.vocal_tract:
        table = _warps(settings.vocal_tract, coefficients, c, x.device)
        chosen = (draw(_TRACT, b) * WARPS).long()
        out = torch.einsum("stbc,sbcd->stbd", out, table[chosen])
    if settings.channel:
        offset = math.sqrt(12) * settings.channel * (draw(_CHANNEL, b, c) - 0.5)
        sounding = (out != 0).any(3, keepdim=True)
        out = out + offset[:, None] * sounding
    if settings.noise:
        out = out + math.sqrt(12) * settings.noise * (draw(_NOISE, t, b, c) - 0.5)
    if settings.time_mask:
        out = out * _outside(draw(_MASKS, 2, b), t, settings.time_mask)[..., None]
    if settings.coefficient_mask:
        kept = _outside(draw(_MASKS + 2 * b, 2, b), coefficients, settings.coefficient_mask)
        kept = torch.nn.functional.pad(kept, (0, 0, 0, c - coefficients), value=1.0)
        out = out * kept.transpose(1, 2)[:, None]
    if settings.mixup:
        share = settings.mixup * draw(_MIXUP, b)
        weight = share[:, None, :, None]
        out = out * (1 - weight) + out.flip(2) * weight
    if coefficients < c:  # what only pads stays zero
        out[..., coefficients:] = 0
    return out.to(x.dtype), share


def _move(x: Tensor, rate: Tensor, offset: Tensor) -> Tensor:
    """x (S, T, B, C) read at another speed (S, B) about its middle, and moved by (S, B) frames."""
    _, t, _, c = x.shape
    time = torch.arange(t, device=x.device, dtype=torch.float32)[:, None] - (t - 1) / 2
    place = time * rate[:, None] + (t - 1) / 2
    inside = (place >= 0) & (place <= t - 1)
    before = place.clamp(0, t - 1).floor()
    part = (place.clamp(0, t - 1) - before)[..., None]
    shifted = offset[:, None].long()

    def at(frame: Tensor) -> Tensor:
        index = (frame.long().clamp(max=t - 1) + shifted) % t
        return torch.gather(x, 1, index[..., None].expand(-1, -1, -1, c))

    moved = at(before) * (1 - part) + at(before + 1) * part
    return torch.where(inside[..., None], moved, x[:, :1])  # its first frame: padding


def _outside(draws: Tensor, size: int, most: int) -> Tensor:
    """1 outside a span of up to `most` places, 0 in it: draws (S, 2, B) -> (S, size, B)."""
    length = torch.floor(draws[:, :1] * (most + 1))
    first = torch.floor(draws[:, 1:] * (size - length + 1))
    place = torch.arange(size, device=draws.device)[:, None]
    return 1.0 - ((place >= first) & (place < first + length)).float()


@lru_cache
def _warps(most: float, coefficients: int, width: int, device: torch.device) -> Tensor:
    """WARPS matrices (width, width) that stretch the mel axis from 1 - most to 1 + most.

    MFCC are a cosine transform of log mel bands: back to bands, each read at its place over the
    stretch, and forth again.
    """
    bands = np.arange(MEL_BANDS) + 0.5
    order = np.arange(coefficients)[:, None]
    norm = np.sqrt(np.where(order == 0, 1, 2) / MEL_BANDS)
    back = norm * np.cos(np.pi * order * bands / MEL_BANDS)  # coefficients, bands
    table = np.zeros((WARPS, width, width), np.float32)
    for place, stretch in enumerate(np.linspace(1 - most, 1 + most, WARPS)):
        at = np.clip(bands / stretch, 0.5, MEL_BANDS - 0.5)
        warped = norm * np.cos(np.pi * order * at / MEL_BANDS)
        table[place, :coefficients, :coefficients] = warped @ back.T
    return torch.from_numpy(table).to(device)
