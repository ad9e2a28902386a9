from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st
from models import RATE, small_model, voice
from safetensors.numpy import load_file, save_file

import timnet
from timnet.dataset import features
from timnet.errors import ArtifactError
from timnet.evaluation import calibration
from timnet.models import card as cards
from timnet.models import model, out_of_domain


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    model.save(small_model(), path)
    return path


def header(path: Path) -> dict:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def changed(path: Path, target: Path, card=None, arrays=None) -> Path:
    """A copy of a model whose card or arrays were changed."""
    stored = json.loads(header(path)["__metadata__"][model.FORMAT])
    values = load_file(path)
    if card:
        card(stored)
    if arrays:
        arrays(values)
    save_file(values, target, {model.FORMAT: json.dumps(stored)})
    return target


def test_what_is_loaded_is_what_was_saved(file: Path) -> None:
    made, loaded = small_model(), timnet.load_model(file)
    assert loaded.card == made.card
    sound = voice(1.2)
    before, after = made.predict(sound, RATE), loaded.predict(sound, RATE)
    assert before.logits.tolist() == after.logits.tolist()
    assert before.out_of_domain == after.out_of_domain


@pytest.mark.parametrize("variant", ("without-bd", "without-ms", "without-df", "tcn"))
def test_every_variant_is_kept(variant: str, tmp_path: Path) -> None:
    made = small_model(2, variant)
    model.save(made, tmp_path / "x.safetensors")
    loaded = model.load(tmp_path / "x.safetensors")
    sound = voice(1)
    assert (loaded.predict(sound, RATE).logits == made.predict(sound, RATE).logits).all()


def test_equal_models_give_equal_bytes(file: Path, tmp_path: Path) -> None:
    model.save(small_model(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_model_is_found_by_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build" / "models"
    folder.mkdir(parents=True)
    (folder / "voices.safetensors").write_bytes(file.read_bytes())
    assert timnet.load_model("voices").labels == ("angry", "happy", "sad")
    with pytest.raises(
        ArtifactError, match=r"no model 'voice': .* Models here: voices\. Make it with"
    ):
        timnet.load_model("voice")
    with pytest.raises(ArtifactError, match=r"no model 'emodb-adpated'.* 'emodb-adapted'"):
        timnet.load_model("emodb-adpated")
    with pytest.raises(ArtifactError, match=r"no model 'voices@v1\.2\.0' here\. `timnet card voic"):
        timnet.load_model("voices@v1.2.0")
    for version in ("v1.2.9", "v1.2.10", "v1.20.0"):  # as `timnet card` brings them
        shutil.copy(file, folder / f"voices@{version}.safetensors")
    assert model.find("voices@v1.2") == Path("build/models/voices@v1.2.10.safetensors")
    assert model.find("voices@v1").name == "voices@v1.20.0.safetensors"
    assert timnet.load_model("voices@v1.2").labels == ("angry", "happy", "sad")


def test_importing_timnet_costs_nothing() -> None:
    code = "import sys, timnet; timnet.load_model; print({'torch', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown.strip() == "set()"


def test_features_of_another_revision_are_refused(file: Path, tmp_path: Path) -> None:
    def older(card: dict) -> None:
        card["features"]["revision"] = 1

    path = changed(file, tmp_path / "x.safetensors", older)
    with pytest.raises(ArtifactError, match=r"features of revision 1, while timnet .* makes revis"):
        model.load(path)
    assert model.read_card(path).features.revision == 1  # its card can still be read


def test_features_that_nobody_makes_are_refused(file: Path, tmp_path: Path) -> None:
    for name, value in (("resampler", "best"), ("signal_length", 10**12), ("hop", 0)):
        path = changed(
            file,
            tmp_path / "x.safetensors",
            lambda card, name=name, value=value: card["features"]["settings"].update({name: value}),
        )
        with pytest.raises(ArtifactError, match="invalid card: features"):
            model.load(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda a: a.pop("network.gamma"), "not the weights of a TIM-Net"),
        (lambda a: a.pop("network.bias"), "weights of unexpected shape: bias"),
        (lambda a: a.update({"network.x": a["network.bias"]}), "unexpected shape: x"),
        (lambda a: a.pop("reference.mean"), "no statistics of the training set"),
        (lambda a: a["network.kernel"].fill(np.nan), "not finite 32-bit numbers in network.kernel"),
        (
            lambda a: a.update({"network.beta": a["network.beta"].astype(np.float64)}),
            "not finite 32-bit numbers in network.beta",
        ),
        (
            lambda a: a.update({"reference.mean": a["reference.mean"][:5]}),
            "statistics of the training set",
        ),
    ),
)
def test_other_arrays_are_refused(file: Path, tmp_path: Path, spoil, message: str) -> None:
    path = changed(file, tmp_path / "x.safetensors", arrays=spoil)
    with pytest.raises(ArtifactError, match=message):
        model.load(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda card: card.pop("labels"), "labels: Field required"),
        (lambda card: card.update(labels=["angry", "sad"]), "disagree on classes"),
        (lambda card: card.update(variant="lstm"), "variant 'lstm' is not known"),
        (lambda card: card["calibration"].update(temperature=0), "calibration.temperature: Input"),
        (lambda card: card.update(secret=1), "secret: Extra inputs"),
    ),
)
def test_a_card_that_cannot_be_is_refused(file: Path, tmp_path: Path, spoil, message: str) -> None:
    path = changed(file, tmp_path / "x.safetensors", spoil)
    with pytest.raises(ArtifactError, match=message):
        model.load(path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ArtifactError, match=r"no such file\. Give a model's name or file"):
        model.load(path)
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ArtifactError, match="without a card of timnet-model-1, so not a model"):
        model.load(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(ArtifactError, match="not a readable model"):
        model.load(path)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("boom"),))


