"""IEMOCAP: ten Americans, five conversations of a woman and a man each, four classes of it.

Provenance: C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database",
Language Resources and Evaluation 42(4), 2008; University of Southern California.
Licence: by a signed release form; research only.
Names: `Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav`: session 1, the dialogue in
which the woman wears the markers, improvisation 1, the man's turn 003. Who speaks is told by the
letter of the turn, `_M003`, and not by that of the dialogue, `Ses01F`.
Labels: lines `[start - end]<tab>turn<tab>emotion<tab>[v, a, d]` in
`Session*/dialog/EmoEvaluation/Ses*.txt`. The corpus is angry, happy with excited, neutral and sad;
turns of other labels (frustrated, surprised, without agreement...) are not of it.
Hashes of the original recordings are not known, so an altered recording goes unnoticed.
"""

from __future__ import annotations

import re
from pathlib import Path

from timnet.corpora.corpus import Corpus, Utterance, find, refuse_unreadable
from timnet.errors import CorpusError, counted, listing

EMOTION_CODES = {
    "ang": "angry",
    "hap": "happy",
    "exc": "happy",  # excited counts as happy, as is usual
    "neu": "neutral",
    "sad": "sad",
}
OTHER_CODES = ("dis", "fea", "fru", "oth", "sur", "xxx")
SPEAKERS = {
    f"Ses0{session}{letter}": sex
    for session in range(1, 6)
    for letter, sex in (("F", "female"), ("M", "male"))
}
LABELS = "Session*/dialog/EmoEvaluation/Ses*.txt"

_LINE = re.compile(
    r"\[[\d.]+ - [\d.]+\]\t"
    r"(?P<turn>(?P<dialogue>(?P<session>Ses0[1-5])[FM]_(?:impro\d\d[a-z]?|script\d\d_\d[a-z]?))"
    r"_(?P<letter>[FM])(?:\d{3}|XX\d))\t"
    rf"(?P<code>{'|'.join((*EMOTION_CODES, *OTHER_CODES))})\t\[.*\]"
)


def _labels(file: Path) -> list[re.Match[str]]:
    """The turns of a label file; other lines give the votes that were cast."""
    matches = []
    for number, line in enumerate(file.read_text(encoding="latin-1").splitlines(), 1):
        match = _LINE.fullmatch(line.rstrip())
        if match:
            matches.append(match)
        elif line.startswith("["):
            raise CorpusError(
                f"{file}, line {number}: {line!r} is not `[start - end]<tab>turn<tab>emotion"
                f"<tab>[v, a, d]` with one of the emotions {', '.join(EMOTION_CODES)}, "
                f"{', '.join(OTHER_CODES)}. Restore the file from the original release."
            )
    return matches


def read(folder: Path) -> list[Utterance]:
    """The 5531 utterances of the four classes.

    Raises:
        CorpusError: no label files, one without a turn, a line that is none of theirs, a turn that
            is labelled twice or has no recording.
    """
    files = [folder / path for path in find(folder, LABELS)]
    if not files:
        raise CorpusError(
            f"{folder}: no label files {LABELS}. The emotions of IEMOCAP are not in the names of "
            "the recordings: use the whole IEMOCAP_full_release, with its folders."
        )
    refuse_unreadable(folder, (file.relative_to(folder) for file in files))
    turns = {file: _labels(file) for file in files}
    silent = [file.relative_to(folder).as_posix() for file, found in turns.items() if not found]
    if silent:
        raise CorpusError(
            f"{folder}: {counted(len(silent), 'label file')} without a turn: {listing(silent)}. "
            "Expected lines `[start - end]<tab>turn<tab>emotion<tab>[v, a, d]`, in ASCII. Restore "
            "these files from the original release."
        )
    recordings: dict[Path, Path] = {}
    for path in find(folder, "sentences/wav/*/*.wav"):
        if (first := recordings.setdefault(path.with_suffix(""), path)) != path:
            raise CorpusError(
                f"{folder}: {first} and {path} are both turn {path.stem}. Keep one copy of each "
                "recording."
            )
    utterances: dict[str, Utterance] = {}
    missing = []
    for file, found in turns.items():
        wav = file.parents[2].relative_to(folder) / "sentences" / "wav"
        for match in found:
            if match["code"] not in EMOTION_CODES:
                continue
            turn = match["turn"]
            if turn in utterances:
                raise CorpusError(
                    f"{file}: turn {turn} is labelled twice. Keep one copy of the release."
                )
            named = wav / match["dialogue"] / turn
            path = recordings.get(named, named.with_suffix(".wav"))
            if named not in recordings:
                missing.append(path.as_posix())
            speaker = match["session"] + match["letter"]
            utterances[turn] = Utterance(
                turn, path.as_posix(), speaker, EMOTION_CODES[match["code"]]
            )
    if missing:
        raise CorpusError(
            f"{folder}: {counted(len(missing), 'labelled turn')} without a recording: "
            f"{listing(missing)}. Use all of Session1 to Session5, with sentences/wav."
        )
    refuse_unreadable(folder, (Path(utterance.path) for utterance in utterances.values()))
    return list(utterances.values())


CORPUS = Corpus(
    id="iemocap",
    title="IEMOCAP",
    language="English",
    licence="release form of the University of Southern California",
    citation="Busso et al., Language Resources and Evaluation 2008",
    source="https://sail.usc.edu/iemocap/iemocap_release.htm",
    speakers=SPEAKERS,
    counts={"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084},
    read=read,
    sample_rates=(16000,),  # the paper's table says 48 kHz
    channels=(1,),
    seconds=(0.3, 40.0),
    speaker_groups=tuple((f"Ses0{n}F", f"Ses0{n}M") for n in range(1, 6)),
    terms=(
        "The University of Southern California sends a link to those who sign its release form "
        "(research only, no redistribution); the file is IEMOCAP_full_release."
    ),
    keep=("Session*/sentences/wav/*/*.wav", "Session*/dialog/EmoEvaluation/Ses*.txt"),
    top=("Session[1-5]",),
)
