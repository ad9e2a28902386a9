from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from markdown_it import MarkdownIt

from timnet.corpora import CORPORA
from timnet.evaluation.compare import Change
from timnet.evaluation.protocols import CROSS, SPEAKER
from timnet.paper import paper
from timnet.paper import runs as paper_runs
from timnet.reporting import corpus_tables, cross_tables, render, report, tables, unseen_tables
from timnet.reporting.render import Table, row_of
from timnet.reporting.scored import ScoredRun, rough


def scores_of(pair: tuple[float, float], seeds: list[int], **more: object) -> dict:
    """Made-up scores, 2 points of interval either side; each seed a tenth of a point better."""
    made: dict = {
        metric: {"value": v, "low": v - 2, "high": v + 2, "fold_mean": v, "fold_sd": 1.5}
        for metric, v in zip(("uar", "war"), pair, strict=True)
    }
    if len(seeds) > 1:
        made["uar"]["seed_sd"] = 0.1
    draws = [
        {"fold_seed": 1, "seed": seed, "uar": pair[0] + seed / 10, "war": pair[1]} for seed in seeds
    ]
    return {**made, "draws": draws, **more}


def scored(
    name: str, run: dict, protocols: dict[str, tuple[float, float]], **train: object
) -> ScoredRun:
    """A run of the paper with made-up scores; across corpora the same on each.

    Args:
        train: settings of training beside the paper's; `recipe` and `baseline` are the run's, and
            `tuned_on` of params.yaml.
    """
    above = {key: train.pop(key) for key in ("recipe", "baseline") if key in train}
    tuned_on = train.pop("tuned_on", None)
    scores: dict[str, dict] = {}
    for protocol, pair in protocols.items():
        scores[protocol] = scores_of(pair, run["seeds"])
        if protocol == CROSS:
            own = scores_of(pair, run["seeds"], clusters=6)
            tested = run["tested_on"]
            names = [tested] if isinstance(tested, str) else tested
            scores[protocol]["corpora"] = dict.fromkeys(names, own)
        elif protocol != "last-epoch":
            scores[protocol]["clusters"] = 6
    free = {"precision": "fp32", "compiled": True}
    record = {
        "commit": "0123456789",
        "features": {
            "settings": {"resampler": "kaiser_best_0_2_2", "signal_length": run["signal_length"]}
        },
        "folds": run["folds"],
        "labels": ["angry", "happy", "neutral", "sad"],
        "seeds": run["seeds"],
        "tested_on": run.get("tested_on", run["trained_on"]),
        "train": paper()["training"] | run.get("network", {}) | free | train,
        "trained_on": run["trained_on"],
        **above,
    }
    return ScoredRun(name, record, scores, tuned_on)


def of_table(table: str, *corpora: str, **protocols: tuple[float, float]) -> list[ScoredRun]:
    """Runs of a table; of a keyword's protocol the hyphens are underlines."""
    runs = paper_runs.entries(table, list(corpora))["runs"]
    told = {name.replace("_", "-"): pair for name, pair in protocols.items()}
    return [scored(name, run, told) for name, run in runs.items()]


def cross_runs(corpora: Sequence[str], seeds: int = 3, **train: object) -> list[ScoredRun]:
    """One run a source, tested on all others."""
    folds = {"folds": {"protocol": CROSS}, "network": {"tabs": 8, "variant": "tim-net"}}
    return [
        scored(
            f"{source}-cross",
            {
                "trained_on": source,
                "tested_on": [corpus for corpus in corpora if corpus != source],
                "signal_length": 100000,
                "seeds": list(range(seeds)),
                **folds,
            },
            {CROSS: (34.0, 35.0)},
            **train,
        )
        for source in corpora
    ]


def unseen(corpus: str, name: str, uar: float, **train: object) -> ScoredRun:
    """A speaker-independent run of one corpus, over three seeds."""
    (run,) = paper_runs.entries("speaker", [corpus])["runs"].values()
    return scored(f"{corpus}-{name}", run | {"seeds": [0, 1, 2]}, {SPEAKER: (uar, uar)}, **train)


def nothing(pairs: object, protocol: str) -> None:
    """No change is known."""


def of_means(pairs: Sequence[tuple[ScoredRun, ScoredRun]], protocol: str) -> Change:
    """The change as the difference of the means of made-up scores, give or take 3 points."""
    ours, theirs = (
        float(np.mean([pair[side].scores[protocol]["uar"]["value"] for pair in pairs]))
        for side in (0, 1)
    )
    change = ours - theirs
    return Change(100, 0, theirs, ours, {"uar": (change, change - 3, change + 3)})


def rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render.as_csv(table))))


def test_figures_are_rounded_half_up_as_in_print() -> None:
    assert render.print_figure(92.005) == "92.01"
    assert render.print_figure(91.675) == "91.68"
    assert render.print_figure(None) == "-"
    assert [render.signed(points) for points in (-0.004, 0.004, -0.005)] == [
        "+0.00",
        "+0.00",
        "-0.01",
    ]


def test_the_paper_s_figure_is_inside_or_not() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    (theirs,) = (
        row
        for row in rows(tables.single_corpus(runs, "best-epoch"))
        if row["corpus"] == "emovo" and row["method"] == "TIM-Net, the paper's"
    )
    assert theirs["paper inside"] == "yes / no"


def test_a_corpus_without_runs_is_not_in_this_commit() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    ours = {
        row["corpus"]: row["UAR"]
        for row in rows(tables.single_corpus(runs, "last-epoch"))
        if row["method"] == "TIM-Net, ours" and row["corpus"] != "gain"
    }
    assert ours.pop("emovo") == "80.00"
    assert set(ours.values()) == {"not in this commit"}


def test_a_step_is_the_difference_of_the_figures_in_print() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(90.6463, 92.0), last_epoch=(85.5442, 86.5))
    found = rows(tables.overview(runs))
    told = [(row["UAR"], row["step"]) for row in found]
    assert told == [("90.65", "-"), ("85.54", "-5.11")]


def test_the_paper_s_headline_claim_follows_from_its_table() -> None:
    table = tables.single_corpus([], "best-epoch")
    last = rows(table)[-2:]
    assert last[0]["method"] == "TIM-Net, the paper's, 6 of 6 corpora"
    assert (last[0]["UAR"], last[0]["WAR"]) == ("+2.34", "+2.61")
    assert (last[1]["method"], last[1]["UAR"]) == ("TIM-Net, ours", "not in this commit")
    assert "+2.34 UAR and +2.61 WAR, its headline claim" in render.markdown(table)


def test_gains_are_over_the_same_corpora_on_both_sides() -> None:
    runs = of_table("table-1", "emovo", "casia", best_epoch=(90.0, 91.0), last_epoch=(80.0, 80.0))
    table = tables.single_corpus(runs, "best-epoch")
    theirs, ours = rows(table)[-2:]
    assert theirs["method"] == "TIM-Net, the paper's, 2 of 6 corpora"
    assert ours["method"] == "TIM-Net, ours, 2 of 6 corpora"
    # the best rivals: 85.40 and 92.75; the paper's own: 92.00 and 94.67
    assert (theirs["UAR"], theirs["WAR"]) == ("+4.26", "+4.26")
    assert (ours["UAR"], ours["WAR"]) == ("+0.93", "+1.93")
    assert "+2.34 UAR and +2.61 WAR, its headline claim" in render.markdown(table)


def test_each_method_s_gain_has_the_paper_s_beside_it() -> None:
    runs = of_table("table-1", "emodb", "casia", best_epoch=(90.0, 91.0), last_epoch=(80.0, 80.0))
    (svm,) = of_table("table-1", "emodb", last_epoch=(87.0, 87.0))
    svm.record["baseline"] = "svm"
    told = [
        (row["method"], row["UAR"])
        for row in rows(tables.single_corpus([*runs, svm], "last-epoch"))
        if row["corpus"] == "gain"
    ]
    # the paper's corrected scores over both: 91.08 - 88.33, 89.19 - 86.92
    assert told == [
        ("TIM-Net, the paper's, 2 of 4 corpora", "+2.51"),
        ("TIM-Net, ours, 2 of 4 corpora", "-7.63"),
        ("TIM-Net, the paper's, 1 of 4 corpora", "+2.27"),
        ("SVM, 1 of 4 corpora", "+0.08"),
    ]


@pytest.mark.parametrize("protocol", ["best-epoch", "last-epoch"])
def test_the_baseline_stands_beside_the_network(protocol: str) -> None:
    """Also where epochs are chosen, of which it has none."""
    runs = of_table("table-1", "emovo", best_epoch=(90.0, 90.0), last_epoch=(85.0, 85.0))
    (svm,) = of_table("table-1", "emovo", last_epoch=(81.0, 81.0))
    svm.record["baseline"] = "svm"
    found = {
        row["method"]: row["UAR"]
        for row in rows(tables.single_corpus([*runs, svm], protocol))
        if row["corpus"] == "emovo"
    }
    assert found["SVM"] == "81.00"
    assert found["TIM-Net, ours"] == {"best-epoch": "90.00", "last-epoch": "85.00"}[protocol]


