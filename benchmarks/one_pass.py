"""What a CPU kernel of our own could bring: a block's forward step in one pass over memory.

    python benchmarks/one_pass.py [--rounds 5]

A step, as between a block's two convolutions: normalise, ReLU and mask the values of the first,
convolve them, take the mean and variance of each channel of the result. One core, fp32, EMOVO's
batch (64 utterances of 188 frames, 40 channels), the two in turn:

    timnet    the project's: a compiled pass and two matrix products, which write what they make
    one pass  C++ written for 40 channels, built with g++ -O3 -march=native: a tile of six rows is
              normalised, multiplied by both taps and summed up while it is in registers and cache

and, apart, the two products alone.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from timnet.training import network

FRAMES, BATCH, CHANNELS, DILATION = 188, 64, 40, 4

SOURCE = r"""
typedef float v8 __attribute__((vector_size(32), aligned(4)));
constexpr long C = 40, V = C / 8, R = 6;

template <long W>
static inline void product(const float (&in)[2][R][C], const float *w, float *y,
                           v8 *sums, long col) {
    v8 to[R][W] = {};
    for (long tap = 0; tap < 2; tap++)
        for (long k = 0; k < C; k++) {
            v8 b[W];
            for (long v = 0; v < W; v++) b[v] = *(const v8 *)(w + (tap * C + k) * C + col + 8 * v);
            for (long i = 0; i < R; i++) {
                float a = in[tap][i][k];
                for (long v = 0; v < W; v++) to[i][v] += a * b[v];
            }
        }
    for (long i = 0; i < R; i++)
        for (long v = 0; v < W; v++) {
            *(v8 *)(y + i * C + col + 8 * v) = to[i][v];
            sums[col / 8 + v] += to[i][v];
            sums[V + col / 8 + v] += to[i][v] * to[i][v];
        }
}

// rows: a multiple of 6; y (rows, C); found (2, C): sums of y and of its squares
extern "C" void step(const float *x, const float *scale, const float *shift, const float *mask,
                     const float *w, float *y, double *found, long rows, long batch, long back,
                     long normalise) {
    for (long c = 0; c < 2 * C; c++) found[c] = 0;
    v8 sums[2 * V] = {};
    for (long r = 0; r < rows; r += R) {
        float in[2][R][C];
        for (long tap = 0; tap < 2; tap++)
            for (long i = 0; i < R; i++) {
                long row = r + i - (tap ? 0 : back);
                for (long c = 0; c < C; c += 8) {
                    v8 value = {};
                    if (row >= 0) {
                        value = *(const v8 *)(x + row * C + c);
                        if (normalise) {
                            value = value * *(const v8 *)(scale + c) + *(const v8 *)(shift + c);
                            value = value > 0 ? value : v8{};
                            value *= *(const v8 *)(mask + (row % batch) * C + c);
                        }
                    }
                    *(v8 *)(in[tap][i] + c) = value;
                }
            }
        product<2>(in, w, y + r * C, sums, 0);
        product<2>(in, w, y + r * C, sums, 16);
        product<1>(in, w, y + r * C, sums, 32);
        if (r % (20 * R) == 0 || r + R >= rows) {  // few values in a sum of 32 bits
            for (long c = 0; c < 2 * C; c++) found[c] += ((float *)sums)[c];
            for (long v = 0; v < 2 * V; v++) sums[v] = v8{};
        }
    }
}
"""


def built(folder: Path) -> Callable:
    """The C++ function `step`."""
    (folder / "step.cpp").write_text(SOURCE)
    library = folder / "step.so"
    options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, "-o", library, folder / "step.cpp"], check=True)
    function = ctypes.CDLL(str(library)).step
    function.argtypes = [ctypes.c_void_p] * 7 + [ctypes.c_long] * 4
    return function


def milliseconds(call: Callable, seconds: float = 1.0) -> float:
    """The fastest of as many calls as fit."""
    end, best = time.perf_counter() + seconds, float("inf")
    while (start := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - start)
    return 1000 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = FRAMES * BATCH - FRAMES * BATCH % 6
    y = torch.randn(1, FRAMES, BATCH, CHANNELS)
    kernel = torch.randn(1, 2, CHANNELS, CHANNELS) * 0.2
    gamma, beta = torch.rand(1, CHANNELS), torch.randn(1, CHANNELS) * 0.1
    mask = (torch.rand(1, 1, BATCH, CHANNELS) > 0.1) / 0.9
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2), correction=0)
    scale = gamma[0] * torch.rsqrt(variance + network.BATCH_NORM_EPSILON)
    shift = beta[0] - mean * scale
    result, sums = torch.empty_like(y), np.empty((2, CHANNELS))
    compiled = network.kernels(True).normalise

    def ours() -> torch.Tensor:
        # its statistics are those of y, taken here in place of those of the next
        return network._causal_convolution(compiled(y, gamma, beta, mask)[0], kernel, DILATION)

    def products() -> torch.Tensor:
        return network._causal_convolution(y, kernel, DILATION)

    with tempfile.TemporaryDirectory() as folder:
        step = built(Path(folder))
        given = [each.data_ptr() for each in (y, scale, shift, mask, kernel, result)]

        def one_pass(normalise: int = 1) -> None:
            step(*given, sums.ctypes.data, rows, BATCH, DILATION * BATCH, normalise)

        one_pass()
        near = (result - ours()).flatten(0, 2)[:rows].abs().max().item()
        exact = result.double().flatten(0, 2)[:rows]
        assert near < 1e-4 and np.allclose(sums, [exact.sum(0), exact.square().sum(0)], rtol=1e-4)
        calls: dict[tuple[str, str], Callable] = {
            ("step", "timnet"): ours,
            ("step", "one pass"): one_pass,
            ("products alone", "timnet"): products,
            ("products alone", "one pass"): partial(one_pass, 0),
        }
        found: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        for _ in range(rounds):
            for key, call in calls.items():
                found[key].append(milliseconds(call))
    middle = {key: statistics.median(values) for key, values in found.items()}
    print("| on one core    | timnet, ms | one pass, ms | ratio | timnet, GFLOP/s | one pass |")
    print("| :------------- | ---------: | -----------: | ----: | --------------: | -------: |")
    flop = 2 * 2 * FRAMES * BATCH * CHANNELS**2
    for what in ("step", "products alone"):
        one, other = middle[what, "timnet"], middle[what, "one pass"]
        rates = (flop / each / 1e6 for each in (one, other))
        print(
            f"| {what:14} | {one:10.2f} | {other:12.2f} | {one / other:5.2f} "
            "| {:15.0f} | {:8.0f} |".format(*rates)
        )


if __name__ == "__main__":
    main()
