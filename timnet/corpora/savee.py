"""SAVEE: four Englishmen say 120 sentences each in seven emotional states.

Provenance: S. Haq, P. J. B. Jackson, "Multimodal Emotion Recognition", in W. Wang (ed.), Machine
Audition, 2010; University of Surrey.
Licence: free for research, after registration with the university.
Names: CODE and number in a folder per speaker, `AudioData/DC/sa01.wav`: the first sad sentence of
DC. Numbers run from 01 to 15, to 30 for neutral. The same names come in every folder, so the
canonical id is that of the flat form: `DC_sa01`.
"""

from __future__ import annotations

import re
from pathlib import Path

from timnet.corpora.corpus import Corpus, Utterance, read_names

EMOTION_CODES = {
    "sa": "sad",  # these two before the codes of one letter
    "su": "surprise",
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
}
SPEAKERS = {"DC": "male", "JE": "male", "JK": "male", "KL": "male"}
GRAMMAR = "SPEAKER/CODE and number, such as DC/sa01.wav, or DC_sa01.wav"

_NAME = re.compile(rf"(?:({'|'.join(SPEAKERS)})_)?({'|'.join(EMOTION_CODES)})(\d\d)")


def _parse(path: Path) -> Utterance | None:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    prefix, code, number = match.groups()
    folder = path.parent.name
    speaker = prefix or folder
    if speaker not in SPEAKERS or (folder in SPEAKERS and folder != speaker):
        return None
    if not 1 <= int(number) <= (30 if code == "n" else 15):
        return None
    sentence = code + number  # texts differ between emotions
    return Utterance(
        f"{speaker}_{sentence}", path.as_posix(), speaker, EMOTION_CODES[code], sentence
    )


def read(folder: Path) -> list[Utterance]:
    """The 480 utterances, whether `folder` holds one folder a speaker or all files flat."""
    return read_names(folder, "*.wav", _parse, GRAMMAR)


CORPUS = Corpus(
    id="savee",
    title="SAVEE",
    language="English",
    licence="research licence of the University of Surrey",
    citation="Haq & Jackson, 2010",
    source="http://kahlan.eps.surrey.ac.uk/savee/Download.html",
    speakers=SPEAKERS,
    counts={
        "angry": 60,
        "disgust": 60,
        "fear": 60,
        "happy": 60,
        "neutral": 120,
        "sad": 60,
        "surprise": 60,
    },
    read=read,
    sample_rates=(44100,),
    channels=(1,),
    seconds=(1.0, 10.0),
    quirks={"the signal touches full scale in 176 files": ()},
    terms=(
        "The University of Surrey gives it to those who register (research only, no "
        "redistribution); the file is AudioData.zip."
    ),
    top=tuple(SPEAKERS),
)
