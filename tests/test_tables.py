from __future__ import annotations

import csv
import io

import pytest

from timnet.corpora import CORPORA
from timnet.evaluation.compare import Change
from timnet.paper import paper
from timnet.paper import runs as paper_runs
from timnet.reporting import corpus_tables, render, tables
from timnet.reporting.render import Table
from timnet.reporting.tables import ScoredRun


def scored(name: str, run: dict, protocols: dict[str, tuple[float, float]]) -> ScoredRun:
    """A run of the catalogue with made-up figures, 2 points of interval either side."""
    scores = {
        protocol: {
            **{
                metric: {"value": v, "low": v - 2, "high": v + 2, "fold_mean": v, "fold_sd": 1.5}
                for metric, v in zip(("uar", "war"), pair, strict=True)
            },
            "draws": [
                {"fold_seed": 1, "seed": seed, "uar": pair[0] + seed / 10, "war": pair[1]}
                for seed in run["seeds"]
            ],
        }
        for protocol, pair in protocols.items()
    }
    free = {"precision": "fp32", "compiled": True}
    record = {
        "commit": "0123456789",
        "features": {
            "settings": {"resampler": "kaiser_best_0_2_2", "signal_length": run["signal_length"]}
        },
        "folds": run["folds"],
        "labels": ["angry", "happy", "neutral", "sad"],
        "seeds": run["seeds"],
        "tested_on": run["tested_on"],
        "train": paper()["training"] | run["network"] | free,
        "trained_on": run["trained_on"],
    }
    return ScoredRun(name, record, scores)


def of_table(table: str, *corpora: str, **protocols: tuple[float, float]) -> list[ScoredRun]:
    runs = paper_runs.runs(table, list(corpora))
    known = {protocol.replace("_", "-"): pair for protocol, pair in protocols.items()}
    return [scored(name, run, known) for name, run in runs.items()]


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


def test_the_paper_s_headline_claim_follows_from_its_table() -> None:
    last = rows(tables.single_corpus([], "best-epoch"))[-2:]
    assert last[0]["method"] == "TIM-Net, the paper's, 6 of 6 corpora"
    assert (last[0]["UAR"], last[0]["WAR"]) == ("+2.34", "+2.61")
    assert (last[1]["method"], last[1]["UAR"]) == ("TIM-Net, ours", "not in this commit")


def test_our_gain_is_over_the_corpora_of_this_commit() -> None:
    runs = of_table("table-1", "emovo", "casia", best_epoch=(90.0, 91.0), last_epoch=(80.0, 80.0))
    last = rows(tables.single_corpus(runs, "best-epoch"))[-1]
    assert last["method"] == "TIM-Net, ours, 2 of 6 corpora"
    # second best: 85.40 and 92.75
    assert (last["UAR"], last["WAR"]) == ("+0.93", "+1.93")


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


def test_other_settings_keep_a_run_out_of_the_paper_s_tables() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(90.5, 89.0), last_epoch=(80.0, 80.0))
    run.record["train"] = run.record["train"] | {"epochs": 50}
    assert "90.50" not in render.markdown(tables.single_corpus([run], "best-epoch"))
    overview = tables.overview([run])
    assert [row["paper UAR"] for row in rows(overview)] == ["-", "-"]
    assert "`emovo-random` differs from the paper's settings" in render.markdown(overview)


def test_each_step_of_honesty_has_its_cost() -> None:
    runs = [
        *of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5)),
        *of_table("speaker-independent", "emovo", speaker_independent=(60.0, 60.0)),
    ]
    found = rows(tables.overview(runs))
    assert [row["protocol"] for row in found] == ["best-epoch", "last-epoch", "speaker-independent"]
    assert [row["step"] for row in found] == ["-", "-5.50", "-26.50"]
    assert [row["paper UAR"] for row in found] == ["92.00", "-", "-"]
    assert "Chance: emovo 25.00 % (4 emotions)." in tables.overview(runs).notes


def test_a_step_is_the_difference_of_the_figures_in_print() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(90.6463, 92.0), last_epoch=(85.5442, 86.5))
    found = rows(tables.overview(runs))
    told = [(row["UAR"], row["step"]) for row in found]
    assert told == [("90.65", "-"), ("85.54", "-5.11")]


def test_a_step_of_honesty_is_one_at_the_same_settings() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5))
    (other,) = of_table("speaker-independent", "emovo", speaker_independent=(60.0, 60.0))
    other.record["train"] = other.record["train"] | {"precision": "bf16"}
    again = ScoredRun("again", runs[0].record, {"best-epoch": runs[0].scores["best-epoch"]})
    found = rows(tables.overview([*runs, again, other]))
    told = [(row["run"], row["protocol"], row["step"]) for row in found]
    assert told == [
        ("emovo-random", "best-epoch", "-"),
        ("again", "best-epoch", "-"),
        ("emovo-random", "last-epoch", "-5.50"),
        ("emovo-speaker", "speaker-independent", "-"),
    ]


