from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pyarrow as pa
import pytest
import soundfile

from timnet import schemas
from timnet.dataset import features
from timnet.dataset.features import FeatureSettings
from timnet.dataset.resample import resample
from timnet.errors import ArtifactError, AudioError, ParameterError

SETTINGS = FeatureSettings(44100)


def tone(seconds: float, rate: int, pitch: float = 220.0) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(pitch)).normal(size=len(time))
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * noise).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[pa.Table, Path]:
    """Six recordings and their manifest."""
    rows = []
    for index in range(6):
        name = f"a{index}.wav"
        soundfile.write(tmp_path / name, tone(0.8 + index / 5, 16000, 200 + 20 * index), 16000)
        rows.append(
            {
                "utterance": f"a{index}",
                "speaker": "s",
                "emotion": "sad",
                "sentence": None,
                "path": name,
                "sample_rate": 16000,
                "channels": 1,
                "samples": 16000,
                "sha256": str(index),
            }
        )
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST), tmp_path


def test_mfcc_are_librosa_s_on_the_exact_resampling() -> None:
    signal = tone(1.5, 48000)
    mono = features.centre(resample(signal, 48000, 22050), 44100)
    expected = librosa.feature.mfcc(y=mono, sr=22050, n_mfcc=39, pad_mode="reflect").T
    actual = features.mfcc(signal, 48000, SETTINGS)
    assert actual.shape == (SETTINGS.frames, 39) == (87, 39)
    np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_stereo_is_the_mean_of_its_channels() -> None:
    left, right = tone(1, 22050, 300), tone(1, 22050, 500)
    stereo = features.mfcc(np.stack((left, right), 1), 22050, SETTINGS)
    np.testing.assert_allclose(
        stereo, features.mfcc((left + right) / 2, 22050, SETTINGS), atol=2e-4
    )


@pytest.mark.parametrize(("samples", "left", "right"), ((7, 1, 2), (8, 1, 1), (10, 0, 0)))
def test_padding_puts_the_odd_sample_to_the_right(samples: int, left: int, right: int) -> None:
    padded = features.centre(np.ones(samples, np.float32), 10)
    assert padded.tolist() == [0] * left + [1] * samples + [0] * right


@pytest.mark.parametrize(("samples", "first"), ((11, 0), (12, 1), (13, 1)))
def test_cropping_keeps_the_middle(samples: int, first: int) -> None:
    assert features.centre(np.arange(samples), 10).tolist() == list(range(first, first + 10))


def extract(corpus, target: Path, settings: FeatureSettings = SETTINGS, **options) -> Path:
    features.extract(*corpus, settings, target, target.parent / "shards", 2, **options)
    return target


def test_two_extractions_give_the_same_bytes(corpus, tmp_path: Path) -> None:
    done: list[int] = []
    first = extract(corpus, tmp_path / "one.parquet", progress=done.append)
    second = extract(corpus, tmp_path / "two.parquet", progress=done.append)
    assert first.read_bytes() == second.read_bytes()
    assert sum(done) == 12
    assert not (tmp_path / "shards").exists()
    table, record = features.read(first)
    assert table["utterance"].to_pylist() == corpus[0]["utterance"].to_pylist()
    assert schemas.mfcc(table).shape == (6, 87, 39)
    assert record == features.fingerprint(corpus[0], SETTINGS)


def test_a_stopped_extraction_goes_on_after_what_is_whole(
    corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SHARD", 2)
    undisturbed = extract(corpus, tmp_path / "one.parquet").read_bytes()
    (tmp_path / "shards" / "of-other-settings").mkdir(parents=True)

    class Stop(Exception):
        pass

    def stop(_done: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        extract(corpus, tmp_path / "two.parquet", progress=stop)
    assert not (tmp_path / "two.parquet").exists()
    (shards,) = (path for path in (tmp_path / "shards").iterdir() if any(path.iterdir()))
    whole = {path.name: path.stat().st_mtime_ns for path in shards.glob("0*.parquet")}
    assert whole  # each of them stands; those that are there are not computed again
    for path in corpus[1].glob("a[01].wav"):
        path.write_bytes(b"gone") if "00000000.parquet" in whole else None
    assert extract(corpus, tmp_path / "two.parquet").read_bytes() == undisturbed


def test_the_resampler_matters_and_is_part_of_the_fingerprint(corpus, tmp_path: Path) -> None:
    exact = extract(corpus, tmp_path / "exact.parquet")
    other = extract(corpus, tmp_path / "other.parquet", FeatureSettings(44100, "soxr_hq"))
    values = [schemas.mfcc(features.read(path)[0]) for path in (exact, other)]
    assert not np.allclose(*values, atol=0.1)
    message = "made with other settings: resampler is 'kaiser_best_0_2_2', wanted 'soxr_hq'. Run"
    with pytest.raises(ArtifactError, match=message):
        features.read(exact, FeatureSettings(44100, "soxr_hq"))


def test_all_bad_recordings_are_named_at_once(corpus, tmp_path: Path) -> None:
    _, folder = corpus
    (folder / "a1.wav").write_bytes(b"not sound at all")
    soundfile.write(folder / "a2.wav", np.zeros(0), 16000)
    soundfile.write(folder / "a3.wav", np.zeros((900, 200)), 16000)
    soundfile.write(folder / "a4.wav", np.full(9000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(folder / "a5.wav", np.zeros(900), 50)
    header = bytearray((folder / "a0.wav").read_bytes())
    header[20:22] = b"\x99\x99"  # the codec's number
    (folder / "a0.wav").write_bytes(header)
    with pytest.raises(AudioError) as error:
        extract(corpus, tmp_path / "x.parquet")
    message = str(error.value)
    assert "6 of 6 recordings" in message
    assert "a0.wav (" in message
    assert "a1.wav (" in message
    assert "a2.wav (no samples)" in message
    assert "a3.wav (200 channels; the limit is 16)" in message
    assert "a4.wav (samples that are not finite numbers)" in message
    assert "a5.wav (50 Hz; expected 2000 to 384000 Hz)" in message
    assert not (tmp_path / "x.parquet").exists()


def test_a_sample_rate_of_zero_is_named(corpus, tmp_path: Path) -> None:
    _, folder = corpus
    header = bytearray((folder / "a3.wav").read_bytes())
    header[24:28] = bytes(4)
    (folder / "a3.wav").write_bytes(header)
    with pytest.raises(AudioError, match=r"1 of 6 recordings .*: a3.wav \("):
        extract(corpus, tmp_path / "x.parquet")


def test_a_file_without_fingerprint_is_refused(corpus, tmp_path: Path) -> None:
    schemas.write(corpus[0], tmp_path / "x.parquet", schemas.MANIFEST)
    with pytest.raises(ArtifactError, match="no fingerprint"):
        features.read(tmp_path / "x.parquet")


def test_an_unknown_resampler_is_refused() -> None:
    with pytest.raises(ParameterError, match="'kaiser_fast' is not known; choose one of kaiser_b"):
        FeatureSettings(44100, "kaiser_fast")
