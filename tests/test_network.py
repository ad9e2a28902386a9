from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from timnet.training.definition import PlainTIMNet
from timnet.training.network import VARIANTS, TIMNet, pad_channels

S, T, B, K = 3, 40, 6, 7
ABLATIONS = [name for name in VARIANTS if name != "tim-net"]


def stack(networks: int = S, **options) -> TIMNet:
    """Networks with weights drawn, biases included, so that every array matters."""
    network = TIMNet(networks, K, **options)
    generator = torch.Generator().manual_seed(7)
    for row in range(networks):
        network.initialise(row, generator)
    with torch.no_grad():
        for name in ("input_bias", "bias", "beta"):
            values = getattr(network, name)[..., : network.channels]
            values.copy_(torch.rand(values.shape, generator=generator) - 0.5)
    return network


def frames(networks: int = S, batch: int = B) -> torch.Tensor:
    """Something like MFCC, (S, T, B, width)."""
    generator = torch.Generator().manual_seed(3)
    return pad_channels(torch.randn(networks, T, batch, 39, generator=generator) * 20 - 30, 40)


def no_dropout(network: TIMNet, batch: int = B) -> torch.Tensor:
    return torch.ones(network.networks, network.tabs, 2, 2, batch, network.width)


def plain(network: TIMNet, row: int, variant: str = "tim-net") -> PlainTIMNet:
    reference = PlainTIMNet(K, network.tabs, dropout=0.0, variant=variant)
    reference.load_arrays({name: value.clone() for name, value in network.arrays(row).items()})
    return reference


def gradients_of(network: TIMNet, variant: str = "tim-net") -> TIMNet:
    """A stack with gradients in the place of parameters, so that its arrays are those of each."""
    gradients = TIMNet(network.networks, K, variant=variant)
    found = {
        name: value.grad if value.grad is not None else torch.zeros_like(value)
        for name, value in network.named_parameters()
    }
    gradients.load_state_dict({**network.state_dict(), **found})
    return gradients


