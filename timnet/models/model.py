"""A model is one file: networks, what their training set was like, and a card that tells all else.

The file is safetensors with the card as JSON in its header: reading it executes nothing. The card
holds the settings of the features, so a model cannot be fed with others than it was trained on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from timnet.corpora.corpus import natural_key
from timnet.dataset import features
from timnet.errors import ArtifactError, listing, suggestion
from timnet.models.card import Card, Typical
from timnet.models.enrolment import Scale
from timnet.models.out_of_domain import ENVELOPE, Reference
from timnet.models.predict import Model
from timnet.models.svm import Svm
from timnet.paths import replacing
from timnet.training.network import VARIANTS, TIMNet

ENDING = ".safetensors"
FORMAT = "timnet-model-1"  # key of the card in the file's header
_ANEW = "Get the file again, or rebuild it with `timnet model`."
# what comes with the package: for anyone, and for speakers who are enrolled
IN_THE_BOX = Path(__file__).with_name("emodb.safetensors")
TO_ENROL_IN_THE_BOX = Path(__file__).with_name("emodb-adapted.safetensors")
MAX_BYTES = 2_000_000_000  # no stack of TIM-Nets is near that


def save(model: Model, path: Path) -> None:
    """Write a model atomically; equal models give equal bytes."""
    from safetensors.numpy import save as as_bytes

    networks = [model.network.arrays(row) for row in range(model.network.networks)]
    arrays = {
        f"network.{name}": torch.stack([network[name] for network in networks]).detach().numpy()
        for name in networks[0]
    }
    arrays["reference.mean"] = model.reference.mean
    arrays["reference.precision"] = model.reference.precision
    if model.scale:
        arrays["scale.mean"], arrays["scale.deviation"] = model.scale
    if model.svm:
        arrays |= {f"svm.{each.name}": getattr(model.svm, each.name) for each in fields(Svm)}
    # one entry alone: the order of several is not fixed
    unsaid = None if model.card.svm else {"svm"}  # older models keep their bytes
    told = model.card.model_dump(mode="json", exclude=unsaid)
    metadata = {FORMAT: json.dumps(told, sort_keys=True)}
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    with replacing(path) as partial:
        partial.write_bytes(as_bytes(contiguous, metadata))


def load(path: Path) -> Model:
    """Read a model; nothing in the file is executed.

    Raises:
        ArtifactError: no such file, not a model, damaged, or of features that this version of
            timnet does not make.
    """
    card, arrays = _read(path)
    if card.features.revision != features.REVISION:
        raise ArtifactError(
            f"{path}: trained on features of revision {card.features.revision}, while timnet "
            f"{_version()} makes revision {features.REVISION}. Use timnet "
            f"{card.versions.get('timnet', 'of that time')}, or train the model again."
        )
    own = {name.removeprefix("network."): value for name, value in arrays.items()}
    mean, precision = own.pop("reference.mean", None), own.pop("reference.precision", None)
    scale, svm = _scale(card, own, path), _svm(card, own, path)
    network = _network(card, own, path)
    if mean is None or precision is None:
        raise ArtifactError(f"{path}: no statistics of the training set. {_ANEW}")
    size = min(ENVELOPE, network.channels)
    if mean.shape != (size,) or precision.shape != (size, size):
        raise ArtifactError(f"{path}: statistics of the training set have the wrong size. {_ANEW}")
    reference = Reference(**card.typical.model_dump(), mean=mean, precision=precision)
    return Model(card, network.eval(), reference, scale, svm)


def read_card(path: Path) -> Card:
    """The card of a model alone, also of one that this version cannot use.

    Raises:
        ArtifactError: no such file, not a model, or damaged.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Card, dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path}: larger than any model. {_ANEW}")
        with safe_open(path, framework="numpy") as file:
            stored = (file.metadata() or {}).get(FORMAT)
            if stored is None:
                raise ArtifactError(
                    f"{path}: a safetensors file without a card of {FORMAT}, so not a model of "
                    "timnet."
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file. Give a model's name or file.") from None
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: not a readable model ({error}). {_ANEW}") from None
    try:
        card = Card.model_validate_json(stored)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ArtifactError(f"{path}: invalid card: {listing(wrong)}. {_ANEW}") from None
    unsound = [name for name, value in arrays.items() if value.dtype != np.float32]
    unsound = unsound or [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if unsound:
        raise ArtifactError(
            f"{path}: values that are not finite 32-bit numbers in {listing(unsound)}. {_ANEW}"
        )
    return card, arrays


def _network(card: Card, arrays: dict[str, np.ndarray], path: Path) -> TIMNet:
    """A stack with these weights; its sizes are those of the arrays, never what the card says."""
    if card.variant not in VARIANTS:
        raise ArtifactError(
            f"{path}: variant {card.variant!r} is not known to timnet {_version()}."
        )
    try:
        networks, channels, classes = arrays["dense_kernel"].shape
        tabs = arrays["gamma"].shape[1]
        if not 0 < tabs <= 16 or not networks or not channels:
            raise ValueError
        stack = TIMNet(networks, classes, tabs, channels, card.variant)
        expected = {name: (networks, *value.shape) for name, value in stack.arrays(0).items()}
    except (KeyError, ValueError, IndexError):
        raise ArtifactError(f"{path}: not the weights of a TIM-Net. {_ANEW}") from None
    actual = {name: value.shape for name, value in arrays.items()}
    if actual != expected:
        wrong = sorted(name for name in actual | expected if actual.get(name) != expected.get(name))
        raise ArtifactError(f"{path}: weights of unexpected shape: {listing(wrong)}. {_ANEW}")
    if classes != len(card.labels) or channels != card.features.settings.coefficients:
        raise ArtifactError(f"{path}: weights and card disagree on classes or channels. {_ANEW}")
    for row in range(networks):
        stack.load_arrays(
            row, {name: torch.from_numpy(value[row]) for name, value in arrays.items()}
        )
    return stack


def _scale(card: Card, arrays: dict[str, np.ndarray], path: Path) -> Scale | None:
    """What features are normalised by, taken out of `arrays`, where the recipe does so."""
    if card.training.get("normalise") != "speaker":
        return None
    mean, deviation = arrays.pop("scale.mean", None), arrays.pop("scale.deviation", None)
    shape = (card.features.settings.coefficients,)
    if mean is None or deviation is None or not mean.shape == deviation.shape == shape:
        raise ArtifactError(f"{path}: no mean and deviation to normalise by. {_ANEW}")
    if not (deviation > 0).all():
        raise ArtifactError(f"{path}: deviations to normalise by that are not positive. {_ANEW}")
    return mean, deviation


def _svm(card: Card, arrays: dict[str, np.ndarray], path: Path) -> Svm | None:
    """The SVM beside the networks, taken out of `arrays`, where the card tells of one."""
    if not card.svm:
        return None
    found = {each.name: arrays.pop(f"svm.{each.name}", None) for each in fields(Svm)}
    if any(value is None for value in found.values()):
        raise ArtifactError(f"{path}: no training set of the SVM. {_ANEW}")
    svm = Svm(**found)  # type: ignore[arg-type]
    size = 5 * card.features.settings.coefficients + 1
    told = set(range(len(card.labels)))
    if (
        svm.targets.ndim != 1
        or svm.inputs.shape != (len(svm.targets), size)
        or not svm.mean.shape == svm.deviation.shape == (size,)
        or not (svm.deviation > 0).all()
        or len(set(svm.targets.tolist())) < 2
        or not set(svm.targets.tolist()) <= told
    ):
        raise ArtifactError(f"{path}: a training set of the SVM that cannot be. {_ANEW}")
    return svm


def typical(reference: Reference) -> Typical:
    """What of a reference stands in the card."""
    values = asdict(reference)
    return Typical(**{name: values[name] for name in Typical.model_fields})


def in_the_box(to_enrol: bool = False) -> Path:
    """The file of the model that comes with the package.

    Args:
        to_enrol: that of the recipe which adapts to a speaker's recordings.

    Raises:
        ArtifactError: this installation has none.
    """
    path = TO_ENROL_IN_THE_BOX if to_enrol else IN_THE_BOX
    if not path.is_file():
        raise ArtifactError(
            "this installation contains no model. Name one: `--model emovo` of build/models/, or "
            "a file."
        )
    return path


def find(name: str | Path, models: Path = Path("build/models")) -> Path:
    """The file of a model: `name` itself if it is one, else `<name>.safetensors` in `models`.

    A version (`emovo@v1.2`) is also the newest of those that it begins (`emovo@v1.2.5`). The
    models that come with the package are found by their names too, if `models` has no other of it.

    Raises:
        ArtifactError: neither is there; says which are.
    """
    if Path(name).suffix == ENDING or Path(name).is_file():
        return Path(name)
    path = models / f"{name}{ENDING}"
    if path.is_file():
        return path
    for packed in (IN_THE_BOX, TO_ENROL_IN_THE_BOX):
        if str(name) == packed.stem and packed.is_file():
            return packed
    if "@" in str(name):
        fitting = [file for file in models.glob(f"*{ENDING}") if file.name.startswith(f"{name}.")]
        if fitting:
            return max(fitting, key=lambda file: natural_key(file.name))
        raise ArtifactError(
            f"no model {str(name)!r} here. `timnet card {name}` fetches it from the registry."
        )
    here = sorted(file.name.removesuffix(ENDING) for file in models.glob(f"[!.]*{ENDING}"))
    near = suggestion(str(name), [*here, IN_THE_BOX.stem, TO_ENROL_IN_THE_BOX.stem])
    raise ArtifactError(
        f"no model {str(name)!r}: neither a file nor {path}.{near} "
        + (f"Models here: {listing(here)}. " if here else "")
        + f"Make it with `dvc repro`, or, from a DVC remote that has it, `dvc pull {path}`."
    )


def _version() -> str:
    from timnet import __version__

    return __version__
