"""The temporal-aware block's passes as Triton kernels, for training on a GPU.

What `network` writes as matrix products and passes over activations is done here in as few passes
over memory as can be, since memory is what a network this small waits for: a dilated convolution
reads its input once and leaves the sums of batch norm behind; the rest are single passes. Sums are
added up in a fixed order, so two runs give the same bits. Kernels are built once for all shapes of
a width, which is a constant so that a thread knows how much it may read at once. By default Triton
would build them again for sizes that are multiples of 16, which makes none of them faster.

Axes as in `network`; a row is a frame of an utterance, R = T x B of them, so that a causal shift by
d frames is one by d B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 128  # that a program handles at a time
WIDTH = 64  # channels of a tile: a power of 2, at least 16, above the network's 40
CHUNKS = 48  # of the rows, in the gradient of kernels
FRAMES = 16  # that a program of the gate handles

_kernel = triton.jit(do_not_specialize=("rows", "shift", "batch", "frames", "tiles"))


@_kernel
def _convolution(
    x,
    kernel,
    y,
    partial,
    rows,
    shift,
    channels: tl.constexpr,
    stride_in,
    stride_out,
    STATISTICS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """y[r] = x[r - shift] kernel[0] + x[r] kernel[1]; with STATISTICS each tile's sums of y."""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < channels)[None, :]
    early = row - shift
    seen = ((row < rows) & (early >= 0) & (early < rows))[:, None] & (column < channels)[None, :]
    base = x + group * rows * channels
    here = tl.load(base + row[:, None] * channels + column[None, :], mask=inside, other=0.0)
    before = tl.load(base + early[:, None] * channels + column[None, :], mask=seen, other=0.0)
    square = (column < channels)[:, None] & (column < channels)[None, :]
    at = column[:, None] * stride_in + column[None, :] * stride_out
    weights = kernel + group * 2 * channels * channels
    first = tl.load(weights + at, mask=square, other=0.0)
    second = tl.load(weights + channels * channels + at, mask=square, other=0.0)
    sums = tl.dot(here, second, input_precision=PRECISION)
    sums += tl.dot(before, first, input_precision=PRECISION)
    stored = sums.to(y.dtype.element_ty)
    out = y + group * rows * channels + row[:, None] * channels + column[None, :]
    tl.store(out, stored, mask=inside)
    if STATISTICS:
        values = tl.where(inside, stored.to(tl.float32), 0.0)
        number = tl.minimum(rows - tile * ROWS, ROWS)
        mean = tl.sum(values, 0) / number
        centred = tl.where(inside, values - mean[None, :], 0.0)
        to = partial + ((group * tl.num_programs(0) + tile) * 2) * channels + column
        tl.store(to, mean, mask=column < channels)
        tl.store(to + channels, tl.sum(centred * centred, 0), mask=column < channels)


