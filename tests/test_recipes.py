from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import archives
import pytest
from archives import ARCHIVES, LFS, laid_out, wav
from hypothesis import given
from hypothesis import strategies as st

from timnet.corpora import CORPORA, casia, corpus, emodb, emovo, iemocap, ravdess, savee
from timnet.corpora.corpus import natural_key
from timnet.errors import CorpusError

SHARED = Path(os.environ.get("TIMNET_SHARED", Path(__file__).parents[2] / "shared"))
WITH_HASHES = ("casia", "emodb", "emovo", "ravdess", "savee")
NAMED = (casia, emodb, emovo, ravdess, savee)  # whose file names carry the emotion
# utterances, men and women of the paper's table S1
TABLE_S1 = {
    "casia": (1200, 2, 2),
    "emodb": (535, 5, 5),
    "emovo": (588, 3, 3),
    "iemocap": (5531, 5, 5),
    "ravdess": (1440, 12, 12),
    "savee": (480, 4, 0),
}


@cache
def layout(name, **form):
    return ARCHIVES[name](**form)


@cache
def few(name):
    """Three recordings of the archive."""
    members = layout(name)
    sounds = itertools.islice((path for path in members if path.endswith(".wav")), 3)
    return {path: members[path] for path in sounds}


@cache
def read(name, **form):
    """The utterances of the layout; only names count, so its files are empty."""
    with tempfile.TemporaryDirectory() as folder:
        members = {
            p: b"" if p.lower().endswith(".wav") else c for p, c in layout(name, **form).items()
        }
        return corpus(name).read(laid_out(members, Path(folder)))


@pytest.mark.parametrize("name", TABLE_S1)
def test_record(name):
    record = corpus(name)
    sexes = Counter(record.speakers.values())
    assert (record.utterances, sexes["male"], sexes["female"]) == TABLE_S1[name]
    assert record.labels == tuple(sorted(record.counts))
    groups = list(itertools.chain(*record.speaker_groups))
    assert sorted(groups) == (sorted(record.speakers) if groups else [])
    assert record.seconds[0] < record.seconds[1]
    assert bool(record.download) != bool(record.terms)
    for text in (record.title, record.language, record.licence, record.citation, record.source):
        assert text


def test_download_addresses_are_of_the_three_free_corpora():
    free = {name: CORPORA[name].download for name in TABLE_S1 if CORPORA[name].download}
    assert set(free) == {"emodb", "emovo", "ravdess"}
    assert (free["ravdess"].size, free["ravdess"].md5) == (
        208468073,
        "bc696df654c87fed845eb13823edef8a",
    )


@pytest.mark.parametrize("name", TABLE_S1)
def test_hashes_of_the_originals(name, tmp_path):
    """Of every utterance or, of IEMOCAP, of none; files of one content are a documented quirk."""
    record, known = corpus(name), corpus(name).originals
    if name not in WITH_HASHES:
        assert known == {}
        return
    utterances = record.read(laid_out({f"{id_}.wav": b"" for id_ in known}, tmp_path))
    assert {u.id for u in utterances} == set(known)
    assert Counter(u.emotion for u in utterances) == record.counts
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in known.values())
    copies = Counter(known.values())
    twice = {utterance for utterance, sha256 in known.items() if copies[sha256] > 1}
    assert twice == set(record.quirks.get("two files are one recording", ()))


@pytest.mark.parametrize("name", TABLE_S1)
def test_reads_the_archive(name):
    record, utterances = corpus(name), read(name)
    assert Counter(utterance.emotion for utterance in utterances) == record.counts
    assert {utterance.speaker for utterance in utterances} == set(record.speakers)
    assert len({utterance.id for utterance in utterances}) == record.utterances
    assert {utterance.path for utterance in utterances} <= set(layout(name))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("casia", {"top": "", "form": "{text}-{emotion}-{speaker}.wav"}),
        ("casia", {"top": "wav/", "form": "{speaker}-{emotion}-{text}.WAV"}),
        ("emodb", {"top": "download/"}),
        ("ravdess", {"top": "Audio_Speech_Actors_01-24/"}),
        ("savee", {"top": "ALL/", "flat": True}),
    ],
)
def test_other_forms_give_the_same_utterances(name, form):
    plain, other = read(name), read(name, **form)
    assert {u.path for u in plain}.isdisjoint(u.path for u in other)
    nowhere = [{dataclasses.replace(u, path="") for u in each} for each in (plain, other)]
    assert nowhere[0] == nowhere[1]


