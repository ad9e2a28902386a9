"""TIM-Net: a network of temporal-aware blocks, as a stack of independent networks.

Source: J. Ye, X. Wen, Y. Wei, Y. Xu, K. Liu, H. Shan, "Temporal Modeling Matters: A Novel
Temporal Emotional Modeling Approach for Speech Emotion Recognition", ICASSP 2023
(arXiv 2211.08233), in its notation: F_j what block j hands on, g_j the vector of its time scale,
w_j that scale's learned weight, g_drf the fused vector. Where text and published weights disagree,
the weights decide.

Axes, in every shape of this file:

    S  networks in the stack (folds x seeds); each has its own weights and sees its own batch
    D  directions: 0 reads the utterance forwards, 1 (where there is one) backwards
    G  S x D, one row per network and direction
    B  utterances of a batch
    T  frames
    C  channels: 39, zero-padded to WIDTH_MULTIPLE for the matrix products
    L  temporal-aware blocks (TABs)
    K  emotions

Activations are laid out (G, T, B, C): time comes before the batch, so that a causal shift by d
frames is a view of contiguous memory and a dilated convolution of width 2 is two matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# what activations are kept in; tf32: fp32 whose products a GPU may round to 10 bits
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
BATCH_NORM_EPSILON = 1e-3  # Keras' default; PyTorch's is 1e-5
BATCH_NORM_MOMENTUM = 0.01  # Keras' 0.99, counted the other way round
# axes of a network's arrays that are channels, padded to the width; of all others the last one
CHANNEL_AXES: dict[str, tuple[int, ...]] = {
    "input_kernel": (-2, -1),
    "kernel": (-2, -1),
    "scale_weight": (),
    "dense_kernel": (-2,),
    "dense_bias": (),
}
WIDTH_MULTIPLE = 8  # 40 columns multiply half again as fast as 39 on the CPU measured


@dataclass(frozen=True)
class Variant:
    """What sets an ablation of the paper's Table S3 apart from TIM-Net."""

    directions: Literal[1, 2] = 2  # 2: also read backwards
    # from the time scales to the fused vector: weights that are learned, their mean, the last alone
    fusion: Literal["learned", "mean", "last"] = "learned"
    block: Literal["gate", "residual"] = (
        "gate"  # F_j times the sigmoid of two convolutions, or plus
    )


VARIANTS = {
    "tim-net": Variant(),
    "without-bd": Variant(directions=1),
    "without-ms": Variant(fusion="last"),
    "without-df": Variant(fusion="mean"),
    "tcn": Variant(directions=1, fusion="last", block="residual"),
}


