"""RAVDESS, speech: 24 American actors say two sentences in eight emotional states.

Provenance: S. R. Livingstone, F. A. Russo, "The Ryerson Audio-Visual Database of Emotional Speech
and Song (RAVDESS)", PLoS ONE 13(5), 2018; Zenodo record 1188976.
Licence: CC BY-NC-SA 4.0.
Names: modality-channel-emotion-intensity-sentence-repetition-actor in a folder an actor, e.g.
`Actor_07/03-01-05-02-01-01-07.wav`: audio alone (03), speech (01), angry, strong, sentence 01,
first repetition, actor 07, who is male, as all of odd number are. Neutral has no strong form.
Songs (channel 02) and videos are not of this corpus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from timnet.corpora.corpus import Corpus, Download, Utterance, find, read_names, same_length
from timnet.errors import CorpusError, counted, listing

EMOTION_CODES = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
SPEAKERS = {f"Actor_{n:02}": "male" if n % 2 else "female" for n in range(1, 25)}
# The six folds of the EmoBox benchmark, four actors each.
GROUPS = (
    (1, 11, 20, 21),
    (4, 10, 12, 14),
    (8, 9, 19, 23),
    (3, 5, 7, 24),
    (2, 15, 16, 18),
    (6, 13, 17, 22),
)
GRAMMAR = "03-01-EMOTION-INTENSITY-SENTENCE-REPETITION-ACTOR.wav such as 03-01-05-02-01-01-07.wav"

_NAME = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-0[12]-(\d\d)")
_OTHER = re.compile(r"0[123]-0[12](-\d\d){5}")  # songs, and the sound of videos


def _parse(path: Path) -> Utterance | None:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    code, intensity, sentence, actor = match.groups()
    speaker, folder = f"Actor_{actor}", path.parent.name
    if speaker not in SPEAKERS or (code, intensity) == ("01", "02"):
        return None
    if folder in SPEAKERS and folder != speaker:
        return None
    return Utterance(path.stem, path.as_posix(), speaker, EMOTION_CODES[code], sentence)


def read(folder: Path) -> list[Utterance]:
    """The 1440 utterances, whether `folder` holds one folder an actor or all files flat.

    Raises:
        CorpusError: songs among the speech, or names that fit no rule.
    """
    others = [
        path.as_posix()
        for path in find(folder, "*.wav")
        if _OTHER.fullmatch(path.stem) and not path.stem.startswith("03-01-")
    ]
    if others:
        raise CorpusError(
            f"{folder}: {counted(len(others), 'file')} of songs or videos: {listing(others)}. "
            "The corpus is only speech (names that begin with 03-01): keep the rest of RAVDESS "
            "elsewhere."
        )
    return read_names(folder, "*.wav", _parse, GRAMMAR)


def tampered(sample_rates: Sequence[int], samples: Sequence[int]) -> str | None:
    """Recognise a copy on the web whose silence was trimmed, all files to one length."""
    share = same_length(sample_rates, samples, 2.39, 0.02)
    if share > 0.5:
        return (
            f"{share:.0%} of the files last 2.39 s: an altered copy, trimmed; the originals last "
            "2.9 to 5.3 s. Get Zenodo record 1188976."
        )
    return None


CORPUS = Corpus(
    id="ravdess",
    title="RAVDESS",
    language="English",
    licence="CC BY-NC-SA 4.0",
    citation="Livingstone & Russo, PLoS ONE 2018",
    source="https://zenodo.org/records/1188976",
    speakers=SPEAKERS,
    counts={
        "angry": 192,
        "calm": 192,
        "disgust": 192,
        "fear": 192,
        "happy": 192,
        "neutral": 96,
        "sad": 192,
        "surprise": 192,
    },
    read=read,
    sample_rates=(48000,),
    channels=(1,),
    seconds=(2.5, 6.0),
    speaker_groups=tuple(tuple(f"Actor_{n:02}" for n in group) for group in GROUPS),
    quirks={
        "two files are one recording": ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07"),
        "stereo among mono files": (
            "03-01-02-01-01-02-01",
            "03-01-08-01-02-02-01",
            "03-01-02-01-02-02-05",
            "03-01-03-01-02-01-20",
            "03-01-06-01-01-02-20",
        ),
        "nearly silent: the loudest sample is 42.5 dB below full scale or less": (
            "03-01-02-02-01-02-09",
            "03-01-04-01-02-02-09",
            "03-01-02-02-01-01-20",
            "03-01-02-02-02-02-20",
            "03-01-04-01-01-02-20",
        ),
        "an FLLR chunk stands before the data in every file": (),
    },
    download=Download(
        "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
        "Audio_Speech_Actors_01-24.zip",
        size=208_468_073,
        md5="bc696df654c87fed845eb13823edef8a",
    ),
    top=("Actor_*",),
    tampered=tampered,
)
