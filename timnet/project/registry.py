"""Versions of models, registered as git tags: `emovo@v1.2`."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from timnet.corpora.corpus import natural_key
from timnet.dataset import features
from timnet.errors import ArtifactError, ParameterError, listing
from timnet.models import model as models
from timnet.paths import Workspace, replacing
from timnet.project import git
from timnet.project.remotes import has_address, no_address


def model_file(name: str) -> Path:
    """A model's file by name or path; a version of the registry is brought here first.

    Also where its file is here, but damaged.
    """
    if "@" in name and not Path(name).is_file():
        name = _version(name)
        target = Workspace(Path()).model(name)
        damage = _damage(target) if target.is_file() else ""
        if damage or not target.is_file():
            _get(name, target, damage)
        return target
    return models.find(name)


def _version(name: str) -> str:
    """`emovo@v1.2` to the newest tag of it, `emovo@v1.2.5`."""
    artifact, _, wanted = name.partition("@")
    listed = git.ask(Path(), "tag", "--list", f"{artifact}@v*") or ""
    every = set(listed.split())
    # `emovo@v1.2.0!` takes a version back
    valid = (tag for tag in every if not tag.endswith("!") and f"{tag}!" not in every)
    tags = sorted(valid, key=natural_key)
    fitting = [tag for tag in tags if tag == name or tag.startswith(f"{name}.")]
    if not fitting:
        raise ParameterError(
            f"no version {wanted!r} of model {artifact!r} in the registry (git tags "
            f"{artifact}@v1.2.3). " + (f"There are {listing(tags)}." if tags else "It has none.")
        )
    return fitting[-1]


def _damage(path: Path) -> str:
    """What is wrong with a model's file; empty if nothing is.

    That another version of timnet is needed is no damage.
    """
    try:
        if models.read_card(path).features.revision == features.REVISION:
            models.load(path)
    except ArtifactError as error:
        return str(error)
    return ""


def _get(tag: str, target: Path, damage: str) -> None:
    """Let DVC bring the model of a tag from its cache or its remote.

    Args:
        damage: what is wrong with the file that is here, if there is one.

    Raises:
        ArtifactError: DVC cannot.
    """
    registered = Workspace(Path()).model(tag.partition("@")[0])
    command = [sys.executable, "-m", "dvc", "get", ".", str(registered), "--rev", tag, "--out"]
    with replacing(target) as partial:
        result = subprocess.run([*command, str(partial)], capture_output=True, text=True)
        if result.returncode or not partial.is_file():
            said = [damage] if damage else []
            said += [f"{tag}: DVC cannot fetch this model:", result.stderr.strip(), _where_else()]
            raise ArtifactError("\n".join(said))
        content = partial.read_bytes()
        partial.unlink()  # a link into DVC's cache, which no damage here must reach
        partial.write_bytes(content)


def _where_else() -> str:
    """How to get a model that DVC's cache does not have."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with suppress(DvcException), Repo() as repo:  # what is wrong with it DVC has said
        remote = repo.config["core"].get("remote")
        there = repo.config["remote"].get(remote)
        if there and not has_address(there["url"]):
            return f"It is not in the cache, and {no_address(remote)}"
    return (
        "If it is in neither the cache nor the remote, run `timnet push` on the machine that made "
        "it."
    )
