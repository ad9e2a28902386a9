"""`timnet push`: what DVC keeps goes to a remote, within the corpora's licences."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from timnet.cli.common import app, recipe_of
from timnet.errors import LicenceError, ParameterError, TimnetError, listing
from timnet.paths import Workspace
from timnet.project import licences

MODELS = "build/models"  # weights, which hold no utterance
NOWHERE = "/dev/null/"  # begins the address that .dvc/config has until someone sets one


@app.command()
def push(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET...]", help="Outputs or stages; else all.")
    ] = None,
    remote: Annotated[
        str, typer.Option(help="Its name; all but `private` get what anyone may have.")
    ] = licences.PRIVATE,
) -> None:
    """Send what DVC keeps, and its run cache, to a remote that may have it."""
    refuse_unlicensed(Path(), remote, targets or ())
    command = ["push", "--run-cache", "--remote", remote, *(targets or ())]
    if subprocess.run([sys.executable, "-m", "dvc", *command]).returncode:
        raise TimnetError(f"`dvc {' '.join(command)}` failed; see above.")


def refuse_unlicensed(root: Path, remote: str, targets: Collection[str] = ()) -> None:
    """Stop before `dvc push` where a corpus' licence forbids it, or nothing would be sent.

    Args:
        remote: name of the remote.
        targets: stages, groups of them, or paths of outputs; none means all.

    Raises:
        LicenceError: the remote may not have outputs of some corpora.
        ParameterError: no such target or remote, or a remote without an address.
    """
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        known = repo.config["remote"]
        if remote not in known:
            raise ParameterError(
                f"no remote {remote!r} in .dvc/config; it has {', '.join(known) or 'none'}. Add "
                f"it with `dvc remote add {remote} URL`."
            )
        if not has_address(known[remote]["url"]):
            raise ParameterError(
                f"the remote {remote!r} has no address yet. Give it a folder, or a bucket, that "
                "only those can read who may have the recordings: "
                f"`dvc remote modify {remote} url URL`."
            )
        outputs = {out.def_path: out for out in _chosen(repo, targets)}
        corpora = {path: _corpora(repo, out) for path, out in outputs.items()}
    data = Workspace(root).data
    licences.refuse(
        remote,
        {path: {name: recipe_of(name, data) for name in names} for path, names in corpora.items()},
    )
    kept = [path for path, out in outputs.items() if out.remote not in (None, remote)]
    if remote != licences.PRIVATE and kept:
        raise LicenceError(
            f"data.dvc and dvc.yaml keep {listing(kept)} for another remote, so that DVC would "
            f"not send them to {remote!r}. If it may have them, take the lines `remote: ...` of "
            "these outputs away."
        )


def has_address(url: str) -> bool:
    """Whether a remote's URL is one, and not what holds its place in a new clone."""
    return not url.startswith(NOWHERE)


def _chosen(repo: Any, targets: Collection[str]) -> list[Any]:
    """The outputs in DVC's cache that targets mean."""
    named: dict[str, list[Any]] = {}
    outs = [out for out in repo.index.outs if out.use_cache]
    for out in outs:
        name = getattr(out.stage, "name", None) or out.stage.path_in_repo
        for target in {out.def_path, name, name.partition("@")[0]}:
            named.setdefault(target, []).append(out)
    if unknown := [target for target in targets if target not in named]:
        raise ParameterError(f"no output or stage {listing(unknown)} that DVC keeps.")
    return [out for target in targets for out in named[target]] if targets else outs


def _corpora(repo: Any, out: Any) -> set[str]:
    """Names of the corpora that an output holds, or that it was computed from."""
    from networkx import descendants

    if PurePosixPath(out.def_path).is_relative_to(MODELS):
        return set()
    graph = repo.index.graph
    folders = [PurePosixPath(out.def_path)] + [
        PurePosixPath(dep.def_path)
        for stage in {out.stage, *descendants(graph, out.stage)}
        for dep in stage.deps
    ]
    below = [folder.parts[1:] for folder in folders if folder.parts[:1] == ("data",)]
    return {parts[0] for parts in below if parts} | (_present(repo) if () in below else set())


def _present(repo: Any) -> set[str]:
    """The folders of data/, as data.dvc has them and as they are."""
    data = Path(repo.root_dir, "data")
    folders = {path.name for path in data.iterdir()} if data.is_dir() else set()
    for out in repo.index.outs:
        if out.def_path == "data" and (tree := out.get_obj()):
            folders |= {key[0] for key, *_ in tree}
    return folders
