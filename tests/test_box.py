"""The model that comes with the package, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from models import LABELS, RATE, small_model, voice
from typer.testing import CliRunner

from timnet import load_model
from timnet.cli import app
from timnet.errors import ArtifactError
from timnet.models import model


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A voice, in a folder that has no models."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("voice.wav", voice(1.2), RATE)
    return tmp_path / "voice.wav"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that has a model."""
    path = tmp_path / "package" / "emodb.safetensors"
    monkeypatch.setattr(model, "IN_THE_BOX", path)
    model.save(small_model(networks=1, name="emodb"), path)
    return path


def test_without_a_name_it_answers_and_says_how_far_to_trust_it(box: Path, recording: Path) -> None:
    found = CliRunner().invoke(app, ["predict", str(recording), "--format", "csv"])
    assert found.exit_code == 0, found.output
    (_, row) = found.stdout.strip().splitlines()
    assert any(label in row for label in LABELS)
    # the scores of its card, away from what programs read
    assert "50.0 % UAR" in found.stderr
    assert "40.0 to 60.0" in found.stderr
    assert "Voices (none, 4 speakers)" in found.stderr


def test_one_that_is_named_says_nothing(box: Path, recording: Path) -> None:
    named = ["predict", str(recording), "--format", "csv", "--model", str(box)]
    assert CliRunner().invoke(app, named).stderr == ""


def test_it_has_a_card_and_a_name(box: Path, recording: Path) -> None:
    assert CliRunner().invoke(app, ["card", "emodb"]).stdout.startswith("# emodb\n")
    assert load_model().card == load_model("emodb").card


def test_for_a_speaker_who_is_enrolled_it_takes_the_one_that_adapts(
    box: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = box.with_name("emodb-adapted.safetensors")
    monkeypatch.setattr(model, "TO_ENROL_IN_THE_BOX", path)
    training = {"tabs": 3, "variant": "tim-net", "by_speaker": True}
    model.save(small_model(networks=1, name="emodb-adapted", training=training), path)
    for option in (("--enrol", str(recording)), ("--one-speaker",)):
        found = CliRunner().invoke(app, ["predict", str(recording), *option])
        assert found.exit_code == 0, found.output
        assert found.stderr.startswith("emodb-adapted: ")
        assert "adapted to the speaker of 1 recording" in found.stderr
    assert load_model("emodb-adapted").card.name == "emodb-adapted"


def test_a_model_of_the_workspace_comes_before_it(box: Path, recording: Path) -> None:
    own = Path("build/models/emodb.safetensors")
    model.save(small_model(networks=1, name="own"), own)
    assert load_model("emodb").card.name == "own"
    assert load_model().card.name == "emodb"


def test_where_there_is_none_it_says_how_to_name_one(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "IN_THE_BOX", Path("nowhere.safetensors"))
    failed = CliRunner().invoke(app, ["predict", str(recording)])
    assert isinstance(failed.exception, ArtifactError)
    assert "--model" in str(failed.exception)
