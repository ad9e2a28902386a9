"""Recording from a microphone, of which a stand-in is enough: what PortAudio does is its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from models import LABELS, RATE, small_model, voice

from timnet.cli import predict as command
from timnet.cli.predict import Format
from timnet.errors import AudioError, ParameterError
from timnet.models import card, formats, microphone, model


class PortAudioError(Exception):
    pass


class Device(SimpleNamespace):
    """The package sounddevice with a microphone that takes some rates alone."""

    PortAudioError = PortAudioError

    def query_devices(self, kind: str) -> dict:
        if not self.rates:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": float(self.rates[-1])}

    def check_input_settings(self, samplerate: int, **form: object) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def rec(self, frames: int, rate: int, channels: int, dtype: str) -> np.ndarray:
        sound = voice(frames / rate, 170, rate)[:frames]
        return np.stack([sound] * channels, 1).astype(dtype)

    def wait(self) -> None:
        pass


def plug_in(monkeypatch: pytest.MonkeyPatch, *rates: int) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Device(rates=rates))


def test_the_rate_of_the_training_set_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, 16000, 44100)
    sound, rate = microphone.record(1.5, [48000, 16000])
    assert (len(sound), rate) == (24000, 16000)
    assert microphone.record(1, [48000])[1] == 44100


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    with pytest.raises(AudioError, match=r"microphone: Error querying device"):
        microphone.record(1, [16000])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ParameterError, match=r"timnet\[microphone\]"):
        microphone.record(1, [16000])
    for seconds in (0, -1, 601, float("nan")):
        with pytest.raises(ParameterError, match="--microphone"):
            microphone.record(seconds, [16000])


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "small.safetensors"
    model.save(small_model(), path)
    return str(path)


def test_one_s_own_voice_is_predicted(saved: str, monkeypatch, capsys) -> None:
    plug_in(monkeypatch, RATE)
    command.predict(model=saved, microphone=1.2, form=Format.json)
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["recording"], said["seconds"]) == ("microphone", 1.2)
    assert said["emotion"] in LABELS


@pytest.mark.parametrize("given", [{}, {"recordings": [Path("x")], "microphone": 1.0}])
def test_files_or_a_microphone(saved: str, given: dict) -> None:
    with pytest.raises(ParameterError, match="one of them"):
        command.predict(model=saved, **given)


# answers that are held back


def test_unsure_answers_are_held_back(saved: str, monkeypatch, capsys) -> None:
    plug_in(monkeypatch, RATE)
    sure = small_model().predict(voice(1.2, 170, RATE), RATE).probability
    for below, held_back in ((sure - 1e-3, False), (sure + 1e-3, True)):
        for form in Format:
            command.predict(model=saved, microphone=1.2, form=form, abstain_below=below)
            said = capsys.readouterr().out
            if form is Format.json:
                assert (json.loads(said)["emotion"] is None) == held_back
            elif form is Format.csv:
                assert (said.splitlines()[1].split(",")[2] == "") == held_back
            else:
                assert (said.splitlines()[1].split()[1] == "-") == held_back
                assert ("1 of 1 recordings: no emotion reaches" in said) == held_back


def test_a_probability_that_is_reached_is_answered() -> None:
    found = SimpleNamespace(emotion="sad", probability=0.5)
    assert formats.answer(found, 0.5) == "sad"
    assert formats.answer(found, 0.51) is None


def test_the_card_tells_what_holding_back_brings() -> None:
    rows = [
        card.Coverage(below=0.0, answered=1.0, correct=0.5),
        card.Coverage(below=0.9, answered=0.0, correct=None),
    ]
    text = card.markdown(small_model(coverage=rows).card)
    assert "| 0   | 100.0       | 50.0" in text
    assert "| 0.9 | 0.0         | -" in text
    assert "--abstain-below" not in card.markdown(small_model().card)