def test_number_of_parameters_is_the_paper_s() -> None:
    arrays = TIMNet(1, 7).arrays(0)
    assert sum(v.numel() for name, v in arrays.items() if "running" not in name) == 104_496


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_is_the_definition_s(variant: str) -> None:
    network = stack(variant=variant)
    with torch.no_grad():
        network.running_mean.uniform_(-1, 1)
        network.running_variance.uniform_(0.5, 2)
    logits, fused = network(frames())
    assert logits.shape == (S, B, K)
    assert fused.shape == (S, B, network.width)
    assert not logits.requires_grad
    for row in range(S):
        reference = plain(network, row, variant).eval()
        x = frames()[row, ..., :39].permute(1, 2, 0)
        torch.testing.assert_close(logits[row], reference(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fused[row, :, :39], reference.fused(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_the_definition_s(variant: str) -> None:
    network = stack(variant=variant)
    references = [plain(network, row, variant).train() for row in range(S)]
    target = torch.arange(B) % K
    logits, _ = network(frames(), no_dropout(network)[:, :, :, : network.variant.directions])
    losses = F.cross_entropy(logits.flatten(0, 1), target.repeat(S), reduction="none")
    losses.view(S, B).mean(1).sum().backward()
    gradients = gradients_of(network, variant)
    for row, reference in enumerate(references):
        expected = reference(frames()[row, ..., :39].permute(1, 2, 0))
        F.cross_entropy(expected, target).backward()
        torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
        ours = plain(gradients, row, variant)
        for (name, theirs), own in zip(
            reference.named_parameters(), ours.parameters(), strict=True
        ):
            if name.endswith("bias") and "convs" in name:
                continue  # zero but for rounding: batch norm subtracts it
            if name == "scale_weight" and network.variant.fusion != "learned":
                continue  # stands for nothing
            torch.testing.assert_close(own, theirs.grad, rtol=1e-3, atol=1e-5)
        for (name, theirs), own in zip(reference.named_buffers(), ours.buffers(), strict=True):
            if name.endswith("running_mean"):
                torch.testing.assert_close(own, theirs)


def test_a_network_in_a_stack_is_the_network_alone() -> None:
    network = stack()
    alone = TIMNet(1, K)
    alone.load_arrays(0, network.arrays(1))
    together, _ = network(frames(), no_dropout(network))
    by_slice, _ = network(frames()[1:2], no_dropout(network)[1:2], slice(1, 2))
    single, _ = alone(frames()[1:2], no_dropout(alone))
    torch.testing.assert_close(together[1:2], single, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_slice, single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", (0, 1))
def test_no_output_sees_a_later_frame(direction: int) -> None:
    """Each direction is causal in the order in which it reads the utterance."""
    network = stack(1, tabs=4)

    def blocks(x: torch.Tensor) -> torch.Tensor:
        read = x if direction == 0 else x.flip(1)
        h = torch.stack((read, read), 1).flatten(0, 1)
        with torch.no_grad():
            *_, (h, _) = network._evaluate(h, slice(None))
        return h[direction]

    x = frames(1)
    changed = x.clone()
    at = 25 if direction == 0 else T - 1 - 25  # read as frame 25
    changed[:, at] += 100
    before, after = blocks(x), blocks(changed)
    assert torch.equal(before[:25], after[:25])
    assert not torch.equal(before[25:], after[25:])


def test_the_reversed_utterance_swaps_the_directions() -> None:
    network = stack(1)
    swapped = TIMNet(1, K)
    arrays = network.arrays(0)
    for name in ("input_kernel", "input_bias"):
        arrays[name] = arrays[name].flip(0)
    for name in ("kernel", "bias", "gamma", "beta", "running_mean", "running_variance"):
        arrays[name] = arrays[name].flip(2)
    swapped.load_arrays(0, arrays)
    torch.testing.assert_close(network(frames(1))[0], swapped(frames(1).flip(1))[0])


def test_one_batch_can_be_learnt_by_heart() -> None:
    network = stack(1, tabs=3)
    target = torch.arange(B) % K
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        logits, _ = network(frames(1), no_dropout(network))
        loss = F.cross_entropy(logits[0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    assert (logits[0].argmax(1) == target).all()


def test_weights_are_drawn_as_keras_does() -> None:
    network = TIMNet(1, 7)
    network.initialise(0, torch.Generator().manual_seed(0))
    arrays = network.arrays(0)
    bounds = {
        "input_kernel": (6 / 78) ** 0.5,
        "kernel": (6 / 156) ** 0.5,
        "scale_weight": 0.05,
        "dense_kernel": (6 / 46) ** 0.5,
    }
    for name, bound in bounds.items():
        assert arrays[name].abs().max() <= bound
        assert arrays[name].abs().max() > 0.8 * bound
    assert (arrays["gamma"] == 1).all()
    for name in ("input_bias", "bias", "beta", "dense_bias", "running_mean"):
        assert not arrays[name].any()


@pytest.mark.parametrize(("classes", "tabs", "channels"), [(40, 8, 39), (8, 8, 5)])
def test_sizes_that_equal_the_width_are_no_padding(classes: int, tabs: int, channels: int) -> None:
    network = TIMNet(1, classes, tabs, channels)
    network.initialise(0, torch.Generator().manual_seed(0))
    arrays = network.arrays(0)
    assert arrays["dense_kernel"].shape == (channels, classes)
    assert arrays["dense_bias"].shape == (classes,)
    assert arrays["scale_weight"].shape == (tabs,)
    again = TIMNet(1, classes, tabs, channels)
    again.load_arrays(0, arrays)
    assert all(torch.equal(value, again.arrays(0)[name]) for name, value in arrays.items())


def test_padding_to_the_width_stays_zero() -> None:
    network = stack(1)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(3):
        logits, _ = network(frames(1), no_dropout(network))
        optimiser.zero_grad()
        F.cross_entropy(logits[0], torch.arange(B) % K).backward()
        optimiser.step()
    whole, cropped = network.state_dict(), network.arrays(0)
    for name, value in whole.items():
        if name != "running_variance":
            torch.testing.assert_close(value.abs().sum(), cropped[name].abs().sum())


@pytest.mark.parametrize(
    ("variant", "parameters"),
    {"without-bd": 52_392, "without-ms": 104_488, "without-df": 104_488, "tcn": 52_384}.items(),
)
def test_number_of_parameters_of_the_ablations(variant: str, parameters: int) -> None:
    arrays = TIMNet(1, 7, variant=variant).arrays(0)
    assert sum(v.numel() for name, v in arrays.items() if "running" not in name) == parameters


@pytest.mark.parametrize("variant", ABLATIONS)
def test_an_ablation_learns_one_batch_by_heart(variant: str) -> None:
    network = stack(1, tabs=3, variant=variant)
    target = torch.arange(B) % K
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    masks = no_dropout(network)[:, :, :, : network.variant.directions]
    for _ in range(80):
        logits, _ = network(frames(1), masks)
        loss = F.cross_entropy(logits[0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (logits[0].argmax(1) == target).all()


@pytest.mark.slow
def test_compiled_kernels_equal_the_plain_ones() -> None:
    network, compiled = stack(), stack(compiled=True)
    x, masks = frames(), no_dropout(network)
    torch.testing.assert_close(network(x, masks)[0], compiled(x, masks)[0], rtol=1e-4, atol=1e-5)
