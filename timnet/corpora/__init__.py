"""What a corpus is: one recipe per corpus, and custom corpora without one."""

from __future__ import annotations

from pathlib import Path

from timnet.corpora import casia, custom, demo, emodb, emovo, iemocap, ravdess, savee
from timnet.corpora.corpus import Corpus
from timnet.errors import CorpusError, suggestion

CORPORA: dict[str, Corpus] = {
    recipe.CORPUS.id: recipe.CORPUS
    for recipe in (casia, demo, emodb, emovo, iemocap, ravdess, savee)
}

CUSTOM = "custom"  # the module that reads what has no recipe


def corpus(name: str, data: Path | None = None) -> Corpus:
    """The recipe named `name`, or the custom corpus in `data/<name>` (see `timnet.corpora.custom`).

    Raises:
        CorpusError: neither.
    """
    if name in CORPORA:
        return CORPORA[name]
    if data is not None and (data / name / "corpus.json").exists():
        return custom.load(data / name)
    known = f"known are {', '.join(sorted(CORPORA))}."
    more = f" Your own recordings: `timnet acquire {name} --csv TABLE`."
    raise CorpusError(f"unknown corpus {name!r}; {known}{suggestion(name, CORPORA) or more}")


def recipe_of(name: str, data: Path) -> Corpus | None:
    """What is known of a corpus; None for a custom corpus whose folder is not here."""
    try:
        return corpus(name, data)
    except CorpusError:
        return None
