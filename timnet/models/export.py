"""A model as ONNX, for programs without PyTorch: its vote alone, or with the MFCC before it.

Batch norm is folded into the convolutions and all networks run as groups of the same convolutions.
What resampling leaves, 22,050 Hz and as long as the networks' window, is the input of the variant
with features: resample and `timnet.dataset.features.centre` come before.
"""

from __future__ import annotations

import io
import json
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timnet.dataset import features, normalise
from timnet.errors import ArtifactError, ParameterError
from timnet.evaluation import calibration
from timnet.models import enrolment
from timnet.models.card import terms
from timnet.models.model import Model
from timnet.paths import replacing
from timnet.training.network import BATCH_NORM_EPSILON

TOLERANCE = 1e-5  # of a probability, between onnxruntime and PyTorch
OPSET = 18
CHECKED = 8  # signals


class Vote(nn.Module):
    """The networks of a model: MFCC (B, T, C) to probabilities (B, K)."""

    mean: Tensor  # where features are normalised
    deviation: Tensor
    first_kernel: Tensor
    first_bias: Tensor
    kernel: Tensor
    bias: Tensor
    weight: Tensor
    dense_kernel: Tensor
    dense_bias: Tensor

    def __init__(self, model: Model, networks: int) -> None:
        super().__init__()
        stack = model.network
        arrays = [stack.arrays(row) for row in range(networks)]
        self.variant, self.temperature = stack.variant, model.temperature
        self.scaled = model.scale is not None
        for name, value in zip(("mean", "deviation"), model.scale or (), strict=False):
            self.register_buffer(name, torch.from_numpy(value))
        self.networks, self.channels = networks, stack.channels
        self.groups = networks * self.variant.directions

        def each(name: str) -> Tensor:  # a row per network
            return torch.stack([own[name].detach() for own in arrays])

        def by_layer(values: Tensor) -> Tensor:  # (S, L, 2, D, ...) to (2 L, S D, ...)
            return values.flatten(1, 2).transpose(0, 1).flatten(1, 2)

        slope = each("gamma") * torch.rsqrt(each("running_variance") + BATCH_NORM_EPSILON)
        shift = each("beta") + slope * (each("bias") - each("running_mean"))
        # (S, L, 2, D, tap, in, out) to a convolution's (out, in, tap), groups one below the other
        kernel = by_layer(each("kernel") * slope[..., None, None, :]).permute(0, 1, 4, 3, 2)
        first = each("input_kernel").flatten(0, 1).transpose(1, 2)
        self.register_buffer("first_kernel", first.flatten(0, 1)[..., None].contiguous())
        self.register_buffer("first_bias", each("input_bias").flatten())
        self.register_buffer("kernel", kernel.flatten(1, 2).contiguous())
        self.register_buffer("bias", by_layer(shift).flatten(1))
        weight = torch.full((networks, stack.tabs), 1 / stack.tabs)
        if self.variant.fusion == "learned":
            weight = each("scale_weight")
        elif self.variant.fusion == "last":
            weight = F.one_hot(torch.tensor([stack.tabs - 1] * networks), stack.tabs).float()
        self.register_buffer("weight", weight)
        self.register_buffer("dense_kernel", each("dense_kernel"))
        self.register_buffer("dense_bias", each("dense_bias"))

    def forward(self, mfcc: Tensor) -> Tensor:
        if self.scaled:
            sounding = mfcc[:, :, 1:].abs().amax(2, keepdim=True) > normalise.FLOOR
            mfcc = torch.where(sounding, (mfcc - self.mean) / self.deviation, 0.0)
        x = mfcc.transpose(1, 2)
        both = (x,) if self.variant.directions == 1 else (x, x.flip(2))
        x = F.conv1d(
            torch.cat(both * self.networks, 1),
            self.first_kernel,
            self.first_bias,
            groups=self.groups,
        )
        scales = []
        for block in range(len(self.kernel) // 2):
            h = x
            for n in (2 * block, 2 * block + 1):
                late = F.pad(h, (2**block, 0))
                h = F.relu(
                    F.conv1d(
                        late, self.kernel[n], self.bias[n], dilation=2**block, groups=self.groups
                    )
                )
            x = x * torch.sigmoid(h) if self.variant.block == "gate" else x + h
            scales.append(x.mean(2))
        scale = torch.stack(scales, 1)  # (B, L, S D C)
        scale = scale.unflatten(2, (self.networks, -1, self.channels)).sum(3)
        fused = (scale * self.weight.T[..., None]).sum(1)  # (B, S, C)
        logits = torch.einsum("bsc,sck->bsk", fused, self.dense_kernel) + self.dense_bias
        return torch.softmax(logits / self.temperature, 2).mean(1)


class Mfcc(nn.Module):
    """`features.mfcc` after resampling: signals (B, samples) to MFCC (B, T, C)."""

    filters: Tensor
    window: Tensor
    cosines: Tensor

    def __init__(self, settings: features.FeatureSettings) -> None:
        super().__init__()
        self.frames, self.hop = settings.frames, settings.hop
        filters = torch.from_numpy(features.mel_filters())
        self.register_buffer("filters", filters.T.contiguous())
        self.register_buffer("window", torch.hann_window(features.FFT))
        bands = np.arange(len(filters))
        angles = np.pi * np.outer(2 * bands + 1, np.arange(settings.coefficients))
        cosines = np.cos(angles / (2 * len(filters))) * np.sqrt(2 / len(filters))
        cosines[:, 0] /= np.sqrt(2)
        self.register_buffer("cosines", torch.from_numpy(cosines.astype(np.float32)))

    def forward(self, signal: Tensor) -> Tensor:
        half, overlap = features.FFT // 2, features.FFT // self.hop
        padded = F.pad(signal[:, None], (half, half), mode="reflect")[:, 0]
        # a frame is `overlap` neighbouring stretches of a hop
        hops = padded[:, : (self.frames + overlap - 1) * self.hop].unflatten(1, (-1, self.hop))
        frames = torch.cat([hops[:, n : n + self.frames] for n in range(overlap)], 2)
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.window))
        mel = spectrum.square().sum(3) @ self.filters
        decibels = 10 * torch.log10(mel.clamp(min=1e-10))
        loudest = decibels.amax((1, 2), keepdim=True)
        decibels = torch.maximum(decibels, loudest - features.TOP_DECIBELS)
        return decibels @ self.cosines


@dataclass(frozen=True)
class Export:
    """What an exported model was seen to do in onnxruntime, on one thread."""

    difference: float  # largest of a probability from PyTorch's
    milliseconds: float  # a recording, one at a time
    milliseconds_torch: float  # the same in timnet


def write(model: Model, path: Path, with_features: bool, single: bool) -> Export:
    """Export a model and check the file in onnxruntime before it appears under its name.

    Inputs: `mfcc` (batch, frames, coefficients), or with features `signal` (batch, samples) at
    the settings' rate and length. Output: `probabilities` (batch, K). The file's metadata hold
    labels, terms and card.

    Args:
        with_features: put the MFCC into the file too.
        single: the first network alone.

    Raises:
        ParameterError: the packages of the extra `export` are not installed, or an SVM votes too.
        ArtifactError: onnxruntime's probabilities are not PyTorch's within TOLERANCE.
    """
    _refuse_without_packages()
    if model.svm and model.card.enrolled:
        raise ParameterError(
            f"{model.card.name} is adapted to a speaker, for whom an SVM votes too, and ONNX has "
            "the networks alone. Export a model without `svm: true`."
        )
    vote: nn.Module = Vote(model, 1 if single else model.network.networks)
    module = (nn.Sequential(Mfcc(model.settings), vote) if with_features else vote).eval()
    signals = _signals(model)
    rate = model.settings.sample_rate
    inputs = signals
    if not with_features:
        inputs = np.stack([features.mfcc(signal, rate, model.settings) for signal in signals])
    name = "signal" if with_features else "mfcc"
    content = _onnx(module, torch.from_numpy(inputs), name, model)
    in_onnxruntime = _session(content, name)
    expected = [model.predict(each, rate, single=single).probabilities for each in signals]
    difference = float(np.abs(in_onnxruntime(inputs) - np.stack(expected)).max())
    if not difference <= TOLERANCE:
        raise ArtifactError(
            f"{path}: not written, since onnxruntime's probabilities are up to {difference:.1e} "
            f"from PyTorch's, more than {TOLERANCE:.0e}. Try another version of onnxruntime."
        )

    def in_timnet(place: int) -> np.ndarray:
        if with_features:
            return model.predict(signals[place], rate, single=single).probabilities
        return _ask(model, inputs[place], single)

    export = Export(
        difference,
        _milliseconds(lambda place: in_onnxruntime(inputs[place : place + 1])),
        _milliseconds(in_timnet),
    )
    with replacing(path) as partial:
        partial.write_bytes(content)
    return export


def _refuse_without_packages() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            import_module(name)
        except ImportError as error:
            raise ParameterError(
                f"exporting needs {error.name}. Install it with `pip install 'timnet[export]'`."
            ) from None


def _session(content: bytes, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs an exported model in onnxruntime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: inputs})[0]


def _signals(model: Model) -> np.ndarray:
    """Noise in the rhythm of syllables, from loud to faint, (CHECKED, samples) float32."""
    random = np.random.default_rng(0)
    samples = model.settings.signal_length
    beat = np.sin(np.arange(samples) * (2 * np.pi * 4 / model.settings.sample_rate)) ** 2
    levels = np.linspace(*model.card.typical.level, CHECKED)
    noise = random.normal(size=(CHECKED, samples)).cumsum(1)  # more of the low frequencies
    noise -= np.stack([np.convolve(row, np.ones(256) / 256, "same") for row in noise])
    noise *= beat
    noise *= (10 ** (levels / 20) / np.sqrt(np.square(noise).mean(1)))[:, None]
    return noise.astype(np.float32)


def _onnx(module: nn.Module, inputs: Tensor, name: str, model: Model) -> bytes:
    """The module as ONNX, its batch free; labels, terms and card among the file's metadata."""
    logging.disable(logging.WARNING)  # the exporter tells of packages that nobody needs
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (inputs[:2],),
                dynamo=True,
                opset_version=OPSET,
                input_names=[name],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    proto = program.model_proto
    about = {
        "labels": json.dumps(model.labels),
        "terms": terms(model.card),
        "card": json.dumps(model.card.model_dump(mode="json"), sort_keys=True),
    }
    for key, value in about.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto.SerializeToString()


def _ask(model: Model, mfcc: np.ndarray, single: bool) -> np.ndarray:
    """The vote on features alone, (T, C) to (K,)."""
    values = enrolment.frames(model.network, model.scale, mfcc[None])
    logits = [
        model.network(values, rows=slice(row, row + 1))[0][0, 0].numpy()
        for row in range(1 if single else model.network.networks)
    ]
    given = calibration.probabilities(np.stack(logits), model.temperature)
    return given.mean(0)


def _milliseconds(ask: Callable[[int], Any]) -> float:
    """Median time of asking about one of the CHECKED signals, after each was asked about once."""
    times = []
    for place in (*range(CHECKED), *range(CHECKED)):
        start = time.perf_counter()
        ask(place)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[CHECKED:]))
