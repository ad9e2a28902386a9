"""Which remote may have what: the recordings' licences, from the first push on.

Recordings, features and all else that the pipeline computes utterance by utterance go to the remote
named `private` and to no other: dvc.yaml and data.dvc say so of each output, and DVC holds to it.
Who can read that remote is up to those who set it up. What may go elsewhere are models, whose cards
name the terms, and the outputs of corpora that anyone may pass on, once they are not marked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from timnet.corpora import recipe_of
from timnet.corpora.corpus import Corpus
from timnet.errors import LicenceError, ParameterError, listing
from timnet.paths import Workspace
from timnet.project.dvc import dvc_errors

PRIVATE = "private"
MODELS = "build/models"  # weights, which hold no utterance
NOWHERE = "/dev/null/"  # begins the address that .dvc/config has until someone sets one


def refuse_unlicensed(root: Path, remote: str, targets: Collection[str] = ()) -> None:
    """Stop before `dvc push` where a corpus' licence forbids it, or nothing would be sent.

    Args:
        remote: name of the remote.
        targets: stages, groups of them, or paths of outputs; none means all.

    Raises:
        LicenceError: the remote may not have outputs of some corpora.
        ParameterError: no such target or remote, or a remote without an address.
        TimnetError: DVC cannot read what is here.
    """
    from dvc.repo import Repo

    with dvc_errors(), Repo(str(root)) as repo:
        known = repo.config["remote"]
        if remote not in known:
            raise ParameterError(
                f"no remote {remote!r} in .dvc/config; it has {', '.join(known) or 'none'}. Add "
                f"it with `dvc remote add {remote} URL`."
            )
        if not has_address(known[remote]["url"]):
            raise ParameterError(no_address(remote))
        outputs = {out.def_path: out for out in _chosen(repo, targets)}
        corpora = {path: _corpora(repo, out) for path, out in outputs.items()}
    data = Workspace(root).data
    refuse_outputs(
        remote,
        {path: {name: recipe_of(name, data) for name in names} for path, names in corpora.items()},
    )
    kept = [path for path, out in outputs.items() if out.remote not in (None, remote)]
    if remote != PRIVATE and kept:
        raise LicenceError(
            f"data.dvc and dvc.yaml keep {listing(kept)} for another remote, so DVC would not send "
            f"them to {remote!r}. If they may be sent there, remove the lines `remote: ...` of "
            "these outputs."
        )


def has_address(url: str) -> bool:
    """Whether a remote's URL is one, and not what holds its place in a new clone."""
    return not url.startswith(NOWHERE)


def no_address(remote: str) -> str:
    """That a remote has none, and how to give it one."""
    return (
        f"the remote {remote!r} has no URL yet. Give it a folder or a bucket that only people who "
        f"may have the recordings can read: `dvc remote modify {remote} url URL`."
    )


def _chosen(repo: Any, targets: Collection[str]) -> list[Any]:
    """The outputs in DVC's cache that targets mean."""
    named: dict[str, list[Any]] = {}
    outs = [out for out in repo.index.outs if out.use_cache]
    for out in outs:
        name = getattr(out.stage, "name", None) or out.stage.path_in_repo
        for target in {out.def_path, name, name.partition("@")[0]}:
            named.setdefault(target, []).append(out)
    if unknown := [target for target in targets if target not in named]:
        raise ParameterError(f"DVC has no output or stage {listing(unknown)}.")
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


def refuse_outputs(remote: str, outputs: Mapping[str, Mapping[str, Corpus | None]]) -> None:
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
            f"the remote {remote!r} may not receive data derived from\n"
            + "\n".join(lines)
            + "\nRecordings under such terms, and data computed from them, may only go to the "
            f"remote {PRIVATE!r}, which only people who may have the recordings can read: "
            "`timnet push`. Models may go wherever their cards allow: name their files."
        )


def _reason(corpus: Corpus | None) -> str:
    if corpus is None:
        return "no recipe and no corpus.json, so its licence is unknown"
    return f"licence {corpus.licence}, which does not allow redistribution"