def test_other_settings_are_named_and_stand_apart() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    run.record["train"] = run.record["train"] | {"epochs": 3}
    table = tables.single_corpus([run], "best-epoch")
    own = [row for row in rows(table) if row["corpus"] == "emovo" and row["UAR"] == "90.50"]
    assert [row["method"] for row in own] == ["TIM-Net, ours, other settings"]
    assert not [row for row in rows(table) if row["method"] == "TIM-Net, ours, 1 of 6 corpora"]
    for made in (table, tables.overview([run])):
        assert "`emovo-random`: other settings: epochs 3, not 500." in render.markdown(made)
    assert [row["paper UAR"] for row in rows(tables.overview([run]))] == ["-", "-"]


def test_settings_that_are_off_are_the_paper_s() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    off = {
        "normalise": "none",
        "weight_decay": 0.0,
        "balance": False,
        "shift": 0,
        "batch_norm_momentum": 0.01,
    }
    run.record["train"] = run.record["train"] | off
    assert run.is_the_paper_s
    for name, value in (("normalise", "speaker"), ("shift", 8)):
        changed = ScoredRun("x", run.record | {"train": {**run.record["train"], name: value}}, {})
        assert not changed.is_the_paper_s
        assert "8" in changed.differences[0] or "speaker" in changed.differences[0]


def test_speakers_in_groups_are_a_setting_of_their_own() -> None:
    run = unseen("emovo", "speaker", 28)
    assert run.is_the_paper_s
    run.record["folds"]["number"] = 2
    assert run.differences == ["2 groups of speakers, not each alone"]


def test_intervals_over_few_speakers_or_folds_are_called_rough() -> None:
    run = unseen("emovo", "speaker", 28)
    few = dict(run.scores[SPEAKER], clusters=2)
    run.scores.update({"sentence-independent": few, "last-epoch": {**few, "clusters": 10}})
    (told,) = rough([run])
    assert told.startswith("Intervals over few speakers or folds of sentences are rough")
    assert told.endswith("emovo 6 speakers; emovo 2 folds of sentences.")
    few["clusters"] = run.scores[SPEAKER]["clusters"] = 10
    run.scores.pop("last-epoch")
    assert rough([run]) == []


def test_of_a_custom_corpus_the_paper_has_no_signal_length() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    record = run.record | {"trained_on": "mine", "tested_on": "mine"}
    custom = ScoredRun("mine-random", record, run.scores)
    assert custom.differences == []
    assert not custom.is_the_paper_s
    assert [row["paper UAR"] for row in rows(tables.overview([custom]))] == ["-", "-"]


def test_each_protocol_is_held_against_a_less_strict_one() -> None:
    runs = [
        *of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5)),
        *of_table("speaker", "emovo", speaker_independent=(60.0, 60.0)),
        *of_table("speaker", "emovo", sentence_independent=(70.0, 70.0)),
        *of_table("speaker", "emovo", speaker_and_sentence_independent=(50.0, 50.0)),
    ]
    found = rows(tables.overview(runs))
    assert [(row["protocol"], row["step"]) for row in found] == [
        ("best-epoch", "-"),
        ("last-epoch", "-5.50"),
        ("speaker-independent", "-26.50"),
        ("sentence-independent", "-16.50"),
        ("speaker-and-sentence-independent", "-10.00"),
    ]
    assert [row["paper UAR"] for row in found][:2] == ["92.00", "-"]
    assert "Chance: emovo 25.00 % (4 emotions)." in tables.overview(runs).notes


def test_a_step_is_one_at_the_same_settings() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5))
    (other,) = of_table("speaker", "emovo", speaker_independent=(60.0, 60.0))
    other.record["train"] = other.record["train"] | {"precision": "bf16"}
    found = rows(tables.overview([*runs, other]))
    assert [row["step"] for row in found] == ["-", "-5.50", "-"]


def test_strictness_has_a_column_for_each_protocol() -> None:
    runs = [
        *of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5)),
        unseen("emovo", "speaker", 28.0),
        unseen("emovo", "svm", 27.0, baseline="svm"),
    ]
    network, svm = rows(tables.strictness(runs))
    assert (network["method"], svm["method"]) == ("TIM-Net", "SVM")
    assert network["best-epoch"] == "92.0 [90.0, 94.0]"
    assert network["speaker-independent"] == "28.0 [26.0, 30.0]"
    assert (svm["last-epoch"], svm["speaker-independent"]) == ("-", "27.0 [25.0, 29.0]")
    assert "emovo 6 speakers" in render.markdown(tables.strictness(runs))


