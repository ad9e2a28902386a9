"""Random numbers of training, and what augmentation makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timnet.training import streams
from timnet.training.augment import AUGMENTATIONS, augment
from timnet.training.stack import TrainSettings

SEEDS = torch.tensor([3, 2**62 + 1, 5])
STEPS = torch.tensor([0, 7, 7])


def test_a_number_depends_on_seed_step_and_place_alone() -> None:
    whole = streams.numbers(SEEDS, STEPS, 0, (4, 6))
    assert torch.equal(whole, streams.numbers(SEEDS, STEPS, 0, (4, 6)))
    alone = streams.numbers(SEEDS[1:2], STEPS[1:2], 0, (4, 6))
    assert torch.equal(whole[1], alone[0])
    later = streams.numbers(SEEDS, STEPS, 6, (3, 6))
    assert torch.equal(whole[:, 1:], later)
    for one, other in ((SEEDS + 1, STEPS), (SEEDS, STEPS + 1)):
        assert not torch.equal(whole, streams.numbers(one, other, 0, (4, 6)))


def test_numbers_are_split_mix_64() -> None:
    """Of seed 0 the second number is the published generator's first: its state has moved once."""
    zero = torch.zeros(1, dtype=torch.int64)
    (found,) = streams.numbers(zero, zero, 1, (1,)).flatten().tolist()
    assert found == 0xE220A8397B1DCDAF >> 40


def test_numbers_are_uniform() -> None:
    drawn = streams.uniform(SEEDS, STEPS, streams.AUGMENTATION, (20_000,)).numpy()
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.stack([np.histogram(row, 20, (0, 1))[0] for row in drawn])
    assert np.abs(counts - 1000).max() < 5 * 1000**0.5
    assert np.abs(np.corrcoef(drawn)[np.triu_indices(3, 1)]).max() < 0.05


def test_dropout_keeps_its_share_and_the_mean() -> None:
    masks = streams.dropout(SEEDS, STEPS, (30_000,), 0.1)
    assert masks.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert masks.mean(1).tolist() == pytest.approx([1, 1, 1], abs=0.01)


def batch(networks: int = 3, width: int = 48) -> torch.Tensor:
    """(S, T, B, C) of which the channels behind 39 only pad."""
    x = torch.randn(networks, 50, 8, 39, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.pad(x, (0, width - 39))


MOST = {"shift": 5, "time_mask": 10, "coefficient_mask": 6}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_repeats_and_does_not_depend_on_the_stack(name: str) -> None:
    settings = TrainSettings(**{name: MOST.get(name, 0.2)})
    x = batch()
    kept = x.clone()
    out, share = augment(x, SEEDS, STEPS, settings, 39)
    assert torch.equal(x, kept)  # the cached features are not touched
    again, _ = augment(x, SEEDS, STEPS, settings, 39)
    alone, _ = augment(x[1:2], SEEDS[1:2], STEPS[1:2], settings, 39)
    other, _ = augment(x, SEEDS, STEPS + 1, settings, 39)
    assert torch.equal(out, again) and torch.equal(out[1], alone[0])
    assert not torch.equal(out, other) and not torch.equal(out, x)
    assert (out[..., 39:] == 0).all()  # what only pads stays zero
    assert out.shape == x.shape and torch.isfinite(out).all()
    assert (share is not None) == (name == "mixup")