@pytest.mark.parametrize("recipe", [emodb, emovo, ravdess])
def test_reads_all_files_in_one_folder(tmp_path, recipe):
    flat = {Path(path).name: content for path, content in few(recipe.CORPUS.id).items()}
    assert [u.path for u in recipe.read(laid_out(flat, tmp_path))] == sorted(flat)


R12 = "03-01-06-02-01-02-12"


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("casia", "liuchanhg/angry/201.wav", ("201-angry-liuchanhg", "liuchanhg", "angry", "201")),
        ("casia", "x/WangZhe/SAD/250.wav", ("250-sad-wangzhe", "wangzhe", "sad", "250")),
        ("casia", "202-Sad-WangZhe.WAV", ("202-sad-wangzhe", "wangzhe", "sad", "202")),
        ("casia", "WANGZHE-HAPPY-203.Wav", ("203-happy-wangzhe", "wangzhe", "happy", "203")),
        ("emodb", "wav/16b10Lb.wav", ("16b10Lb", "16", "boredom", "b10")),
        ("emovo", "m3/gio-m3-n5.wav", ("gio-m3-n5", "m3", "happy", "n5")),
        ("ravdess", f"Actor_12/{R12}.wav", (R12, "Actor_12", "fear", "01")),
        ("savee", "DC/a01.wav", ("DC_a01", "DC", "angry", "a01")),
        ("savee", "KL/sa15.wav", ("KL_sa15", "KL", "sad", "sa15")),
        ("savee", "JE_su02.wav", ("JE_su02", "JE", "surprise", "su02")),
        ("savee", "JK/n30.wav", ("JK_n30", "JK", "neutral", "n30")),
    ],
)  # fmt: skip
def test_names(tmp_path, name, path, expected):
    (utterance,) = corpus(name).read(laid_out({path: b"x"}, tmp_path))
    assert (utterance.id, utterance.speaker, utterance.emotion, utterance.sentence) == expected
    assert utterance.path == path


def test_casia_puts_texts_before_speakers():
    """The order that the paper's folds follow."""
    angry = [u.id for u in read("casia") if u.emotion == "angry"]
    assert sorted(angry, key=natural_key)[:5] == [
        "201-angry-liuchanhg",
        "201-angry-wangzhe",
        "201-angry-zhaoquanyin",
        "201-angry-zhaozuoxiang",
        "202-angry-liuchanhg",
    ]


def labelled(*lines, dialogue="Ses01F_impro01", recordings=True, content=b"x"):
    """An IEMOCAP of one dialogue with these `turn<tab>label`."""
    text = "% header\n\n" + "\n".join(
        f"[0.1 - 1.2]\t{line}\t[1, 2, 3]\nC-E1:\tx\n" for line in lines
    )
    members = {f"Session1/dialog/EmoEvaluation/{dialogue}.txt": text.encode("latin-1")}
    for line in lines if recordings else ():
        turn = line.partition("\t")[0]
        members[f"Session1/sentences/wav/{dialogue}/{turn}.wav"] = content
    return members


def test_iemocap_speaker_is_of_the_turn_and_excited_is_happy(tmp_path):
    members = labelled(
        "Ses01F_impro01_M003\texc",
        "Ses01F_impro01_F003\thap",
        "Ses01F_impro01_F004\tfru",
        "Ses01F_impro01_M004\txxx",
        "Ses01F_impro01_MXX0\tneu",
    )
    members["Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt"] = b"\0\5\x16\7"
    found = [(u.id, u.speaker, u.emotion) for u in iemocap.read(laid_out(members, tmp_path))]
    assert found == [
        ("Ses01F_impro01_M003", "Ses01M", "happy"),
        ("Ses01F_impro01_F003", "Ses01F", "happy"),
        ("Ses01F_impro01_MXX0", "Ses01M", "neutral"),
    ]


def one_more(name, path, content=b"x"):
    return lambda: {**few(name), path: content}


def appended(name):
    return lambda: {
        path.replace(".wav", "_happy.wav"): content for path, content in few(name).items()
    }


def pointers(name):
    return lambda: dict.fromkeys(few(name), LFS)


def twice(name):
    return lambda: few(name) | {f"copy/{path}": content for path, content in few(name).items()}