def test_strictness_has_no_column_that_is_empty() -> None:
    runs = [unseen("emovo", "speaker", 28.0), *cross_runs(["emovo", "emodb"])]
    table = tables.strictness(runs)
    assert table.columns == ("corpus", "method", "speaker-independent")
    assert [row["speaker-independent"] for row in rows(table)] == ["28.0 [26.0, 30.0]"]
    assert "`last-epoch`" not in render.markdown(table)
    assert tables.strictness([]).rows == []


def test_departures_from_the_paper_are_told_once_for_all_runs_that_have_them() -> None:
    runs = of_table("table-1", "emovo", "emodb", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5))
    for table in (tables.overview(runs), tables.single_corpus(runs, "best-epoch")):
        assert "from the paper in this" not in render.markdown(table)
    for run in runs:
        run.record["train"] = run.record["train"] | {"precision": "bf16"}
        run.record["folds"] = run.record["folds"] | {"seeds": [7]}
    said = "differs from the paper in this: precision bf16, not fp32; folds of seed 7, not"
    text = render.markdown(tables.overview(runs))
    assert f"`emovo-random` {said} 1." in text
    for run in runs:
        run.record["folds"] = paper_runs.entries("table-1", [run.corpus])["runs"][run.name]["folds"]
    text = render.markdown(tables.overview(runs))
    assert "`emodb-random`, `emovo-random` differ from the paper in this: precision bf16" in text


def test_the_ablation_table_compares_what_was_run() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    found = ablations(runs)
    assert found["TCN"]["paper UAR"] == "82.14"
    assert found["TCN"]["best-epoch UAR"] == "85.00 [83.00, 87.00]"
    assert found["TCN"]["last-epoch against TIM-Net"] == ""  # nothing to hold it against
    assert found["TIM-Net"]["best-epoch UAR"] == "not in this commit"


def ablations(runs: list[ScoredRun]) -> dict[str, dict[str, str]]:
    made = tables.ablation(runs, of_means)
    return {row["network"]: row for row in rows(made) if row["corpus"] == "emovo"}


def test_an_ablation_and_the_svm_are_held_against_the_whole_network() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    runs += of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.0, 86.0))
    (svm,) = of_table("table-1", "emovo", last_epoch=(82.0, 82.0))
    svm.record["baseline"] = "svm"
    found = ablations([*runs, svm])
    assert found["TCN"]["last-epoch against TIM-Net"] == "-11.00 [-14.00, -8.00]"
    assert found["TCN"]["best-epoch against TIM-Net"] == "-7.00 [-10.00, -4.00]"
    assert found["TIM-Net"]["last-epoch against TIM-Net"] == ""
    assert found["SVM"]["last-epoch against TIM-Net"] == "-4.00 [-7.00, -1.00]"
    assert found["SVM"]["best-epoch UAR"] == "-"
    apart = "includes the difference between precisions"
    assert apart not in render.markdown(tables.ablation(runs, of_means))
    runs[0].record["train"]["precision"] = "bf16"
    assert apart in render.markdown(tables.ablation(runs, of_means))


def test_an_ablation_with_other_settings_is_named_and_stands_in_the_first_table() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    for run in runs:
        run.record["train"] = run.record["train"] | {"epochs": 3}
    assert ablations(runs)["TCN"]["best-epoch UAR"] == "other settings"
    assert "`emovo-tcn`" in render.markdown(tables.ablation(runs, nothing))
    assert {row["method"] for row in rows(tables.overview(runs))} >= {"TCN", "w/o BD"}


def test_cross_corpus_averages_need_all_twenty_pairs() -> None:
    runs = cross_runs(paper_runs.CROSS_CORPORA)

    def ours(runs: list[ScoredRun]) -> dict[str, str]:
        found = {row["method"]: row for row in rows(cross_tables.average(runs))}
        return found["TIM-Net, ours"]

    assert ours(runs[:-1])["UAR"] == "not in this commit"
    last = ours(runs)
    assert (last["UAR"], last["WAR"]) == ("34.10 ± 0.10", "35.00 ± 0.00")
    assert (last["pairs"], last["seeds"]) == ("20", "3")
    (draws,) = [each["draws"] for each in runs[0].scores[CROSS]["corpora"].values()][:1]
    draws.pop(0)  # of this source seeds 1 and 2 alone: the mean is over these for all
    assert (ours(runs)["UAR"], ours(runs)["seeds"]) == ("34.15 ± 0.07", "2")
    one = cross_runs(paper_runs.CROSS_CORPORA, seeds=1)
    assert ours(one)["UAR"] == "34.00"  # a single seed has no spread