def _normalise(
    y: Tensor, gamma: Tensor, beta: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm on the batch's statistics, ReLU, spatial dropout.

    y (G, T, B, C), gamma and beta (G, C), mask (G, 1, B, C); gives the output and the batch's
    mean and (biased) variance, (G, C).
    """
    values = y.float()
    mean = values.mean((1, 2))
    variance = (values - mean[:, None, None]).square().mean((1, 2))
    scale = gamma * torch.rsqrt(variance + BATCH_NORM_EPSILON)
    shift = beta - mean * scale
    out = torch.relu(values * scale[:, None, None] + shift[:, None, None]) * mask
    return out.to(y.dtype), mean, variance


def _normalise_backward(
    d_out: Tensor,
    out: Tensor,
    y: Tensor,
    gamma: Tensor,
    mask: Tensor,
    mean: Tensor,
    variance: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_normalise` with respect to y, gamma and beta."""
    count = y.shape[1] * y.shape[2]
    rstd = torch.rsqrt(variance + BATCH_NORM_EPSILON)
    d_norm = torch.where(out > 0, d_out.float() * mask, 0.0)
    norm = (y.float() - mean[:, None, None]) * rstd[:, None, None]
    d_beta = d_norm.sum((1, 2))
    d_gamma = (d_norm * norm).sum((1, 2))
    centred = d_norm - (d_beta / count)[:, None, None] - norm * (d_gamma / count)[:, None, None]
    return ((gamma * rstd)[:, None, None] * centred).to(y.dtype), d_gamma, d_beta


def _gate(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """x times the sigmoid of h, (G, T, B, C), and its mean over time, (G, B, C)."""
    out = x.float() * torch.sigmoid(h.float())
    return out.to(x.dtype), out.mean(1)


def _gate_backward(d_out: Tensor, d_mean: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_gate` with respect to x and h."""
    sigmoid = torch.sigmoid(h.float())
    d_x = (d_out.float() + (d_mean / x.shape[1])[:, None]) * sigmoid
    return d_x.to(x.dtype), (d_x * x.float() * (1 - sigmoid)).to(x.dtype)


class Kernels(NamedTuple):
    """What stands between two matrix products, as written above or compiled into single passes.

    Memory traffic is what this network waits for: compiled, these passes take a third of the
    time. The two differ in the last bits.
    """

    normalise: Callable
    normalise_backward: Callable
    gate: Callable
    gate_backward: Callable


@lru_cache
def kernels(compiled: bool) -> Kernels:
    """The functions above; compiled once a shape, since a kernel for all shapes is slower."""
    plain = Kernels(_normalise, _normalise_backward, _gate, _gate_backward)
    if not compiled:
        return plain
    torch._dynamo.config.recompile_limit = 64  # folds of many sizes have many last batches
    return Kernels(*(torch.compile(function, dynamic=False) for function in plain))


class _FusedConvNormRelu(torch.autograd.Function):
    """`_ConvNormRelu` by the kernels of `gpu_kernels`."""

    @staticmethod
    def forward(ctx, x, kernel, gamma, beta, mask, dilation):
        from timnet.training import gpu_kernels as gpu

        given = kernel, dilation, gamma, beta, BATCH_NORM_EPSILON
        y, found = gpu.convolution_statistics(x, *given)
        ctx.save_for_backward(x, kernel, mask, y, *found)
        ctx.dilation = dilation
        ctx.mark_non_differentiable(found.mean, found.variance)
        return gpu.normalise(y, found.scale, found.shift, mask), found.mean, found.variance

    @staticmethod
    def backward(ctx, d_out, *_):
        from timnet.training import gpu_kernels as gpu

        x, kernel, mask, y, *found = ctx.saved_tensors
        statistics = gpu.Statistics(*found)
        d_y, d_gamma, d_beta = gpu.normalise_backward(d_out, y, statistics, mask)
        d_kernel = gpu.kernel_gradient(x, d_y, ctx.dilation).to(kernel.dtype)
        d_x = gpu.convolution(d_y, kernel, ctx.dilation, backward=True)
        return d_x, d_kernel, d_gamma, d_beta, None, None


class _FusedGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h):
        from timnet.training import gpu_kernels

        ctx.save_for_backward(x, h)
        return gpu_kernels.gate(x, h)

    @staticmethod
    def backward(ctx, d_out, d_mean):
        from timnet.training import gpu_kernels

        return gpu_kernels.gate_backward(d_out, d_mean, *ctx.saved_tensors)


class _ConvNormRelu(torch.autograd.Function):
    """Causal convolution, batch norm on the batch's statistics, ReLU, spatial dropout.

    One function and not four, since its backward pass then needs just two saved activations.
    """

    @staticmethod
    def forward(ctx, x, kernel, gamma, beta, mask, dilation, functions):
        y = _causal_convolution(x, kernel, dilation)
        out, mean, variance = functions.normalise(y, gamma, beta, mask)
        ctx.save_for_backward(x, kernel, gamma, mask, y, out, mean, variance)
        ctx.dilation, ctx.functions = dilation, functions
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx, d_out, *_):
        x, kernel, gamma, mask, y, out, mean, variance = ctx.saved_tensors
        d_y, d_gamma, d_beta = ctx.functions.normalise_backward(
            d_out, out, y, gamma, mask, mean, variance
        )
        d_x, d_kernel = _causal_convolution_backward(d_y, x, kernel, ctx.dilation)
        return d_x, d_kernel, d_gamma, d_beta, None, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, functions):
        ctx.save_for_backward(x, h)
        ctx.functions = functions
        return functions.gate(x, h)

    @staticmethod
    def backward(ctx, d_out, d_mean):
        return *ctx.functions.gate_backward(d_out, d_mean, *ctx.saved_tensors), None


def _multiply(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> Tensor:
    """out = a b, or out += a b, a matrix product a row of the leading axis.

    On the CPU one by one: its batched product takes half as long again.
    """
    if a.is_cuda:
        return torch.baddbmm(out, a, b, beta=float(add), out=out)
    for row, left, right in zip(out, a, b, strict=True):
        torch.addmm(row, left, right, beta=float(add), out=row)
    return out


def _causal_convolution(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """y[t] = x[t - dilation] kernel[0] + x[t] kernel[1], zeros before the first frame.

    x (G, T, B, C), kernel (G, 2, C, C) -> (G, T, B, C)
    """
    y = torch.empty_like(x)
    _multiply(x.flatten(1, 2), kernel[:, 1], y.flatten(1, 2))
    if dilation < x.shape[1]:
        late, early = y[:, dilation:].flatten(1, 2), x[:, :-dilation].flatten(1, 2)
        _multiply(early, kernel[:, 0], late, add=True)
    return y


def _causal_convolution_backward(
    d_y: Tensor, x: Tensor, kernel: Tensor, dilation: int
) -> tuple[Tensor, Tensor]:
    """Gradients of `_causal_convolution` with respect to x and kernel."""
    back = kernel.transpose(2, 3)
    d_x, d_kernel = torch.empty_like(x), torch.zeros_like(kernel)
    _multiply(d_y.flatten(1, 2), back[:, 1], d_x.flatten(1, 2))
    _multiply(x.flatten(1, 2).transpose(1, 2), d_y.flatten(1, 2), d_kernel[:, 1])
    if dilation < x.shape[1]:
        late, early = d_y[:, dilation:].flatten(1, 2), slice(None, -dilation)
        _multiply(late, back[:, 0], d_x[:, early].flatten(1, 2), add=True)
        _multiply(x[:, early].flatten(1, 2).transpose(1, 2), late, d_kernel[:, 0])
    return d_x, d_kernel


class TIMNet(nn.Module):
    """A stack of S TIM-Nets that share nothing but their shape.

    Weights are drawn by `initialise`; until then they are zero.

    Args:
        networks: S.
        classes: K, the emotions told apart.
        tabs: L, temporal-aware blocks a direction; block j (from 0) has dilation 2^j.
        channels: coefficients a frame and filters a convolution (the paper: 39).
        variant: one of VARIANTS.
        compiled: train with compiled kernels; needs a C++ compiler (on a GPU, Triton).
        standardised: the fused vector's channels are brought to mean 0 and deviation 1, as batch
            norm would, before the classifier.
    """

    running_mean: Tensor
    running_variance: Tensor
    fused_mean: Tensor
    fused_variance: Tensor

    def __init__(
        self,
        networks: int,
        classes: int,
        tabs: int = 8,
        channels: int = 39,
        variant: str = "tim-net",
        compiled: bool = False,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.compiled = compiled
        self.variant = VARIANTS[variant]
        self.networks, self.classes, self.tabs, self.channels = networks, classes, tabs, channels
        self.width = -(-channels // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        s, d, k, n, c = networks, self.variant.directions, classes, tabs, self.width

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(s, *shape))

        # axes after S; a block has 2 convolutions, a convolution 2 taps: t - dilation, t
        self.input_kernel = zeros(d, c, c)  # D C C
        self.input_bias = zeros(d, c)  # D C
        self.kernel = zeros(n, 2, d, 2, c, c)  # L convolution D tap C C
        self.bias = zeros(n, 2, d, c)  # L convolution D C
        self.gamma = zeros(n, 2, d, c)
        self.beta = zeros(n, 2, d, c)
        if self.variant.fusion == "learned":
            self.scale_weight = zeros(n)  # L
        self.dense_kernel = zeros(c, k)
        self.dense_bias = zeros(k)
        self.register_buffer("running_mean", torch.zeros(s, n, 2, d, c))
        self.register_buffer("running_variance", torch.ones(s, n, 2, d, c))
        self.standardised = standardised
        if standardised:
            self.register_buffer("fused_mean", torch.zeros(s, c))
            self.register_buffer("fused_variance", torch.ones(s, c))

    @torch.no_grad()
    def initialise(self, network: int, generator: torch.Generator) -> None:
        """Draw the weights of one network as Keras does.

        Glorot uniform kernels, zero biases, unit gamma; scale weights uniform(-0.05, 0.05).
        """
        c, k = self.channels, self.classes

        def draw(target: Tensor, bound: float) -> None:
            target.copy_((torch.rand(target.shape, generator=generator) * 2 - 1) * bound)

        draw(self.input_kernel[network, :, :c, :c], (6 / (c + c)) ** 0.5)
        draw(self.kernel[network, ..., :c, :c], (6 / (2 * c + 2 * c)) ** 0.5)  # 2 taps
        if self.variant.fusion == "learned":
            draw(self.scale_weight[network], 0.05)
        draw(self.dense_kernel[network, :c], (6 / (c + k)) ** 0.5)
        self.gamma[network, ..., :c] = 1

    def forward(
        self,
        x: Tensor,
        masks: Tensor | None = None,
        rows: slice = slice(None),
        momentum: float = BATCH_NORM_MOMENTUM,
    ) -> tuple[Tensor, Tensor]:
        """Logits and fused vectors of a batch a network.

        Args:
            x: (S', T, B, C) frames, padded to `width` channels; S' the networks in `rows`.
            masks: (S', L, 2, D, B, C) spatial dropout, 0 or 1 / (1 - rate), for training: batch
                norm then uses the batch's statistics and updates the running ones. None to
                evaluate, without gradients.
            rows: the networks of the stack that take part.
            momentum: share of the batch's statistics in the running ones.

        Returns:
            logits (S', B, K) and the fused vectors (S', B, C), both float32.
        """
        with torch.set_grad_enabled(masks is not None and torch.is_grad_enabled()):
            h = self._input_convolution(x, rows)
            if masks is None:
                scales = torch.stack([scale for _, scale in self._evaluate(h, rows)])
            else:
                scales = self._train(h, masks, rows, momentum)
            # g_j = mean over time of (forward F_j + backward F_j); a mean over time makes it
            # needless to reverse the backward one back
            fused = self._fuse(scales.unflatten(1, (x.shape[0], -1)).sum(2), rows)
            if self.standardised:
                fused = self._standardise(fused, rows, None if masks is None else momentum)
            dense = self.dense_bias[rows][:, None], fused, self.dense_kernel[rows]
            return torch.baddbmm(*dense), fused

    def build_kernels(self, kind: torch.dtype) -> None:
        """Build what trains on a GPU in this precision before it is needed, all at once."""
        if self._fused(self.kernel):
            from timnet.training import gpu_kernels

            gpu_kernels.build(kind, self.width, self.kernel.device)

    def _fused(self, x: Tensor) -> bool:
        """Whether blocks are trained by `gpu_kernels`."""
        return self.compiled and x.is_cuda

    def _input_convolution(self, x: Tensor, rows: slice) -> Tensor:
        """F_0 of each direction, a convolution of width 1: (S', T, B, C) -> (G, T, B, C)"""
        _, t, b, c = x.shape
        both = x[:, None] if self.variant.directions == 1 else torch.stack((x, x.flip(1)), 1)
        kernel = self.input_kernel[rows].to(x.dtype).flatten(0, 1)
        bias = self.input_bias[rows].to(x.dtype).flatten(0, 1)[:, None]
        return torch.baddbmm(bias, both.reshape(-1, t * b, c), kernel).view(-1, t, b, c)

    def _fuse(self, scales: Tensor, rows: slice) -> Tensor:
        """Dynamic fusion, g_drf = sum over j of w_j g_j: (L, S', B, C) -> (S', B, C)"""
        if self.variant.fusion == "last":
            return scales[-1]
        if self.variant.fusion == "mean":
            return scales.mean(0)
        return (scales * self.scale_weight[rows].T[..., None, None]).sum(0)

    def _standardise(self, fused: Tensor, rows: slice, momentum: float | None) -> Tensor:
        """Fused vectors (S', B, C) by the batch's statistics; None: by the running ones."""
        if momentum is None:
            mean, variance = self.fused_mean[rows], self.fused_variance[rows]
        else:
            mean = fused.mean(1)
            variance = (fused - mean[:, None]).square().mean(1)
            with torch.no_grad():
                self.fused_mean[rows].lerp_(mean, momentum)
                self.fused_variance[rows].lerp_(variance, momentum)
        return (fused - mean[:, None]) * torch.rsqrt(variance + BATCH_NORM_EPSILON)[:, None]

    def _train(self, x: Tensor, masks: Tensor, rows: slice, momentum: float) -> Tensor:
        """The blocks on batch statistics, with dropout: means over time, (L, G, B, C).

        A temporal-aware block makes F_j+1 = F_j * sigmoid(two causal dilated convolutions of F_j).
        Biases are left out: batch norm subtracts them again, so their gradient is zero and they
        stay what they were.
        """
        # a convolution each, D after S; taken apart at once, since that gives one gradient
        kernel, gamma, beta = (
            self._by_convolution(values, rows).to(kind).unbind()
            for values, kind in (
                (self.kernel, x.dtype),
                (self.gamma, torch.float32),
                (self.beta, torch.float32),
            )
        )
        drop = masks.flatten(1, 2).transpose(0, 1).flatten(1, 2)[:, :, None].unbind()
        fused = self._fused(x)
        functions = kernels(self.compiled and not fused)
        scales, means, variances = [], [], []
        for block in range(self.tabs):
            h = x
            for n in (2 * block, 2 * block + 1):
                given = h, kernel[n], gamma[n], beta[n], drop[n], 2**block
                if fused:
                    h, mean, variance = _FusedConvNormRelu.apply(*given)
                else:
                    h, mean, variance = _ConvNormRelu.apply(*given, functions)
                means.append(mean)
                variances.append(variance)
            if self.variant.block == "gate":
                x, scale = _FusedGate.apply(x, h) if fused else _Gate.apply(x, h, functions)
            else:
                x = x + h
                scale = x.float().mean(1)
            scales.append(scale)
        with torch.no_grad():
            for running, batch in (
                (
                    self.running_mean[rows],
                    torch.stack(means) + self._by_convolution(self.bias, rows),
                ),
                (self.running_variance[rows], torch.stack(variances)),
            ):
                batch = batch.unflatten(1, (-1, self.variant.directions)).transpose(0, 1)
                running.lerp_(batch.reshape_as(running), momentum)
        return torch.stack(scales)

    @torch.no_grad()
    def adapt(self, x: Tensor, rows: slice = slice(None)) -> None:
        """Make the statistics of a batch the running ones: x (S', T, B, C), as of `forward`."""
        s, _, b, c = x.shape
        kept = torch.ones(s, self.tabs, 2, self.variant.directions, b, c, device=x.device)
        self(x, kept, rows, 1.0)

    def _evaluate(self, x: Tensor, rows: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """The blocks on running statistics, folded into kernels and biases.

        Yields F_j+1, (G, T, B, C), and its mean over time, (G, B, C).
        """
        mean, variance, gamma, beta, bias, kernel = (
            self._by_convolution(values, rows)
            for values in (
                self.running_mean,
                self.running_variance,
                self.gamma,
                self.beta,
                self.bias,
                self.kernel,
            )
        )
        slope = gamma * torch.rsqrt(variance + BATCH_NORM_EPSILON)
        shift = (beta + slope * (bias - mean)).to(x.dtype)[:, :, None, None]
        kernel = (kernel * slope[:, :, None, None, :]).to(x.dtype)
        for block in range(self.tabs):
            h = x
            for n in (2 * block, 2 * block + 1):
                h = _causal_convolution(h, kernel[n], 2**block).add_(shift[n]).relu_()
            if self.variant.block == "gate":
                x, scale = _gate(x, h)
            else:
                x = x + h
                scale = x.float().mean(1)
            yield x, scale

    @staticmethod
    def _by_convolution(values: Tensor, rows: slice) -> Tensor:
        """(S, L, 2, D, ...) to (2 L, G, ...)"""
        return values[rows].flatten(1, 2).transpose(0, 1).flatten(1, 2)

    def arrays(self, network: int) -> dict[str, Tensor]:
        """Weights and running statistics of one network, without the padding to `width`."""
        return {name: self._crop(name, value[network]) for name, value in self.state_dict().items()}

    @torch.no_grad()
    def load_arrays(self, network: int, arrays: dict[str, Tensor]) -> None:
        """The inverse of `arrays`."""
        for name, value in self.state_dict(keep_vars=False).items():
            self._crop(name, value[network]).copy_(arrays[name])

    def _crop(self, name: str, value: Tensor) -> Tensor:
        """A view of one network's array without the channels that only pad."""
        for axis in CHANNEL_AXES.get(name, (-1,)):
            value = value.narrow(axis, 0, self.channels)
        return value


def pad_channels(features: Tensor, width: int) -> Tensor:
    """(..., channels) to (..., width), zeros at the end."""
    return F.pad(features, (0, width - features.shape[-1]))
