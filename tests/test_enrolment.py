"""Models that adapt to a speaker by recordings of theirs, and what is said where there are none."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from conftest import ROOT, edit, run
from models import RATE, small_model, voice
from safetensors import safe_open
from safetensors.numpy import save_file
from test_microphone import plug_in
from typer.testing import CliRunner

from timnet import schemas
from timnet.cli import app
from timnet.dataset import features, normalise
from timnet.errors import ArtifactError, AudioError, ParameterError
from timnet.evaluation import score
from timnet.evaluation.together import together
from timnet.models import build, card, enrolment, export, model, svm
from timnet.models.predict import Model
from timnet.training import baseline
from timnet.training.splits import of_folds

BY_SPEAKER = {"tabs": 3, "variant": "tim-net", "by_speaker": True}
NORMALISED = {"tabs": 3, "variant": "tim-net", "normalise": "speaker"}
OWN = [voice(1.0, pitch) for pitch in (180, 190, 200, 210)]


def adapting(training: dict | None = None) -> Model:
    """A small model that adapts to its speaker; without, it knows less and is less sure."""
    made = small_model()
    figures = made.card.figures[0].model_copy(update={"uar": 41.0})
    calibration = made.card.calibration.model_copy(update={"temperature": 3.0})
    coverage = [card.Coverage(below=0.0, answered=1.0, correct=0.41)]
    without = card.Unenrolled(figures=[figures], calibration=calibration, coverage=coverage)
    told = {"training": training or BY_SPEAKER, "unenrolled": without, "recipe": "own"}
    told["coverage"] = [card.Coverage(below=0.0, answered=1.0, correct=0.5)]
    scale = None
    if training == NORMALISED:
        scale = np.full(39, 1, np.float32), np.full(39, 9, np.float32)
        made.network.input_kernel.data *= 100  # for features of deviation 1
    return replace(made, card=made.card.model_copy(update=told), scale=scale)


def logits(of: Model, sound: np.ndarray) -> np.ndarray:
    return of.predict(sound, RATE).logits


@pytest.mark.parametrize("training", (BY_SPEAKER, NORMALISED), ids=("by_speaker", "normalise"))
def test_a_speaker_changes_what_is_said_and_the_model_stays_what_it_was(training: dict) -> None:
    made, sound = adapting(training), voice(1.1, 195)
    before = logits(made, sound)
    mine = made.enrol(OWN, RATE)
    assert np.abs(logits(mine, sound) - before).max() > 1e-3
    assert (logits(made, sound) == before).all()
    assert (made.card.enrolled, mine.card.enrolled) == (0, len(OWN))
    assert mine.predict(sound, RATE).temperature == 0.7  # the calibration of who is enrolled
    assert made.predict(sound, RATE).temperature == 3.0
    with pytest.raises(ParameterError, match="already"):
        mine.enrol(OWN, RATE)


def with_svm() -> Model:
    """A model that adapts to its speaker, with an SVM beside its networks."""
    made = adapting()
    sounds = [voice(1.0, pitch) for pitch in range(120, 220, 5)]
    mfcc = np.stack([features.mfcc(sound, RATE, made.settings) for sound in sounds])
    speakers, targets = np.arange(20) % 4, np.arange(20) // 4 % 3
    told = made.card.model_copy(update={"svm": True})
    return replace(made, card=told, svm=svm.of(mfcc, speakers, targets))


def test_an_svm_is_joined_with_each_network_once_a_speaker_is_enrolled(tmp_path: Path) -> None:
    made, sound = with_svm(), voice(1.1, 195)
    alone = replace(made, svm=None)
    assert (logits(made, sound) == logits(alone, sound)).all()
    mine, networks = made.enrol(OWN, RATE), alone.enrol(OWN, RATE)
    mfcc = np.stack([features.mfcc(each, RATE, made.settings) for each in (*OWN, sound)])
    assert made.svm is not None
    beside = made.svm.enrolled(mfcc[:-1]).logits(mfcc[-1:], 3)
    odds = [
        np.exp(each) / np.exp(each).sum(-1, keepdims=True)
        for each in (logits(networks, sound).astype(float), beside[:, None])
    ]
    expected = (odds[0] + odds[1]) / 2
    np.testing.assert_allclose(np.exp(logits(mine, sound)), expected, rtol=1e-4)
    for one in (made, mine):  # the file holds all that it takes
        model.save(one, tmp_path / "m.safetensors")
        again = model.load(tmp_path / "m.safetensors")
        assert (logits(again, sound) == logits(one, sound)).all()
    assert "joined with an SVM" in card.markdown(made.card)
    assert "SVM" not in card.markdown(adapting().card)


def test_recordings_of_a_speaker_count_against_three_of_the_training_set_s() -> None:
    made = with_svm().svm
    assert made is not None
    mfcc = np.stack([features.mfcc(each, RATE, with_svm().settings) for each in OWN])
    seen = baseline.statistics(mfcc, normalise.sounding_frames(mfcc))
    mine = made.enrolled(mfcc)
    np.testing.assert_allclose(mine.mean, (3 * made.mean + 4 * seen.mean(0)) / 7, rtol=1e-5)
    np.testing.assert_allclose(
        mine.deviation, (3 * made.deviation + 4 * seen.std(0)) / 7, rtol=1e-4
    )


@pytest.mark.parametrize(
    "change",
    (
        {"inputs": None},
        {"mean": np.zeros(3, np.float32)},
        {"deviation": np.zeros(196, np.float32)},
        {"targets": np.full(20, 7, np.float32)},
        {"targets": np.zeros((20, 1), np.float32)},
        {"targets": np.array(1, np.float32)},
        {"targets": np.zeros(20, np.float32)},
        {"targets": np.full(20, 0.5, np.float32)},
    ),
)
def test_a_damaged_svm_is_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "m.safetensors"
    model.save(with_svm(), path)
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    arrays |= {f"svm.{name}": value for name, value in change.items()}
    save_file({n: v for n, v in arrays.items() if v is not None}, path, about)
    with pytest.raises(ArtifactError, match="training set of the SVM"):
        model.load(path)


def test_an_svm_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="an SVM votes too"):
        export.write(with_svm().enrol(OWN, RATE), tmp_path / "m.onnx", False, False)


def test_the_training_set_counts_as_one_recording() -> None:
    """Batch norm's statistics: a fifth the training's, four fifths those of four recordings."""
    made = adapting()
    before, mine = made.network, made.enrol(OWN, RATE).network
    own = copy.deepcopy(before)
    mfcc = np.stack([features.mfcc(sound, RATE, made.settings) for sound in OWN])
    inputs = enrolment.frames(own, None, mfcc)
    own.adapt(inputs.expand(own.networks, -1, -1, -1))
    for name in ("running_mean", "running_variance"):
        one, four, both = (getattr(each, name)[..., :39] for each in (before, own, mine))
        torch.testing.assert_close(both, one / 5 + four * 4 / 5, atol=1e-4, rtol=1e-4)


def test_a_speaker_s_own_offset_does_not_matter_once_they_are_enrolled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A louder microphone moves the first coefficient of every frame."""
    monkeypatch.setattr(enrolment, "PRIOR", 0.0)
    made = adapting(NORMALISED)
    one, other = made.enrol(OWN, RATE), made.enrol([sound / 4 for sound in OWN], RATE)
    same = logits(one, OWN[1])
    np.testing.assert_allclose(logits(other, OWN[1] / 4), same, atol=1e-3)
    assert np.abs(logits(one, OWN[1] / 4) - same).max() > 0.01


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model.save(adapting(), tmp_path / "adapting.safetensors")
    model.save(small_model(), tmp_path / "deaf.safetensors")
    (tmp_path / "mine").mkdir()
    for number, sound in enumerate(OWN):
        soundfile.write(tmp_path / "mine" / f"{number}.wav", sound, RATE)
    soundfile.write("new.wav", voice(1.1, 195), RATE)
    return tmp_path


