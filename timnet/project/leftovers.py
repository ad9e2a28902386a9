"""Results of runs and corpora that params.yaml no longer names."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

from timnet.errors import ArtifactError, listing
from timnet.paths import Workspace
from timnet.project import git
from timnet.project.params import Params


def leftovers(workspace: Workspace, params: Params) -> list[Path]:
    """What stages made for runs and corpora that are no more, below results/."""
    places: dict[Path, Container[str]] = {
        workspace.runs: params.scored,
        workspace.figures("any").parent: params.scored,
        workspace.validations: params.corpora,
        workspace.description("any").parent: params.corpora,
    }
    return [
        path
        for folder, known in places.items()
        for path in sorted(folder.glob("[!.]*"))
        if path.name.removesuffix(".json") not in known
    ]


def remove(workspace: Workspace, paths: list[Path]) -> None:
    """Remove results that git can give back.

    Raises:
        ArtifactError: git does not have some of them as they are; none is removed.
    """
    if not paths:  # of no names git would speak of everything
        return
    names = [str(path) for path in paths]
    changed = git.ask(workspace.root, "status", "--porcelain", "--ignored", "--", *names)
    if changed is None or changed:
        which = names if changed is None else [line[2:].strip() for line in changed.splitlines()]
        raise ArtifactError(
            f"{listing(which)}: no commit contains them in this state, so they could not be "
            "restored. Commit them first, or delete them yourself."
        )
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
