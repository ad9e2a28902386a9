"""The Triton kernels against the block as `network` writes it: on a GPU, or interpreted.

`TRITON_INTERPRET=1 pytest tests/test_gpu_kernels.py` runs them on a CPU where Triton is installed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from timnet.training import network

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if INTERPRETED:
    pytest.importorskip("triton", reason="Triton is not installed")

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or INTERPRETED), reason="torch finds no GPU here"
)
# the interpreter multiplies 16-bit floats of the other kind alone
LOW = torch.bfloat16 if DEVICE == "cuda" else torch.float16


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


# in 16 bits some values round to the other side of ReLU's 0, with their whole gradient
@pytest.mark.parametrize(("kind", "tolerance"), ((torch.float32, 2e-5), (LOW, 5e-2)))
@pytest.mark.parametrize("dilation", (1, 4, 32))  # 32: longer than the utterance
@pytest.mark.parametrize("batch", (17, 64))
def test_gpu_convolution_norm_relu_dropout(
    kind: torch.dtype, tolerance: float, dilation: int, batch: int
) -> None:
    torch.manual_seed(0)
    g, t, c = 3, 21, 40
    x = torch.randn(g, t, batch, c, device=DEVICE).to(kind).requires_grad_()
    kernel = (torch.randn(g, 2, c, c, device=DEVICE) * 0.2).to(kind).requires_grad_()
    gamma = torch.rand(g, c, device=DEVICE).requires_grad_()
    beta = (torch.randn(g, c, device=DEVICE) * 0.1).requires_grad_()
    drop = (torch.rand(g, 1, batch, c, device=DEVICE) > 0.1) / 0.9
    wanted = (x, kernel, gamma, beta)
    theirs = network._ConvNormRelu.apply(*wanted, drop, dilation, network.kernels(False))
    ours = network._FusedConvNormRelu.apply(*wanted, drop, dilation)
    push = torch.randn_like(theirs[0])
    pairs = [
        *zip(ours, theirs, strict=True),
        *zip(
            torch.autograd.grad(ours[0], wanted, push),
            torch.autograd.grad(theirs[0], wanted, push),
            strict=True,
        ),
    ]
    for one, other in pairs:
        assert apart(one, other) < tolerance


@pytest.mark.parametrize("variant", network.VARIANTS)
def test_gpu_whole_network_of_each_variant(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stack = network.TIMNet(2, 4, 2, 39, variant)
    for row in range(2):
        stack.initialise(row, torch.Generator().manual_seed(row))
    stack.to(DEVICE)
    x = torch.randn(2, 9, 17, stack.width).to(DEVICE)
    shape = (2, 2, 2, stack.variant.directions, 17, stack.width)
    masks = ((torch.rand(shape) > 0.1) / 0.9).to(DEVICE)
    results = []
    for fused in (True, False):
        monkeypatch.setattr(network.TIMNet, "_fused", lambda *_, fused=fused: fused)
        stack.zero_grad()
        logits, _ = stack(x, masks)
        logits.square().sum().backward()
        gradients = {n: p.grad for n, p in stack.named_parameters() if p.grad is not None}
        results.append({"logits": logits.detach()} | gradients)
    assert results[0].keys() == results[1].keys()
    for name, ours in results[0].items():
        assert apart(ours, results[1][name]) < 1e-4, name


@pytest.mark.parametrize(("kind", "tolerance"), ((torch.float32, 1e-5), (LOW, 2e-2)))
def test_gpu_gate(kind: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    x, h = (torch.randn(3, 21, 33, 40, device=DEVICE).to(kind).requires_grad_() for _ in range(2))
    theirs = network._Gate.apply(x, h, network.kernels(False))
    ours = network._FusedGate.apply(x, h)
    push = [torch.randn_like(each) for each in theirs]
    gradients = [torch.autograd.grad(each, (x, h), push) for each in (ours, theirs)]
    for one, other in (*zip(ours, theirs, strict=True), *zip(*gradients, strict=True)):
        assert apart(one, other) < tolerance


@pytest.mark.parametrize("kind", (torch.float32, LOW))
def test_gpu_kernels_can_be_built_ahead_of_their_use(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton

    from timnet.training import gpu_kernels

    if INTERPRETED:  # which is of one thread
        monkeypatch.setattr(gpu_kernels, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(1))
    gpu_kernels.build(kind, 40, torch.device(DEVICE))
    built: list[str] = []

    def note(**given: Any) -> None:
        built.append(given["fn"].name.rpartition(".")[2])

    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", note)
    for batch in (16, 17, 64):
        test_gpu_convolution_norm_relu_dropout(kind, 5e-2, 4, batch)
    test_gpu_gate(kind, 5e-2)
    assert set(built) <= {"_moments"}  # which is built for a number of tiles
