"""What `compare` and `gate` say, as tables and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from timnet.errors import listing
from timnet.evaluation import protocols, score
from timnet.evaluation.compare import Change, compare
from timnet.evaluation.gate import Rule
from timnet.evaluation.intervals import CONFIDENCE, METRICS
from timnet.evaluation.results import Result
from timnet.evaluation.verify import differing, made_with
from timnet.reporting.render import NO_FIGURE, Cell, Table, print_figure, row_of, signed
from timnet.reporting.scored import MOST_NAMED


def closed(rules: Sequence[Rule]) -> list[str]:
    """The rules that keep the gate closed, as sentences."""
    return [f"{rule.name}: {_with_points(rule)}" for rule in rules if not rule.passed]


def _with_points(rule: Rule) -> str:
    if rule.points is None:
        return rule.said
    change, low, high = map(signed, rule.points)
    return f"{rule.said} {change} points ({low} to {high})."


def gate_table(rules: Sequence[Rule], title: str, notes: Sequence[str]) -> Table:
    """The verdict: one row per rule, in the notes what its row does not tell; fits a page."""
    rows = []
    for rule in rules:
        change = NO_FIGURE
        if rule.points is not None:
            points, low, high = map(signed, rule.points)
            change = f"{points} ({low} to {high})"
        cells = (
            "passed" if rule.passed else "**CLOSED**",
            rule.name,
            print_figure(rule.before),
            print_figure(rule.after),
            change,
        )
        rows.append([Cell(text) for text in cells])
    head = ("", "rule", "before", "after", f"change ({CONFIDENCE} %)")
    return Table("gate", title, head, rows, [*_remarks(rules), *notes])


# what a rule says where nothing needs a look, and how many such rules are counted
USUAL = {
    f"Not significant ({CONFIDENCE} % CI includes 0).": "{} without a significant change of UAR",
    "Better.": "{} better",
    "Passed.": "{} of validation",
}


def _remarks(rules: Sequence[Rule]) -> list[str]:
    """What needs a look, one sentence for all rules that say the same; the others are counted."""
    told, usual = dict[str, list[Rule]](), Counter[str]()
    for rule in rules:
        if rule.passed and rule.said in USUAL:
            usual[rule.said] += 1
        else:
            told.setdefault(rule.said, []).append(rule)
    remarks = []
    for said, own in told.items():
        # those that close the gate by name, however many
        shown = MOST_NAMED if all(rule.passed for rule in own) else len(own)
        remarks.append(f"{listing([f'`{rule.name}`' for rule in own], shown)}: {said}")
    if usual:
        others = f"{'Other rules' if told else 'All rules'} passed"
        counts = (words.format(usual[said]) for said, words in USUAL.items() if usual[said])
        remarks.append(f"{others}: {', '.join(counts)}.")
    return remarks


def compare_table(
    here: Mapping[str, Result],
    there: Mapping[str, Result],
    revision: str,
    commit: str,
    changed: Sequence[str],
) -> Table:
    """Results by run beside those of another revision, for a pull request.

    Args:
        commit: the short id of `revision`.
        changed: files of results/tables that differ.
    """
    rows, notes = [], []
    for run in sorted({*here, *there}):
        if run not in here or run not in there:
            state = "new here" if run in here else f"not here, but in {commit}"
            rows.append(row_of(run, state, *[""] * 5))
            continue
        found = compare(here[run], there[run])
        rows += _compared(run, here[run], there[run], found)
        notes += [
            f"`{run}`, {protocol}: the change is that on the {change.utterances} utterances that "
            f"both tested, {print_figure(change.before)} to {print_figure(change.after)} % UAR; "
            f"{change.left_out} were tested by one alone."
            for protocol, change in found.items()
            if change.left_out
        ]
        ours, theirs = made_with(here[run].record), made_with(there[run].record)
        differ = differing(dict.fromkeys(theirs) | ours, theirs)  # also what is no longer set
        if told := [f"{name} {new} here, {old} there" for name, (new, old) in differ]:
            notes.append(f"`{run}` was made with other settings: {'; '.join(told)}.")
    tables = sorted(PurePosixPath(path).stem for path in changed)
    notes += [
        "95 %: paired bootstrap over the utterances that both tested, first over their speakers or "
        "folds of sentences where these are unseen; not significant if the interval includes 0.",
        f"tables that changed: {', '.join(tables) or 'none'}.",
    ]
    columns = ("run", "protocol", "score", commit, "here", "change", "95 % of the change")
    return Table("compare", f"Results against {revision}", columns, rows, notes)


def _compared(
    run: str, ours: Result, theirs: Result, found: Mapping[str, Change]
) -> list[list[Cell]]:
    """A row per protocol and score of a run that both have."""
    rows = []
    new, old = (_pooled(result) for result in (ours, theirs))
    for protocol in (each for each in protocols.MEANING if each in {**new, **old}):
        change = found.get(protocol)
        for name in METRICS:
            points = [signed(value) for value in change.points[name]] if change else []
            rows.append(
                row_of(
                    run,
                    protocol,
                    name.upper(),
                    print_figure(old.get(protocol, {}).get(name)),
                    print_figure(new.get(protocol, {}).get(name)),
                    points[0] if points else NO_FIGURE,
                    f"{points[1]} to {points[2]}" if points else NO_FIGURE,
                )
            )
    return rows


def _pooled(result: Result) -> dict[str, dict[str, float]]:
    """Pooled UAR and WAR by protocol, mean over draws."""
    folds = result.record["folds"]["protocol"]
    pooled: dict[str, list[score.Part]] = {}
    for part in score.parts(result.predictions, result.labels, folds):
        if part.fold is None:
            pooled.setdefault(part.protocol, []).append(part)
    return {
        protocol: {name: float(np.mean([getattr(p, name) for p in parts])) for name in METRICS}
        for protocol, parts in pooled.items()
    }