def test_files_and_signals_enrol_alike(folder: Path) -> None:
    made, sound = model.load(folder / "adapting.safetensors"), voice(1.1, 195)
    files = made.enrol_files(sorted((folder / "mine").iterdir()))
    np.testing.assert_allclose(logits(files, sound), logits(made.enrol(OWN, RATE), sound), atol=0.1)
    long = np.concatenate(OWN * 3)  # minutes in one file are as good: cut into windows
    assert made.enrol([long], RATE).card.enrolled == 1


@pytest.mark.parametrize("training", (BY_SPEAKER, NORMALISED), ids=("by_speaker", "normalise"))
def test_an_adapted_model_can_be_kept_and_exported(training: dict, tmp_path: Path) -> None:
    mine = adapting(training).enrol(OWN, RATE)
    model.save(mine, tmp_path / "mine.safetensors")
    kept = model.load(tmp_path / "mine.safetensors")
    assert (logits(kept, OWN[0]) == logits(mine, OWN[0])).all()
    assert kept.card.enrolled == len(OWN)
    told = card.markdown(kept.card)
    assert "adapted to one speaker, by 4 recordings" in told
    for each in (mine, adapting(training)):
        export.write(each, tmp_path / "x.onnx", with_features=False, single=False)
        session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
        sound = voice(1, 170, 22050)
        mfcc = features.mfcc(sound, 22050, each.settings)[None]
        expected = each.predict(sound, 22050).probabilities
        np.testing.assert_allclose(session.run(None, {"mfcc": mfcc})[0][0], expected, atol=1e-5)


