"""Three hundred broken recordings: each is named or harmless, none is fatal to the others."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import mutants
from conftest import run
from models import RATE, SETTINGS, small_model, voice

from timnet.corpora import emovo
from timnet.dataset import audio, features, manifest
from timnet.errors import AudioError, CorpusError
from timnet.models import model

NUMBER = 300
GOOD_NAMES = [
    f"{speaker}/{code}-{speaker}-{sentence}.wav"
    for speaker in emovo.SPEAKERS
    for code in emovo.EMOTION_CODES
    for sentence in emovo.SENTENCES
]
HELD = 12000  # samples of a recording that are taken


def sounds(shared: Path | None) -> list[tuple[np.ndarray, int]]:
    """Beginnings of real recordings of three corpora, or of made-up voices."""
    if shared is None:
        return [(voice(0.5, pitch), RATE) for pitch in (110, 150, 210)]
    found = []
    for pattern in ("emovo/f1/dis*.flac", "ravdess/Actor_01/*.flac", "emodb/wav/03*.flac"):
        for path in sorted((shared / "corpora").glob(pattern))[:3]:
            sound, rate = soundfile.read(path, HELD, dtype="float32", always_2d=True)
            found.append((sound[:, 0], rate))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Broken files under good names of EMOVO, the last one whole."""
    shared = Path(os.environ.get("TIMNET_SHARED", Path(__file__).parents[2] / "shared"))
    taken = sounds(shared if (shared / "corpora").is_dir() else None)
    folder = tmp_path_factory.mktemp("broken") / "emovo"
    files = [content for _, content in mutants(taken, NUMBER)]
    assert len(files) == NUMBER
    for name, content in zip(GOOD_NAMES, files, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    soundfile.write(folder / GOOD_NAMES[NUMBER], *taken[0])
    return folder


def test_the_manifest_names_them_and_features_are_numbers(folder: Path) -> None:
    filters = features.mel_filters()
    named = set()
    for utterance in emovo.read(folder):
        path = folder / utterance.path
        found = features.of_file(path, SETTINGS, filters)
        if isinstance(found, str):
            assert found and "\n" not in found
            named.add(utterance.path)
        else:
            assert found.shape == (SETTINGS.frames, 39) and np.isfinite(found).all()
    assert len(named) > NUMBER / 2
    assert GOOD_NAMES[NUMBER] not in named
    with pytest.raises(AudioError, match=rf"\d+ of {NUMBER + 1} recordings cannot be read: .* and"):
        manifest.build(emovo.CORPUS, folder)


def test_prediction_goes_on(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    model.save(small_model(1), path)
    long = "x" * 300
    done = run(tmp_path, "timnet", "predict", folder, long, "--model", path, "--format", "csv",
               check=False)  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    rows = done.stdout.splitlines()[1:]
    failures = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert len(rows) + len(failures) == NUMBER + 2
    assert "file name too long" in done.stderr


# file names that nobody expects, all of them of whole recordings

NAMES = {
    "spaces": b" two  words .wav",
    "line feed": b"a\nb.wav",
    "carriage return, bell, escape": b"a\r\a\x1b[31m.wav",
    "umlauts, composed": "gr\u00fc\u00dfe.wav".encode(),
    "umlauts, decomposed": "gru\u0308\u00dfe.wav".encode(),
    "right to left": "\u202eevil\u202c.wav".encode(),
    "no UTF-8": b"\xff\xfe.wav",
    "digits of Arabic and powers": "\u0663\u00b2 1\u00b22.wav".encode(),
    "emoji": "\U0001f600.wav".encode(),
    "255 bytes": b"x" * 251 + b".wav",
    "an option": b"--model.wav",
    "a glob": b"*[a-z]?.wav",
    "a variable": b"$HOME `id` ${x}.wav",
    "quotes": b"\"'.wav",
    "markup": b"<b>&amp;[red]x[_red].wav",
    "case": b"CASE.WAV",
    "case, too": b"case.wav",
    "a number": b"9" * 200 + b".wav",
    "dots": b"a...b.wav",
}


def test_names_that_nobody_expects(tmp_path: Path) -> None:
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, voice(1.0), RATE)
    folder = tmp_path / "names"
    folder.mkdir()
    for name in NAMES.values():
        (folder / os.fsdecode(name)).write_bytes(whole.read_bytes())
    (folder / "link.wav").symlink_to(whole)
    (folder / "dangling.wav").symlink_to(tmp_path / "nowhere")
    (folder / "circle.wav").symlink_to(folder / "circle.wav")
    (folder / "endless.wav").symlink_to("/dev/zero")
    (folder / "around").symlink_to(folder)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "there.wav").write_bytes(whole.read_bytes())
    (folder / "disk").symlink_to(tmp_path / "disk")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    path = tmp_path / "small.safetensors"
    model.save(small_model(1), path)
    done = run(tmp_path, "timnet", "predict", folder, "--model", path, "--format", "json",
               check=False)  # fmt: skip
    # and the links to a whole recording and to a folder with one
    assert len(done.stdout.splitlines()) == len(NAMES) + 2, done.stderr
    assert "names/disk/there.wav" in done.stdout
    assert done.returncode == 1 and "4 recordings could not be read" in done.stderr
    for name in ("dangling", "circle"):
        assert f"names/{name}.wav (a link that leads nowhere)" in done.stderr
    for name in ("endless", "pipe"):
        assert f"names/{name}.wav (a pipe or a device)" in done.stderr
    done = run(tmp_path, "timnet", "predict", folder / "pipe.wav", "--model", path, check=False)
    assert done.returncode == 1 and "pipe.wav (a pipe or a device)" in done.stderr


