from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import soundfile
import torch
import typer
from conftest import run
from hypothesis import given
from hypothesis import strategies as st
from models import LABELS, RATE, small_model, voice
from typer.testing import CliRunner

from timnet.cli import app
from timnet.cli import predict as predicting
from timnet.dataset import features
from timnet.errors import AudioError
from timnet.models import formats, model
from timnet.models.predict import Prediction, windows
from timnet.training.network import pad_channels

LOGITS = Path(__file__).parent / "reference" / "emovo-logits.npy"


@pytest.fixture(scope="module")
def small() -> model.Model:
    return small_model()


@pytest.fixture(scope="module")
def folder(small: model.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of many kinds, some of them broken, and a model."""
    path = tmp_path_factory.mktemp("sound")
    model.save(small, path / "small.safetensors")
    sounds = path / "sounds"
    (sounds / "deeper").mkdir(parents=True)
    for number, kind in enumerate(("wav", "flac", "ogg", "mp3", "aiff")):
        soundfile.write(sounds / f"v{number + 8}.{kind}", voice(1.2), RATE)
    soundfile.write(sounds / "deeper" / "two words ü.wav", voice(1, 180), RATE)
    soundfile.write(sounds / "deeper" / "long.wav", voice(9), RATE)
    (sounds / "notes.txt").write_text("no sound")
    return path


def by_hand(small: model.Model, sound: np.ndarray, rate: int) -> np.ndarray:
    """Logits as training's evaluation computes them, (networks, K)."""
    values = torch.from_numpy(features.mfcc(sound, rate, small.settings))
    values = pad_channels(values, small.network.width)[None, :, None]
    return small.network(values.expand(small.network.networks, -1, -1, -1))[0][:, 0].numpy()


def test_logits_are_those_of_evaluation(small: model.Model) -> None:
    sound = voice(1.3)  # longer than the window, not than the longest recording
    found = small.predict(sound, RATE)
    np.testing.assert_allclose(found.logits[0], by_hand(small, sound, RATE), atol=1e-5)
    odds = np.exp(found.logits[0] / 0.7)
    odds /= odds.sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, odds.mean(0), atol=1e-6)
    assert found.emotion == LABELS[odds.mean(0).argmax()]
    assert found.votes == (odds.argmax(1) == odds.mean(0).argmax()).sum()
    np.testing.assert_allclose(found.windows, [[0.15, 1.15]])


def test_single_asks_the_first_network(small: model.Model) -> None:
    found = small.predict(voice(1), RATE, single=True)
    assert found.networks == 1
    np.testing.assert_allclose(found.logits, small.predict(voice(1), RATE).logits[:, :1], atol=1e-5)


def test_a_signal_of_any_type_is_predicted(small: model.Model) -> None:
    sound = voice(1)
    as_integers = np.round(sound * 32768).astype(np.int16)
    stereo = np.stack((sound, sound), 1).astype(np.float64)
    for signal in (as_integers, stereo, sound.tolist()):
        found = small.predict(signal, float(RATE))
        np.testing.assert_allclose(found.logits, small.predict(sound, RATE).logits, atol=0.02)