def test_a_run_across_corpora_has_a_row_for_each_that_it_tests() -> None:
    runs = cross_runs(paper_runs.CROSS_CORPORA)
    recipe = cross_runs(
        paper_runs.CROSS_CORPORA, seeds=1, recipe="unseen", normalise="speaker", epochs=50
    )
    table = cross_tables.pair_by_pair([*runs, *recipe])
    found = {row["pair"]: row for row in rows(table)}
    first = found["casia to emodb"]
    assert (first["TIM-Net UAR"], first["ours, mean UAR"]) == ("50.4", "34.0 [32.0, 36.0]")
    assert first["ours, best UAR"] == "34.0"  # the best by WAR, the first of equals
    assert first["TIM-Net, recipe unseen UAR"] == "34.0 [32.0, 36.0]"
    assert all(row["ours, mean UAR"][:4] in ("34.0", "34.1") for row in found.values())
    assert found["average"]["TIM-Net, recipe unseen UAR"] == "34.0"
    assert "ON THE TEST CORPUS: **optimistic**" in render.markdown(table)


def test_the_best_seed_is_that_with_the_best_war_and_the_table_says_so() -> None:
    runs = cross_runs(paper_runs.CROSS_CORPORA)
    for run in runs:
        for scores in run.scores[CROSS]["corpora"].values():
            scores["draws"] = [
                {"fold_seed": 1, "seed": 0, "uar": 30.0, "war": 36.0},
                {"fold_seed": 1, "seed": 1, "uar": 38.0, "war": 34.0},
            ]
    table = cross_tables.pair_by_pair(runs)
    for row in rows(table)[:1] + rows(table)[-1:]:
        assert (row["ours, best UAR"], row["ours, best WAR"]) == ("30.0", "36.0")
        assert float(row["ours, mean UAR"].split()[0]) > 30
    said = "both scores of one seed, the one with the best WAR on the test corpus, so its UAR can"
    assert said in render.markdown(table)


def test_tables_say_who_needs_recordings_of_those_who_are_tested() -> None:
    adapted = unseen("emovo", "best", 40.0, recipe="best", tuned_on="emovo", by_speaker=True)
    own = [run for run in recipes() if run.normalise == "none"]
    for table in (unseen_tables.controlled, unseen_tables.judged):
        said = render.markdown(table([*own, adapted], of_means))
        assert "TIM-Net, recipe best: adapted to each tested speaker by" in said
        assert "without labels" not in render.markdown(table(own, of_means))
    across = cross_runs(paper_runs.CROSS_CORPORA)
    theirs = cross_runs(paper_runs.CROSS_CORPORA, seeds=1, recipe="own", by_speaker=True)
    for table in (cross_tables.average, cross_tables.pair_by_pair):
        said = render.markdown(table([*across, *theirs]))
        assert "TIM-Net, recipe own: adapted to each tested speaker" in said
        assert "without labels" not in render.markdown(table(across))
    assert "without labels" in adapted.meaning("speaker-independent")
    assert "without labels" not in own[0].meaning("speaker-independent")


def test_pairs_that_the_paper_has_not_stand_below_its_own() -> None:
    (run,) = cross_runs(["one", "two"])[:1]
    found = rows(cross_tables.pair_by_pair([run]))
    assert [row["pair"] for row in found][-2:] == ["average", "one to two"]
    assert (found[-1]["TCN UAR"], found[-1]["ours, mean UAR"]) == ("-", "34.0 [32.0, 36.0]")
    average = rows(cross_tables.average([run]))[-1]
    assert (average["method"], average["UAR"]) == ("TIM-Net, ours", "not in this commit")


def recipes() -> list[ScoredRun]:
    """Three recipes on emovo, one of them on savee as well, and the baselines."""
    norm = {"normalise": "speaker", "epochs": 50}
    return [
        unseen("emovo", "best", 40.0, recipe="best", tuned_on="emovo", shift=8, **norm),
        unseen("emovo", "norm", 36.0, recipe="norm", **norm),
        unseen("emovo", "paper", 28.0),
        unseen("emovo", "svm", 27.0, baseline="svm"),
        unseen("emovo", "svm-norm", 38.0, baseline="svm", normalise="speaker"),
        unseen("savee", "best", 50.0, recipe="best", tuned_on="emovo", shift=8, **norm),
        unseen("savee", "paper", 30.0),
        unseen("savee", "svm-norm", 52.0, baseline="svm", normalise="speaker"),
    ]


