from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import ROOT, run

from timnet import schemas
from timnet.cli.review import Protocol
from timnet.evaluation import gate
from timnet.evaluation.compare import compare
from timnet.evaluation.protocols import MEANING, NOT_OPTIMISTIC, ON_TEST
from timnet.evaluation.results import Result, refuse_gaps
from timnet.reporting import render, verdicts

LABELS = ("angry", "sad")


def result(right: list[bool], folds: str = "speaker", labels=LABELS, first: int = 0) -> Result:
    """A run that recognised some of its utterances, whose numbers begin with `first`."""
    rows = [
        {
            "utterance": f"u{number + first}",
            "speaker": "s",
            "fold_seed": 0,
            "fold": 0,
            "seed": 0,
            "epoch_kind": kind,
            "epoch": 1,
            "emotion": labels[number % 2],
            "logits": [float((number % 2 == 0) == hit), float((number % 2 == 1) == hit)],
            "fused": [0.0],
        }
        for kind in (("best_on_test", "last") if folds == "random" else ("last",))
        for number, hit in enumerate(right)
    ]
    table = pa.Table.from_pylist(rows, schema=schemas.predictions(2, 1))
    record = {"labels": list(labels), "folds": {"protocol": folds}}
    return Result(record | {"trained_on": "demo", "tested_on": "demo"}, table)


