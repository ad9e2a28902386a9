from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run
from models import LABELS, SETTINGS, small_model, voice

from timnet.dataset import features
from timnet.errors import ArtifactError, ParameterError
from timnet.models import export, model
from timnet.paths import replacing
from timnet.training.network import VARIANTS


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def recordings() -> np.ndarray:
    """(3, samples) at the features' rate, as long as the window."""
    return np.stack([voice(1, pitch, 22050) for pitch in (120, 160, 200)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_vote_is_pytorch_s(variant: str, tmp_path: Path) -> None:
    made, signals = small_model(3, variant), recordings()
    done = export.write(made, tmp_path / "x.onnx", with_features=False, single=False)
    assert done.difference < 1e-5
    mfcc = np.stack([features.mfcc(signal, 22050, SETTINGS) for signal in signals])
    (given,) = session(tmp_path / "x.onnx").run(None, {"mfcc": mfcc})
    expected = [made.predict(signal, 22050).probabilities for signal in signals]
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("single", (False, True))
def test_features_can_come_along(single: bool, tmp_path: Path) -> None:
    made, signals = small_model(), recordings()
    export.write(made, tmp_path / "x.onnx", with_features=True, single=single)
    exported = session(tmp_path / "x.onnx")
    expected = [made.predict(each, 22050, single=single).probabilities for each in signals]
    np.testing.assert_allclose(
        exported.run(["probabilities"], {"signal": signals})[0], expected, atol=1e-5
    )
    (one,) = exported.run(None, {"signal": signals[1:2]})  # a batch of any size
    np.testing.assert_allclose(one[0], expected[1], atol=1e-5)


def test_the_command_tells_what_it_checked_and_under_which_terms(tmp_path: Path) -> None:
    model.save(small_model(), tmp_path / "small.safetensors")
    said = run(tmp_path, "timnet", "export", "small.safetensors", "--onnx", "out/x.onnx").stdout
    assert "from MFCC of 44 frames x 39" in said
    assert "of PyTorch's" in said
    assert "onnxruntime" in said
    assert "trained on Voices (CC BY-NC-SA 4.0): NOT for commercial use" in said
    kept = {entry.key: entry.value for entry in onnx.load(tmp_path / "out/x.onnx").metadata_props}
    assert json.loads(kept["labels"]) == list(LABELS)
    assert "NOT for commercial use" in kept["terms"]
    assert json.loads(kept["card"])["name"] == "small"


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="not written, since onnxruntime's probabilities are"):
        export.write(small_model(1), tmp_path / "x.onnx", with_features=False, single=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", (".", "/", "..", "folder", "new/"))
def test_a_folder_is_no_file_to_write(tmp_path: Path, place: str) -> None:
    model.save(small_model(1), tmp_path / "small.safetensors")
    (tmp_path / "folder").mkdir()
    command = ("timnet", "export", "small.safetensors", "--onnx", place)
    done = run(tmp_path, *command, check=False)
    assert done.returncode == 2
    assert f"{place} is a folder" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "small.safetensors"]


@pytest.mark.parametrize("place", (".", "/", "folder"))
def test_a_folder_is_never_replaced(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error, replacing(tmp_path / place):
        pass
    assert error.value.filename == str(tmp_path / place)


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    model.save(small_model(1), tmp_path / "small.safetensors")
    command = ("timnet", "export", "small.safetensors", "--onnx", "small.safetensors/x.onnx")
    done = run(tmp_path, *command, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "small.safetensors: File exists" in done.stderr


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ParameterError, match=r"exporting needs onnxscript\. .*timnet\[export\]"):
        export.write(small_model(1), tmp_path / "x.onnx", with_features=False, single=False)
