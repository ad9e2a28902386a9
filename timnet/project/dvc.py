"""What DVC says and what it noted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from timnet import records
from timnet.errors import ArtifactError, ParameterError, TimnetError, listing
from timnet.paths import Workspace
from timnet.project import git
from timnet.project.locks import WorkspaceInUse, raise_if_in_use, running_dvc

PATIENCE = 5.0  # s that another DVC has to end what it writes


def refuse_without_dvc(root: Path) -> None:
    """Stop where a folder is not the root of a DVC repository; DVC itself takes one above it.

    Raises:
        ParameterError: it is none.
    """
    if not Workspace(root).dvc.is_dir():
        raise ParameterError(
            f"no DVC repository in {root.resolve()}; run this in the root of the project."
        )


@contextmanager
def repository(root: Path) -> Iterator[Any]:
    """DVC's `Repo` of a workspace, for several questions at once, while nobody else writes there.

    In this process, since starting DVC takes longer than most answers. Each path is hashed once,
    and what DVC's own state knows by size and time is not hashed at all.

    Raises:
        WorkspaceInUse: another process works on the workspace with DVC.
        TimnetError: there is none, or its files are damaged.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    if told := running_dvc(root):
        raise WorkspaceInUse(told)
    with dvc_errors():
        try:
            with Repo(str(root)) as repo, lock_repo(repo):
                with _read_fast():
                    _look_once(repo)
                yield repo
        except LockError as error:
            raise_if_in_use(root, str(error))
            raise WorkspaceInUse(str(error)) from None


@contextmanager
def dvc_errors() -> Iterator[None]:
    """Raise an error of DVC as a `TimnetError`, with a way out where one is known."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        ways = [name for name in git.NOTED if name in str(error)]
        way = f". Restore it from git: `git checkout -- {ways[0]}`." if ways else ""
        raise TimnetError(f"DVC: {error}{way}") from None


@contextmanager
def _read_fast() -> Iterator[None]:
    """Let DVC read what it noted in two thirds of the time, with the same result.

    For each of thousands of paths it checks the settings of a remote storage that these have not,
    and ruamel.yaml looks up anew by which version of YAML to read each word.
    """
    from dvc import output
    from ruamel.yaml.resolver import VersionedResolver

    find, rules = output.get_cloud_fs, vars(VersionedResolver)["versioned_resolver"]
    local: list[Any] = []

    def find_once(config: Any, url: str, **settings: Any) -> Any:
        if settings or "://" in url:
            return find(config, url=url, **settings)
        local[:] = local or find(config, url=url)
        kind, of_kind, _ = local
        return kind, of_kind, kind._strip_protocol(url)

    once = cached_property(rules.fget)
    once.__set_name__(VersionedResolver, "versioned_resolver")
    output.get_cloud_fs = find_once
    VersionedResolver.versioned_resolver = once  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        output.get_cloud_fs = find
        VersionedResolver.versioned_resolver = rules  # type: ignore[method-assign]


def _look_once(repo: Any) -> None:
    """Let dependencies and outputs that name the same path share one look at it.

    So do a folder and what lies in it: data/, which data.dvc has whole, and each corpus there.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.utils.serialize import load_path

    places, hashes, folders = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    values = dict[str, Any]()

    def hash_of(path: str) -> Any:
        if path not in hashes:
            above = [parent for parent in map(str, Path(path).parents) if parent in places]
            if above:
                hash_of(above[-1])
                hashes[path] = _hash_in(folders[above[-1]], Path(path).relative_to(above[-1]).parts)
            if hashes.get(path) is None:
                found = look(places[path])
                folders[path], hashes[path] = found, found.hash_info
        return hashes[path]

    def params_of(entry: Any, look: Any, flatten: bool = True, **options: Any) -> Any:
        if not flatten or not entry.params:
            return look(flatten=flatten, **options)
        if entry.fs_path not in values:
            values[entry.fs_path] = load_path(entry.fs_path, repo.fs)
        found = ((name, _at(values[entry.fs_path], name)) for name in entry.params)
        return {name: value for name, value in found if value is not None}

    for stage in repo.index.stages:
        for entry in (*stage.deps, *stage.outs):
            if isinstance(entry, ParamsDependency):
                entry.read_params = partial(params_of, entry, entry.read_params)
            else:
                places.setdefault(entry.fs_path, entry)
                entry.get_hash = partial(hash_of, entry.fs_path)


def look(entry: Any) -> Any:
    """What lies at the path of a dependency or output, hashed, and a folder with all in it.

    As DVC's `Output.get_hash`, which gives the hash alone.
    """
    from dvc_data.hashfile.build import build

    store, place, kind = entry.local_cache, entry.fs_path, entry.hash_name
    return build(store, place, entry.fs, kind, dry_run=True, ignore=entry.dvcignore)[2]


def _hash_in(folder: Any, parts: tuple[str, ...]) -> Any:
    """The hash of a file or folder in a folder as of `look`; None if nothing is there."""
    _, file = folder.get(parts) or (None, None)
    below = None if file else folder.get_obj(None, parts)
    return file or (below and below.hash_info)


def _at(values: Any, name: str) -> Any:
    """The value of a parameter such as `runs.emovo-random.seeds`; None if there is none."""
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def findings(repo: Any) -> dict[str, list[Any]]:
    """What `dvc status` says of each stage that is not up to date, by its name.

    As DVC's `Stage.status`, without a lock of its own for each stage.
    """
    result = {}
    for stage in repo.index.stages:
        entries: list[Any] = []
        for what, places in (("deps", () if stage.frozen else stage.deps), ("outs", stage.outs)):
            changed: dict[str, Any] = {}
            for place in places:
                changed.update(place.status())
            if changed:
                entries.append({f"changed {what}": changed})
        if stage.is_callback or stage.always_changed:
            entries.append("always changed")
        if stage.changed_stage():
            entries.append("changed checksum")
        if entries:
            result[getattr(stage, "name", None) or stage.path_in_repo] = entries
    return result


def locked(root: Path, *wanted: str) -> dict[str, Any]:
    """What dvc.lock notes of each stage.

    DVC writes it in place, perhaps now, and what of it is there already may even look whole.

    Args:
        wanted: stages that have run, and so must be in it.

    Raises:
        ArtifactError: it is damaged or lacks some of these, and stays so.
    """
    path = root / "dvc.lock"
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            before = _state(path)
            known = read_noted(path, records.Lock).get("stages", {}) if before else {}
            absent = [stage for stage in wanted if stage not in known]
            if absent:
                raise ArtifactError(f"{path}: no entry of {listing(absent)}. Run `dvc repro`.")
            if before == _state(path):
                return known
        except ArtifactError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _state(path: Path) -> tuple[int, int] | None:
    """What changes with every write to a file; None if there is none."""
    with suppress(FileNotFoundError):
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    return None


def read_noted(path: Path, shape: Any) -> Any:
    """What DVC noted in a file of git.

    Raises:
        ArtifactError: it is damaged, by a merge perhaps.
    """
    try:
        return records.read_yaml(path, shape)
    except records.DamagedRecord as error:
        raise ArtifactError(
            f"{path}: {error}. Restore it from git: `git checkout -- {path.name}`."
        ) from None


def ask_dvc(root: Path, *arguments: str) -> str:
    """What a `dvc` command prints.

    Raises:
        WorkspaceInUse: another process works on what it needs.
        TimnetError: it fails.
    """
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True
    )
    if result.returncode:
        raise_if_in_use(root, result.stderr)
        raise TimnetError(f"`dvc {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout
