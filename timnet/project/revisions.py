"""Results as a revision of the repository has them, read from git alone."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timnet.errors import ArtifactError, ParameterError
from timnet.paths import Workspace
from timnet.project import git

if TYPE_CHECKING:
    from timnet.evaluation.results import Result
    from timnet.records import Validation
    from timnet.reporting.render import Table

PLACES = Workspace(Path())  # in git as in a checkout


def commit_of(root: Path, revision: str) -> str:
    """The short id of a commit, branch or tag; ParameterError if there is none."""
    found = git.ask(
        root, "rev-parse", "--short=10", "--verify", "--quiet", f"{revision}^{{commit}}"
    )
    if found is None:
        raise ParameterError(f"{revision!r} is not a revision of this repository.")
    return found


def compared(workspace: Workspace, runs: Collection[str], revision: str) -> Table:
    """Results of a workspace beside those of a revision.

    Args:
        runs: the runs and transfers of its params.yaml.

    Raises:
        ParameterError: there is no such revision.
    """
    from timnet.evaluation import results
    from timnet.reporting import verdicts

    root = workspace.root
    theirs = commit_of(root, revision)
    folders = {run: workspace.run_results(run) for run in runs}
    here = {
        run: results.read(folder)
        for run, folder in folders.items()
        if (folder / "metrics.json").is_file()
    }
    there = {run: result_of(root, theirs, run) for run in runs_of(root, theirs)}
    names = ("diff", "--name-only", theirs, "--", "results/tables/*.md")
    changed = (git.ask(root, *names) or "").splitlines()
    return verdicts.compare_table(here, there, revision, theirs, changed)


def runs_of(root: Path, commit: str) -> list[str]:
    """Names of the runs and transfers of a commit that it has scores of.

    Results may stay behind when a run leaves params.yaml; these say nothing of the commit.
    """
    paths = files_of(root, commit, PLACES.runs)
    scored = [path.parent.name for path in paths if path.name == "metrics.json"]
    known = named_in(root, commit, scored)
    return [name for name in scored if name in known]


def named_in(root: Path, commit: str, found: Collection[str] = ()) -> set[str]:
    """Runs and transfers that a commit's params.yaml names; args as of `_named`."""
    return {name for part in ("runs", "transfers") for name in _named(root, commit, part, found)}


def _named(root: Path, commit: str, section: str, found: Collection[str]) -> Collection[str]:
    """What a section of a commit's params.yaml names; all that was found where there is none.

    Whatever version of the project wrote it: no more of it is read than that.
    """
    from ruamel.yaml import YAML

    from timnet.records import YAML_TROUBLE

    try:
        content = YAML(typ="safe").load(show(root, commit, PLACES.params))
    except (ArtifactError, *YAML_TROUBLE):
        return found
    return (content.get(section) if isinstance(content, dict) else found) or ()


def result_of(root: Path, commit: str, run: str) -> Result:
    """What a commit says of a run; ArtifactError if files of it are missing or damaged."""
    from timnet import records, schemas
    from timnet.evaluation.results import Result, refuse_gaps

    folder = PLACES.run_results(run)
    record = json_of(root, commit, folder / "run.json", records.RunRecord)
    path = folder / "predictions.parquet"
    try:
        predictions = schemas.parse(
            io.BytesIO(show(root, commit, path)), schemas.predictions_of(record)
        )
        refuse_gaps(record, predictions)
    except schemas.DamagedTable as error:
        raise _unusable(path, commit, error) from None
    return Result(record, predictions)


def validations_of(root: Path, commit: str) -> dict[str, Validation]:
    """Published summaries of validation by corpus."""
    from timnet import records

    found = {path.stem: path for path in files_of(root, commit, PLACES.validations)}
    known = _named(root, commit, "corpora", found)
    paths = [path for corpus, path in found.items() if corpus in known]
    return {path.stem: json_of(root, commit, path, records.Validation) for path in paths}


def json_of(root: Path, commit: str, path: Path, shape: Any) -> Any:
    """The content of a JSON file at a commit, of a shape of `timnet.records`."""
    from timnet import records

    try:
        return records.parse(show(root, commit, path), shape)
    except records.DamagedRecord as error:
        raise _unusable(path, commit, error) from None


def _unusable(path: Path, commit: str, why: Exception) -> ArtifactError:
    return ArtifactError(f"{path} at {commit}: {why}. Name another revision.")


def files_of(root: Path, commit: str, folder: Path) -> list[Path]:
    listed = git.ask(root, "ls-tree", "-r", "--name-only", commit, f"{folder.as_posix()}/") or ""
    return [Path(line) for line in listed.splitlines()]


def show(root: Path, commit: str, path: Path) -> bytes:
    """The bytes of a file at a commit; ArtifactError if it is not there."""
    done = git.run(root, "show", f"{commit}:./{path.as_posix()}")
    if done.returncode:
        raise ArtifactError(f"{commit} has no {path}, although it has other files of this kind.")
    return done.stdout