@pytest.mark.parametrize("case", NAMES)
def test_such_names_in_a_corpus_are_refused(tmp_path: Path, case: str) -> None:
    name = os.fsdecode(NAMES[case])
    (tmp_path / "f1").mkdir()
    for path in ("dis-f1-b1.wav", name):
        (tmp_path / "f1" / path).write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"1 file name (fitting no rule|not in UTF-8): "):
        emovo.read(tmp_path)
    (tmp_path / "f1" / name).rename(tmp_path / "moved")
    (tmp_path / "f1").rename(tmp_path / name[:-4])  # as a folder around a good name
    if "\udcff" in name:
        with pytest.raises(CorpusError, match=r"1 file name not in UTF-8: "):
            emovo.read(tmp_path)
    else:
        assert [each.id for each in emovo.read(tmp_path)] == ["dis-f1-b1"]


def test_links_and_case_in_a_corpus(tmp_path: Path) -> None:
    """A link is read as the file that it leads to; two spellings of one name are not confused."""
    good = tmp_path / "f1" / "dis-f1-b1.wav"
    good.parent.mkdir()
    soundfile.write(good, voice(1.0), RATE)
    for target in (tmp_path / "nowhere", tmp_path / "f1" / "dis-f1-b2.wav", tmp_path):
        link = tmp_path / "f1" / "dis-f1-b2.wav"
        link.symlink_to(target)
        with pytest.raises(AudioError, match=r"1 of 2 recordings .*: f1/dis-f1-b2\.wav"):
            manifest.build(emovo.CORPUS, tmp_path)
        link.unlink()
    (tmp_path / "F1").mkdir()
    (tmp_path / "F1" / "dis-f1-b1.wav").write_bytes(good.read_bytes())
    with pytest.raises(CorpusError, match="are both utterance dis-f1-b1"):
        manifest.build(emovo.CORPUS, tmp_path)


def test_a_header_that_announces_years(tmp_path: Path) -> None:
    drawn = random.Random(3)
    path = tmp_path / "x.flac"
    soundfile.write(path, voice(0.5), RATE)
    content = path.read_bytes()
    for announced in (2**36 - 1, 2**34, 3601 * RATE, drawn.randrange(2**30, 2**36)):
        field = int.from_bytes(content[18:26], "big") >> 36 << 36 | announced  # of STREAMINFO
        path.write_bytes(content[:18] + field.to_bytes(8, "big") + content[26:])
        with pytest.raises(AudioError, match="3600"):
            audio.examine(path)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "OGG", "MP3"])
def test_half_a_recording_is_none(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.tile(voice(1.0), 4), RATE, format=form)
    audio.examine(path)
    assert not isinstance(features.of_file(path, SETTINGS, features.mel_filters()), str)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError):
        audio.examine(path)
    found = features.of_file(path, SETTINGS, features.mel_filters())
    assert isinstance(found, str) and ("truncated" in found or "malformed" in found)


def test_samples_beyond_belief(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.full(9000, 1e30, np.float32), RATE, "FLOAT")
    found = features.of_file(path, SETTINGS, features.mel_filters())
    assert found == "samples of up to 1e+30, where full scale is 1"
