"""Synthetic archives of the six corpora: true names, folders and counts, small sounds.

A sound is noise of 8 bits at a low rate, no two alike, long enough for the recipe's durations.
"""

from __future__ import annotations

import io
import itertools
import random
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from timnet.corpora import casia, emodb, emovo, iemocap, ravdess, savee

Members = dict[str, bytes]  # path in the archive -> content

RATE = 2000  # Hz, the lowest that is believed
SECONDS = {"casia": 0.5, "emodb": 1.3, "emovo": 1.3, "iemocap": 0.5, "ravdess": 3.0, "savee": 1.3}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 391234\n"


def wav(key: object, seconds: float, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of noise that only `key` gives."""
    size = round(seconds * rate) * channels
    data = random.Random(str(key)).randbytes(size)
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels, channels, 8)
    return b"".join(
        (
            b"RIFF" + struct.pack("<I", 36 + size + size % 2) + b"WAVE",
            b"fmt " + struct.pack("<I", 16) + form,
            b"data" + struct.pack("<I", size) + data + b"\0" * (size % 2),
        )
    )


def recordings(names: Iterable[str], corpus: str, rate: int = RATE) -> Members:
    return {name: wav(name, SECONDS[corpus], rate) for name in names}


def casia_archive(
    top: str = "CASIA database/", form: str = "{spelled}/{folder}/{text}.wav"
) -> Members:
    """As it is passed around: folders of speakers and emotions, in mixed case, or flat files."""
    spelling = {"zhaozuoxiang": "ZhaoZuoxiang"}
    names = []
    for speaker, emotion, text in itertools.product(casia.SPEAKERS, casia.EMOTIONS, casia.TEXTS):
        folder = emotion.capitalize() if speaker == "wangzhe" else emotion
        parts = {"speaker": speaker, "spelled": spelling.get(speaker, speaker)}
        names.append(top + form.format(emotion=emotion, folder=folder, text=text, **parts))
    return {"CASIA database/readme.txt": b"...", **recordings(names, "casia")}


def emodb_archive(top: str = "") -> Members:
    names = []
    for code, emotion in emodb.EMOTION_CODES.items():
        versions = itertools.product("ab", emodb.SPEAKERS, emodb.SENTENCES)
        takes = itertools.islice(versions, emodb.CORPUS.counts[emotion])
        names += [
            f"{top}wav/{speaker}{text}{code}{version}.wav" for version, speaker, text in takes
        ]
    labels = {name.replace("wav", "lablaut", 1).replace(".wav", ".lablaut"): b"" for name in names}
    return {f"{top}erkennung.txt": b"...", **labels, **recordings(names, "emodb")}


def emovo_archive(top: str = "EMOVO/") -> Members:
    names = [
        f"{top}{speaker}/{code}-{speaker}-{sentence}.wav"
        for speaker, code, sentence in itertools.product(
            emovo.SPEAKERS, emovo.EMOTION_CODES, emovo.SENTENCES
        )
    ]
    return {f"{top}documents/EMOVO.pdf": b"%PDF", **recordings(names, "emovo")}


def ravdess_archive(top: str = "") -> Members:
    names = []
    for actor in range(1, 25):
        for code, strength, sentence, repetition in itertools.product(
            ravdess.EMOTION_CODES, ("01", "02"), ("01", "02"), ("01", "02")
        ):
            if (code, strength) != ("01", "02"):
                name = f"03-01-{code}-{strength}-{sentence}-{repetition}-{actor:02}.wav"
                names.append(f"{top}Actor_{actor:02}/{name}")
    return recordings(names, "ravdess")


def savee_archive(top: str = "AudioData/", flat: bool = False) -> Members:
    names = [
        f"{top}{speaker}{'_' if flat else '/'}{code}{number:02}.wav"
        for speaker, code in itertools.product(savee.SPEAKERS, savee.EMOTION_CODES)
        for number in range(1, 31 if code == "n" else 16)
    ]
    return {"AudioData/Info.txt": b"...", **recordings(names, "savee")}


def iemocap_archive(top: str = "IEMOCAP_full_release/", others: int = 300) -> Members:
    """Labels of all kinds, `others` of them outside the four classes, and what is not needed."""
    counts = iemocap.CORPUS.counts
    codes = ["ang"] * counts["angry"] + ["neu"] * counts["neutral"] + ["sad"] * counts["sad"]
    codes += ["hap"] * 595 + ["exc"] * (counts["happy"] - 595)
    codes += list(itertools.islice(itertools.cycle(iemocap.OTHER_CODES), others))
    random.Random(0).shuffle(codes)
    scenes = [f"impro{n:02}" for n in range(1, 9)] + [f"script0{n}_1" for n in range(1, 4)]
    dialogues = [
        f"Ses0{session}{marked}_{scene}"
        for session, marked, scene in itertools.product(range(1, 6), "FM", scenes)
    ]
    members: Members = {f"{top}README.txt": b"..."}
    turns: dict[str, list[str]] = {dialogue: [] for dialogue in dialogues}
    for number, code in enumerate(codes):
        dialogue = dialogues[number % len(dialogues)]
        turn = f"{dialogue}_{'FM'[number // 7 % 2]}{len(turns[dialogue]):03}"
        times = f"[{number}.2901 - {number}.9357]"
        turns[dialogue].append(
            f"{times}\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]\nC-E1:\tx;\t()\n"
        )
        path = f"{top}Session{dialogue[4]}/sentences/wav/{dialogue}/{turn}.wav"
        members[path] = wav(path, SECONDS["iemocap"])
    for dialogue, lines in turns.items():
        session = f"{top}Session{dialogue[4]}"
        text = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n" + "\n".join(lines)
        members[f"{session}/dialog/EmoEvaluation/{dialogue}.txt"] = text.encode()
        members[f"{session}/dialog/EmoEvaluation/._{dialogue}.txt"] = b"\0\5\x16\7"
        members[f"{session}/dialog/EmoEvaluation/Categorical/{dialogue}_e1_cat.txt"] = b"..."
        members[f"{session}/dialog/wav/{dialogue}.wav"] = wav(dialogue, 0.5)
        members[f"{session}/sentences/ForcedAlignment/{dialogue}/x.wdseg"] = b"..."
    return members


ARCHIVES = {
    "casia": casia_archive,
    "emodb": emodb_archive,
    "emovo": emovo_archive,
    "iemocap": iemocap_archive,
    "ravdess": ravdess_archive,
    "savee": savee_archive,
}


def zipped(members: Mapping[str, bytes], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def tarred(members: Mapping[str, bytes], path: Path, mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def laid_out(members: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tree(folder: Path) -> Members:
    """What a folder holds, in the form that the builders here give."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
