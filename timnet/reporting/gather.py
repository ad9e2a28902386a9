"""What the tables and the report are made of: results of runs and validations of corpora."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from timnet import records
from timnet.errors import ParameterError
from timnet.evaluation import results, score
from timnet.evaluation.compare import Change, mean_change
from timnet.evaluation.together import together
from timnet.paths import Workspace
from timnet.records import Description, Validation
from timnet.reporting import tables, unseen_tables
from timnet.reporting.render import Table, plain
from timnet.reporting.scored import ScoredRun


def scored_runs(
    workspace: Workspace, names: Iterable[str], tuned_on: Mapping[str, str]
) -> list[ScoredRun]:
    """What the tables need of some runs.

    Args:
        tuned_on: recipes that were chosen by scores, and of which corpus.

    Raises:
        ParameterError: there is none.
        ArtifactError: one was not scored.
    """
    found = []
    for name in names:
        folder = workspace.run_results(name)
        record = records.read_artifact(folder / "run.json", records.RunRecord)
        scores = records.read_artifact(folder / "scores.json", records.Scores)
        tuned = tuned_on.get(record.get("recipe", ""))
        found.append(ScoredRun(name, record, scores, tuned))
    if not found:
        raise ParameterError("params.yaml has no runs, so there is no table to make.")
    return found


def validations(workspace: Workspace, corpora: Iterable[str]) -> dict[str, Validation]:
    """Summaries of validation by corpus."""
    return {
        corpus: records.read_artifact(workspace.validation(corpus), records.Validation)
        for corpus in corpora
    }


def descriptions(workspace: Workspace, corpora: Iterable[str]) -> dict[str, Description]:
    """What recipes say of corpora."""
    return {
        corpus: records.read_artifact(workspace.description(corpus), records.Description)
        for corpus in corpora
    }


def all_tables(
    workspace: Workspace,
    runs: list[ScoredRun],
    found: dict[str, Validation],
    described: dict[str, Description],
) -> list[Table]:
    """Every table of the report.

    Args:
        found: as of `validations`.
        described: as of `descriptions`, of the same corpora.
    """
    joined = dict[str, results.Result]()
    read = cache(lambda name: joined.get(name) or results.read(workspace.run_results(name)))
    with_svm = []
    for network, machine in unseen_tables.to_join(runs):
        ours, theirs = (read(run.name) for run in (network, machine))
        told = together(ours.predictions, theirs.predictions, ours.labels)
        name = f"{network.name} + {machine.name}"
        joined[name] = results.Result(ours.record, told)
        folds = network.record["folds"]["protocol"]
        scores = score.scores(told, ours.labels, folds, network.corpus)
        record = network.record | {"recipe": f"{network.recipe} + SVM"}
        with_svm.append(ScoredRun(name, record, scores))

    def paired(pairs: Sequence[tuple[ScoredRun, ScoredRun]], protocol: str) -> Change | None:
        return mean_change([(read(run.name), read(other.name)) for run, other in pairs], protocol)

    made = tables.all_tables(runs, found, described, paired, with_svm)
    made[0].notes.extend(_leaks(runs, found))
    return made


def _leaks(runs: list[ScoredRun], found: dict[str, Validation]) -> list[str]:
    """Corpora of random folds that hold a recording twice, as their validation found it."""
    random = (run.corpus for run in runs if run.record["folds"]["protocol"] == "random")
    return [
        f"{corpus}: {plain(check['message'])}. Under random folds a copy may be trained on "
        "while the other is tested: a leak, kept as in the paper."
        for corpus in dict.fromkeys(random)
        for check in found[corpus]["checks"]
        if check["check"] == "documented copies" and not check["passed"]
    ]