def hits(share: float, of: int = 200) -> list[bool]:
    return [number // 2 < share * of / 2 for number in range(of)]


def judge(here, there, tolerance=1.0, validations=None, protocols=NOT_OPTIMISTIC):
    validations = validations or {"demo": {"passed": True, "checks": []}}
    return gate.judge(here, there, validations, protocols, tolerance)


def test_a_fall_closes_it_only_with_confidence():
    there = {"run": result(hits(0.8))}
    (fell, _) = judge({"run": result(hits(0.6))}, there)
    assert not fell.passed and fell.said == "Fell by more than the tolerance (95 % confidence)."
    assert (fell.before, fell.after) == pytest.approx((80, 60))
    assert fell.points[0] == pytest.approx(-20) and fell.points[2] < -1
    (tolerated, _) = judge({"run": result(hits(0.6))}, there, tolerance=20)
    assert tolerated.passed and tolerated.said == "Fell; CI not entirely beyond the tolerance."
    (chance, _) = judge({"run": result(hits(0.79))}, there)
    assert chance.passed and chance.said == "Not significant (95 % CI includes 0)."
    (better, _) = judge({"run": result(hits(0.95))}, there)
    assert better.passed and better.said == "Better."


def test_utterances_that_both_tested_are_compared():
    ours, theirs = result(hits(0.5, 100), first=40), result(hits(1.0, 100))
    change = compare(ours, theirs)["speaker-independent"]
    assert (change.utterances, change.left_out) == (60, 80)
    assert change.before == pytest.approx(100)
    assert change.after == pytest.approx(100 * 50 / 60)
    (rule, _) = judge({"run": ours}, {"run": theirs})
    assert rule.said.endswith("On the 60 utterances that both tested.")


def test_settings_that_are_new_or_gone_are_told():
    def made(**folds):
        record = {"seeds": [0], "features": {"settings": {}}, "train": {"epochs": 1}}
        known = result(hits(0.8))
        return Result(
            known.record | record | {"folds": {"protocol": "speaker", **folds}}, known.predictions
        )

    for here, there, said in (
        (made(), made(number=2), "folds' number None here, 2 there"),
        (made(validation=1), made(), "folds' validation 1 here, None there"),
    ):
        table = verdicts.compare_table({"run": here}, {"run": there}, "main", "0123", [])
        assert f"`run` was made with other settings: {said}." in render.markdown(table)


def test_what_cannot_be_compared_closes_it():
    there = {"run": result(hits(0.8))}
    for other in (
        result(hits(0.8), labels=("angry", "happy")),
        result(hits(0.8), folds="cross-corpus"),
        result(hits(0.8), first=1000),
    ):
        (rule, _) = judge({"run": other}, there)
        assert not rule.passed and "cannot be compared" in rule.said


def test_new_runs_and_runs_that_are_gone_pass():
    new, gone, _ = judge({"a": result(hits(0.5))}, {"b": result(hits(0.9))})
    assert new.passed and new.said.startswith("New") and new.name == "UAR of a, speaker-independent"
    assert gone.passed and gone.said.startswith("Removed run")


def test_results_that_are_missing_close_it():
    """Which nobody took out of params.yaml: a merge or a commit dropped them."""
    there = {"run": result(hits(0.9), folds="random")}
    (rule,) = gate.judge({}, there, {}, NOT_OPTIMISTIC, 1.0, named=["run"])
    assert not rule.passed and "results are missing" in rule.said
    best = there["run"].predictions.filter(
        pc.equal(there["run"].predictions["epoch_kind"], ON_TEST)
    )
    (rule, _) = judge({"run": Result(there["run"].record, best)}, there)
    assert rule.name == "UAR of run, last-epoch" and not rule.passed


@pytest.mark.parametrize(
    ("harm", "said"),
    (
        (lambda table: table.slice(1), "9 rows of 9 utterances .* expected one of each of 10"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "11 rows of 10 utterances"),
        (lambda table: table.slice(0, 0), "not the predictions of run.json's seeds 0"),
        (lambda table: with_column(table, "seed", 1), "not the predictions of run.json's seeds 0"),
        (lambda table: with_column(table, "logits", [float("nan"), 0.0]), "not finite"),
    ),
)
def test_predictions_are_whole(harm, said):
    whole = result(hits(0.8, 10))
    record = whole.record | {"seeds": [0], "utterances": 10}
    refuse_gaps(record, whole.predictions)
    with pytest.raises(schemas.DamagedTable, match=said):
        refuse_gaps(record, harm(whole.predictions))


def with_column(table, name, value):
    field = table.schema.field(name)
    column = pa.array([value] * len(table), field.type)
    return table.set_column(table.schema.get_field_index(name), field, column)


def test_the_command_offers_every_protocol():
    assert [each.value for each in Protocol] == list(MEANING)


def test_protocols_choose_what_counts():
    here, there = {"run": result(hits(0.6), "random")}, {"run": result(hits(0.8), "random")}
    names = [rule.name for rule in judge(here, there)]
    assert names == ["UAR of run, last-epoch", "validation of demo"]
    assert judge(here, there, protocols=("best-epoch",))[0].name == "UAR of run, best-epoch"
    nothing, _ = judge(here, there, protocols=("cross-corpus",))
    assert not nothing.passed and "No run has scores under cross-corpus" in nothing.said


def test_validation_must_have_passed():
    here = {"run": result(hits(0.5))}
    broken = {"check": "x", "severity": "error", "passed": False, "message": "3 files are missing"}
    warned = {"check": "y", "severity": "warning", "passed": False, "message": "odd"}
    found = {"demo": {"passed": False, "checks": [broken, warned]}}
    rule = judge(here, here, validations=found)[-1]
    assert not rule.passed and "3 files are missing" in rule.said
    rule = judge(here, here, validations={"demo": {"passed": True, "checks": [warned]}})[-1]
    assert rule.passed and rule.said == "Passed, with warnings: odd."
    rule = judge(here, here, validations={"other": {}})[-1]
    assert not rule.passed and "results/validation/demo.json" in rule.said


def test_parity():
    held = gate.parity("emovo", 92.00, 92.00, 541, 588, True)
    assert held.passed and "541 of 588" in held.said
    lost = gate.parity("emovo", 91.5, 92.00, 538, 588, False)
    assert not lost.passed and "NOT the paper's" in lost.said
    assert gate.unchecked_parity("emovo", "no recordings in data/emovo").passed


def test_the_verdict_reads_well():
    rules = judge({"run": result(hits(0.6))}, {"run": result(hits(0.8))})
    lines = render.markdown(verdicts.gate_table(rules, "Closed", ["a note"])).splitlines()
    row = next(line for line in lines if line.startswith("| **CLOSED** |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[:3] == ["UAR of run, speaker-independent", "80.00", "60.00"]
    change, low, _, high = cells[3].replace("(", "").replace(")", "").split()
    assert float(change) == -20 and float(low) < -20 < float(high) < -1
    assert lines[-3:] == [
        "- `UAR of run, speaker-independent`: Fell by more than the tolerance (95 % confidence).",
        "- Other rules passed: 1 of validation.",
        "- a note",
    ]
    (why,) = verdicts.closed(rules)
    assert why.startswith("UAR of run, speaker-independent: ") and "-20.00" in why


def notes_of(*rules: gate.Rule) -> list[str]:
    return verdicts.gate_table(rules, "Open", []).notes


def test_only_what_needs_a_look_has_a_note():
    change = (0.1, -1.0, 1.2)
    same = [
        gate.Rule(f"UAR of r{n}", True, "Not significant (95 % CI includes 0).", 80, 80.1, change)
        for n in range(40)
    ]
    better = gate.Rule("UAR of b", True, "Better.", 80, 84, (4.0, 2.0, 6.0))
    valid = gate.validation("demo", {"passed": True, "checks": []})
    assert notes_of(*same, better, valid) == [
        "All rules passed: 40 without a significant change of UAR, 1 better, 1 of validation."
    ]
    fell = gate.Rule("UAR of f", True, "Fell; CI not entirely beyond the tolerance.", 80, 78)
    new = [gate.Rule(f"UAR of n{n}", True, "New run: nothing.") for n in range(9)]
    lost = [gate.Rule(f"UAR of l{n}", False, "Fell by more.") for n in range(9)]
    unchecked = gate.unchecked_parity("emovo", "no recordings in data/emovo")
    assert notes_of(*same, fell, *new, *lost, unchecked) == [
        "`UAR of f`: Fell; CI not entirely beyond the tolerance.",
        "`UAR of n0`, `UAR of n1`, `UAR of n2`, `UAR of n3`, `UAR of n4`, `UAR of n5` and 3 more: "
        "New run: nothing.",
        f"{', '.join(f'`UAR of l{n}`' for n in range(9))}: Fell by more.",
        "`paper parity of emovo`: Not checked: no recordings in data/emovo.",
        "Other rules passed: 40 without a significant change of UAR.",
    ]
    assert notes_of() == []


def test_what_the_gate_says_where_nothing_needs_a_look_is_counted():
    """The sentences are those of the rules: one that is not known would be a note."""
    there = {"run": result(hits(0.8))}
    for share, said in ((0.79, "1 without a significant change of UAR"), (0.95, "1 better")):
        rules = judge({"run": result(hits(share))}, there)
        assert notes_of(*rules) == [f"All rules passed: {said}, 1 of validation."]
    fell, _ = judge({"run": result(hits(0.6))}, there, tolerance=20)
    assert notes_of(fell) == [f"`{fell.name}`: {fell.said}"]
    overlap, _ = judge({"run": result(hits(0.5, 100), first=40)}, {"run": result(hits(1.0, 100))})
    assert "On the 60 utterances that both tested." in notes_of(overlap)[0]


def test_the_interval_is_that_of_pairs():
    rng = np.random.default_rng(1)
    right = (rng.random(200) < 0.7).tolist()
    flipped = [not hit if number < 2 else hit for number, hit in enumerate(right)]
    change = compare(result(flipped), result(right))["speaker-independent"]
    low, high = change.points["uar"][1:]
    assert high - low < 4  # two utterances differ; unpaired it would be 18


def test_what_is_wrong_is_said(tmp_path):
    for command, said in (
        (("gate", "nowhere"), "'nowhere' is not a revision of this repository."),
        (("gate", "HEAD", "--weights", "emovo"), "--weights emovo: give CORPUS=ZIP"),
        (("gate", "HEAD", "--weights", "emovo="), "--weights emovo=: give CORPUS=ZIP"),
        (("gate", "HEAD", "--weights", "emovoo=pyproject.toml"), "unknown corpus 'emovoo'"),
        (("gate", "HEAD", "--weights", "demo=pyproject.toml"), "no results for demo"),
        (("gate", "HEAD", "--weights", "emovo=gone.zip"), "no file gone.zip"),
    ):
        result = run(ROOT, "timnet", *command, check=False)
        assert result.returncode == 1 and said in result.stderr