def test_other_precision_and_folds_are_told_beside_the_paper_s() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.5, 86.5))
    told = "`emovo-random` differs from the paper in this: "
    for table in (tables.overview([run]), tables.single_corpus([run], "best-epoch")):
        assert told not in render.markdown(table)
    run.record["train"] = run.record["train"] | {"precision": "bf16"}
    run.record["folds"] = run.record["folds"] | {"seeds": [7]}
    for table in (tables.overview([run]), tables.single_corpus([run], "best-epoch")):
        assert f"{told}precision bf16, not fp32; folds of seed 7, not 1." in render.markdown(table)


def test_the_ablation_table_compares_what_was_run() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    assert list(tables.ablated(runs)) == []  # nothing to hold them against
    runs += of_table("table-1", "casia", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    found = {
        row["network"]: row for row in rows(tables.ablation(runs, {})) if row["corpus"] == "emovo"
    }
    assert found["TCN"]["paper UAR"] == "82.14"
    assert found["TCN"]["best-epoch UAR"] == "85.00 [83.00, 87.00]"
    assert found["TCN"]["last-epoch against TIM-Net"] == ""
    assert found["TIM-Net"]["best-epoch UAR"] == "not in this commit"


def test_an_ablation_is_held_against_the_whole_network() -> None:
    runs = of_table("table-s3", "emovo", best_epoch=(85.0, 85.0), last_epoch=(75.0, 75.0))
    runs += of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.0, 86.0))
    pairs = [(run.name, whole.name) for run, whole in tables.ablated(runs)]
    assert len(pairs) == 4
    assert {whole for _, whole in pairs} == {"emovo-random"}
    losses = {
        "best-epoch": Change(588, 0, 92.0, 85.0, {"uar": (-7.0, -9.0, -5.0)}),
        "last-epoch": Change(588, 0, 86.0, 75.0, {"uar": (-11.0, -14.0, -8.0)}),
    }
    found = {
        row["network"]: row
        for row in rows(tables.ablation(runs, {"emovo-tcn": losses}))
        if row["corpus"] == "emovo"
    }
    assert found["TCN"]["last-epoch against TIM-Net"] == "-11.00 [-14.00, -8.00]"
    assert found["TCN"]["best-epoch against TIM-Net"] == "-7.00 [-9.00, -5.00]"
    assert found["TIM-Net"]["last-epoch against TIM-Net"] == ""


def test_cross_corpus_averages_need_all_twenty_pairs() -> None:
    runs = of_table("table-2", *paper_runs.CROSS_CORPORA, cross_corpus=(34.0, 35.0))
    assert rows(tables.cross_average(runs[:-1]))[-1]["UAR"] == "not in this commit"
    last = rows(tables.cross_average(runs))[-1]
    assert (last["UAR"], last["WAR"], last["pairs"]) == ("34.45 ± 0.30", "35.00 ± 0.00", "20")
    for run in runs[:2]:  # fewer seeds than the label says
        run.scores["cross-corpus"] |= {"draws": run.scores["cross-corpus"]["draws"][:1]}
    assert rows(tables.cross_average(runs))[-1]["UAR"] == "not in this commit"
    runs = of_table("table-2", "casia", "emodb", cross_corpus=(34.0, 35.0))
    table = tables.cross_best(runs[:1])
    first = rows(table)[0]
    assert first["pair"] == "casia to emodb"
    assert (first["TIM-Net UAR"], first["ours, mean UAR"]) == ("50.4", "34.0 [32.0, 36.0]")
    assert "ON THE TEST CORPUS: **optimistic**" in render.markdown(table)


def test_calibration_is_told_where_folds_were_left_out() -> None:
    (run,) = of_table("table-1", "emovo", best_epoch=(92, 92), last_epoch=(85, 85))
    told = {"temperature": 1.4, "error_before": 12.345, "error_after": 3.2}
    run.scores["last-epoch"]["calibration"] = told
    (row,) = rows(tables.calibration([run]))
    assert list(row.values()) == ["emovo-random", "last-epoch", "12.35", "3.20", "1.40"]
    assert "rises" not in render.markdown(tables.calibration([run]))
    told["error_after"] = 14.0
    assert "The error rises in `emovo-random`: too few" in render.markdown(
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
    demo, ours = rows(corpus_tables.corpora(seen))[-2:]
    assert list(demo.values())[3:] == ["3 / 3", "12", "16.0"]
    assert list(ours.values()) == ["ours", "ours", "-", "3", "12", "16.0"]
    last = rows(corpus_tables.class_counts(seen))[-1]
    assert (last["corpus"], last["bored"], last["sad"], last["angry"]) == ("ours", "7", "5", "-")


def test_figures_that_look_exchanged_in_print_stay_with_a_footnote() -> None:
    table = tables.single_corpus([], "last-epoch")
    text = render.markdown(table)
    assert "GM-TCN†" in text
    assert "† As printed. UAR and WAR look exchanged" in text
    first = next(row for row in rows(table) if row["corpus"] == "emodb")
    assert (first["method"], first["UAR"], first["WAR"]) == ("GM-TCN†", "86.17", "85.70")


@pytest.mark.parametrize("table", tables.all_tables([], {}, {}, {}), ids=lambda table: table.name)
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