IEMOCAP_LABELS = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
SECOND_EDITION = {f"wav/{number:03}.wav": b"x" for number in range(816)}
REFUSED = {
    **{f"{r.CORPUS.id}: nothing": (r, dict, "no recordings match") for r in NAMED},
    **{
        f"{r.CORPUS.id}: pointers": (
            r,
            pointers(r.CORPUS.id),
            r"Git LFS pointers .*git lfs pull",
        )
        for r in NAMED
    },
    **{
        f"{r.CORPUS.id}: word appended": (
            r,
            appended(r.CORPUS.id),
            r"_happy\.wav",
        )
        for r in NAMED
    },
    **{
        f"{r.CORPUS.id}: unknown name": (
            r,
            one_more(r.CORPUS.id, "good/song.wav"),
            r"1 file name fitting no rule: good/song\.wav\. Expected names: .*restore the orig",
        )
        for r in NAMED
    },
    **{
        f"{r.CORPUS.id}: one copy more": (
            r,
            twice(r.CORPUS.id),
            "are both utterance .*Keep one copy",
        )
        for r in NAMED
    },
    "casia: text": (casia, one_more("casia", "liuchanhg/sad/251.wav"), "no rule: .*251"),
    "casia: emotion": (casia, one_more("casia", "liuchanhg/calm/201.wav"), "no rule: .*calm"),
    "casia: flat": (casia, one_more("casia", "251-sad-liuchanhg.wav"), "no rule: 251-sad"),
    "casia: no emotion": (casia, one_more("casia", "201-liuchanhg.wav"), "no rule: 201-liu"),
    "casia: no folders": (casia, one_more("casia", "201.wav"), r"no rule: 201\.wav"),
    "emodb: second edition": (emodb, lambda: SECOND_EDITION, "816 recordings: this is EMODB 2.0"),
    "emodb: speaker": (emodb, one_more("emodb", "wav/17a01Fa.wav"), "no rule: wav/17a01Fa"),
    "emodb: sentence": (emodb, one_more("emodb", "wav/03a03Fa.wav"), "no rule: wav/03a03Fa"),
    "emovo: emotion": (emovo, one_more("emovo", "f1/cal-f1-b1.wav"), "no rule: f1/cal-f1-b1"),
    "ravdess: songs": (
        ravdess,
        one_more("ravdess", "Actor_01/03-02-01-01-01-01-01.wav"),
        r"Actor_01/03-02",
    ),
    "ravdess: strong neutral": (
        ravdess,
        one_more("ravdess", "Actor_01/03-01-01-02-01-01-01.wav"),
        "no rule: Actor_01/03-01-01-02",
    ),
    "ravdess: other actor's folder": (
        ravdess,
        one_more("ravdess", "Actor_04/03-01-01-01-01-01-03.wav"),
        "no rule: Actor_04/03-01-01-01-01-01-03",
    ),
    "ravdess: actor 25": (
        ravdess,
        one_more("ravdess", "Actor_25/03-01-01-01-01-01-25.wav"),
        "no rule: Actor_25",
    ),
    "savee: number": (savee, one_more("savee", "AudioData/DC/a16.wav"), "no rule: .*a16"),
    "savee: no speaker": (savee, one_more("savee", "a01.wav"), r"no rule: a01\.wav"),
    "savee: other folder": (savee, one_more("savee", "JE/DC_a01.wav"), "no rule: JE/DC_a01"),
    "iemocap: no labels": (
        iemocap,
        lambda: {"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav": b"x"},
        "no label files .*IEMOCAP_full_release",
    ),
    "iemocap: pointers": (
        iemocap,
        lambda: labelled("Ses01F_impro01_F000\tang", content=LFS),
        r"Git LFS pointers .*: Session1/sentences/wav/",
    ),
    "iemocap: labels are pointers": (
        iemocap,
        lambda: {IEMOCAP_LABELS: LFS},
        r"Git LFS pointers .*: Session1/dialog",
    ),
    "iemocap: broken line": (
        iemocap,
        lambda: {IEMOCAP_LABELS: b"% x\n[6.2 - 8.2]\tSes01F_impro01_F000 neu [2, 2, 2]\n"},
        "Ses01F_impro01.txt, line 2: .* is not `.start - end.<tab>turn",
    ),
    "iemocap: unknown label": (
        iemocap,
        lambda: labelled("Ses01F_impro01_F000\tjoy"),
        r"line 3: .*joy.* with one of the emotions ang, hap, exc",
    ),
    "iemocap: labelled twice": (
        iemocap,
        lambda: labelled("Ses01F_impro01_F000\tang", "Ses01F_impro01_F000\tsad"),
        "turn Ses01F_impro01_F000 is labelled twice",
    ),
    "iemocap: no recording": (
        iemocap,
        lambda: labelled("Ses01F_impro01_F000\tang", recordings=False),
        r"without a recording: Session1/sentences/wav/.*_F000\.wav",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "members", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, recipe, members, message):
    laid_out(members(), tmp_path)
    with pytest.raises(CorpusError, match=message) as caught:
        recipe.read(tmp_path)
    assert str(tmp_path) in str(caught.value)


@given(st.sampled_from(NAMED), st.text("03aAbWwnsud12-_/fm.DCJE", max_size=24))
def test_any_name_is_an_utterance_or_none(recipe, text):
    found = recipe._parse(Path(f"{text}x.wav"))
    assert found is None or found.speaker in recipe.CORPUS.speakers


@pytest.mark.parametrize("name", TABLE_S1)
def test_quirks_name_utterances_of_the_corpus(name):
    named = {utterance for ids in corpus(name).quirks.values() for utterance in ids}
    known = {utterance.id for utterance in read(name)}
    if name == "emodb":  # which of its takes exist, only the originals tell
        assert all(emodb._parse(Path(f"{utterance}.wav")) for utterance in named)
    else:
        assert named <= known


def test_tampered_copies():
    assert "22050 Hz: an altered copy" in emodb.tampered([22050] * 535, [44100] * 535)
    assert emodb.tampered([22050] * 535, range(30000, 30535)) is None  # resampled, nothing more
    assert emodb.tampered([16000] * 3, [32000, 41000, 17000]) is None
    assert "last 2.39 s: an altered copy" in ravdess.tampered([48000] * 9, [114720] * 8 + [99])
    assert "last 2.39 s" in ravdess.tampered([22050] * 9, [52700] * 9)
    assert ravdess.tampered([48000] * 3, [114720, 158558, 160160]) is None
    assert ravdess.tampered([], []) is None


def test_sounds_of_the_archives_are_distinct():
    assert len({wav(key, 0.1) for key in range(100)}) == 100
    assert all(len(set(layout(name).values())) >= corpus(name).utterances for name in ARCHIVES)
    for name, seconds in archives.SECONDS.items():
        shortest, longest = corpus(name).seconds
        assert shortest <= seconds <= longest


def test_registry(tmp_path):
    with pytest.raises(
        CorpusError, match=r"unknown corpus 'emodeb'; known are casia, .*Did you mean"
    ):
        corpus("emodeb", tmp_path)


# What follows needs the real recordings.

needs_shared = pytest.mark.skipif(
    not (SHARED / "corpora" / "restore.py").exists() or shutil.which("flac") is None,
    reason=f"no recordings in {SHARED}/corpora, or no program flac to unpack them",
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name in ("emodb", "emovo", "ravdess"):
        restore = [sys.executable, SHARED / "corpora" / "restore.py", name, folder / name]
        subprocess.run(restore, check=True, stdout=subprocess.DEVNULL)
    yield folder
    shutil.rmtree(folder)


@needs_shared
@pytest.mark.slow
def test_originals(originals):
    import soundfile

    for name, present in (("emodb", 535), ("emovo", 588), ("ravdess", 300)):
        record = corpus(name)
        utterances = record.read(originals / name)
        assert len(utterances) == present
        found = Counter(utterance.emotion for utterance in utterances)
        if name != "ravdess":
            assert all(found[label] in (0, n) for label, n in record.counts.items())
        else:
            assert all(found[label] == 5 * n / 24 for label, n in record.counts.items())
        infos = [soundfile.info(originals / name / u.path) for u in utterances]
        seconds = [info.duration for info in infos]
        assert record.seconds[0] < min(seconds) < max(seconds) < record.seconds[1]
        assert {info.samplerate for info in infos} <= set(record.sample_rates)
        stereo = {u.id for u, i in zip(utterances, infos, strict=True) if i.channels == 2}
        if name == "ravdess":
            assert stereo == set(record.quirks["stereo among mono files"])
        if record.tampered:
            rates, samples = zip(*((info.samplerate, info.frames) for info in infos), strict=True)
            assert record.tampered(rates, samples) is None


@needs_shared
@pytest.mark.slow
def test_ravdess_quirks(originals):
    import soundfile

    quirks = corpus("ravdess").quirks
    paths = {path.stem: path for path in originals.joinpath("ravdess").rglob("*.wav")}
    first, second = quirks["two files are one recording"]
    assert paths[first].read_bytes() == paths[second].read_bytes()
    peaks = {name: abs(soundfile.read(path)[0]).max() for name, path in paths.items()}
    silent = next(ids for quirk, ids in quirks.items() if quirk.startswith("nearly silent"))
    assert {name for name, peak in peaks.items() if peak < 10 ** (-42.5 / 20)} == set(silent)


@pytest.mark.skipif(not (SHARED / "paper").exists(), reason=f"no paper in {SHARED}")
def test_counts_are_the_papers():
    paper = json.loads((SHARED / "paper" / "paper.json").read_text())
    for name, counts in paper["table_s2_class_counts"].items():
        assert corpus(name).counts == counts
