from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timnet.acquire import synthesis
from timnet.acquire.acquire import acquire, state
from timnet.corpora import demo
from timnet.errors import CorpusError, ParameterError

SOME = [("angry", "s1", "02"), ("happy", "s4", "10"), ("neutral", "s2", "07"), ("sad", "s6", "05")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    steps: list[int] = []
    synthesis.generate(folder, progress=steps.append)
    assert steps == [1] * demo.CORPUS.utterances
    return folder


def test_recordings_are_what_the_record_says(folder: Path) -> None:
    utterances = demo.read(folder)
    assert Counter(utterance.emotion for utterance in utterances) == demo.CORPUS.counts
    assert Counter(utterance.speaker for utterance in utterances) == dict.fromkeys(
        demo.CORPUS.speakers, 40
    )
    assert {path.suffix for path in folder.rglob("*.*")} == {".wav"}
    shortest, longest = demo.CORPUS.seconds
    for utterance in utterances:
        info = soundfile.info(folder / utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert shortest < info.duration < longest


@pytest.mark.parametrize(("emotion", "speaker", "sentence"), SOME)
def test_take_hangs_on_the_seed_alone(
    folder: Path, tmp_path: Path, emotion: str, speaker: str, sentence: str
) -> None:
    signal = synthesis.synthesise(emotion, speaker, sentence)
    soundfile.write(tmp_path / "alone.wav", signal, 16000, subtype="PCM_16")
    name = f"{speaker}/{emotion}-{speaker}-{sentence}.wav"
    assert (tmp_path / "alone.wav").read_bytes() == (folder / name).read_bytes()
    assert 0.01 < np.abs(signal).max() < 1
    other = synthesis.synthesise(emotion, speaker, sentence, seed=1)
    assert not np.array_equal(signal, other)


def test_stopped_write_leaves_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        synthesis.generate(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_is_acquired_as_others_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is what the command and the flow do: made outside data/, moved there whole."""
    monkeypatch.setattr(synthesis, "generate", lambda target: shutil.copytree(folder, target))
    data = tmp_path / "data"
    got = acquire(demo.CORPUS, data)
    assert (got.folder, got.utterances, got.found) == (data / "demo", 240, False)
    assert state(demo.CORPUS, data).status == "complete"
    assert acquire(demo.CORPUS, data).found
    with pytest.raises(ParameterError, match="demo is generated here"):
        acquire(demo.CORPUS, data, source=folder)


def test_foreign_name_is_refused(tmp_path: Path) -> None:
    for name in ("angry-s1-03.wav", "bored-s1-03.wav"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CorpusError, match=r"1 file name fitting no rule: bored-s1-03\.wav\."):
        demo.read(tmp_path)


def test_emotions_are_neither_lost_nor_obvious(folder: Path) -> None:
    """Mean and deviation of the MFCC, a linear classifier: far from chance and from perfect."""
    import librosa
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    utterances = demo.read(folder)
    emotions = [utterance.emotion for utterance in utterances]
    speakers = [utterance.speaker for utterance in utterances]
    features = []
    for utterance in utterances:
        signal, rate = soundfile.read(folder / utterance.path, dtype="float32")
        mfcc = librosa.feature.mfcc(y=signal, sr=rate, n_mfcc=39)
        features.append(np.concatenate((mfcc.mean(axis=1), mfcc.std(axis=1))))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    random = StratifiedKFold(5, shuffle=True, random_state=0)
    known = cross_val_score(classifier, features, emotions, cv=random).mean()
    unknown = cross_val_score(
        classifier, features, emotions, groups=speakers, cv=LeaveOneGroupOut()
    ).mean()
    assert 0.70 < known < 0.93
    assert 0.50 < unknown < known