@pytest.mark.parametrize(
    ("signal", "rate", "message"),
    (
        (np.zeros(0), RATE, "no samples"),
        (np.array([0.1, np.nan]), RATE, "samples that are not finite numbers"),
        (np.zeros(90), 50, "50 Hz; expected 2000 to 384000 Hz"),
        (np.zeros((2, 900)), RATE, "900 channels; the limit is 16"),
        (np.zeros((2, 2, 2)), RATE, r"a signal of shape \(2, 2, 2\) and type float64; expected"),
        (np.array(["a"]), RATE, "expected .* floats or signed integers"),
        (np.array([1, 2]), RATE, "int64, whose full scale is unknown"),
        (np.zeros(900), 16000.5, "16000.5 samples per second; expected a whole number"),
    ),
)
def test_a_bad_signal_is_named(small: model.Model, signal, rate: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        small.predict(signal, rate)


@given(
    samples=st.integers(0, 400),
    longest=st.integers(1, 90),
    share=st.integers(1, 90),
    data=st.data(),
)
def test_windows_cover_all_and_end_with_the_recording(
    samples: int, longest: int, share: int, data: st.DataObject
) -> None:
    window = min(share, longest)
    rest = np.arange(samples)

    def read(wanted: int) -> np.ndarray:
        nonlocal rest
        given = data.draw(st.integers(1, wanted)) if len(rest) < samples else wanted
        taken, rest = rest[:given], rest[given:]
        return taken

    found = list(windows(read, longest, window))
    if samples <= longest:
        assert [(first, part.tolist()) for first, part in found] == [(0, list(range(samples)))]
        return
    for first, part in found:
        assert part.tolist() == list(range(first, first + window))
    starts = [first for first, _ in found]
    assert starts[0] == 0
    assert starts[-1] + window == samples
    steps = np.diff(starts)
    assert (steps[:-1] == max(window // 2, 1)).all()
    assert (steps > 0).all() and (steps <= max(window // 2, 1)).all()


def test_long_sound_has_a_timeline(small: model.Model, folder: Path) -> None:
    ((_, found),) = small.predict_files([folder / "sounds" / "deeper" / "long.wav"])
    assert isinstance(found, Prediction)
    assert found.seconds == 9
    assert len(found.windows) == 17  # a second each, half a second apart
    assert found.out_of_domain == []
    assert found.timeline[0].start == 0
    assert found.timeline[-1].end == 9
    for one, other in zip(found.timeline, found.timeline[1:], strict=False):
        assert one.end == other.start
        assert one.emotion != other.emotion
    sound, _ = soundfile.read(folder / "sounds" / "deeper" / "long.wav", dtype="float32")
    third = by_hand(small, sound[RATE : 2 * RATE], RATE)
    np.testing.assert_allclose(found.logits[2], third, atol=1e-4)
    in_memory = small.predict(sound, RATE)
    np.testing.assert_allclose(in_memory.logits, found.logits, atol=1e-4)


def test_a_recording_like_the_training_set_is_not_doubted(small: model.Model) -> None:
    assert small.predict(voice(1.1, 170), RATE).out_of_domain == []


@pytest.mark.parametrize(
    ("sound", "rate", "words"),
    (
        (voice(0.3), RATE, "0.3 s (training: 0.8 to 1.5)"),
        (voice(1) / 100, RATE, "dB (training: -"),
        (voice(1, rate=8000), 8000, "8000 Hz (training: 16000)"),
        (np.random.default_rng(0).normal(size=RATE) / 16, RATE, "MFCC "),
        (np.zeros(RATE), RATE, "silence"),
    ),
)
def test_a_recording_out_of_domain_is_told(
    small: model.Model, sound: np.ndarray, rate: int, words: str
) -> None:
    assert any(words in reason for reason in small.predict(sound, rate).out_of_domain)


def test_a_higher_rate_of_the_same_band_is_like_it() -> None:
    trained_wide = small_model()
    object.__setattr__(trained_wide.reference, "sample_rates", (44100,))
    told = trained_wide.predict(voice(1, rate=48000), 48000).out_of_domain
    assert not any("Hz" in reason for reason in told)


def test_files_come_back_in_order_whatever_their_number_and_workers(
    small: model.Model, folder: Path
) -> None:
    paths = sorted((folder / "sounds").glob("v*")) * 12
    paths[7] = folder / "missing.wav"
    found = list(small.predict_files(paths, workers=3))
    assert [path for path, _ in found] == paths
    assert found[7][1] == "No such file or directory"
    assert all(isinstance(each, Prediction) for _, each in found[:7] + found[8:])
    alone = list(small.predict_files(paths[:3]))
    for (_, one), (_, other) in zip(alone, found[:3], strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def predict(folder: Path, *arguments: str | Path, check: bool = True):
    return run(folder, "timnet", "predict", "--model", "small.safetensors", *arguments, check=check)


def test_the_command_prints_a_table(folder: Path) -> None:
    said = predict(folder, "sounds").stdout.splitlines()
    assert said[0].split() == ["recording", "emotion", "p", "or", "p", "votes", "length"]
    names = [line.split("  ")[0] for line in said[1:] if line.startswith("sounds")]
    assert names == [
        "sounds/deeper/long.wav",
        "sounds/deeper/two words ü.wav",
        *(f"sounds/v{n}.{kind}" for n, kind in enumerate(["wav", "flac", "ogg", "mp3", "aiff"], 8)),
    ]
    assert "9 s in 17 windows" in said[1]
    assert said[2].startswith("  0:00 to ")  # the windows of a long one, also where they agree


def test_emotions_of_long_sound_are_listed(folder: Path) -> None:
    windows = np.array([[0, 3], [2, 5.4]])
    logits = np.array([[[9, 0]], [[0, 5]]], np.float32)
    found = Prediction(("calm", "happy"), 5.4, [], windows, logits, 1.0)
    said = formats.TableWriter(found.labels, [folder]).line(folder, found).splitlines()
    assert said[0].endswith("5 s in 2 windows")
    assert [line.split() for line in said[1:]] == [
        ["0:00", "to", "0:03", "calm", "1.00"],
        ["0:03", "to", "0:05", "happy", "0.99"],
    ]
    said = formats.TableWriter(found.labels, [folder], 0.995).line(folder, found).splitlines()
    assert [line.split()[3] for line in said[1:]] == ["calm", "-"]
    told = json.loads(formats.JsonLinesWriter(0.995).line(folder, found))
    assert [part["emotion"] for part in told["timeline"]] == ["calm", None]


def test_one_bad_file_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan), RATE, subtype="FLOAT")
    late = voice(9)
    late[-100] = np.inf
    soundfile.write(tmp_path / "late.wav", late, RATE, subtype="FLOAT")
    for kind in ("wav", "mp3"):
        content = (folder / f"sounds/v{8 if kind == 'wav' else 11}.{kind}").read_bytes()
        (tmp_path / f"cut.{kind}").write_bytes(content[: len(content) * 6 // 10])
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "none").mkdir()
    good = folder / "sounds" / "v8.wav"
    found = predict(folder, tmp_path, good, tmp_path / "none", "gone.wav", check=False)
    assert found.returncode == 1
    assert str(good)[-20:] in found.stdout
    assert "9 recordings could not be read:" in found.stderr
    for reason in (
        "bad.wav (",
        "empty.wav (no samples)",
        "nan.wav (samples that are not finite numbers)",
        "late.wav (samples that are not finite numbers)",
        "cut.wav (truncated: 23022 bytes of sound, but the header announces 38400)",
        "cut.mp3 (truncated: ",
        "pipe.wav (a pipe or a device)",
        "none (no recordings in this folder)",
        "gone.wav (no such file)",
    ):
        assert reason in found.stderr
    assert "Traceback" not in found.stderr


def test_a_folder_that_may_not_be_read_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "closed", "open/closed"):
        (tmp_path / name).mkdir()
    shutil.copy(folder / "sounds" / "v8.wav", tmp_path / "open")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read all
    found, missing = predicting._recordings([tmp_path / "open", tmp_path / "closed"])
    assert [path.name for path in found] == ["v8.wav"]
    assert missing == [
        f"{tmp_path}/open/closed (Permission denied)",
        f"{tmp_path}/closed (Permission denied)",
    ]


def test_what_is_hidden_in_a_folder_is_left_out(folder: Path, tmp_path: Path) -> None:
    hidden = tmp_path / ".hidden"
    for name in ("seen.wav", ".cache/a.wav", "b/.git/c.wav", ".d.wav"):
        (hidden / name).parent.mkdir(parents=True, exist_ok=True)
        (hidden / name).write_bytes((folder / "sounds" / "v8.wav").read_bytes())
    lines = predict(folder, hidden / ".d.wav", hidden, "--format", "json").stdout.splitlines()
    found = [Path(json.loads(line)["recording"]).name for line in lines]
    assert found == [".d.wav", "seen.wav"]  # what is named itself may be hidden


def test_no_path_of_the_command_line_may_be_empty() -> None:
    parsers = []
    for command in app.registered_commands:
        assert command.callback is not None
        for hint in get_type_hints(command.callback, include_extras=True).values():
            if get_origin(hint) is Annotated and "Path" in str(get_args(hint)[0]):
                parsers.append(get_args(hint)[1].parser)
    assert len(parsers) > 7
    for parse in parsers:
        with pytest.raises(typer.BadParameter, match="empty"):
            parse("")
        assert parse("a b.wav") == Path("a b.wav")


@pytest.mark.parametrize(
    "arguments",
    (
        ("predict", ""),
        ("predict", "x.wav", ""),
        ("predict", "x.wav", "--enrol", ""),
        ("predict", "x.wav", "--enrol="),
        ("acquire", "mine", "--csv", ""),
        ("acquire", "emovo", "--from", ""),
        ("export", "emodb", "--onnx", ""),
    ),
)
def test_an_empty_name_is_told(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "empty" in done.stderr


def test_csv_and_json_are_for_programs(folder: Path, small: model.Model) -> None:
    wav = folder / "sounds" / "v8.wav"
    found = small.predict(*soundfile.read(wav))
    (row,) = csv.DictReader(io.StringIO(predict(folder, wav, "--format", "csv").stdout))
    assert (row["recording"], row["emotion"], row["votes"]) == (
        str(wav),
        found.emotion,
        str(found.votes),
    )
    assert [float(row[label]) for label in LABELS] == pytest.approx(found.probabilities, abs=1e-3)
    long = folder / "sounds" / "deeper" / "long.wav"
    lines = predict(folder, wav, long, "--format", "json").stdout.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["emotion"] == found.emotion
    assert first["out_of_domain"] == found.out_of_domain
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert len(second["windows"]) == 17
    assert second["timeline"][-1]["end"] == 9


def test_names_of_any_bytes_are_printed(folder: Path, tmp_path: Path) -> None:
    for name in (b"a\nb.wav", b"\xff\xfe.wav"):
        target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        target.write_bytes((folder / "sounds" / "v8.wav").read_bytes())
    for form in ("table", "csv", "json"):
        said = predict(folder, tmp_path, "--format", form).stdout
        assert "�.wav" in said


def test_who_stops_reading_gets_no_traceback(folder: Path) -> None:
    command = [sys.executable, "-m", "timnet", "predict"]
    command += ["--model", "small.safetensors", "sounds", "--format", "csv"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read().decode() == ""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.slow
def test_emovo_through_prediction_is_the_paper_s(restored, shared: Path) -> None:
    """541 of 588, from files: each fold's network on the fold that it was not trained on."""
    from authors import authors_model

    from timnet.corpora import CORPORA
    from timnet.dataset import folds, manifest

    recordings = restored("emovo")
    loaded = authors_model(shared / "reference" / "EMOVO_1.zip", recordings)
    rows = manifest.build(CORPORA["emovo"], recordings)
    fold_of = folds.random_folds(len(rows), 10, 1)
    paths = [recordings / path for path in rows["path"].to_pylist()]
    found = [each for _, each in loaded.predict_files(paths, workers=2)]
    logits = np.stack([each.logits[0, fold] for each, fold in zip(found, fold_of, strict=True)])
    np.testing.assert_allclose(logits, np.load(LOGITS), atol=1e-3)
    truth = [loaded.labels.index(emotion) for emotion in rows["emotion"].to_pylist()]
    assert (logits.argmax(1) == truth).sum() == 541
    (figures,) = loaded.card.figures
    assert (figures.protocol, figures.uar, figures.war) == ("best-epoch", 92.01, 92.01)
    assert np.mean([not each.out_of_domain for each in found]) > 0.9


# formats of phones, which the optional program ffmpeg decodes

PHONE = {  # a file's beginning, by which it is told whatever its name says
    "memo.m4a": b"\0\0\0\x1cftypM4A ",
    "call.AMR": b"#!AMR\n",
    "chat.webm": b"\x1aE\xdf\xa3",
    "clip.3gp": b"\0\0\0\x1cftyp3gp4",
    "radio.aac": b"\xff\xf1\x50\x80",
    "renamed.wav": b"\0\0\0\x1cftypM4A ",
}


def phone(tmp_path: Path, small: model.Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recordings that no program can read, and a path without ffmpeg."""
    model.save(small, tmp_path / "small.safetensors")
    (tmp_path / "phone").mkdir()
    for name, head in PHONE.items():
        (tmp_path / "phone" / name).write_bytes(head + bytes(3000))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_recordings_of_phones_are_named_where_there_is_no_ffmpeg(
    small: model.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = phone(tmp_path, small, monkeypatch)
    soundfile.write(folder / "phone" / "A.WAV", voice(1.2), RATE)
    done = predict(folder, "phone", check=False)
    assert done.returncode == 1
    assert "phone/A.WAV" in done.stdout
    for name in PHONE:
        assert f"phone/{name} (" in done.stderr
    assert done.stderr.count("ffmpeg") == len(PHONE)
    (folder / "phone" / "A.WAV").unlink()
    assert "phone/memo.m4a (M4A, " in predict(folder, "phone", check=False).stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ""),
        ("b.webm", "-c:a libopus"),
        ("c.3gp", "-c:a aac -ar 16000"),
        ("d.aac", ""),
        ("e.MP4", "-ac 2"),
        ("-f.mkv", ""),
    ],
)
def test_recordings_of_phones_are_read_with_ffmpeg(
    small: model.Model, tmp_path: Path, name: str, options: str
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    soundfile.write(tmp_path / "x.wav", voice(9), RATE)
    path = tmp_path / name
    run(tmp_path, "ffmpeg", "-v", "error", "-i", "x.wav", *options.split(), f"file:{name}")
    ((_, found),) = small.predict_files([path])
    assert isinstance(found, Prediction), found
    assert abs(found.seconds - 9) < 0.1
    (plain,) = (each for _, each in small.predict_files([tmp_path / "x.wav"]))
    assert isinstance(plain, Prediction)
    assert abs(len(found.windows) - len(plain.windows)) <= 1
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ((_, cut),) = small.predict_files([path])
    assert isinstance(cut, str) and cut.startswith("ffmpeg: ")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.caf", "-c:a alac"),
        ("b.ogg", "-c:a flac"),
        ("c.wav", "-c:a mp2"),
        ("d.wav", "-c:a adpcm_g722"),
        ("e.caf", "-c:a ac3 -ar 48000"),
        ("f.tta", "-c:a tta"),
    ],
)
def test_what_libsndfile_refuses_of_its_own_formats_is_read_with_ffmpeg(
    small: model.Model, tmp_path: Path, name: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    soundfile.write(tmp_path / "x.wav", voice(9), RATE)
    path = tmp_path / name
    run(tmp_path, "ffmpeg", "-v", "error", "-i", "x.wav", *options.split(), name)
    content = path.read_bytes()
    ((_, found),) = small.predict_files([path])
    assert isinstance(found, Prediction), found
    assert abs(found.seconds - 9) < 0.1
    in_a_corpus = features.of_file(path, features.FeatureSettings(22050), None)
    assert isinstance(in_a_corpus, str)
    assert name == "f.tta" or "Convert it" in in_a_corpus
    path.write_bytes(content[: len(content) // 2 + 5])
    ((_, cut),) = small.predict_files([path])
    assert isinstance(cut, str) and ("truncated" in cut or name == "f.tta")
    path.write_bytes(content)
    monkeypatch.setenv("PATH", str(tmp_path))
    ((_, alone),) = small.predict_files([path])
    assert isinstance(alone, str) and "ffmpeg" in alone and "not installed" in alone


def test_damage_of_formats_that_libsndfile_knows_is_not_for_ffmpeg(
    small: model.Model, folder: Path, tmp_path: Path
) -> None:
    content = (folder / "sounds" / "v8.wav").read_bytes()
    path = tmp_path / "x.wav"
    for damaged in (
        content[:30],
        content[:20] + b"\0\0" + content[22:],  # no such codec
        content[:22] + b"\0\0" + content[24:],  # no channel
        content.replace(b"data", b"dada", 1),
        b"\xff\xfb" + content[2:],
        b"no sound\n" * 99,
        b"\xff",
    ):
        path.write_bytes(damaged)
        ((_, said),) = small.predict_files([path])
        assert isinstance(said, str) and f"{len(damaged)} bytes, not sound" in said


def test_what_ffmpeg_complains_of_is_told(
    small: model.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    options = "-v error -f lavfi -i color=size=32x32:d=1 -c:v mpeg4"
    run(tmp_path, "ffmpeg", *options.split(), "film.mp4")
    ((_, said),) = small.predict_files([tmp_path / "film.mp4"])
    assert said == "ffmpeg finds no sound in it"
    program = tmp_path / "ffmpeg"  # that says what it says of a WMA with a hole
    program.write_text(
        "#!/bin/sh\necho '[wmav2 @ 0x55c6ba9e7b40] overflow in spectral RLE' >&2\n"
        "echo 'Conversion failed!' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ((_, said),) = small.predict_files([tmp_path / "film.mp4"])
    assert said == "ffmpeg: wmav2: overflow in spectral RLE"


def test_a_corpus_does_not_depend_on_ffmpeg(tmp_path: Path) -> None:
    (tmp_path / "x.m4a").write_bytes(PHONE["memo.m4a"] + bytes(3000))
    found = features.of_file(tmp_path / "x.m4a", features.FeatureSettings(22050), None)
    assert isinstance(found, str) and "M4A" in found and "Convert it" in found


def test_long_sound_of_one_emotion_has_a_timeline_too(folder: Path, small: model.Model) -> None:
    said = Prediction(
        LABELS, 41.0, [], np.array([(0.0, 30.0), (11.0, 41.0)]),
        np.tile(np.float32([9, 0, 0]), (2, 1, 1)), 1.0,
    )  # fmt: skip
    lines = formats.TableWriter(LABELS, [Path("x")]).line(Path("x"), said).splitlines()
    assert lines[1].split() == ["0:00", "to", "0:41", "angry", "1.00"]


@pytest.mark.parametrize("left", [0.0, 1e-6, 0.01])
def test_channels_that_cancel_out_are_no_silence(small: model.Model, left: float) -> None:
    sound = voice(1.1, 170)
    found = small.predict(np.stack([sound, -sound * (1 - left)], 1), RATE)
    assert not any("silence" in reason for reason in found.out_of_domain)
    assert any("channels that cancel out" in reason for reason in found.out_of_domain)
    same = small.predict(np.stack([sound, sound], 1), RATE)
    one = small.predict(np.stack([sound, 0 * sound], 1), RATE)
    for found_of in (same, one):
        assert not any("cancel" in reason for reason in found_of.out_of_domain)
    assert small.predict(np.zeros((RATE, 2)), RATE).out_of_domain == ["silence"]


def test_a_name_of_another_normal_form_is_told(folder: Path) -> None:
    done = predict(folder, "sounds/deeper/two words u\u0308.wav", check=False)
    assert done.returncode == 1
    assert "another Unicode normal form (NFC, here NFD)" in done.stderr