def test_a_scale_that_is_missing_or_wrong_is_refused(tmp_path: Path) -> None:
    made, path = adapting(NORMALISED), tmp_path / "x.safetensors"
    assert made.scale is not None
    mean, deviation = made.scale
    for scale in (None, (mean[:5], deviation[:5]), (mean, deviation * 0)):
        model.save(replace(made, scale=scale), path)
        with pytest.raises(ArtifactError, match="normalise"):
            model.load(path)


def test_what_cannot_enrol_is_refused(folder: Path) -> None:
    with pytest.raises(ParameterError, match="paper"):
        small_model().enrol(OWN, RATE)
    made = adapting()
    for nothing in ([], [np.zeros(RATE)]):
        with pytest.raises(AudioError, match="no sound"):
            made.enrol(nothing, RATE)
    (folder / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"broken\.wav"):
        made.enrol_files([folder / "new.wav", folder / "broken.wav"])


def said(*arguments: str) -> tuple[list[dict], str]:
    """Predictions of the command, and what it says beside them."""
    done = CliRunner().invoke(app, ["predict", *arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_command_enrols_by_a_folder_and_by_files(folder: Path) -> None:
    ((alone,), told) = said("new.wav", "--model", "adapting.safetensors")
    assert "41.0 % UAR, not 50.0 %" in told and "--enrol" in told
    (found, told) = said("new.wav", "--model", "adapting.safetensors", "--enrol", "mine")
    assert "4 recordings" in told and "41.0" not in told
    expected = model.load(folder / "adapting.safetensors").enrol_files(
        sorted((folder / "mine").iterdir())
    )
    ((_, one),) = expected.predict_files(["new.wav"])
    (probabilities,) = (list(each["probabilities"].values()) for each in found)
    np.testing.assert_allclose(probabilities, one.probabilities, atol=1e-3)
    assert found[0]["probabilities"] != alone["probabilities"]
    files = [part for n in range(4) for part in ("--enrol", f"mine/{n}.wav")]
    assert said("new.wav", "--model", "adapting.safetensors", *files)[0] == found


def test_the_recordings_themselves_may_be_one_speaker_s(folder: Path) -> None:
    own, told = said("mine", "--model", "adapting.safetensors", "--one-speaker")
    assert "4 recordings" in told
    assert own == said("mine", "--model", "adapting.safetensors", "--enrol", "mine")[0]
    assert own != said("mine", "--model", "adapting.safetensors")[0]


def test_a_microphone_s_recording_enrols_a_speaker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, RATE)
    given = ("--microphone", "1.2", "--model", "adapting.safetensors")
    (one,), _ = said(*given, "--enrol", "mine")
    (other,), told = said(*given)
    assert one["recording"] == "microphone" and "--enrol" in told
    assert one["probabilities"] != other["probabilities"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    (
        (("new.wav", "--model", "deaf.safetensors", "--enrol", "mine"), "small"),
        (("mine", "--model", "deaf.safetensors", "--one-speaker"), "small"),
        (("mine", "--one-speaker", "--enrol", "mine"), "--one-speaker"),
        (("--microphone", "1", "--one-speaker"), "--one-speaker"),
        (("--microphone", "0", "--one-speaker"), "--one-speaker"),
    ),
)
def test_the_command_refuses_what_makes_no_sense(
    folder: Path, arguments: tuple[str, ...], name: str
) -> None:
    done = CliRunner().invoke(app, ["predict", *arguments])
    assert isinstance(done.exception, ParameterError | AudioError)
    assert name in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "names"),
    (
        (("new.wav", "--enrol", "nobody"), ["nobody (no such file)"]),
        (("new.wav", "--enrol", "empty"), ["empty (no recordings in this folder)"]),
        (("new.wav", "--enrol", "nan.wav"), ["nan.wav (samples that are not finite numbers)"]),
        (("typo.wav", "--one-speaker"), ["typo.wav (no such file)"]),
        (("nan.wav", "--one-speaker"), ["nan.wav (samples that are not finite numbers)"]),
        (("typo.wav", "--enrol", "nobody", "--enrol", "nan.wav"), ["typo.wav", "nobody", "nan"]),
        (("new.wav", "--enrol", "silent.wav"), ["1 recording of silence"]),
        (("new.wav", "--enrol", "silent.wav", "--enrol", "nobody"), ["silence", "nobody (no such"]),
    ),
)
def test_why_nobody_is_enrolled_is_told(
    folder: Path, arguments: tuple[str, ...], names: list[str]
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    soundfile.write(folder / "nan.wav", np.full(9000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(9000), RATE)
    done = CliRunner().invoke(app, ["predict", "--model", "adapting.safetensors", *arguments])
    assert isinstance(done.exception, AudioError)
    assert "no sound to enrol" in str(done.exception)
    for name in names:
        assert str(done.exception).count(name) == 1


def test_a_broken_recording_is_told_of_and_the_others_enrol(folder: Path) -> None:
    (folder / "mine" / "9.wav").write_bytes(b"no sound")
    for given in (("new.wav", "--enrol", "mine"), ("mine", "--one-speaker")):
        done = CliRunner().invoke(app, ["predict", "--model", "adapting.safetensors", *given])
        assert isinstance(done.exception, AudioError)
        assert str(done.exception).count("9.wav") == 1
        assert "4 recordings" in done.stderr and ".wav" in done.stdout


def test_coverage_is_told_with_and_without_enrolment(folder: Path) -> None:
    given = ["predict", "new.wav", "--model", "adapting.safetensors", "--abstain-below", "0.1"]
    assert "41.0 % of these" in CliRunner().invoke(app, given).stdout
    enrolled = CliRunner().invoke(app, [*given, "--enrol", "mine"]).stdout
    assert "50.0 % of these" in enrolled and "recordings of each speaker, not 4" in enrolled
    bare = [*given[:2], "--model", "deaf.safetensors", *given[4:]]
    assert "no figures" in CliRunner().invoke(app, bare).stdout


def test_without_a_name_the_model_says_what_enrolment_is_worth(folder: Path) -> None:
    told = card.in_short(adapting().card)
    assert "50.0 % UAR" in told and "--enrol" in told and "41.0 % UAR" in told
    assert "--enrol" not in card.in_short(small_model().card)


# how many recordings suffice


def test_the_table_in_the_docs_is_that_of_the_benchmark() -> None:
    import enrolment as benchmark

    with (ROOT / "benchmarks/enrolment.csv").open(newline="") as file:
        table = benchmark.markdown(list(csv.DictReader(file)))
    text = (ROOT / "docs/explanation/unseen-speakers.md").read_text()
    assert f"<!-- enrolment -->\n\n{table}\n\n<!-- /enrolment -->" in text


def test_only_the_last_two_kinds_are_tested_on_what_enrols() -> None:
    import enrolment as benchmark

    emotions = np.array(["neutral", "angry", "sad", "happy"] * 5)
    counts: dict[tuple[str, int], list[int]] = {}
    for kind, draw, enrolled, tested in benchmark.trials(emotions, np.random.default_rng(0)):
        among = kind in ("all, the tested among them", "the tested alone")
        assert set(tested) <= set(enrolled) if among else not set(tested) & set(enrolled)
        if "neutral" in kind:
            assert set(emotions[enrolled]) == {"neutral"}
        counts.setdefault((kind, draw), []).extend(tested.tolist())
    assert {kind for kind, _ in counts} == set(benchmark.ORDER)
    drawn_kinds = [f"{number}, other" for number in benchmark.NUMBERS]
    for (kind, _), tested in counts.items():
        drawn = benchmark.NUMBERS[drawn_kinds.index(kind)] if kind in drawn_kinds else 0
        assert len(tested) == len(set(tested)) == len(emotions) - drawn


# models of runs


@pytest.fixture(scope="module")
def made(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's workspace with two runs whose networks adapt to their speakers, and models."""
    folder = tmp_path_factory.mktemp("enrolment") / "workspace"
    run(folder.parent, "cp", "-a", reproduced, folder)
    text = (folder / "params.yaml").read_text()
    (own,) = (part for part in text.split("  demo-") if part.startswith("speaker:"))
    own = own.split("\nsources")[0]
    small = "epochs: 1, batch_size: 64, compiled: false, by_speaker: true"
    recipes = f"  adapted: {{{small}}}\n  both: {{{small}, normalise: speaker}}\n"
    edit(folder / "params.yaml", "recipes:\n", f"recipes:\n{recipes}")
    for recipe in ("adapted", "both"):
        entry = own.replace("speaker:", f"{recipe}:", 1).replace(
            "recipe: paper", f"recipe: {recipe}"
        )
        edit(folder / "params.yaml", "runs:\n", f"runs:\n  demo-{entry.rstrip()}\n")
        entry = f"{{run: demo-{recipe}, corpus: demo, networks: demo-{recipe}}}"
        edit(folder / "params.yaml", "models:\n", f"models:\n  {recipe}: {entry}\n")
    entry = "{run: demo-adapted, corpus: demo, networks: demo-adapted, svm: true}"
    edit(folder / "params.yaml", "models:\n", f"models:\n  beside: {entry}\n")
    run(folder, "dvc", "repro", "model@adapted", "model@both", "model@beside")
    return folder


def of_run(folder: Path, name: str) -> build.TrainedRun:
    trained = folder / "build/train" / name
    return build.read_run(name, trained, json.loads((trained / "run.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ("adapted", "both"))
def test_enrolment_by_all_recordings_gives_the_predictions_of_evaluation(
    made: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "PRIOR", 0.0)
    loaded, of = (
        model.load(made / f"build/models/{recipe}.safetensors"),
        of_run(made, f"demo-{recipe}"),
    )
    manifest = schemas.read(made / "build/manifest/demo.parquet").to_pylist()
    told = {row["utterance"]: row for row in of.predictions.to_pylist()}
    for speaker in ("s1", "s4"):
        rows = [row for row in manifest if row["speaker"] == speaker]
        paths = [made / "data/demo" / row["path"] for row in rows]
        mine = loaded.enrol_files(paths)
        for row, (_, found) in zip(rows, mine.predict_files(paths), strict=True):
            expected = told[row["utterance"]]
            network = of.folds.index(expected["fold"])
            np.testing.assert_allclose(found.logits[0, network], expected["logits"], atol=2e-3)


@pytest.mark.slow
def test_a_model_with_an_svm_has_the_scores_of_both(made: Path) -> None:
    loaded, of = model.load(made / "build/models/beside.safetensors"), of_run(made, "demo-adapted")
    table, _ = features.read(made / "build/features/demo-44100.parquet")
    folds = schemas.read(made / "build/folds/demo-adapted.parquet", schemas.FOLDS)
    splits = of_folds(folds, table["utterance"].to_pylist(), [0])
    mfcc = schemas.mfcc(table)
    machine = baseline.predictions(mfcc, table, of.labels, splits, "speaker")
    both = together(of.predictions, machine, of.labels)
    (scores,) = score.scores(both, of.labels, "speaker").values()
    assert loaded.card.figures[0].uar == pytest.approx(scores["uar"]["value"], abs=0.01)
    assert loaded.svm is not None and loaded.svm.inputs.shape[0] == len(table)
    alone = model.load(made / "build/models/adapted.safetensors")
    assert loaded.card.unenrolled == alone.card.unenrolled
    edit(made / "params.yaml", "run: demo-speaker,", "svm: true, run: demo-speaker,")
    refused = run(made, "timnet", "model", "demo", check=False)
    edit(made / "params.yaml", "svm: true, run: demo-speaker,", "run: demo-speaker,")
    assert refused.returncode == 1 and "models.demo: svm: needs a run" in refused.stderr


@pytest.mark.slow
def test_the_card_tells_what_was_measured_without_enrolment(made: Path) -> None:
    loaded, of = model.load(made / "build/models/adapted.safetensors"), of_run(made, "demo-adapted")
    manifest = schemas.read(made / "build/manifest/demo.parquet").to_pylist()
    fold_of = {row["utterance"]: row["fold"] for row in of.predictions.to_pylist()}
    found = loaded.predict_files(made / "data/demo" / row["path"] for row in manifest)
    right: dict[str, list[bool]] = {}
    for row, (_, each) in zip(manifest, found, strict=True):
        network = of.folds.index(fold_of[row["utterance"]])
        said = loaded.labels[each.logits[0, network].argmax()]
        right.setdefault(row["emotion"], []).append(said == row["emotion"])
    uar = 100 * np.mean([np.mean(each) for each in right.values()])
    without = loaded.card.unenrolled
    assert without is not None
    assert without.figures[0].uar == pytest.approx(uar, abs=0.51)
    scores = json.loads((made / "results/runs/demo-speaker/metrics.json").read_text())
    assert scores.keys() == {without.figures[0].protocol}
    assert "without enrolment, adapted uses" in run(made, "timnet", "model", "adapted").stdout
    said = run(made, "timnet", "card", "adapted").stdout
    assert "- recipe: adapted" in said
    assert "enrolled by all of their own recordings, without labels" in said
    assert "## Enrolment" in said
    assert without.calibration.temperature != loaded.card.calibration.temperature
    assert model.load(made / "build/models/demo.safetensors").card.unenrolled is None
