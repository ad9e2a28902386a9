"""CASIA: four Chinese actors read fifty texts in six emotions.

Provenance: Institute of Automation, Chinese Academy of Sciences; J. Tao, F. Liu, M. Zhang, H. Jia,
"Design of Speech Corpus for Mandarin Text to Speech", Blizzard Challenge Workshop 2008. The paper
uses the 50 texts numbered 201 to 250, 1200 of 9600 utterances.
Licence: by agreement with the Chinese Linguistic Data Consortium.
Names: SPEAKER/EMOTION/TEXT.wav, e.g. `liuchanhg/angry/201.wav` (`liuchanhg` is the archive's own
spelling). The case of the folders differs from copy to copy. Text numbers repeat in every folder,
so the canonical id is SPEAKER-EMOTION-TEXT in lower case, `liuchanhg-angry-201`; files of that
name in one folder are read as well.
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
    "or liuchanhg-angry-201.wav"
)

_ID = re.compile(rf"({'|'.join(SPEAKERS)})-({'|'.join(EMOTIONS)})-(\d{{3}})")


def _parse(path: Path) -> Utterance | None:
    flat = path.stem.lower()
    name = flat if "-" in flat else "-".join((*path.parts[-3:-1], path.stem)).lower()
    match = _ID.fullmatch(name)
    if match is None or int(match[3]) not in TEXTS:
        return None
    speaker, emotion, text = match.groups()
    return Utterance(name, path.as_posix(), speaker, emotion, text)


def read(folder: Path) -> list[Utterance]:
    """The 1200 utterances, in folders of any case or all files flat."""
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
