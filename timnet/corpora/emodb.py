"""EMODB: ten German actors say ten sentences in seven emotional states.

Provenance: F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss, "A database of German
emotional speech", Interspeech 2005; Technical University of Berlin.
Licence: free to use.
Names: SSTTTEV.wav in the folder `wav`: speaker, sentence, emotion (first letter of the German
word), version, e.g. `wav/03a01Fa.wav`: speaker 03, sentence a01, Freude, first version. The
archive holds label files beside the recordings, which are not needed.
Not this corpus: EMODB 2.0 (Zenodo 17651657), the same actors with 816 recordings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from timnet.corpora.corpus import Corpus, Download, Utterance, find, read_names, same_length
from timnet.errors import CorpusError

EMOTION_CODES = {
    "W": "angry",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happy",  # Freude
    "N": "neutral",
    "T": "sad",  # Trauer
}
SPEAKERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
SENTENCES = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
GRAMMAR = "SSTTTEV.wav such as wav/03a01Fa.wav"
URL = "http://emodb.bilderbar.info/download/download.zip"
SECOND_EDITION = 816  # recordings

_NAME = re.compile(
    rf"({'|'.join(SPEAKERS)})({'|'.join(SENTENCES)})([{''.join(EMOTION_CODES)}])[a-z]"
)


def _parse(path: Path) -> Utterance | None:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, sentence, code = match.groups()
    return Utterance(path.stem, path.as_posix(), speaker, EMOTION_CODES[code], sentence)


def read(folder: Path) -> list[Utterance]:
    """The 535 utterances, in the folder `wav` or not.

    Raises:
        CorpusError: EMODB 2.0, or names that fit no rule.
    """
    if len(find(folder, "*.wav")) == SECOND_EDITION:
        raise CorpusError(
            f"{folder}: {SECOND_EDITION} recordings: this is EMODB 2.0 (Zenodo 17651657), not the "
            f"535 utterances that the paper uses. Get {URL}."
        )
    return read_names(folder, "*.wav", _parse, GRAMMAR)


def tampered(sample_rates: Sequence[int], samples: Sequence[int]) -> str | None:
    """Recognise a copy on the web that was resampled to 22.05 kHz and cut to two seconds."""
    share = same_length(sample_rates, samples, 2.0, 0.01)
    if share > 0.5 and set(sample_rates) == {22050}:
        return (
            f"{share:.0%} of the files last exactly 2.0 s at 22050 Hz: an altered copy, cut and "
            f"resampled; the originals last 1.2 to 9 s at 16000 Hz. Get {URL}."
        )
    return None


CORPUS = Corpus(
    id="emodb",
    title="EMODB",
    language="German",
    licence="free to use",
    redistributable=True,
    citation="Burkhardt et al., Interspeech 2005",
    source="http://emodb.bilderbar.info",
    speakers=SPEAKERS,
    counts={
        "angry": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happy": 71,
        "neutral": 79,
        "sad": 62,
    },
    read=read,
    sample_rates=(16000,),
    channels=(1,),
    seconds=(1.0, 10.0),
    quirks={
        "a PAD chunk stands before the data": ("14a07Fd", "14a07Na", "14a07Wc"),
    },
    download=Download(URL, "download.zip"),
    top=("wav",),
    tampered=tampered,
)