def test_the_controlled_table_holds_each_recipe_against_the_paper_s() -> None:
    table = unseen_tables.controlled(recipes(), of_means)
    found = rows(table)
    assert [row["method"] for row in found] == [
        "recipe paper",
        "recipe norm",
        "recipe best",
        "SVM",
        "SVM, speaker-normalised",
    ]
    assert table.title.endswith("emovo")
    paper_s, norm, best, *_ = found
    differs = "settings that differ from the paper's"
    assert (paper_s[differs], paper_s["against the paper's recipe"]) == (
        "the paper's settings",
        "-",
    )
    assert norm[differs] == "epochs 50, not 500; normalise speaker"
    assert best[differs] == "epochs 50, not 500; shift 8; normalise speaker"
    assert best["against the paper's recipe"] == "+12.00 [+9.00, +15.00]"
    assert (best["UAR, 95 % CI"], best["seeds"]) == ("38.00 to 42.00", "3 ± 0.10")
    assert "emovo 6 speakers" in render.markdown(table)


def test_the_judged_table_has_the_chosen_recipe_on_every_corpus() -> None:
    asked = []

    def paired(pairs: Sequence[tuple[ScoredRun, ScoredRun]], protocol: str) -> Change:
        asked.append([(run.name, other.name) for run, other in pairs])
        return of_means(pairs, protocol)

    table = unseen_tables.judged(recipes(), paired)
    emovo, savee, mean = rows(table)
    assert [row["corpus"] for row in (emovo, savee, mean)] == ["emovo", "savee", "mean"]
    assert emovo["recipe best"] == "40.0 [38.0, 42.0]"
    assert emovo["against the paper's recipe"] == "+12.00 [+9.00, +15.00]"
    assert savee["against SVM, speaker-normalised"] == "-2.00 [-5.00, +1.00]"
    assert savee["SVM"] == "-"  # not run there, so it has no mean either
    assert (mean["SVM"], mean["recipe best"], mean["paper's recipe"]) == ("-", "45.0", "29.0")
    assert mean["against the paper's recipe"] == "+16.00 [+13.00, +19.00]"
    assert (emovo["SSL encoder"], mean["SSL encoder"]) == ("57.8", "66.8")
    assert emovo["paper's recipe against SVM"] == "+1.00 [-2.00, +4.00]"
    assert savee["paper's recipe against SVM"] == mean["paper's recipe against SVM"] == "-"
    assert [("emovo-best", "emovo-paper"), ("savee-best", "savee-paper")] in asked
    assert "test speakers of emovo, so its own score there is optimistic" in render.markdown(table)


def test_the_judged_table_holds_the_paper_s_recipe_against_the_svm() -> None:
    asked = []

    def paired(pairs: Sequence[tuple[ScoredRun, ScoredRun]], protocol: str) -> Change:
        asked.append([(run.name, other.name) for run, other in pairs])
        return of_means(pairs, protocol)

    runs = [*recipes(), unseen("savee", "svm", 35.0, baseline="svm")]
    table = unseen_tables.judged(runs, paired)
    last = "paper's recipe against SVM"
    assert table.columns[-2:] == ("SSL encoder", last)
    told = {row["corpus"]: row[last] for row in rows(table)}
    assert told == {
        "emovo": "+1.00 [-2.00, +4.00]",
        "savee": "-5.00 [-8.00, -2.00]",
        "mean": "-2.00 [-5.00, +1.00]",
    }
    assert [("emovo-paper", "emovo-svm"), ("savee-paper", "savee-svm")] in asked
    assert [row[-1].run for row in table.rows] == ["emovo-paper", "savee-paper", "emovo-paper"]


def test_a_tuned_recipe_is_called_optimistic_wherever_it_stands() -> None:
    made = tables.all_tables(recipes(), {}, {}, of_means)
    told = {table.name for table in made if "score there is optimistic" in render.markdown(table)}
    assert {"single-corpus", "strictness", "unseen-speakers", "judged"} <= told


def test_nothing_is_said_of_tuning_that_nobody_declared() -> None:
    undeclared = [replace(run, tuned_on=None) for run in recipes()]
    table = unseen_tables.judged(undeclared, of_means)
    assert [row["corpus"] for row in rows(table)] == ["emovo", "savee", "mean"]
    assert "optimistic" not in render.markdown(table)


