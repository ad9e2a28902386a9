"""What DVC keeps of data/: whether it is all that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from timnet.corpora.corpus import Corpus
from timnet.errors import ArtifactError, listing
from timnet.paths import Workspace, replacing


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Give a file its old content back, or none, if what is done with it fails."""
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            with replacing(path) as partial:
                partial.write_bytes(before)
        raise


def refuse_ignore_files(root: Path) -> None:
    """Stop where a `.dvcignore` lies within data/: DVC takes no folder that holds one.

    Raises:
        ArtifactError: with each of them.
    """
    found = sorted(path.relative_to(root) for path in Workspace(root).data.rglob(".dvcignore"))
    if found:
        raise ArtifactError(
            f"{listing(found)}: DVC allows no such file within data/. Move its lines to "
            ".dvcignore in the root of the project."
        )


def refuse_left_out(root: Path, brought: Mapping[str, Corpus]) -> None:
    """Stop where data.dvc, which was just written, lacks recordings of these corpora.

    DVC leaves out what is behind links to folders, and what .dvcignore names.

    Raises:
        ArtifactError: with some of the recordings.
    """
    kept = _kept(root)
    data = Workspace(root).data
    lost = [
        f"{name}/{utterance.path}"
        for name, corpus in brought.items()
        for utterance in corpus.read(data / name)
        if f"{name}/{utterance.path}" not in kept
    ]
    if lost:
        raise ArtifactError(
            f"DVC does not keep {len(lost)} of the recordings in data/: {listing(lost)}. A link or "
            "a line of .dvcignore leaves them out: take it away, then run this again."
        )


def _kept(root: Path) -> set[str]:
    """Paths below data/ of the files that data.dvc lists."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        (out,) = (out for out in repo.index.outs if out.def_path == "data")
        return {"/".join(key) for key, *_ in out.get_obj() or ()}
