"""CASIA: four Chinese actors read fifty texts in six emotions.

Provenance: Institute of Automation, Chinese Academy of Sciences; J. Tao, F. Liu, M. Zhang, H. Jia,
"Design of Speech Corpus for Mandarin Text to Speech", Blizzard Challenge Workshop 2008. The paper
uses the 50 texts numbered 201 to 250, 1200 of 9600 utterances.
Licence: by agreement with the Chinese Linguistic Data Consortium.
Names: SPEAKER/EMOTION/TEXT.wav, e.g. `liuchanhg/angry/201.wav` (`liuchanhg` is the archive's own
spelling), or flat files, `201-angry-liuchanhg.wav` or `liuchanhg-angry-201.wav`. The case of the
names differs from copy to copy. The canonical id is TEXT-EMOTION-SPEAKER in lower case,
`201-angry-liuchanhg`. The order of the parts matters: within an emotion it puts texts before
speakers, and the folds of the paper follow that order. With it the authors' weights give exactly
the paper's 1136 of 1200; with other orders they are tested on what they were trained on.
"""

from __future__ import annotations

import re
from pathlib import Path

from timnet.corpora.corpus import Corpus, Utterance, read_names

EMOTIONS = ("angry", "fear", "happy", "neutral", "sad", "surprise")
SPEAKERS = {
    "liuchanhg": "female",
    "wangzhe": "male",
    "zhaoquanyin": "female",
    "zhaozuoxiang": "male",
}
TEXTS = range(201, 251)  # the same for all speakers and emotions
GRAMMAR = (
    "SPEAKER/EMOTION/TEXT.wav such as liuchanhg/angry/201.wav, texts 201 to 250, "
    "or 201-angry-liuchanhg.wav, or liuchanhg-angry-201.wav"
)

_SPEAKER = rf"(?P<speaker>{'|'.join(SPEAKERS)})"
_EMOTION = rf"(?P<emotion>{'|'.join(EMOTIONS)})"
_TEXT = r"(?P<text>[0-9]{3})"
_NAMES = (
    re.compile(f"{_TEXT}-{_EMOTION}-{_SPEAKER}"),
    re.compile(f"{_SPEAKER}-{_EMOTION}-{_TEXT}"),
)


def _parse(path: Path) -> Utterance | None:
    flat = path.stem.lower()
    name = flat if "-" in flat else "-".join((*path.parts[-3:-1], path.stem)).lower()
    matches = (form.fullmatch(name) for form in _NAMES)
    match = next(filter(None, matches), None)
    if match is None or int(match["text"]) not in TEXTS:
        return None
    speaker, emotion, text = match["speaker"], match["emotion"], match["text"]
    return Utterance(f"{text}-{emotion}-{speaker}", path.as_posix(), speaker, emotion, text)


def read(folder: Path) -> list[Utterance]:
    """The 1200 utterances, in folders or all files flat, names and endings of any case."""
    return read_names(folder, "*.wav", _parse, GRAMMAR)


CORPUS = Corpus(
    id="casia",
    title="CASIA",
    language="Chinese",
    licence="licence of the Chinese Linguistic Data Consortium",
    citation="Tao et al., Blizzard Challenge Workshop 2008",
    source="http://www.chineseldc.org/resource_info.php?rid=76",
    speakers=SPEAKERS,
    counts=dict.fromkeys(EMOTIONS, 200),
    read=read,
    sample_rates=(16000, 22050),  # the distributor says 16 kHz, the paper 22.1
    channels=(1,),
    seconds=(0.3, 10.0),
    terms=(
        "The Chinese Linguistic Data Consortium distributes it to those who sign its licence "
        "agreement; its page has the terms."
    ),
    top=tuple(SPEAKERS),
)
