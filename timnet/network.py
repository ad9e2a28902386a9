"""TIM-Net: a network of temporal-aware blocks, as a stack of independent networks.

Source: J. Ye, X. Wen, Y. Wei, Y. Xu, K. Liu, H. Shan, "Temporal Modeling Matters: A Novel
Temporal Emotional Modeling Approach for Speech Emotion Recognition", ICASSP 2023
(arXiv 2211.08233), in its notation: F_j what block j hands on, g_j the vector of its time scale,
w_j that scale's learned weight, g_drf the fused vector. Where text and published weights disagree,
the weights decide.

Axes, in every shape of this file:

    S  networks in the stack (folds x seeds); each has its own weights and sees its own batch
    D  directions: 0 reads the utterance forwards, 1 backwards
    G  S x D, one row a network and direction
    B  utterances of a batch
    T  frames
    C  channels: 39, zero-padded to WIDTH_MULTIPLE for the matrix products
    L  temporal-aware blocks (TABs)
    K  emotions

Activations are laid out (G, T, B, C): time comes before the batch, so that a causal shift by d
frames is a view of contiguous memory and a dilated convolution of width 2 is two matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPSILON = 1e-3  # Keras' default; PyTorch's is 1e-5
BATCH_NORM_MOMENTUM = 0.01  # Keras' 0.99, counted the other way round
WIDTH_MULTIPLE = 8  # 40 columns multiply half again as fast as 39 on the CPU measured


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
        compiled: train with compiled kernels; needs a C++ compiler (on a GPU, Triton).
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(
        self,
        networks: int,
        classes: int,
        tabs: int = 8,
        channels: int = 39,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.kernels = kernels(compiled)
        self.networks, self.classes, self.tabs, self.channels = networks, classes, tabs, channels
        self.width = -(-channels // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        s, k, n, c = networks, classes, tabs, self.width

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(s, *shape))

        # axes after S; a block has 2 convolutions, a convolution 2 taps: t - dilation, t
        self.input_kernel = zeros(2, c, c)  # D C C
        self.input_bias = zeros(2, c)  # D C
        self.kernel = zeros(n, 2, 2, 2, c, c)  # L convolution D tap C C
        self.bias = zeros(n, 2, 2, c)  # L convolution D C
        self.gamma = zeros(n, 2, 2, c)
        self.beta = zeros(n, 2, 2, c)
        self.scale_weight = zeros(n)  # L
        self.dense_kernel = zeros(c, k)
        self.dense_bias = zeros(k)
        self.register_buffer("running_mean", torch.zeros(s, n, 2, 2, c))
        self.register_buffer("running_variance", torch.ones(s, n, 2, 2, c))

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
        draw(self.scale_weight[network], 0.05)
        draw(self.dense_kernel[network, :c], (6 / (c + k)) ** 0.5)
        self.gamma[network, ..., :c] = 1

    def forward(
        self, x: Tensor, masks: Tensor | None = None, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Logits and fused vectors of a batch a network.

        Args:
            x: (S', T, B, C) frames, padded to `width` channels; S' the networks in `rows`.
            masks: (S', L, 2, D, B, C) spatial dropout, 0 or 1 / (1 - rate), for training: batch
                norm then uses the batch's statistics and updates the running ones. None to
                evaluate, without gradients.
            rows: the networks of the stack that take part.

        Returns:
            logits (S', B, K) and the fused vectors (S', B, C), both float32.
        """
        with torch.set_grad_enabled(masks is not None):
            return self._forward(x, masks, rows)

    def _forward(self, x: Tensor, masks: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        s, t, b, c = x.shape
        both = torch.stack((x, x.flip(1)), 1)  # S D T B C
        kernel = self.input_kernel[rows].to(x.dtype).view(s * 2, c, c)
        bias = self.input_bias[rows].to(x.dtype).view(s * 2, 1, c)
        h = torch.baddbmm(bias, both.view(s * 2, t * b, c), kernel).view(s * 2, t, b, c)
        scales = []
        for block in range(self.tabs):
            h, mean = self._temporal_aware_block(h, block, masks, rows)
            # g_j = mean over time of (forward F_j + backward F_j); a mean over time makes it
            # needless to reverse the backward one back
            scales.append(mean.view(s, 2, b, c).sum(1))
        # dynamic fusion: g_drf = sum over j of w_j g_j
        weight = self.scale_weight[rows].T[..., None, None]  # L S 1 1
        fused = (torch.stack(scales) * weight).sum(0)
        logits = torch.baddbmm(self.dense_bias[rows][:, None], fused, self.dense_kernel[rows])
        return logits, fused

    def _temporal_aware_block(
        self, x: Tensor, block: int, masks: Tensor | None, rows: slice
    ) -> tuple[Tensor, Tensor]:
        """F_j+1 = F_j * sigmoid(two causal dilated convolutions of F_j), and its mean over time.

        F_j is x (G, T, B, C) -> (G, T, B, C) and (G, B, C)
        """
        h = x
        for half in range(2):
            if masks is None:
                h = self._evaluate(h, block, half, rows)
            else:
                h = self._train(h, block, half, masks, rows)
        return _Gate.apply(x, h, self.kernels) if masks is not None else _gate(x, h)

    def _train(self, x: Tensor, block: int, half: int, masks: Tensor, rows: slice) -> Tensor:
        """Convolution to dropout on batch statistics.

        The bias is left out: batch norm subtracts it again, so its gradient is zero and it stays
        what it was.
        """
        kernel = self.kernel[rows, block, half].flatten(0, 1).to(x.dtype)
        gamma = self.gamma[rows, block, half].flatten(0, 1)
        beta = self.beta[rows, block, half].flatten(0, 1)
        mask = masks[:, block, half].flatten(0, 1)[:, None]
        h, mean, variance = _ConvNormRelu.apply(
            x, kernel, gamma, beta, mask, 2**block, self.kernels
        )
        with torch.no_grad():
            mean = mean.view(-1, 2, self.width) + self.bias[rows, block, half]
            self.running_mean[rows, block, half] += BATCH_NORM_MOMENTUM * (
                mean - self.running_mean[rows, block, half]
            )
            self.running_variance[rows, block, half] += BATCH_NORM_MOMENTUM * (
                variance.view_as(mean) - self.running_variance[rows, block, half]
            )
        return h

    def _evaluate(self, x: Tensor, block: int, half: int, rows: slice) -> Tensor:
        """Convolution to ReLU on running statistics, which are folded into kernel and bias."""
        variance = self.running_variance[rows, block, half]
        scale = self.gamma[rows, block, half] * torch.rsqrt(variance + BATCH_NORM_EPSILON)
        shift = self.beta[rows, block, half] + scale * (
            self.bias[rows, block, half] - self.running_mean[rows, block, half]
        )
        kernel = self.kernel[rows, block, half] * scale[..., None, None, :]
        y = _causal_convolution(x, kernel.flatten(0, 1).to(x.dtype), 2**block)
        y += shift.flatten(0, 1).to(x.dtype)[:, None, None]
        return y.relu_()

    def arrays(self, network: int) -> dict[str, Tensor]:
        """Weights and running statistics of one network, without the padding to `width`."""
        return {name: self._crop(value[network]) for name, value in self.state_dict().items()}

    @torch.no_grad()
    def load_arrays(self, network: int, arrays: dict[str, Tensor]) -> None:
        """The inverse of `arrays`."""
        for name, value in self.state_dict(keep_vars=False).items():
            self._crop(value[network]).copy_(arrays[name])

    def _crop(self, value: Tensor) -> Tensor:
        """A view of one network's array without the channels that only pad."""
        for axis, size in enumerate(value.shape):
            if size == self.width and axis >= value.ndim - 2:
                value = value.narrow(axis, 0, self.channels)
        return value


def pad_channels(features: Tensor, width: int) -> Tensor:
    """(..., channels) to (..., width), zeros at the end."""
    return F.pad(features, (0, width - features.shape[-1]))
