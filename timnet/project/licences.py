"""Which remote may have what: the recordings' licences, from the first push on.

Recordings, features and all else that the pipeline computes utterance by utterance go to the remote
named `private` and to no other: dvc.yaml and data.dvc say so of each output, and DVC holds to it.
Whom that remote lets in is up to those who set it up. What may go elsewhere are models, whose cards
name the terms, and the outputs of corpora that anyone may pass on, once they are not marked.
"""

from __future__ import annotations

from collections.abc import Mapping

from timnet.corpora.corpus import Corpus
from timnet.errors import LicenceError, listing

PRIVATE = "private"


def refuse(remote: str, outputs: Mapping[str, Mapping[str, Corpus | None]]) -> None:
    """Refuse to send what was made of restricted corpora to any remote but `private`.

    Args:
        remote: name of the remote.
        outputs: by path, the corpora that each output was made of; None for a corpus of which
            nothing is known.

    Raises:
        LicenceError: with each such corpus, its licence, and the outputs.
    """
    if remote == PRIVATE:
        return
    paths: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for path, corpora in outputs.items():
        for name, corpus in corpora.items():
            if corpus is None or not corpus.redistributable:
                paths.setdefault(name, []).append(path)
                reasons[name] = _reason(corpus)
    if paths:
        lines = [
            f"  - {name}: {reasons[name]}; {listing(paths[name], 3)}" for name in sorted(paths)
        ]
        raise LicenceError(
            f"the remote {remote!r} may not have what was made of\n" + "\n".join(lines) + "\n"
            "Recordings under such terms, and what is computed from each of them, go to the remote "
            f"{PRIVATE!r} alone, which must let in only those who may have the recordings: "
            "`timnet push`. Models may go anywhere their cards allow: name their files."
        )


def _reason(corpus: Corpus | None) -> str:
    if corpus is None:
        return "no recipe and no corpus.json, so its licence is unknown"
    return f"licence {corpus.licence}, which does not let everyone have it"
