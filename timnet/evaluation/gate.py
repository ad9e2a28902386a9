"""Whether a new training may replace what is in use: rules, each with a reason.

The gate closes only for what the scores show. A UAR that fell within what chance does to a test
set of this size leaves it open: the interval of the change tells the two apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from timnet.evaluation.compare import Change, compare
from timnet.evaluation.intervals import CONFIDENCE
from timnet.evaluation.results import Result
from timnet.records import Check, Validation


@dataclass(frozen=True)
class Rule:
    """One rule and what came of it."""

    name: str
    passed: bool
    said: str  # a sentence
    before: float | None = None  # percent
    after: float | None = None
    points: tuple[float, float, float] | None = None  # of the change: itself, low, high


def judge(
    here: Mapping[str, Result],
    there: Mapping[str, Result],
    validations: Mapping[str, Validation],
    protocols: Sequence[str],
    tolerance: float,
    named: Collection[str] = (),
) -> list[Rule]:
    """Every rule on results by run, against those of the baseline.

    Args:
        validations: summaries of `timnet.dataset.validate` by corpus, of the new revision.
        protocols: whose UAR counts.
        tolerance: points by which a UAR may fall.
        named: the runs of the new revision's params.yaml.
    """
    rules = []
    for run in sorted({*here, *there}):
        if run not in here:
            said = "Removed run: nothing to compare."
            if run in named:
                said = "It is in params.yaml, but its results are missing. Commit them."
            rules.append(Rule(f"UAR of {run}", run not in named, said))
            continue
        if run not in there:
            known = [protocol for protocol in here[run].tests if protocol in protocols]
            said = "New run: nothing to compare with in the baseline."
            rules += [Rule(_name(run, protocol), True, said) for protocol in known]
            continue
        found = compare(here[run], there[run])
        same_folds = here[run].record["folds"] == there[run].record["folds"]
        tested = dict.fromkeys((*here[run].tests, *(there[run].tests if same_folds else ())))
        for protocol in (each for each in tested if each in protocols):
            rules.append(uar(_name(run, protocol), found.get(protocol), tolerance))
    if here and not rules:
        said = f"No run has scores under {', '.join(protocols)}: nothing was compared."
        rules.append(Rule("UAR", False, said))
    corpora = sorted({corpus for result in here.values() for corpus in _corpora(result)})
    return rules + [validation(corpus, validations.get(corpus)) for corpus in corpora]


def uar(name: str, change: Change | None, tolerance: float) -> Rule:
    """Closes if UAR fell by more than the tolerance with confidence: its whole interval did."""
    if change is None:
        said = (
            "The emotions, folds or utterances differ from the baseline's, so the two cannot be "
            "compared. If this is intended, merge the branch by hand; it is then the new "
            "baseline."
        )
        return Rule(name, False, said)
    points, low, high = change.points["uar"]
    if high < -tolerance:
        said = f"Fell by more than the tolerance ({CONFIDENCE} % confidence)."
    elif low > 0:
        said = "Better."
    elif high < 0:
        said = "Fell; CI not entirely beyond the tolerance."
    else:
        said = f"Not significant ({CONFIDENCE} % CI includes 0)."
    if change.left_out:
        said += f" On the {change.utterances} utterances that both tested."
    passed = high >= -tolerance
    return Rule(name, passed, said, change.before, change.after, (points, low, high))


def validation(corpus: str, summary: Validation | None) -> Rule:
    """Closes if a corpus is not what its recipe describes, or was not validated."""
    name = f"validation of {corpus}"
    if summary is None:
        return Rule(name, False, f"results/validation/{corpus}.json is missing.")
    checks = summary["checks"]
    if not summary["passed"]:
        broken = [check["message"] for check in checks if _is_error(check)]
        return Rule(name, False, f"Does not match its recipe: {'; '.join(broken)}.")
    warnings = [check["message"] for check in checks if not check["passed"]]
    told = f"Passed, with warnings: {'; '.join(warnings)}." if warnings else "Passed."
    return Rule(name, True, told)


def _is_error(check: Check) -> bool:
    return not check["passed"] and check["severity"] == "error"


def parity(corpus: str, ours: float, paper: float, correct: int, of: int, holds: bool) -> Rule:
    """Closes if the authors' weights give another UAR here than in the paper (both percent)."""
    said = f"The authors' weights classify {correct} of {of} utterances correctly: "
    said += "the paper's result." if holds else "NOT the paper's result; the features have changed."
    return Rule(f"paper parity of {corpus}", holds, said, paper, ours)


def unchecked_parity(corpus: str, why: str) -> Rule:
    return Rule(f"paper parity of {corpus}", True, f"Not checked: {why}.")


def _name(run: str, protocol: str) -> str:
    return f"UAR of {run}, {protocol}"


def _corpora(result: Result) -> list[str]:
    return [result.record["trained_on"], *result.corpora]
