"""Defects planted in whole corpora, each refused by name before a feature is computed.

A corpus is synthetic: true names, folders and counts, small sounds (tests/archives.py). A defect is
one change to a copy of it; `judge` is what `timnet manifest` and `timnet validate` do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import ARCHIVES, LFS, RATE, laid_out, tarred, wav, zipped

from timnet.acquire.acquire import acquire
from timnet.corpora import corpus
from timnet.dataset import manifest, validate
from timnet.errors import AudioError, CorpusError

E1, E2 = "wav/03a01Wa.wav", "wav/08a02Na.wav"
I1 = "Ses01F_impro01_F000"
IWAV, ILABEL = "Session1/sentences/wav/Ses01F_impro01", "Session1/dialog/EmoEvaluation"
R1, R2 = "03-01-03-01-02-01-07", "03-01-03-01-02-02-07"  # documented as one recording
PAGE = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 2000

# Changes a folder; gives a path instead if an archive is to be judged.
Plant = Callable[[Path], Any]


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of a whole corpus, which nobody may change."""
    data = tmp_path_factory.mktemp("clean")

    def folder(name: str) -> Path:
        if not (data / name).exists():
            source = laid_out(ARCHIVES[name](), data / "source" / name)
            acquire(corpus(name), data, source)
        return data / name

    return folder


def judge(name: str, folder: Path) -> dict[str, Any]:
    """The summary of a corpus that passes."""
    record = corpus(name)
    summary = validate.validate(record, manifest.build(record, folder))
    validate.require_passed(summary)
    return summary


