"""What a `dvc repro` would do, and whether data/ is what data.dvc says: asked of DVC itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timnet import records
from timnet.corpora import CORPORA
from timnet.errors import ArtifactError, listing
from timnet.evaluation.protocols import CROSS, LAST, ON_TEST, PROTOCOLS, VALIDATED
from timnet.paths import Workspace
from timnet.project import git, params
from timnet.project.dvc import findings, look, read_noted
from timnet.project.params import Params, Run
from timnet.project.remotes import PRIVATE, has_address


@dataclass(frozen=True)
class DataChange:
    """How the recordings of a corpus differ from what data.dvc says."""

    corpus: str
    missing: int = 0
    changed: int = 0
    new: int = 0
    absent: bool = False  # nothing of it is here
    files: tuple[str, ...] = ()  # that are missing or changed, where their names are known
    added: tuple[str, ...] = ()  # that are new, where their names are known

    def __str__(self) -> str:
        parts = [
            f"{count} file{'s' if count > 1 else ''} {state}"
            for state in ("missing", "changed", "new")
            if (count := getattr(self, state))
        ]
        files = () if self.absent else (*self.files, *self.added)
        named = f" ({listing(files)})" if files else ""
        return f"{self.corpus}: {', '.join(parts) or 'differs from the committed files'}{named}"


def data_changes(repo: Any) -> list[DataChange]:
    """Corpora whose recordings in data/ are not those of data.dvc; none without a data.dvc.

    Args:
        repo: as of `timnet.project.dvc.repository`.
    """
    data = next((out for out in repo.index.outs if out.def_path == "data"), None)
    if data is None or (data.exists and data.get_hash() == data.hash_info):
        return []
    committed = data.get_obj()
    if committed is None:
        return _changes_by_lock(repo)
    # not by DVC's `data status`, which reads the whole project again, twice
    before, after = (
        {"/".join(("data", *key)): file for key, _, file in tree}
        for tree in (committed, look(data) if data.exists else ())
    )
    paths = {
        "missing": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in before.keys() & after if before[name] != after[name]),
        "new": sorted(after.keys() - before.keys()),
    }
    found: dict[str, dict[str, list[str]]] = {}
    for state, names in paths.items():
        for name in names:
            folder, _, file = name.removeprefix("data/").partition("/")
            corpus = found.setdefault(folder if file else "in no corpus", {})
            corpus.setdefault(state, []).append(name)
    return [
        DataChange(
            corpus,
            **{state: len(names) for state, names in states.items()},
            absent="missing" in states and not Path(repo.root_dir, "data", corpus).exists(),
            files=tuple(sorted(states.get("missing", []) + states.get("changed", []))),
            added=tuple(sorted(states.get("new", []))),
        )
        for corpus, states in sorted(found.items())
    ]


def _changes_by_lock(repo: Any) -> list[DataChange]:
    """The same by dvc.lock, for a clone whose cache does not know the single files."""
    root = Path(repo.root_dir)
    committed = {
        dependency.def_path.removeprefix("data/"): dependency.meta.nfiles or 1
        for stage in repo.index.stages
        for dependency in stage.deps
        if dependency.def_path.startswith("data/") and dependency.hash_info
    }
    data = root / "data"
    present = {
        folder.name: sum(path.is_file() for path in folder.rglob("*"))
        for folder in (data.iterdir() if data.is_dir() else ())
        if folder.is_dir()
    }
    if not committed:  # no stage has seen data/ yet: only the sum is known
        out = read_noted(root / "data.dvc", records.Tracked)["outs"][0]
        missing = out.get("nfiles", 0) - sum(present.values())
        return [DataChange("data.dvc", missing=max(missing, 0), new=max(-missing, 0))]
    result = []
    for corpus in sorted({*committed, *present}):
        expected, actual = committed.get(corpus, 0), present.get(corpus, 0)
        if expected != actual or not _as_locked(repo, corpus):
            missing, new = max(expected - actual, 0), max(actual - expected, 0)
            absent = corpus not in present
            result.append(DataChange(corpus, missing=missing, new=new, absent=absent))
    return result or [DataChange("in no corpus")]


def _as_locked(repo: Any, corpus: str) -> bool:
    """Whether the recordings of a corpus are those that dvc.lock knows."""
    for stage in repo.index.stages:
        for dependency in stage.deps:
            if dependency.def_path == f"data/{corpus}" and dependency.hash_info:
                return dependency.exists and not dependency.changed_checksum()
    return False


def refuse_data_changes(repo: Any, needed: Collection[str] | None = None) -> list[str]:
    """Stop where data/ is not what data.dvc says, or recordings were never acquired.

    DVC itself does not: `dvc repro` rewrites data.dvc to whatever it finds.

    Args:
        needed: corpora that have to be here; None: all. Of the others all or nothing must be here,
            and where nothing at all is here, all that data.dvc has are needed.

    Returns:
        The corpora of which nothing is here.

    Raises:
        ArtifactError: with each corpus that differs, or is not here.
    """
    changes = data_changes(repo)
    here = sorted(path.name for path in Path(repo.root_dir, "data").glob("*/"))
    absent = [change.corpus for change in changes if change.absent]
    spared = set(absent) - set(needed) if here and needed is not None else set()
    refused = [change for change in changes if change.corpus not in spared]
    chosen = " ".join(f"--corpus {name}" for name in here)
    # no way round recordings that are here and differ
    alone = here and all(change.absent for change in refused)
    way = f" Or run only what is here: `python -m flows.reproduce {chosen}`." if alone else ""
    if refused:
        lines = "\n".join(f"  - {change}" for change in refused)
        raise ArtifactError(
            f"data/ differs from data.dvc:\n{lines}\nRestore the committed recordings: "
            f"{_ways_back(repo, refused)}. If the change is intended, run `dvc add data`, or "
            f"continue once with --allow-data-changes.{way}"
        )
    never = _never_acquired(repo, changes)
    if lacking := [name for name in never if needed is None or name in needed]:
        raise ArtifactError(
            f"no recordings of {listing(lacking)} in data/. Acquire them: {_calls(lacking)}.{way}"
        )
    return sorted([*absent, *never])


def _never_acquired(repo: Any, changes: Iterable[DataChange]) -> list[str]:
    """Corpora that stages need, and of which neither data/ nor data.dvc has anything."""
    root, known = Path(repo.root_dir), {change.corpus for change in changes}
    paths = [dep.def_path for stage in repo.index.stages for dep in stage.deps]
    corpora = {Path(path).parts[1] for path in paths if path.startswith("data/")} - known
    return sorted(corpus for corpus in corpora if not (root / "data" / corpus).exists())


def _ways_back(repo: Any, changes: Sequence[DataChange]) -> str:
    """What brings the committed recordings, and takes away what is new."""
    lacking = [change for change in changes if change.missing or change.changed or not change.new]
    known = [change.corpus for change in lacking if change.corpus in CORPORA]
    there = [f"data/{name}" for name in known if Path(repo.root_dir, "data", name).exists()]
    ways = [_calls(known)] if known else []
    if there:
        ways = [f"move {listing(there)} away, then {ways[0]}"]
    if all(change.files and not change.changed for change in lacking):  # DVC's cache knows them
        ways.append("`dvc checkout data`")
    remote = repo.config["remote"].get(PRIVATE)
    if remote and has_address(remote["url"]):
        ways.append("`dvc pull`")
    back = ", or ".join(ways or ["your own copies of them"])
    new = [change for change in changes if change.new]
    if not new:
        return back
    names = listing(name for change in new for name in change.added)
    return f"move {names or 'the new files'} away" + (f"; then {back}" if lacking else "")


def _calls(corpora: Iterable[str]) -> str:
    """The commands that acquire some corpora."""
    known = list(corpora)
    by_request = [name for name in known if name in CORPORA and CORPORA[name].terms]
    free = " ".join(name for name in known if name in CORPORA and name not in by_request)
    calls = [f"`timnet acquire {free}`"] if free else []
    calls += [f"`timnet acquire {name} --from ARCHIVE`" for name in by_request]
    calls += [f"`timnet acquire {name} --csv TABLE`" for name in known if name not in CORPORA]
    return " and ".join(calls)


def nothing_to_add(repo: Any, brought: list[str]) -> str:
    """Why data.dvc stays as it is after corpora were acquired, in words; empty if it does not.

    It stands for all corpora. Where some of these are not here, and those that are here are as they
    were committed, it must not be written anew.

    Raises:
        ArtifactError: `dvc add data` would drop or change corpora that were not acquired again.
    """
    lost = [
        change
        for change in data_changes(repo)
        if change.corpus not in brought and (change.missing or change.changed)
    ]
    if not lost:
        return ""
    if all(change.absent for change in lost) and all(_as_locked(repo, name) for name in brought):
        chosen = " ".join(f"--corpus {name}" for name in brought)
        return (
            f"data.dvc stays as it is: {listing(brought)} as committed, not here: "
            f"{listing(change.corpus for change in lost)}. Until they are, run `python -m "
            f"flows.reproduce {chosen}` in place of `dvc repro`."
        )
    lines = "\n".join(f"  - {change}" for change in lost)
    raise ArtifactError(
        f"data.dvc was not updated, since it would lose recordings:\n{lines}\nRestore these "
        "too, or run `dvc add data` if their removal is intended."
    )


def noted(root: Path) -> str:
    """That data.dvc is up to date, and what is left to do with it."""
    changed = git.ask(root, "status", "--porcelain", "--", "data.dvc")
    return "data.dvc is up to date" + (": commit it with git" if changed else "")


def groups(params: Params) -> dict[str, list[str]]:
    """Every stage once, under the corpus, run, source, transfer or table that it is for."""
    result = {}
    for corpus in params.corpora:
        sets = [name for name, each in params.features.sets.items() if each.corpus == corpus]
        result[corpus] = [f"{stage}@{corpus}" for stage in ("manifest", "validate")]
        result[corpus] += [f"features@{name}" for name in sets]
    for run in params.runs:
        result[run] = [f"{stage}@{run}" for stage in ("folds", "train", "score", "figures")]
        result[run] += [f"model@{name}" for name, of in params.models.items() if of.run == run]
    result |= {source: [f"source@{source}"] for source in params.sources}
    result |= {transfer: [f"transfer@{transfer}"] for transfer in params.transfers}
    return result | {"tables": ["tables"], "report": ["report"]}


def corpora_of(workspace: Workspace, stages: Collection[str]) -> list[str]:
    """The corpora that some stages are for; none where that is only known of all."""
    if not workspace.params.is_file():
        return []
    known = params.read(workspace.params)
    every = groups(known).items()
    titles = {title for title, own in every if not set(stages).isdisjoint(own)}
    for name in titles & {*known.runs, *known.sources, *known.transfers}:
        titles |= set(known.corpora_of(name))
    return [corpus for corpus in known.corpora if corpus in titles]


def stages_of(workspace: Workspace, corpora: Sequence[str], protocols: Sequence[str]) -> list[str]:
    """Stages of some corpora, and of what uses these alone and gives scores of some protocols:
    runs, transfers with their sources and, if no protocols are given, all sources.

    No corpora means all, and so with protocols, which are those of `protocols.MEANING`.

    Raises:
        ParameterError: params.yaml has no such corpus.
    """
    known = params.read(workspace.params)
    for corpus in corpora:
        known.corpus(corpus)
    every = groups(known)
    chosen = [] if protocols and not corpora else list(corpora or known.corpora)
    wanted = [name for name, run in known.runs.items() if not _protocols(run).isdisjoint(protocols)]
    if CROSS in protocols:
        wanted += [transfer.source for transfer in known.transfers.values()]
        wanted += known.transfers
    if not protocols:
        wanted = [*known.runs, *known.sources, *known.transfers]
    chosen += [
        name
        for name in dict.fromkeys(wanted)
        if set(known.corpora_of(name)) <= set(corpora or known.corpora)
    ]
    return [stage for name in chosen for stage in every[name]]


def _protocols(run: Run) -> set[str]:
    """Names of the protocols under which a run has scores."""
    epochs = {LAST}
    if not run.baseline:
        epochs.add(VALIDATED if run.folds.validation else ON_TEST)
    return {p.name for p in PROTOCOLS if p.folds == run.folds.protocol and p.epoch in epochs}


def stale_stages(repo: Any) -> dict[str, list[str]]:
    """Stages that would run, with why; without, if only what they depend on would.

    Args:
        repo: as of `timnet.project.dvc.repository`.
    """
    from dvc.stage import PipelineStage

    changes = findings(repo)
    stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
    made = {out.def_path for stage in stages for out in stage.outs if stage.cmd}
    follow = _followers(repo, stages)
    # dvc.lock itself takes longer to read than all of this: what has no hash is not in it
    known = {stage.name for stage in stages if any(out.hash_info for out in stage.outs)}
    causes = {}
    for name, entries in changes.items():
        stage = name.split("@")[0]
        reasons = [reason for entry in entries for reason in _reasons(entry, made, stage)]
        causes[name] = reasons if name in known else ["never run"]
    stale, queue = dict[str, list[str]](), [name for name in changes if name in follow]
    while queue:
        name = queue.pop()
        if name not in stale:
            stale[name] = causes.get(name, [])
            queue += sorted(follow[name])
    return stale


def _followers(repo: Any, stages: Iterable[Any]) -> dict[str, set[str]]:
    """The stages that use what each stage makes, by name: an address depends on the current folder.

    As DVC's own graph, which takes longer to set up than all of this.
    """
    outs = repo.index.outs_trie
    follow: dict[str, set[str]] = {stage.name: set() for stage in stages}
    users: dict[str, tuple[Any, set[str]]] = {}  # by path: one of its dependencies, and who has it
    for stage in stages:
        for dep in stage.deps:
            users.setdefault(dep.fs_path, (dep, set()))[1].add(stage.name)
    for dep, names in users.values():
        place = dep.fs.parts(dep.fs_path)
        used = [found.value for found in outs.prefixes(place)]
        used += outs.values(prefix=place) if outs.has_subtrie(place) else ()
        for out in used:
            follow.get(getattr(out.stage, "name", ""), set()).update(names)
    return follow


def _reasons(entry: Any, made: set[str], stage: str) -> list[str]:
    """One finding of `dvc status` in words; what merely follows from another stage is left out."""
    if isinstance(entry, str):
        return [entry]  # such as "changed command", "always changed"
    result = []
    for path, change in entry.get("changed deps", {}).items():
        if isinstance(change, dict):  # parameters
            result += [f"{name} {state}" for name, state in change.items()]
        elif path not in made:
            result.append(f"{path} {change}")
    for state in dict.fromkeys(entry.get("changed outs", {}).values()):
        gone = state in ("not in cache", "deleted")
        result.append(f"outputs {state}" if gone else f"output of {stage} {state}")
    return result


def training_stages(workspace: Workspace) -> set[str]:
    """Stages that train: of runs and sources."""
    if not workspace.params.is_file():
        return set()
    known = params.read(workspace.params)
    return {f"train@{run}" for run in known.runs} | {f"source@{name}" for name in known.sources}


def sizes(repo: Any) -> dict[str, int]:
    """Bytes that the outputs of each stage took when they were last made, where known.

    Args:
        repo: as of `timnet.project.dvc.repository`.
    """
    found = dict[str, int]()
    for stage in repo.index.stages:
        known = [out.meta.size for out in stage.outs if out.meta and out.meta.size is not None]
        if known:
            found[getattr(stage, "name", None) or stage.path_in_repo] = sum(known)
    return found


def disk(known: Mapping[str, int], stages: Iterable[str]) -> str:
    """What the outputs of some stages took, as of `sizes`."""
    took = [known[name] for name in stages if name in known]
    return f"{sum(took) / 1e6:.1f} MB" if took else ""
