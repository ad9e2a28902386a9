"""Reader for the weights that the paper's authors published: Keras HDF5, one file a fold."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from timnet.corpora.corpus import natural_key
from timnet.errors import ArtifactError, listing
from timnet.training.network import TIMNet

# far beyond what the authors' have
MAX_BYTES = 1_000_000_000  # of all files
MAX_TABS, MAX_CHANNELS = 16, 1024
# what h5py raises at bytes that make no sense
HDF5_TROUBLE = (
    OSError,
    LookupError,
    RuntimeError,
    AttributeError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)


def read_networks(path: Path) -> TIMNet:
    """The networks of a published archive, as a stack in the order of the folds.

    Args:
        path: ZIP whose `*_N.hdf5` files hold the weights of fold N, counted from 1.

    Raises:
        ArtifactError: not such an archive, or not TIM-Net's layers.
    """
    try:
        files = _files(path)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file. Give the ZIP of the authors' weights."
        ) from None
    # RuntimeError: encrypted; NotImplementedError: a compression that zipfile does not know
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a ZIP archive of the authors' weights ({error})."
        ) from None
    if not files:
        raise ArtifactError(f"{path}: contains no .hdf5 file, expected one per fold.")
    arrays = [_arrays(_layers(file, f"{path}: {name}"), f"{path}: {name}") for name, file in files]
    shapes = [{name: value.shape for name, value in each.items()} for each in arrays]
    if any(each != shapes[0] for each in shapes):
        raise ArtifactError(f"{path}: networks of different sizes, expected one size.")
    channels, classes = shapes[0]["dense_kernel"]
    network = TIMNet(len(arrays), classes, len(arrays[0]["scale_weight"]), channels)
    expected = {name: value.shape for name, value in network.arrays(0).items()}
    if shapes[0] != expected:
        wrong = [name for name in expected if shapes[0].get(name) != expected[name]]
        raise ArtifactError(f"{path}: weights of unexpected shape: {listing(wrong)}.")
    for fold, values in enumerate(arrays):
        network.load_arrays(fold, values)
    return network.eval()


def _files(path: Path) -> list[tuple[str, io.BytesIO]]:
    """The HDF5 files of an archive, in the natural order of their names."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".hdf5", ".h5"))]
        names.sort(key=natural_key)
        if (size := sum(archive.getinfo(name).file_size for name in names)) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes unpacked, more than the limit for weights")
        return [(name, io.BytesIO(archive.read(name))) for name in names]


def _layers(file: io.BytesIO, where: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """Weights by kind of layer, each kind in the order of creation: that of its running number.

    Keras lists layers in the order of the graph; the numbers differ from file to file.
    """
    try:
        with h5py.File(file) as content:
            found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
            for name in content:
                if not isinstance(content.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link")
                kind, number = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name).groups()  # type: ignore
                weights: dict[str, np.ndarray] = {}
                content[name].visititems(partial(_keep, weights))
                if weights:
                    found.setdefault(kind, {})[int(number or 0)] = weights
    except HDF5_TROUBLE as error:
        raise ArtifactError(f"{where}: not a readable HDF5 file ({error}).") from None
    return {kind: [layers[number] for number in sorted(layers)] for kind, layers in found.items()}


def _keep(weights: dict[str, np.ndarray], key: str, item: h5py.HLObject) -> None:
    """Take an array over by the last part of its name."""
    if not isinstance(item, h5py.Dataset):
        return
    if item.external or item.is_virtual or item.nbytes > MAX_BYTES or item.dtype != np.float32:
        raise ValueError(f"{key} is not an array of 32-bit numbers in this file")
    weights[key.rsplit("/", 1)[-1].split(":")[0]] = item[()]


def _arrays(layers: dict[str, list[dict[str, np.ndarray]]], where: str) -> dict[str, torch.Tensor]:
    """Keras' layers as the arrays of `TIMNet.arrays`.

    Order of creation: the input convolutions (forward, backward), then for each block the two
    convolutions forward, the two backward; batch norms likewise.
    """
    try:
        inputs, blocks = layers["conv1d"][:2], layers["conv1d"][2:]
        norms = layers["batch_normalization"]
        (dense,), (scale,) = layers["dense"], layers["weight_layer"]
        tabs = len(scale["kernel"])
        if not len(blocks) == len(norms) == 4 * tabs or not 0 < tabs <= MAX_TABS:
            raise KeyError(f"{len(blocks)} convolutions with {len(norms)} batch norms")
        channels, classes = dense["kernel"].shape
        if not 0 < min(channels, classes) <= max(channels, classes) <= MAX_CHANNELS:
            raise KeyError(f"{channels} channels and {classes} classes")

        def stacked(parts: list[dict[str, np.ndarray]], name: str) -> torch.Tensor:
            # creation order (L, D, convolution) to (L, convolution, D)
            values = np.stack([part[name] for part in parts])
            values = values.reshape(-1, 2, 2, *values.shape[1:]).swapaxes(1, 2)
            return torch.from_numpy(np.ascontiguousarray(values))

        return {
            "input_kernel": torch.from_numpy(np.concatenate([part["kernel"] for part in inputs])),
            "input_bias": torch.from_numpy(np.stack([part["bias"] for part in inputs])),
            "kernel": stacked(blocks, "kernel"),
            "bias": stacked(blocks, "bias"),
            "gamma": stacked(norms, "gamma"),
            "beta": stacked(norms, "beta"),
            "running_mean": stacked(norms, "moving_mean"),
            "running_variance": stacked(norms, "moving_variance"),
            "scale_weight": torch.from_numpy(scale["kernel"][:, 0]),
            "dense_kernel": torch.from_numpy(dense["kernel"]),
            "dense_bias": torch.from_numpy(dense["bias"]),
        }
    except (LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: not the layers of a TIM-Net ({error}).") from None