def test_the_mean_without_the_corpus_that_was_tuned_on_is_told() -> None:
    more = [
        unseen("emodb", "best", 60.0, recipe="best", tuned_on="emovo"),
        unseen("emodb", "paper", 35.0),
    ]
    found = {row["corpus"]: row for row in rows(unseen_tables.judged(recipes() + more, of_means))}
    assert found["mean"]["recipe best"] == "50.0"
    assert found["mean without emovo"]["recipe best"] == "55.0"
    assert found["mean without emovo"]["against SVM, speaker-normalised"] == "-"  # not on emodb


def test_without_another_recipe_nothing_is_judged() -> None:
    runs = [run for run in recipes() if run.recipe == "paper"]
    assert rows(unseen_tables.judged(runs, of_means)) == []


def test_the_chosen_recipe_stands_beside_itself_with_the_svm() -> None:
    runs = recipes()
    pairs = unseen_tables.to_join(runs)
    names = [(network.name, machine.name) for network, machine in pairs]
    assert names == [("emovo-best", "emovo-svm-norm"), ("savee-best", "savee-svm-norm")]
    with_svm = [
        unseen(run.corpus, "both", uar, recipe="best + SVM", tuned_on="emovo", normalise="speaker")
        for (run, _), uar in zip(pairs, (41.0, 54.0), strict=True)
    ]
    table = unseen_tables.joined(runs, of_means, with_svm)
    emovo, savee, mean = rows(table)
    assert emovo["recipe best + SVM"] == "41.0 [39.0, 43.0]"
    assert emovo["against the paper's recipe"] == "+13.00 [+10.00, +16.00]"
    assert savee["against the recipe best"] == "+4.00 [+1.00, +7.00]"
    assert mean["against SVM, speaker-normalised"] == "+2.50 [-0.50, +5.50]"
    assert "nothing is fitted" in render.markdown(table)
    last = rows(unseen_tables.controlled(runs, of_means, with_svm))[-1]
    assert (last["method"], last["UAR"]) == ("recipe best + SVM", "41.00")
    assert rows(unseen_tables.joined(runs, of_means, [])) == []


def test_women_and_men_stand_side_by_side() -> None:
    (run,) = (unseen("emovo", "paper", 28.0),)
    own = {"female": 30.0, "male": 26.0}
    run.scores[SPEAKER]["sexes"] = {
        sex: {"uar": uar, "war": uar, "utterances": 9, "speakers": 3} for sex, uar in own.items()
    }
    (row,) = rows(unseen_tables.by_sex([run]))
    assert (row["female UAR"], row["male UAR"], row["difference"]) == ("30.00", "26.00", "+4.00")
    assert row["speakers, female / male"] == "3 / 3"
    assert "few speakers of a sex" in render.markdown(unseen_tables.by_sex([run]))
    del run.scores[SPEAKER]["sexes"]["female"]
    assert rows(unseen_tables.by_sex([run])) == []  # nothing to compare with


def test_calibration_is_told_where_folds_were_left_out() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(92, 92), last_epoch=(85, 85))
    told = {"temperature": 1.4, "error_before": 12.345, "error_after": 3.2}
    run.scores["last-epoch"]["calibration"] = told
    (row,) = rows(tables.calibration([run]))
    assert list(row.values()) == ["emovo-random", "last-epoch", "12.35", "3.20", "1.40"]
    assert "rises" not in render.markdown(tables.calibration([run]))
    told["error_after"] = 14.0
    assert "The error rises in `emovo-random`: the temperature" in render.markdown(
        tables.calibration([run])
    )


def test_corpora_that_are_not_the_paper_s_are_counted_too() -> None:
    speakers = {"demo": list(CORPORA["demo"].speakers), "ours": ["anna", "otto", "eva"]}
    seen = {
        corpus: {
            "checks": [
                {"check": "all speakers", "observed": names},
                {"check": "class counts", "observed": {"bored": 7, "sad": 5}},
                {"check": "sample rates", "observed": [16000]},
            ],
            "speakers": len(names),
            "utterances": 12,
        }
        for corpus, names in speakers.items()
    }
    described = {
        "demo": {"language": "none", "speakers": CORPORA["demo"].speakers},
        "ours": {"language": "Greek", "speakers": dict.fromkeys(speakers["ours"], "unknown")},
    }
    demo, ours = rows(corpus_tables.corpora(seen, described))[-2:]
    assert list(demo.values())[3:] == ["3 / 3", "12", "16.0"]
    assert list(ours.values()) == ["ours", "ours", "Greek", "3", "12", "16.0"]
    last = rows(corpus_tables.class_counts(seen))[-1]
    assert (last["corpus"], last["bored"], last["sad"], last["angry"]) == ("ours", "7", "5", "-")


