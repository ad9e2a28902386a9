"""Reader for the weights that the paper's authors published: Keras HDF5, one file a fold."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch

from timnet.corpora.corpus import natural_key
from timnet.errors import ArtifactError
from timnet.network import TIMNet


def read_networks(path: Path) -> TIMNet:
    """The networks of a published archive, as a stack in the order of the folds.

    Args:
        path: ZIP whose `*_N.hdf5` files hold the weights of fold N, counted from 1.

    Raises:
        ArtifactError: not such an archive, or not TIM-Net's layers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((".hdf5", ".h5"))]
            names.sort(key=natural_key)
            folds = [_layers(io.BytesIO(archive.read(name)), f"{path}: {name}") for name in names]
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file. Give the ZIP of the authors' weights."
        ) from None
    except zipfile.BadZipFile:
        raise ArtifactError(f"{path}: not a ZIP archive of the authors' weights.") from None
    if not folds:
        raise ArtifactError(f"{path}: holds no .hdf5 file, expected one a fold.")
    arrays = [_arrays(layers, f"{path}: {name}") for layers, name in zip(folds, names, strict=True)]
    channels, classes = arrays[0]["dense_kernel"].shape
    network = TIMNet(len(arrays), classes, len(arrays[0]["scale_weight"]), channels)
    for fold, values in enumerate(arrays):
        network.load_arrays(fold, values)
    return network.eval()


def _layers(file: io.BytesIO, where: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """Weights by kind of layer, each kind in the order of creation: that of its running number.

    Keras lists layers in the order of the graph; the numbers differ from file to file.
    """
    try:
        with h5py.File(file) as content:
            found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
            for name, group in content.items():
                kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore
                weights: dict[str, np.ndarray] = {}
                group.visititems(
                    lambda key, item, weights=weights: weights.update(
                        {key.rsplit("/", 1)[-1].split(":")[0]: item[()]}
                        if isinstance(item, h5py.Dataset)
                        else {}
                    )
                )
                if weights:
                    found.setdefault(kind, {})[int(number or 0)] = weights
    except (OSError, AttributeError) as error:
        raise ArtifactError(f"{where}: not a readable HDF5 file ({error}).") from None
    return {kind: [layers[number] for number in sorted(layers)] for kind, layers in found.items()}


def _arrays(layers: dict[str, list[dict[str, np.ndarray]]], where: str) -> dict[str, torch.Tensor]:
    """Keras' layers as the arrays of `TIMNet.arrays`.

    Order of creation: the input convolutions (forward, backward), then for each block the two
    convolutions forward, the two backward; batch norms likewise.
    """
    try:
        inputs, blocks = layers["conv1d"][:2], layers["conv1d"][2:]
        norms = layers["batch_normalization"]
        (dense,), (scale,) = layers["dense"], layers["weight_layer"]
        if len(blocks) != len(norms) or len(blocks) % 4:
            raise KeyError(f"{len(blocks)} convolutions with {len(norms)} batch norms")

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
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{where}: not the layers of a TIM-Net ({error}).") from None