def put(path: Path, content: bytes) -> None:
    """Write a file of the copy, whose bytes are those of the clean corpus: never into them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def holding(path: str, change: Callable[[bytes], bytes] | bytes) -> Plant:
    """A file of this content, or with its content changed."""

    def plant(folder: Path) -> None:
        put(folder / path, change if isinstance(change, bytes) else change(read(folder, path)))

    return plant


def read(folder: Path, path: str) -> bytes:
    return (folder / path).read_bytes()


def sound(path: str, seconds: float, **form: int) -> Plant:
    return holding(path, wav(path, seconds, **form))


def renamed(old: str, new: str) -> Plant:
    def plant(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return plant


def copied(old: str, new: str) -> Plant:
    return lambda folder: put(folder / new, read(folder, old))


def without(*patterns: str) -> Plant:
    def plant(folder: Path) -> None:
        paths = [path for pattern in patterns for path in folder.glob(pattern)]
        assert paths
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return plant


def each(change: Callable[[Path], Any], pattern: str = "**/*.wav") -> Plant:
    """The change in all files, every one of them given by its path."""

    def plant(folder: Path) -> None:
        for path in sorted(folder.glob(pattern)):
            change(path)

    return plant


def edited(old: str, new: str) -> Plant:
    """The first label file of IEMOCAP that has it, with one text put for another."""

    def plant(folder: Path) -> None:
        for path in sorted(folder.glob("Session*/dialog/EmoEvaluation/*.txt")):
            if old in (text := path.read_text()):
                put(path, text.replace(old, new, 1).encode())
                return
        raise AssertionError(f"no label file has {old!r}")

    return plant


def all_at_once(*plants: Plant) -> Plant:
    return lambda folder: [plant(folder) for plant in plants] and None


def second_edition(folder: Path) -> None:
    """EMODB 2.0 has more takes of the same sentences by the same actors."""
    names = [path.stem for path in folder.glob("wav/*.wav")]
    for name in names[: 816 - len(names)]:
        path = f"wav/{name[:-1]}{'xy'[name[-1] == 'b']}.wav"
        put(folder / path, wav(path, 1.3))


def flat(folder: Path) -> None:
    """SAVEE in its two forms at once."""
    for path in sorted(folder.glob("*/*.wav")):
        put(folder / "ALL" / f"{path.parent.name}_{path.name}", path.read_bytes())


def the_womans_letter(folder: Path) -> None:
    """All turns of the dialogues of session 1 where the woman has the markers, as hers."""
    for path in folder.glob(f"{ILABEL}/Ses01F_*.txt"):
        put(path, path.read_text().replace(f"{path.stem}_M", f"{path.stem}_F").encode())


def corpus_twice(folder: Path) -> None:
    shutil.copytree(folder / "f1", folder / "copy" / "f1")


def speaker_twice(folder: Path) -> None:
    for path in sorted(folder.glob("zhaoquanyin/sad/*.wav")):
        put(path, read(folder, f"liuchanhg/sad/{path.name}"))


def turn_twice(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob(f"{IWAV}/*_M*.wav"))
    put(first, second.read_bytes())


def turn_too_long(folder: Path) -> None:
    put(min(folder.glob(f"{IWAV}/*.wav")), wav("long", 41.0))


def archive_cut_short(folder: Path) -> Path:
    path = tarred(ARCHIVES["casia"](), folder.parent / "brought")
    put(path, half(path.read_bytes()))
    return path


def archive(pack: Callable[..., Path], name: str, change: Callable[[dict], dict]) -> Plant:
    """An archive of a corpus with other members."""
    return lambda folder: pack(change(ARCHIVES[name]()), folder.parent / "brought")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


DEFECTS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    # names
    "casia: emotion's folder translated": (
        renamed("liuchanhg/angry", "liuchanhg/shengqi"),
        ("50 file names fitting no rule: liuchanhg/shengqi/201.wav", "restore the original names"),
    ),
    "casia: speaker's folder corrected": (
        renamed("liuchanhg", "liuchanghong"),
        ("300 file names fitting no rule: liuchanghong/angry/201.wav", "Expected names: SPEAKER/"),
    ),
    "casia: text of the larger corpus": (
        sound("wangzhe/Sad/251.wav", 0.5),
        ("1 file name fitting no rule: wangzhe/Sad/251.wav", "texts 201 to 250"),
    ),
    "casia: texts counted from 1": (
        renamed("wangzhe/Sad/201.wav", "wangzhe/Sad/1.wav"),
        ("1 file name fitting no rule: wangzhe/Sad/1.wav",),
    ),
    "casia: one file in its other form as well": (
        copied("liuchanhg/sad/201.wav", "liuchanhg-sad-201.wav"),
        ("liuchanhg/sad/201.wav and liuchanhg-sad-201.wav are both utterance 201-sad-liuchanhg",),
    ),
    "casia: case twice": (
        copied("liuchanhg/sad/201.wav", "liuchanhg/Sad/201.wav"),
        ("liuchanhg/Sad/201.wav and liuchanhg/sad/201.wav are both utterance",),
    ),
    "emodb: emotion appended to all names": (
        each(lambda path: path.rename(path.with_name(f"{path.stem}_happy.wav"))),
        ("wav/03a01Aa_happy.wav", "This is a renamed copy"),
    ),
    "emodb: emotion appended to one name": (
        renamed(E1, "wav/03a01Wa_anger.wav"),
        ("wav/03a01Wa_anger.wav",),
    ),
    "emodb: unknown speaker": (
        sound("wav/17a01Wa.wav", 1.3), ("1 file name fitting no rule: wav/17a01Wa.wav",),
    ),
    "emodb: unknown sentence": (
        sound("wav/03a03Wa.wav", 1.3), ("1 file name fitting no rule: wav/03a03Wa.wav",),
    ),
    "emodb: English letter": (
        renamed(E1, "wav/03a01Ha.wav"),
        ("1 file name fitting no rule: wav/03a01Ha.wav. Expected names: SSTTTEV.wav",),
    ),
    "emodb: second edition": (
        second_edition, ("816 recordings: this is EMODB 2.0 (Zenodo 17651657), not the 535",),
    ),
    "emovo: English word for the code": (
        renamed("f1/dis-f1-b1.wav", "f1/disgust-f1-b1.wav"),
        ("1 file name fitting no rule: f1/disgust-f1-b1.wav",),
    ),
    "emovo: one speaker more": (
        sound("m4/dis-m4-b1.wav", 1.3), ("1 file name fitting no rule: m4/dis-m4-b1.wav",),
    ),
    "emovo: one sentence more": (
        sound("f1/dis-f1-b4.wav", 1.3), ("1 file name fitting no rule: f1/dis-f1-b4.wav",),
    ),
    "emovo: copy of a browser": (
        copied("f1/dis-f1-b1.wav", "f1/dis-f1-b1 (1).wav"),
        ("1 file name fitting no rule: f1/dis-f1-b1 (1).wav",),
    ),
    "emovo: the corpus in two folders": (
        corpus_twice,
        ("copy/f1/dis-f1-b1.wav and f1/dis-f1-b1.wav are both utterance dis-f1-b1",),
    ),
    "emovo: other letters of the ending": (
        renamed("f1/dis-f1-b1.wav", "f1/dis-f1-b1.WAVE"),
        ("587 utterances; expected 588", "disgust 83 (expected 84)"),
    ),
    "ravdess: songs": (
        sound("Actor_01/03-02-01-01-01-01-01.wav", 3.0),
        ("Actor_01/03-02-01-01-01-01-01.wav",),
    ),
    "ravdess: sound of a video": (
        sound("Actor_01/02-01-01-01-01-01-01.wav", 3.0),
        ("Actor_01/02-01-01-01-01-01-01.wav",),
    ),
    "ravdess: strong neutral": (
        sound("Actor_01/03-01-01-02-01-01-01.wav", 3.0),
        ("1 file name fitting no rule: Actor_01/03-01-01-02-01-01-01.wav",),
    ),
    "ravdess: other actor's folder": (
        renamed("Actor_03/03-01-01-01-01-01-03.wav", "Actor_04/03-01-01-01-01-01-03.wav"),
        ("1 file name fitting no rule: Actor_04/03-01-01-01-01-01-03.wav",),
    ),
    "ravdess: actor 25": (
        sound("Actor_25/03-01-01-01-01-01-25.wav", 3.0),
        ("1 file name fitting no rule: Actor_25/03-01-01-01-01-01-25.wav",),
    ),
    "ravdess: named by emotion": (
        renamed(f"Actor_07/{R1}.wav", "Actor_07/happy_01.wav"),
        ("1 file name fitting no rule: Actor_07/happy_01.wav",),
    ),
    "savee: both forms at once": (
        flat, ("ALL/DC_a01.wav and DC/a01.wav are both utterance DC_a01. Keep one copy",),
    ),
    "savee: a number too high": (
        sound("JK/su16.wav", 1.3), ("1 file name fitting no rule: JK/su16.wav",),
    ),
    "savee: nobody's folder": (
        renamed("KL/n30.wav", "all/n30.wav"), ("1 file name fitting no rule: all/n30.wav",),
    ),
    "savee: other speaker's folder": (
        renamed("DC/a01.wav", "JE/DC_a01.wav"), ("1 file name fitting no rule: JE/DC_a01.wav",),
    ),
    # labels
    "iemocap: recordings without labels": (
        without("Session*/dialog"),
        ("no label files Session*/dialog/EmoEvaluation", "IEMOCAP_full_release"),
    ),
    "iemocap: one label file missing": (
        without(f"{ILABEL}/Ses01F_impro01.txt"),
        ("5481 utterances; expected 5531", "(expected 1103)", "(expected 1708)"),
    ),
    "iemocap: a line of another form": (
        edited(f"\t{I1}\t", f" {I1} "),
        ("Ses01F_impro01.txt, line 3: ", "is not `[start - end]<tab>turn<tab>emotion"),
    ),
    "iemocap: a label of another scheme": (
        edited("\tang\t", "\tanger\t"), ("\\tanger\\t", "with one of the emotions ang, hap, exc"),
    ),
    "iemocap: a label changed": (
        edited("\tang\t", "\tneu\t"),
        ("utterances per class: angry 1102 (expected 1103), neutral 1709 (expected 1708)",),
    ),
    "iemocap: frustrated taken for angry": (
        edited("\tfru\t", "\tang\t"), ("5532 utterances; expected 5531", "angry 1104 (expected",),
    ),
    "iemocap: labelled twice": (
        copied(f"{ILABEL}/Ses01F_impro01.txt", f"{ILABEL}/Ses01F_impro01 (1).txt"),
        ("turn Ses01F_impro01_F000 is labelled twice",),
    ),
    "iemocap: labels are pointers": (
        holding(f"{ILABEL}/Ses01F_impro01.txt", LFS),
        ("Git LFS pointers", f"{ILABEL}/Ses01F_impro01.txt"),
    ),
    "iemocap: recordings missing": (
        without(f"{IWAV}/*_M0[0-4]*.wav"),
        ("Session1/sentences/wav/Ses01F_impro01/Ses01F_",),
    ),
    "iemocap: a session missing": (
        without("Session3"),
        ("missing speakers: Ses03F, Ses03M; expected Ses01F, Ses01M", "utterances; expected 5531"),
    ),
    "iemocap: the dialogue's letter for the speaker's": (
        the_womans_letter,
        ("without a recording: ", f"{IWAV}/Ses01F_impro01_F0"),
    ),
    # counts
    "casia: a speaker missing": (
        without("zhaoquanyin"),
        ("missing speakers: zhaoquanyin; expected liuchanhg", "900 utterances; expected 1200"),
    ),
    "emodb: classes missing": (
        without("wav/*[LEA]?.wav"),
        ("missing classes: boredom, disgust, fear; expected angry", "339 utterances; expected"),
    ),
    "emodb: a label moved": (
        renamed(E1, "wav/03a01Lz.wav"),
        ("utterances per class: angry 126 (expected 127), boredom 82 (expected 81)",),
    ),
    "emodb: one take more": (
        sound("wav/03a01Wz.wav", 1.3), ("536 utterances; expected 535", "angry 128 (expected 127)"),
    ),
    "emovo: one file missing": (
        without("m3/tri-m3-n5.wav"), ("587 utterances; expected 588", "sad 83 (expected 84)"),
    ),
    "ravdess: actors missing": (
        without("Actor_1*"),
        (f"missing speakers: {', '.join(f'Actor_{n}' for n in range(10, 20))}; expected Actor_01",),
    ),
    "savee: surprise taken for sad": (
        without("*/su*.wav"), ("missing classes: surprise; expected", "surprise 0 (expected 60)"),
    ),
    "savee: nothing": (without("*"), ("no recordings match *.wav. Expected names: SPEAKER/",)),
    "emodb: features in place of recordings": (
        each(lambda path: path.rename(path.with_suffix(".npy"))), ("no recordings match *.wav",),
    ),
    # bytes
    "casia: a pointer": (
        holding("liuchanhg/sad/201.wav", LFS),
        ("Git LFS pointers", "liuchanhg/sad/201.wav", "git lfs pull"),
    ),
    "ravdess: all pointers": (
        each(lambda path: put(path, LFS)), ("Git LFS pointers",),
    ),
    "iemocap: a dialogue of pointers": (
        each(lambda path: put(path, LFS), f"{IWAV}/*.wav"),
        ("Git LFS pointers", f"{IWAV}/Ses01F_impro01_"),
    ),
    "emodb: an empty file": (
        holding(E1, b""), ("1 of 535 recordings cannot be read: wav/03a01Wa.wav (0 bytes, not",),
    ),
    "emovo: text": (
        holding("f1/dis-f1-b1.wav", b"a note, no recording. " * 99),
        ("1 of 588 recordings cannot be read: f1/dis-f1-b1.wav (2178 bytes, not sound",),
    ),
    "savee: a web page": (
        holding("DC/a01.wav", PAGE), ("1 of 480 recordings cannot be read: DC/a01.wav (2037 byt",),
    ),
    "savee: zeros": (
        holding("DC/a01.wav", bytes(5000)), ("DC/a01.wav (5000 bytes, not sound",),
    ),
    "casia: cut off": (
        holding("wangzhe/Angry/201.wav", half),
        ("wangzhe/Angry/201.wav (truncated: 478 bytes of sound, but the header announces 1000)",),
    ),
    "emodb: cut off in the header": (
        holding(E1, lambda content: content[:30]), ("wav/03a01Wa.wav (30 bytes, not sound",),
    ),
    "ravdess: no samples": (
        sound("Actor_01/03-01-01-01-01-01-01.wav", 0.0),
        ("Actor_01/03-01-01-01-01-01-01.wav (0 samples at 2000 Hz)",),
    ),
    # content
    "emodb: one content twice": (
        copied(E1, E2), ("identical content: (03a01Wa, 08a02Na)",),
    ),
    "casia: a speaker's recordings twice": (
        speaker_twice,
        ("identical content: (201-sad-liuchanhg, 201-sad-zhaoquanyin), (",),
    ),
    "ravdess: a third copy of the documented pair": (
        all_at_once(
            copied(f"Actor_07/{R1}.wav", f"Actor_07/{R2}.wav"),
            copied(f"Actor_07/{R1}.wav", "Actor_08/03-01-03-01-02-01-08.wav"),
        ),
        (f"identical content: ({R1}, 03-01-03-01-02-01-08, {R2})",),
    ),
    "iemocap: one content twice": (
        turn_twice,
        ("identical content: (Ses01F_impro01_M0",),
    ),
    # sound
    "casia: stereo": (
        sound("liuchanhg/sad/201.wav", 0.5, channels=2), ("channels: 2 (201-sad-liuchanhg); exp",),
    ),
    "emovo: three channels": (
        sound("f1/dis-f1-b1.wav", 1.3, channels=3), ("channels: 3 (dis-f1-b1); expected 1, 2",),
    ),
    "ravdess: stereo that is not documented": (
        sound("Actor_02/03-01-01-01-01-01-02.wav", 3.0, channels=2),
        ("channels: 2 (03-01-01-01-01-01-02); expected 1",),
    ),
    "savee: too short": (
        sound("DC/a01.wav", 0.4), ("durations in s: 0.4 (DC/a01.wav); expected 1.0 to 10.0",),
    ),
    "iemocap: too long": (
        turn_too_long,
        (f"durations in s: 41.0 ({IWAV}/", "expected 0.3 to 40.0"),
    ),
    "casia: a wrong rate in the header": (
        sound("liuchanhg/sad/201.wav", 0.05, rate=10 * RATE),
        ("durations in s: 0.05 (liuchanhg/sad/201.wav); expected 0.3 to 10.0",),
    ),
    # copies that someone altered
    "emodb: cut to 2 s at 22.05 kHz": (
        each(lambda path: put(path, wav(path.name, 2.0, rate=22050))),
        ("100% of the files last exactly 2.0 s at 22050 Hz: an altered copy, cut and resampled",),
    ),
    "ravdess: trimmed to 2.39 s": (
        each(lambda path: put(path, wav(path.name, 2.39))),
        ("100% of the files last 2.39 s: an altered copy, trimmed", "Get Zenodo record 1188976"),
    ),
    # archives
    "savee: archive of another corpus": (
        archive(zipped, "emovo", dict), ("588 file names fitting no rule: f1/dis-f1-b1.wav",),
    ),
    "emovo: archive of features": (
        archive(zipped, "emovo", lambda members: {
            path.replace(".wav", ".npy"): b"x" for path in members
        }),
        ("(*.wav); it has 588 .npy",),
    ),
    "savee: archive that leaves its folder": (
        archive(tarred, "savee", lambda members: {**members, "../x.wav": b"x"}),
        ("member '../x.wav'",),
    ),
    "emodb: archive of too few": (
        archive(zipped, "emodb", lambda members: {
            path: content for path, content in members.items() if "/16" not in path
        }),
        ("emodb", "missing speakers 16", "Nothing was installed"),
    ),
    "casia: archive cut short": (
        archive_cut_short,
        ("brought: damaged", "Get it again"),
    ),
    "iemocap: a web page": (
        lambda folder: laid_out({"brought": PAGE}, folder.parent) / "brought",
        ("brought: not an archive. Expected zip or tar, or a folder",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFECTS)
def test_a_defect_is_refused_by_name(
    clean: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    plant, words = DEFECTS[case]
    name = case.partition(":")[0]
    folder = tmp_path / name
    shutil.copytree(clean(name), folder, copy_function=os.link)
    brought = plant(folder)
    with pytest.raises((CorpusError, AudioError)) as caught:
        if brought is None:
            judge(name, folder)
        else:
            acquire(corpus(name), tmp_path / "data", brought)
    for part in words:
        assert part in str(caught.value)
    assert not (tmp_path / "data" / name).exists()


@pytest.mark.parametrize("name", ARCHIVES)
def test_without_a_defect_it_passes(clean: Callable[[str], Path], name: str) -> None:
    summary = judge(name, clean(name))
    assert summary["utterances"] == corpus(name).utterances
    warned = ["sample rates", *(["originals"] if corpus(name).originals else [])]  # synthetic ones
    assert [each["check"] for each in summary["checks"] if not each["passed"]] == warned