@_kernel
def _moments(
    partial,
    gamma,
    beta,
    mean,
    variance,
    rstd,
    scale,
    shift,
    tiles,
    rows,
    channels: tl.constexpr,
    epsilon,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Mean and variance of all tiles from each tile's mean and sum of squares about it.

    And what batch norm makes of them: y scale + shift.
    """
    group = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    known = column < channels
    tile = tl.arange(0, TILES)
    there = (tile < tiles)[:, None] & known[None, :]
    number = tl.where(tile < tiles, tl.minimum(rows - tile * ROWS, ROWS), 0).to(tl.float32)[:, None]
    at = partial + (group * tiles + tile[:, None]) * 2 * channels + column[None, :]
    means = tl.load(at, mask=there, other=0.0)
    middle = tl.sum(number * means, 0) / rows
    apart = means - middle[None, :]
    squares = tl.load(at + channels, mask=there, other=0.0) + number * apart * apart
    spread = tl.sum(squares, 0) / rows
    of = group * channels + column
    slope = 1 / tl.sqrt(spread + epsilon)
    by = tl.load(gamma + of, mask=known, other=0.0) * slope
    tl.store(mean + of, middle, mask=known)
    tl.store(variance + of, spread, mask=known)
    tl.store(rstd + of, slope, mask=known)
    tl.store(scale + of, by, mask=known)
    tl.store(shift + of, tl.load(beta + of, mask=known, other=0.0) - middle * by, mask=known)


@_kernel
def _normalise(
    y,
    scale,
    shift,
    drop,
    out,
    rows,
    batch,
    channels: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """out = relu(y scale + shift) drop"""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    known = column < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = group * rows * channels + row[:, None] * channels + column[None, :]
    values = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    by = tl.load(scale + group * channels + column, mask=known, other=0.0)
    plus = tl.load(shift + group * channels + column, mask=known, other=0.0)
    utterance = row % batch
    place = group * batch * channels + utterance[:, None] * channels + column[None, :]
    kept = tl.load(drop + place, mask=inside, other=0.0)
    values = tl.maximum(values * by[None, :] + plus[None, :], 0.0) * kept
    tl.store(out + at, values.to(out.dtype.element_ty), mask=inside)


@_kernel
def _normalise_sums(
    d_out,
    y,
    scale,
    shift,
    mean,
    rstd,
    drop,
    partial,
    rows,
    batch,
    channels: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Each tile's sums of the gradient before batch norm, and of it times the normal values."""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    known = column < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = group * rows * channels + row[:, None] * channels + column[None, :]
    of = group * channels + column
    values = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    by = tl.load(scale + of, mask=known, other=0.0)[None, :]
    plus = tl.load(shift + of, mask=known, other=0.0)[None, :]
    place = group * batch * channels + (row % batch)[:, None] * channels + column[None, :]
    kept = tl.load(drop + place, mask=inside, other=0.0)
    gradient = tl.load(d_out + at, mask=inside, other=0.0).to(tl.float32) * kept
    gradient = tl.where(values * by + plus > 0, gradient, 0.0)
    middle = tl.load(mean + of, mask=known, other=0.0)[None, :]
    slope = tl.load(rstd + of, mask=known, other=0.0)[None, :]
    normal = (values - middle) * slope
    to = partial + ((group * tl.num_programs(0) + tile) * 2) * channels + column
    tl.store(to, tl.sum(gradient, 0), mask=known)
    tl.store(to + channels, tl.sum(tl.where(inside, gradient * normal, 0.0), 0), mask=known)


@_kernel
def _normalise_backward(
    d_out,
    y,
    scale,
    shift,
    mean,
    rstd,
    drop,
    sums,
    d_y,
    rows,
    batch,
    channels: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradient with respect to y; sums (G, 2, C) as of `_normalise_sums` over all tiles."""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    known = column < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = group * rows * channels + row[:, None] * channels + column[None, :]
    of = group * channels + column
    values = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    by = tl.load(scale + of, mask=known, other=0.0)[None, :]
    plus = tl.load(shift + of, mask=known, other=0.0)[None, :]
    place = group * batch * channels + (row % batch)[:, None] * channels + column[None, :]
    kept = tl.load(drop + place, mask=inside, other=0.0)
    gradient = tl.load(d_out + at, mask=inside, other=0.0).to(tl.float32) * kept
    gradient = tl.where(values * by + plus > 0, gradient, 0.0)
    middle = tl.load(mean + of, mask=known, other=0.0)[None, :]
    slope = tl.load(rstd + of, mask=known, other=0.0)[None, :]
    normal = (values - middle) * slope
    total = group * 2 * channels + column
    d_beta = tl.load(sums + total, mask=known, other=0.0)[None, :] / rows
    d_gamma = tl.load(sums + total + channels, mask=known, other=0.0)[None, :] / rows
    found = by * (gradient - d_beta - normal * d_gamma)  # scale = gamma rstd
    tl.store(d_y + at, found.to(d_y.dtype.element_ty), mask=inside)


@_kernel
def _kernel_gradient(
    x,
    d_y,
    partial,
    rows,
    shift,
    channels: tl.constexpr,
    tiles,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Each chunk's sums of x[r - shift]^T d_y[r] and x[r]^T d_y[r]."""
    chunk, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, WIDTH)
    known = column < channels
    base = group * rows * channels
    first = tl.zeros((WIDTH, WIDTH), tl.float32)
    second = tl.zeros((WIDTH, WIDTH), tl.float32)
    for tile in range(chunk, tiles, CHUNKS):
        row = tile * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & known[None, :]
        early = row - shift
        seen = ((row < rows) & (early >= 0))[:, None] & known[None, :]
        at = base + row[:, None] * channels + column[None, :]
        gradient = tl.load(d_y + at, mask=inside, other=0.0)
        here = tl.load(x + at, mask=inside, other=0.0)
        from_ = base + early[:, None] * channels + column[None, :]
        before = tl.load(x + from_, mask=seen, other=0.0)
        first += tl.dot(tl.trans(before), gradient, input_precision=PRECISION)
        second += tl.dot(tl.trans(here), gradient, input_precision=PRECISION)
    square = known[:, None] & known[None, :]
    to = partial + (group * CHUNKS + chunk) * 2 * channels * channels
    to += column[:, None] * channels + column[None, :]
    tl.store(to, first, mask=square)
    tl.store(to + channels * channels, second, mask=square)


@_kernel
def _gate(
    x,
    h,
    out,
    partial,
    frames,
    batch,
    channels: tl.constexpr,
    FRAMES: tl.constexpr,
    UTTERANCES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """out = x sigmoid(h), and its sum over the frames of a chunk."""
    chunk, part, group = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    utterance = part * UTTERANCES + tl.arange(0, UTTERANCES)
    column = tl.arange(0, WIDTH)
    inside = (utterance < batch)[:, None] & (column < channels)[None, :]
    place = utterance[:, None] * channels + column[None, :]
    total = tl.zeros((UTTERANCES, WIDTH), tl.float32)
    for step in range(FRAMES):
        frame = chunk * FRAMES + step
        here = inside & (frame * batch + utterance < frames * batch)[:, None]
        at = (group * frames + frame) * batch * channels + place
        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        value *= tl.sigmoid(tl.load(h + at, mask=here, other=0.0).to(tl.float32))
        tl.store(out + at, value.to(out.dtype.element_ty), mask=here)
        total += value
    to = partial + (group * tl.num_programs(0) + chunk) * batch * channels + place
    tl.store(to, total, mask=inside)


@_kernel
def _gate_backward(
    d_out,
    d_mean,
    x,
    h,
    d_x,
    d_h,
    rows,
    frames,
    batch,
    channels: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradients of `_gate` with respect to x and h; d_mean (G, B, C) is of the mean over time."""
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < channels)[None, :]
    at = group * rows * channels + row[:, None] * channels + column[None, :]
    place = group * batch * channels + (row % batch)[:, None] * channels + column[None, :]
    gradient = tl.load(d_out + at, mask=inside, other=0.0).to(tl.float32)
    gradient += tl.load(d_mean + place, mask=inside, other=0.0) / frames
    open_ = tl.sigmoid(tl.load(h + at, mask=inside, other=0.0).to(tl.float32))
    found = gradient * open_
    tl.store(d_x + at, found.to(d_x.dtype.element_ty), mask=inside)
    found *= tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * (1 - open_)
    tl.store(d_h + at, found.to(d_h.dtype.element_ty), mask=inside)


class Statistics(NamedTuple):
    """Of a convolution's output by channel, (G, C) float32 each; batch norm is y scale + shift."""

    mean: Tensor
    variance: Tensor
    rstd: Tensor
    scale: Tensor
    shift: Tensor


P = ParamSpec("P")
R = TypeVar("R")


def _by_shape(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with tensors that lie in memory as their shape says, since kernels go by it."""

    @wraps(function)
    def with_contiguous(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args)
        return function(*given, **kwargs)  # type: ignore[arg-type]

    return with_contiguous


def _precision() -> str:
    """Of matrix products of 32 bits: three of 10 bits each are near exact, one is TF32."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


@_by_shape
def convolution(x: Tensor, kernel: Tensor, dilation: int, backward: bool = False) -> Tensor:
    """Causal dilated convolution (G, T, B, C) by kernel (G, 2, C, C).

    Args:
        backward: the gradient with respect to its input instead, of the one to its output.
    """
    return _convolve(x, kernel, dilation, backward, x.new_empty(1, dtype=torch.float32))


@_by_shape
def convolution_statistics(
    x: Tensor, kernel: Tensor, dilation: int, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Statistics]:
    """`convolution` and the statistics of its output; gamma and beta (G, C) are batch norm's."""
    g, t, b, c = x.shape
    tiles = triton.cdiv(t * b, ROWS)
    partial = x.new_empty((g, tiles, 2, c), dtype=torch.float32)
    y = _convolve(x, kernel, dilation, False, partial)
    found = Statistics(*x.new_empty((5, g, c), dtype=torch.float32))
    _moments[(g,)](
        partial, gamma, beta, *found, tiles, t * b, c, epsilon,
        TILES=triton.next_power_of_2(tiles), ROWS=ROWS, WIDTH=WIDTH,
    )  # fmt: skip
    return y, found


def _convolve(x: Tensor, kernel: Tensor, dilation: int, backward: bool, partial: Tensor) -> Tensor:
    g, t, b, c = x.shape
    y = torch.empty_like(x)
    _convolution[(triton.cdiv(t * b, ROWS), g)](
        x, kernel, y, partial, t * b, (-1 if backward else 1) * dilation * b, c,
        1 if backward else c, c if backward else 1,
        STATISTICS=partial.ndim == 4, PRECISION=_precision(), ROWS=ROWS, WIDTH=WIDTH,
    )  # fmt: skip
    return y


@_by_shape
def normalise(y: Tensor, scale: Tensor, shift: Tensor, drop: Tensor) -> Tensor:
    """relu(y scale + shift) drop: y (G, T, B, C), scale and shift (G, C), drop (G, 1, B, C)."""
    g, t, b, c = y.shape
    out = torch.empty_like(y)
    grid = (triton.cdiv(t * b, ROWS), g)
    _normalise[grid](y, scale, shift, drop, out, t * b, b, c, ROWS=ROWS, WIDTH=WIDTH)
    return out


@_by_shape
def normalise_backward(
    d_out: Tensor, y: Tensor, found: Statistics, drop: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of batch norm, ReLU and dropout: of y, gamma and beta; shapes as above."""
    g, t, b, c = y.shape
    grid = (triton.cdiv(t * b, ROWS), g)
    partial = y.new_empty((g, grid[0], 2, c), dtype=torch.float32)
    common = d_out, y, found.scale, found.shift, found.mean, found.rstd, drop
    _normalise_sums[grid](*common, partial, t * b, b, c, ROWS=ROWS, WIDTH=WIDTH)
    sums = partial.sum(1)
    d_y = torch.empty_like(y)
    _normalise_backward[grid](*common, sums, d_y, t * b, b, c, ROWS=ROWS, WIDTH=WIDTH)
    return d_y, sums[:, 1], sums[:, 0]


@_by_shape
def kernel_gradient(x: Tensor, d_y: Tensor, dilation: int) -> Tensor:
    """Gradient of a convolution with respect to its kernel, (G, 2, C, C) float32."""
    g, t, b, c = x.shape
    rows = ROWS // 2 if x.dtype == torch.float32 else ROWS  # what fits into shared memory
    tiles = triton.cdiv(t * b, rows)
    partial = x.new_empty((g, CHUNKS, 2, c, c), dtype=torch.float32)
    _kernel_gradient[(CHUNKS, g)](
        x, d_y, partial, t * b, dilation * b, c, tiles,
        CHUNKS=CHUNKS, PRECISION=_precision(), ROWS=rows, WIDTH=WIDTH, num_stages=2,
    )  # fmt: skip
    return partial.sum(1)


@_by_shape
def gate(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """x times the sigmoid of h, (G, T, B, C), and its mean over time, (G, B, C)."""
    g, t, b, c = x.shape
    chunks, utterances = triton.cdiv(t, FRAMES), 32
    out = torch.empty_like(x)
    partial = x.new_empty((g, chunks, b, c), dtype=torch.float32)
    _gate[(chunks, triton.cdiv(b, utterances), g)](
        x, h, out, partial, t, b, c, FRAMES=FRAMES, UTTERANCES=utterances, WIDTH=WIDTH
    )
    return out, partial.sum(1) / t


@_by_shape
def gate_backward(d_out: Tensor, d_mean: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `gate` with respect to x and h."""
    g, t, b, c = x.shape
    d_x, d_h = torch.empty_like(x), torch.empty_like(h)
    grid = (triton.cdiv(t * b, ROWS), g)
    _gate_backward[grid](d_out, d_mean, x, h, d_x, d_h, t * b, t, b, c, ROWS=ROWS, WIDTH=WIDTH)
    return d_x, d_h


def build(kind: torch.dtype, channels: int, device: torch.device) -> None:
    """Build the kernels of a width and precision side by side, before their first use.

    Each takes a second or so, and at first use they would be built one after another.
    """
    x = torch.zeros(1, 1, 16, channels, dtype=kind, device=device)
    taps = x.new_zeros(1, 2, channels, channels)
    each = torch.ones(1, channels, device=device)
    drop = torch.ones(1, 1, 16, channels, device=device)
    uses: tuple[Callable[[], object], ...] = (
        lambda: convolution_statistics(x, taps, 1, each, each, 1e-3),
        lambda: convolution(x, taps, 1, backward=True),
        lambda: normalise(x, each, each, drop),
        lambda: normalise_backward(x, x, Statistics(*[each] * 5), drop),
        lambda: kernel_gradient(x, x, 1),
        lambda: gate(x, x),
        lambda: gate_backward(x, drop[0], x, x),
    )
    with ThreadPoolExecutor(len(uses)) as threads:
        for built in [threads.submit(use) for use in uses]:
            built.result()