def test_loading_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ArtifactError, match="not a readable model"):
        timnet.load_model("x.safetensors")
    assert not Path("boom").exists()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_named_or_harmless(file: Path, data: st.DataObject) -> None:
    """Whatever happens to a file's first bytes or its end: an ArtifactError, or a model."""
    content = bytearray(file.read_bytes())
    head = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, head))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from((len(content), len(content) - 3, head, 40)))]
    path = file.with_name("damaged.safetensors")
    path.write_bytes(content)
    try:
        model.load(path)
    except ArtifactError as error:
        assert str(path) in str(error)


def test_the_card_says_who_may_use_it(file: Path, tmp_path: Path) -> None:
    said = run(tmp_path, "timnet", "card", file).stdout
    assert said.startswith("# small\n")
    assert "Trained on Voices (CC BY-NC-SA 4.0): NOT for commercial use; cite Nobody, 2026." in said
    assert "| `speaker-independent` | 50.00 (40.00 to 60.00) |" in said
    assert "20.0 % before, 10.0 % after" in said
    assert "- commit: 0123456789" in said


@pytest.mark.parametrize(
    ("protocol", "networks", "words", "never"),
    (
        (
            "speaker-independent",
            "folds",
            ("each fold with the temperature of the other folds",),
            "another corpus",
        ),
        (
            "cross-corpus",
            "folds",
            ("the one network of run voices-speaker, tested on another corpus", "on a third",
             "utterances of the other corpus", "on the predictions that it was fitted on"),
            "within one corpus",
        ),
        (
            "speaker-independent",
            "whole",
            ("that run's folds", "within one corpus", "trained on all data"),
            "The mean of several",
        ),
        (
            "cross-corpus",
            "whole",
            ("that run's network on another corpus", "trained on all data"),
            "each fold with",
        ),
    ),
)  # fmt: skip
def test_the_card_says_what_its_figures_and_its_temperature_are_of(
    protocol: str, networks: str, words: tuple[str, ...], never: str
) -> None:
    card = small_model(1).card
    figures = [card.figures[0].model_copy(update={"protocol": protocol})]
    page = cards.markdown(card.model_copy(update={"figures": figures, "networks": networks}))
    for expected in words:
        assert expected in page
    assert never not in page


@pytest.mark.parametrize(
    ("licence", "words"),
    (
        ("CC BY-NC-SA 4.0", "NOT for commercial use"),
        ("CC BY 4.0", "whose terms bind the model too: CC BY 4.0"),
        ("unknown", "whose terms are unknown: ask before sharing it"),
    ),
)
def test_terms_follow_the_licence(licence: str, words: str) -> None:
    card = small_model(1).card
    data = card.data.model_copy(update={"licence": licence})
    assert words in cards.terms(card.model_copy(update={"data": data}))


def test_a_temperature_mends_what_is_too_sure() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 5000)
    logits = np.eye(4)[truth] + random.normal(size=(5000, 4))  # of temperature 1, by Bayes
    assert calibration.fit_temperature(logits, truth) == pytest.approx(1, abs=0.05)
    assert calibration.fit_temperature(5 * logits, truth) == pytest.approx(5, abs=0.25)
    before = calibration.expected_error(calibration.probabilities(5 * logits), truth)
    after = calibration.expected_error(calibration.probabilities(5 * logits, 5), truth)
    assert after < 0.02 < 0.2 < before
    folds = np.arange(5000) % 10
    held_out = calibration.held_out(5 * logits, truth, folds)
    assert held_out == pytest.approx((5, before, after), abs=0.25)
    assert held_out[2] < 0.02 < held_out[1] == before


def test_the_calibration_error_is_that_of_the_definition() -> None:
    given = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    truth = np.array([0, 1, 1, 1])  # bins: claimed 0.9, right 0.5; claimed 0.6, right 1
    assert calibration.expected_error(given, truth) == pytest.approx((0.4 + 0.4) / 2)


def test_padding_does_not_make_a_recording_out_of_domain() -> None:
    """The mean MFCC is over the sound: twice the window changes nothing."""
    sound = voice(0.7)
    means = []
    for length in (22050, 44100):
        chosen = features.FeatureSettings(length)
        mfcc = features.mfcc(sound, RATE, chosen)
        means.append(out_of_domain.measure(sound, RATE, mfcc, chosen).mfcc)
    np.testing.assert_allclose(*means, atol=3)
    assert np.abs(means[0]).max() > 100
