"""EMOVO: six Italian actors say fourteen sentences in seven emotional states.

Provenance: G. Costantini, I. Iadarola, A. Paoloni, M. Todisco, "EMOVO Corpus: an Italian
Emotional Speech Database", LREC 2014; Fondazione Ugo Bordoni.
Licence: CC BY-NC-SA 4.0.
Names: EMOTION-SPEAKER-SENTENCE.wav in a folder per speaker, e.g. `f1/dis-f1-b1.wav`: disgust,
first woman, sentence b1.
"""

from __future__ import annotations

import re
from pathlib import Path

from timnet.corpora.corpus import Corpus, Download, Utterance, read_names

EMOTION_CODES = {
    "dis": "disgust",
    "gio": "happy",  # gioia
    "neu": "neutral",
    "pau": "fear",  # paura
    "rab": "angry",  # rabbia
    "sor": "surprise",  # sorpresa
    "tri": "sad",  # tristezza
}
SPEAKERS = {
    "f1": "female",
    "f2": "female",
    "f3": "female",
    "m1": "male",
    "m2": "male",
    "m3": "male",
}
SENTENCES = ("b1", "b2", "b3", "d1", "d2", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5")
GRAMMAR = "EMOTION-SPEAKER-SENTENCE.wav such as f1/dis-f1-b1.wav"

_NAME = re.compile(rf"({'|'.join(EMOTION_CODES)})-({'|'.join(SPEAKERS)})-({'|'.join(SENTENCES)})")


def _parse(path: Path) -> Utterance | None:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    code, speaker, sentence = match.groups()
    return Utterance(path.stem, path.as_posix(), speaker, EMOTION_CODES[code], sentence)


def read(folder: Path) -> list[Utterance]:
    """The 588 utterances, whether `folder` holds one folder a speaker or all files flat."""
    return read_names(folder, "*.wav", _parse, GRAMMAR)


CORPUS = Corpus(
    id="emovo",
    title="EMOVO",
    language="Italian",
    licence="CC BY-NC-SA 4.0",
    citation="Costantini et al., LREC 2014",
    source="http://voice.fub.it/activities/corpora/emovo/index.html",
    speakers=SPEAKERS,
    counts=dict.fromkeys(EMOTION_CODES.values(), 84),
    read=read,
    sample_rates=(48000,),
    channels=(1, 2),
    seconds=(1.0, 15.0),
    quirks={
        "one file is mono where all others are stereo": ("rab-f1-b1",),
        "the two channels are nearly uncorrelated: only their mean gives the paper's results": (),
    },
    # the host keeps the archive on a public drive; no hash is published
    download=Download(
        "https://drive.usercontent.google.com/download"
        "?id=1SUtaKeA-LYnKaD3qv87Y5wYgihJiNJAo&export=download&confirm=t",
        "emovo.zip",
    ),
    top=("[fm][1-3]",),
)
