"""Results as a revision of the repository has them, read from git alone."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timnet.errors import ArtifactError, ParameterError

if TYPE_CHECKING:
    from timnet.changes import Result

RUNS = "results/runs"
VALIDATIONS = "results/validation"


def commit_of(root: Path, revision: str) -> str:
    """The short id of a commit, branch or tag; ParameterError if there is none."""
    found = git(root, "rev-parse", "--short=10", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None:
        raise ParameterError(f"{revision!r} is no revision of this repository.")
    return found.decode().strip()


def runs_of(root: Path, commit: str) -> list[str]:
    """Names of the runs that a commit has scores of."""
    names = map(Path, files_of(root, commit, RUNS))
    return [path.parent.name for path in names if path.name == "metrics.json"]


def result_of(root: Path, commit: str, run: str) -> Result:
    """What a commit says of a run; ArtifactError if it lacks some of the files."""
    import pyarrow.parquet as pq

    from timnet import records
    from timnet.changes import Result

    predictions = show(root, commit, f"{RUNS}/{run}/predictions.parquet")
    record = json_of(root, commit, f"{RUNS}/{run}/run.json", records.Run)
    return Result(record, pq.read_table(io.BytesIO(predictions)))


def validations_of(root: Path, commit: str) -> dict[str, dict]:
    """Published summaries of validation by corpus."""
    from timnet import records

    names = files_of(root, commit, VALIDATIONS)
    return {Path(name).stem: json_of(root, commit, name, records.Validation) for name in names}


def json_of(root: Path, commit: str, path: str, shape: Any) -> Any:
    """The content of a JSON file at a commit, of a shape of `timnet.records`."""
    from timnet import records

    try:
        return records.parse(show(root, commit, path), shape)
    except records.Damaged as error:
        raise ArtifactError(f"{path} at {commit}: {error}. Name another revision.") from None


def files_of(root: Path, commit: str, folder: str) -> list[str]:
    listed = git(root, "ls-tree", "-r", "--name-only", commit, f"{folder}/") or b""
    return listed.decode().splitlines()


def show(root: Path, commit: str, path: str) -> bytes:
    """The bytes of a file at a commit; ArtifactError if it is not there."""
    content = git(root, "show", f"{commit}:./{path}")
    if content is None:
        raise ArtifactError(f"{commit} has no {path}, though other files of its kind.")
    return content


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None if it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    return None if done.returncode else done.stdout
