"""Random numbers as a function of network, step and place: the same in any stack, on any device.

The stream is SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
OOPSLA 2014), in 64-bit integers that wrap around; a CUDA graph replays it without a generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BITS = 24
# where the numbers of one purpose begin among the 2^32 places of a step
DROPOUT, AUGMENTATION = 0, 1 << 31


def numbers(seeds: Tensor, steps: Tensor, first: int, shape: tuple[int, ...]) -> Tensor:
    """Whole numbers below 2^BITS, (S, *shape) int64, of seeds (S,) and steps (S,)."""
    place = torch.arange(first, first + math.prod(shape), device=seeds.device)
    x = seeds[:, None] + ((steps[:, None] << 32) + place) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _shift_right(x, shift)) * factor
    x ^= _shift_right(x, 31)
    return _shift_right(x, 64 - BITS).view(-1, *shape)


def uniform(seeds: Tensor, steps: Tensor, first: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers from 0 to 1 without 1, (S, *shape) float32; args as of `numbers`."""
    return numbers(seeds, steps, first, shape).float() / 2**BITS


def dropout(seeds: Tensor, steps: Tensor, shape: tuple[int, ...], rate: float) -> Tensor:
    """Spatial dropout: whole channels of an utterance; (S, *shape), 0 or 1 / (1 - rate)."""
    kept = numbers(seeds, steps, DROPOUT, shape) >= round(rate * 2**BITS)
    return kept / (1 - rate)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Of unsigned integers, which torch has not."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
