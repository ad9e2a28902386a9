"""Versions of models, registered as git tags: `emovo@v1.2`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timnet.corpora.corpus import natural_key
from timnet.errors import ArtifactError, ParameterError, listing
from timnet.models import model as models
from timnet.paths import Workspace, replacing
from timnet.project import git


def model_file(name: str) -> Path:
    """A model's file by name or path; a version of the registry is brought here first."""
    if "@" in name and not Path(name).is_file():
        name = _version(name)
        target = Workspace(Path()).model(name)
        if not target.is_file():
            _get(name, target)
        return target
    return models.find(name)


def _version(name: str) -> str:
    """`emovo@v1.2` to the newest tag of it, `emovo@v1.2.5`."""
    artifact, _, wanted = name.partition("@")
    listed = git.ask(Path(), "tag", "--list", f"{artifact}@v*") or ""
    tags = sorted(listed.split(), key=natural_key)
    fitting = [tag for tag in tags if tag == name or tag.startswith(f"{name}.")]
    if not fitting:
        raise ParameterError(
            f"no version {wanted!r} of model {artifact!r} in the registry (git tags "
            f"{artifact}@v1.2.3). " + (f"There are {listing(tags)}." if tags else "It has none.")
        )
    return fitting[-1]


def _get(tag: str, target: Path) -> None:
    """Let DVC bring the model of a tag from its cache or its remote."""
    registered = Workspace(Path()).model(tag.partition("@")[0])
    command = [sys.executable, "-m", "dvc", "get", ".", str(registered), "--rev", tag, "--out"]
    with replacing(target) as partial:
        result = subprocess.run([*command, str(partial)], capture_output=True, text=True)
        if result.returncode or not partial.is_file():
            raise ArtifactError(
                f"{tag}: DVC cannot fetch this model:\n{result.stderr.strip()}\nIf it is in "
                "neither the cache nor the remote, run `dvc push` on the machine that made it."
            )