def test_figures_that_look_exchanged_in_print_stay_with_a_footnote() -> None:
    table = tables.single_corpus([], "last-epoch")
    text = render.markdown(table)
    assert "GM-TCN†" in text
    assert "† As printed." in text
    assert "†" not in render.markdown(tables.overview([]))
    first = next(row for row in rows(table) if row["corpus"] == "emodb")
    assert (first["method"], first["UAR"], first["WAR"]) == ("GM-TCN†", "86.17", "85.70")


def every() -> list[Table]:
    """All tables, of runs of each kind."""
    runs = [*recipes(), *cross_runs(paper_runs.CROSS_CORPORA)]
    runs += of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.0, 86.0))
    sex = {"uar": 30.0, "war": 30.0, "utterances": 9, "speakers": 3}
    runs[-1].scores["last-epoch"]["sexes"] = {"female": sex, "male": sex}
    told = {"temperature": 1.4, "error_before": 12.3, "error_after": 3.2}
    runs[-1].scores["last-epoch"]["calibration"] = told
    return tables.all_tables(runs, {}, {}, of_means)


def names(runs: list[ScoredRun]) -> list[str]:
    return [table.name for table in tables.all_tables(runs, {}, {}, nothing)]


def test_a_table_of_the_paper_s_scores_alone_is_left_out() -> None:
    corpora = ["table-s1", "table-s2"]
    assert names([]) == ["single-corpus", *corpora]
    mine = unseen("emovo", "paper", 28.0)
    record = mine.record | {"trained_on": "mine", "tested_on": "mine"}
    assert names([replace(mine, record=record)]) == ["single-corpus", "strictness", *corpora]
    one = of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.0, 86.0))
    told = ["single-corpus", "strictness", "table-1", "last-epoch", "table-s3", *corpora]
    assert names(one) == told
    assert "not in this commit" in render.markdown(tables.single_corpus(one, "best-epoch"))
    pair = cross_runs(["one", "two"])[:1]  # Table 2 averages the paper's pairs
    assert names(pair) == ["single-corpus", "table-s4", *corpora]


def test_ablations_with_other_settings_make_no_table_without_scores() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    assert "table-s3" in names(runs)
    for run in runs:
        run.record["train"] = run.record["train"] | {"epochs": 3}
    assert "table-s3" not in names(runs)
    assert {"TCN", "w/o BD"} <= {row["method"] for row in rows(tables.overview(runs))}


@pytest.mark.parametrize("table", every(), ids=lambda table: table.name)
def test_every_table_renders_in_every_form(table: Table) -> None:
    lines = [line for line in render.markdown(table).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    found = rows(table)
    assert len(found) == len(table.rows) == len(lines) - 2
    tex = render.latex(table)
    assert tex.count(r" \\") == len(table.rows) + 1
    assert tex.count("{") == tex.count("}")
    assert not {"±", "†"} & set(tex)
    for special in "&%_#":
        assert tex.count(special) >= tex.count(f"\\{special}")


ODD = ("p$_$q", "a|b", "_x_", "*y*", "<b>z</b>", "`c`", "\\d", "[e](f)", "~~g~~", "{h}", "50 %")


def test_names_are_neither_markup_nor_formulas() -> None:
    note = f"`run`: {', '.join(map(render.plain, ODD))}; **bold**"
    table = Table("odd", "Odd", ("name", "state"), [row_of(n, "**CLOSED**") for n in ODD], [note])
    html = MarkdownIt("commonmark").enable("table").enable("strikethrough")
    page = html.render(render.markdown(table))
    seen = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert [unescape(cell) for cell in seen[::2]] == list(ODD)
    assert set(seen[1::2]) == {"<strong>CLOSED</strong>"}
    assert not re.search(r"(?<!\\)\$", render.markdown(table))  # GitHub's formulas
    (told,) = re.findall(r"<li>(.*?)</li>", page)
    assert unescape(re.sub(r"</?(?:code|strong)>", "", told)) == f"run: {', '.join(ODD)}; bold"
    assert str(report.rich(note)).startswith("<code>run</code>: ")
    assert unescape(re.sub(r"</?(?:code|strong)>", "", report.rich(note))) == (
        f"run: {', '.join(ODD)}; bold"
    )
    assert render.as_csv(table).count("**CLOSED**") == len(ODD)
    for name in ODD:
        assert name in {row[0] for row in csv.reader(io.StringIO(render.as_csv(table)))}
    tex = render.latex(table)
    assert not re.search(r"(?<!\\)[$_](?!\\pm)", tex)
    assert r"\textasciitilde{}" in tex and r"\textless{}b\textgreater{}z" in tex
