"""The tables of the paper with our figures beside the paper's.

Each function makes one table from the runs of this commit; `render` writes it as Markdown, CSV or
LaTeX, `report` as HTML. Nothing here is typed in: the paper's figures are in paper.json, ours in
the scores of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from timnet.evaluation.compare import Change
from timnet.evaluation.protocols import MEANING
from timnet.paper import paper
from timnet.paper.runs import CROSS_CORPORA, CROSS_SEEDS
from timnet.reporting import corpus_tables
from timnet.reporting.render import NO_FIGURE, NOT_HERE, Cell, Table, print_figure, row_of, signed

Losses = Mapping[str, Mapping[str, Change]]  # run -> protocol -> change of its figures
GAIN = "gain"  # stands where corpora do, over all of them
OURS = "TIM-Net, ours"
ABLATION_NAMES = {
    "TCN": "tcn",
    "w/o BD": "without-bd",
    "w/o MS": "without-ms",
    "w/o DF": "without-df",
    "TIM-Net": "tim-net",
}
# where paper.json has what corresponds to a protocol
PAPER_TABLES = {"best-epoch": "table_1_single_corpus", "last-epoch": "last_epoch_single_corpus"}
# as printed, though each first figure is a count over the corpus' size: probably [WAR, UAR]
SWAPPED = {
    "best-epoch": {("ravdess", "GM-TCN 2022"), ("savee", "GM-TCN 2022")},
    "last-epoch": {
        (corpus, method)
        for corpus in ("emodb", "ravdess", "savee")
        for method in ("GM-TCN", "CPAC")
    },
}


@dataclass(frozen=True)
class ScoredRun:
    """What the tables need of a run."""

    name: str
    record: dict  # run.json: what was trained, on what, at which commit
    scores: dict[str, dict]  # protocol -> figures, as of `score.scores`

    @property
    def corpus(self) -> str:
        return self.record["trained_on"]

    @property
    def variant(self) -> str:
        return self.record["train"]["variant"]

    def by_protocol(self) -> Iterator[tuple[str, dict]]:
        """Its scores in the order of the protocols, from optimistic to honest."""
        return (
            (protocol, self.scores[protocol]) for protocol in MEANING if protocol in self.scores
        )

    @property
    def chance(self) -> float:
        """UAR of guesses, percent."""
        return 100 / len(self.record["labels"])

    @property
    def settings(self) -> str:
        """What two runs must share, but for their folds, for their figures to be compared."""
        return repr((self.record["train"], self.record["features"]["settings"]))

    @property
    def is_the_paper_s(self) -> bool:
        """Whether all settings but seeds and precision are the paper's, so that they compare."""
        printed, features = paper(), self.record["features"]["settings"]
        free = {"precision": None, "compiled": None}
        tabs = printed["tabs"].get(self.corpus, printed["tabs"]["others"])
        across = self.record["folds"]["protocol"] == "cross-corpus"
        length = (
            printed["signal_length_cross_corpus"]
            if across
            else printed["signal_length"].get(self.corpus)
        )
        return (
            self.record["train"] | free
            == printed["training"] | free | {"tabs": tabs, "variant": self.variant}
            and self.record["folds"].get("number", 10) == 10
            and features["resampler"] == "kaiser_best_0_2_2"
            and features["signal_length"] == length
        )


def all_tables(
    runs: list[ScoredRun],
    validations: dict[str, dict],
    descriptions: dict[str, dict],
    losses: Losses,
) -> list[Table]:
    """Every table, in the order of the report; those of corpora are in `corpus_tables`.

    Args:
        runs: those of this commit.
        validations: corpus -> summary of its validation.
        descriptions: corpus -> what its recipe says of it.
        losses: of runs against the whole network's, as `ablated` pairs them.
    """
    return [
        overview(runs),
        single_corpus(runs, "best-epoch"),
        single_corpus(runs, "last-epoch"),
        ablation(runs, losses),
        cross_average(runs),
        cross_best(runs),
        calibration(runs),
        corpus_tables.corpora(validations, descriptions),
        corpus_tables.class_counts(validations),
    ]


def overview(runs: list[ScoredRun]) -> Table:
    """One network under every protocol, and what each step of honesty costs."""
    rows, shown = [], set()
    corpus_then_run = sorted(runs, key=lambda run: (run.corpus, run.variant != "tim-net"))
    for corpus, variant in dict.fromkeys((run.corpus, run.variant) for run in corpus_then_run):
        before: dict[str, tuple[str, float]] = {}  # settings -> the last protocol and its UAR
        own = [run for run in corpus_then_run if (run.corpus, run.variant) == (corpus, variant)]
        for protocol, run in ((p, run) for p in MEANING for run in own if p in run.scores):
            shown.add(protocol)
            figures = run.scores[protocol]
            theirs = printed(run, protocol)
            step = NO_FIGURE
            if protocol != "cross-corpus":
                settings = run.settings
                value = float(print_figure(figures["uar"]["value"]))  # the step is that in print
                above, last = before.get(settings, (protocol, 0))
                step = NO_FIGURE if above == protocol else signed(value - last)
                before[settings] = protocol, value
            across = f" to {run.record['tested_on']}" if protocol == "cross-corpus" else ""
            rows.append(
                [
                    Cell(corpus + across),
                    Cell(variant),
                    Cell(protocol),
                    *(Cell(print_figure(value)) for value in theirs),
                    *_ours(run, protocol),
                    Cell(step, "" if step == NO_FIGURE else run.name),
                    Cell(_folds(figures["uar"]), run.name),
                    Cell(run.name),
                    Cell(run.record["commit"]),
                ]
            )
    return Table(
        "single-corpus",
        "One network, every protocol",
        (
            "corpus",
            "network",
            "protocol",
            "paper UAR",
            "paper WAR",
            "UAR",
            "95 % of UAR",
            "WAR",
            "95 % of WAR",
            "step",
            "UAR over folds",
            "run",
            "commit",
        ),
        rows,
        [f"`{protocol}`: {MEANING[protocol]}." for protocol in MEANING if protocol in shown]
        + [
            "UAR and WAR in percent, on the confusion matrix pooled over the folds, mean over "
            "seeds; 95 %: bootstrap over utterances.",
            *_chances(runs),
            "`step`: points of UAR against the protocol above it at the same settings, what its "
            "honesty costs; one smaller than half the width of the 95 % may be chance. "
            "`over folds`: mean ± standard deviation of the folds' own figures.",
            *_incomplete(runs),
            *_departures([run for run in runs if run.is_the_paper_s]),
        ],
    )


def _chances(runs: list[ScoredRun]) -> list[str]:
    """What guesses reach in the corpora of some runs."""
    told = {}
    for run in sorted(runs, key=lambda run: run.corpus):
        across = f" to {run.record['tested_on']}" if "cross-corpus" in run.scores else ""
        emotions = len(run.record["labels"])
        told[f"{run.corpus}{across}"] = f"{print_figure(run.chance)} % ({emotions} emotions)"
    if not told:
        return []
    return ["Chance: " + ", ".join(f"{corpus} {text}" for corpus, text in told.items()) + "."]


def _departures(runs: list[ScoredRun]) -> list[str]:
    """In what runs beside the paper's figures are not as the paper's after all."""
    notes = []
    for run in runs:
        precision, theirs = run.record["train"]["precision"], paper()["fold_seed"].get(run.corpus)
        said = [] if precision == "fp32" else [f"precision {precision}, not fp32"]
        seeds = run.record["folds"].get("seeds", [theirs])
        if seeds != [theirs]:
            said.append(f"folds of seed {', '.join(map(str, seeds))}, not {theirs}")
        if said:
            notes.append(f"`{run.name}` differs from the paper in this: {'; '.join(said)}.")
    return notes


def _incomplete(runs: list[ScoredRun]) -> list[str]:
    return [
        f"`{run.name}` differs from the paper's settings: the paper's figures are not beside it."
        for run in runs
        if not run.is_the_paper_s and run.corpus in paper()["fold_seed"]
    ]


def single_corpus(runs: list[ScoredRun], protocol: str) -> Table:
    """Table 1 (`best-epoch`) or the authors' later results (`last-epoch`), with all rivals."""
    key = PAPER_TABLES[protocol]
    marked, rows, found = False, [], []
    gains: dict[str, list[tuple[float | None, float | None]]] = {"paper": [], "ours": []}
    for corpus, methods in paper()[key].items():
        run = _run_of(runs, corpus, protocol, "tim-net")
        found.append(run)
        for method, pair in methods.items():
            swapped = (corpus, method) in SWAPPED[protocol]
            marked |= swapped
            name = "TIM-Net, the paper's" if method == "TIM-Net" else method
            inside = _inside(pair, run, protocol) if method == "TIM-Net" and pair else ""
            figures = [print_figure(value) for value in pair or (None, None)]
            ends = "†" if swapped else ""
            rows.append(row_of(corpus, name + ends, figures[0], "", figures[1], "", inside))
        if run is None:
            rows.append(row_of(corpus, OURS, NOT_HERE, "", NOT_HERE, "", ""))
        else:
            rows.append([Cell(corpus), Cell(OURS), *_ours(run, protocol), Cell("")])
        rivals = [pair for method, pair in methods.items() if method != "TIM-Net"]
        if rivals:
            ours = _values(run, protocol) if run else None
            for whose, pair in (("paper", methods["TIM-Net"]), ("ours", ours)):
                gains[whose].append(_gain(pair, rivals))
    for whose, name in (("paper", "TIM-Net, the paper's"), ("ours", OURS)):
        rows.append(_mean_gain(name, gains[whose]))
    title = {
        "best-epoch": "Table 1: single corpus, best epoch on the test fold",
        "last-epoch": "Single corpus, last epoch",
    }[protocol]
    notes = [
        f"`{protocol}`: {MEANING[protocol]}. Percent, pooled over ten folds.",
        "`gain`: mean over corpora of TIM-Net minus the second best of each, column by column. The "
        "paper's headline claim is its own under `best-epoch`.",
        "`paper inside`: whether the paper's figure lies inside our 95 % interval (UAR / WAR).",
    ]
    notes += _departures([run for run in found if run])
    if marked:
        notes.append(
            "† As printed. UAR and WAR look exchanged there: the first is a whole number of "
            "utterances over the size of the corpus."
        )
    columns = ("corpus", "method", "UAR", "95 % of UAR", "WAR", "95 % of WAR", "paper inside")
    return Table(
        {"best-epoch": "table-1", "last-epoch": "last-epoch"}[protocol], title, columns, rows, notes
    )


def _gain(pair: list | None, rivals: list[list[float | None]]) -> tuple[float | None, float | None]:
    """Points above the second best, UAR and WAR."""
    if pair is None:
        return None, None
    known = [
        [value for value in column if value is not None] for column in zip(*rivals, strict=True)
    ]
    gains = [ours - max(column) for ours, column in zip(pair, known, strict=True)]
    return gains[0], gains[1]


def _mean_gain(method: str, gains: list[tuple[float | None, float | None]]) -> list[Cell]:
    known = [gain for gain in gains if None not in gain]
    if not known:
        return row_of(GAIN, method, NOT_HERE, "", NOT_HERE, "", "")
    means = [signed(float(np.mean([gain[i] for gain in known]))) for i in range(2)]  # type: ignore[arg-type]
    return row_of(
        GAIN, f"{method}, {len(known)} of {len(gains)} corpora", means[0], "", means[1], "", ""
    )


def ablated(runs: list[ScoredRun]) -> Iterator[tuple[ScoredRun, ScoredRun]]:
    """Each run of Table S3 that lacks a part of the network, with the whole network's."""
    for run in runs:
        whole = _run_of(runs, run.corpus, "last-epoch", "tim-net")
        same = _run_of(runs, run.corpus, "last-epoch", run.variant)
        if whole is not None and run is same and run is not whole:
            yield run, whole


def ablation(runs: list[ScoredRun], losses: Losses) -> Table:
    """Table S3: parts of the network taken away; losses as of `all_tables`."""
    rows, used = [], []
    for corpus, methods in paper()["table_s3_ablation"].items():
        for method in ABLATION_NAMES:
            variant = ABLATION_NAMES[method]
            cells = [Cell(corpus), Cell(method)]
            cells += [Cell(print_figure(value)) for value in methods[method]]
            run = _run_of(runs, corpus, "last-epoch", variant)  # `best-epoch` is of the same
            if run is None:
                rows.append(cells + [Cell(NOT_HERE), Cell(NOT_HERE), Cell("")] * 2 + [Cell("")])
                continue
            used.append(run)
            for protocol in ("best-epoch", "last-epoch"):
                war = print_figure(run.scores[protocol]["war"]["value"])
                cells += [_interval(run, protocol, "uar"), Cell(war, run.name)]
                loss = losses.get(run.name, {}).get(protocol)
                points = [signed(value) for value in loss.points["uar"]] if loss else []
                cells.append(Cell(_brackets(*points), run.name) if points else Cell(""))
            rows.append([*cells, Cell(run.record["train"]["precision"])])
    return Table(
        "table-s3",
        "Table S3: ablation",
        (
            "corpus",
            "network",
            "paper UAR",
            "paper WAR",
            "best-epoch UAR",
            "best-epoch WAR",
            "best-epoch against TIM-Net",
            "last-epoch UAR",
            "last-epoch WAR",
            "last-epoch against TIM-Net",
            "precision",
        ),
        rows,
        [
            "The paper's figures are `best-epoch`: " + MEANING["best-epoch"] + ".",
            "w/o BD: no backward blocks; w/o MS: the last time scale alone; w/o DF: the mean over "
            "the scales in place of learned weights; TCN: residual blocks, forward only.",
            "In brackets: 95 % by bootstrap over utterances. Against TIM-Net: points of UAR, the "
            "same utterances drawn for both; an interval that holds 0 is no change that the corpus "
            "could show. What another seed would change is not in it; what precision does, is.",
            *_departures(used),
        ],
    )


def cross_average(runs: list[ScoredRun]) -> Table:
    """Table 2: the mean over the 20 ordered pairs of corpora, and its spread over ten seeds."""
    rows = []
    for method, figures in paper()["table_2_cross_corpus_average"].items():
        name = "TIM-Net, the paper's" if method == "TIM-Net" else method
        spread = [f"{print_figure(m)} ± {print_figure(s)}" for m, s in figures.values()]
        rows.append(row_of(name, *spread, "20"))
    here = _across(runs)
    cells = [NOT_HERE, NOT_HERE]
    if len(here) == len(CROSS_CORPORA) * (len(CROSS_CORPORA) - 1):
        by_seed = {
            name: np.mean(
                [
                    [draw[name] for draw in run.scores["cross-corpus"]["draws"]]
                    for run in here.values()
                ],
                0,
            )
            for name in ("uar", "war")
        }
        cells = [
            f"{print_figure(float(values.mean()))} ± {print_figure(float(values.std(ddof=1)))}"
            for values in by_seed.values()
        ]
    rows.append([Cell(OURS), *(Cell(text) for text in cells), Cell(str(len(here)))])
    return Table(
        "table-2",
        "Table 2: across corpora, mean over all pairs",
        ("method", "UAR", "WAR", "pairs"),
        rows,
        [
            "Trained on all of one corpus, tested on all of another, five emotions, last epoch; "
            f"mean ± standard deviation over {CROSS_SEEDS} seeds of the mean over the pairs.",
            *_departures(list(here.values())),
        ],
    )


def _across(runs: list[ScoredRun]) -> dict[tuple[str, str], ScoredRun]:
    """Runs of the paper's pairs of corpora, with its settings and its number of seeds."""
    return {
        (run.corpus, run.record["tested_on"]): run
        for run in runs
        if "cross-corpus" in run.scores
        and run.variant == "tim-net"
        and run.is_the_paper_s
        and {run.corpus, run.record["tested_on"]} <= set(CROSS_CORPORA)
        and len(run.scores["cross-corpus"]["draws"]) == CROSS_SEEDS
    }


def cross_best(runs: list[ScoredRun]) -> Table:
    """Table S4: every pair of corpora."""
    printed = paper()["table_s4_cross_corpus_best"]
    methods = [name for name in printed if name != "order"]
    found = _across(runs)
    rows = []
    for place, pair in enumerate(printed["order"]):
        cells = [Cell(pair.replace(">", " to "))]
        for method in methods:
            cells += [Cell(print_figure(value, 1)) for value in printed[method][place]]
        run = found.get(tuple(pair.split(">")))
        if run is None:
            cells += [Cell(NOT_HERE)] * 4 if pair != "average" else [Cell("")] * 4
        else:
            figures = run.scores["cross-corpus"]
            best = max(figures["draws"], key=lambda draw: draw["war"])
            cells += [Cell(print_figure(best[name], 1), run.name) for name in ("uar", "war")]
            cells += [_interval(run, "cross-corpus", name, 1) for name in ("uar", "war")]
        rows.append(cells)
    return Table(
        "table-s4",
        "Table S4: across corpora, pair by pair",
        (
            "pair",
            *(f"{method} {name}" for method in methods for name in ("UAR", "WAR")),
            "ours, best UAR",
            "ours, best WAR",
            "ours, mean UAR",
            "ours, mean WAR",
        ),
        rows,
        [
            "The paper's figures, and `best` of ours: the best of ten runs ON THE TEST CORPUS: "
            "**optimistic**. `mean`: over all seeds, with 95 % by bootstrap over utterances.",
            *_departures(list(found.values())),
        ],
    )


def calibration(runs: list[ScoredRun]) -> Table:
    """How far what the networks claim is from what they get right."""
    rows = [
        [
            Cell(run.name),
            Cell(protocol),
            *(
                Cell(print_figure(figures["calibration"][name]), run.name)
                for name in ("error_before", "error_after", "temperature")
            ),
        ]
        for run in runs
        for protocol, figures in run.by_protocol()
        if "calibration" in figures
    ]
    rises = [
        f"`{run.name}`"
        for run in runs
        for _, figures in run.by_protocol()
        if (own := figures.get("calibration")) and own["error_after"] > own["error_before"]
    ]
    columns = ("run", "protocol", "error, %", "error after, %", "temperature")
    return Table(
        "calibration",
        "Calibration: how sure the networks are, and how often right",
        columns,
        rows,
        [
            "error: expected calibration error over 15 bins, of the last epoch's probabilities of "
            "utterances that a network was not trained on. After: with all logits divided by one "
            "temperature, each fold's fitted on the other folds (Guo et al., ICML 2017). The "
            "temperature in the table is that of all folds.",
            *(
                [
                    f"The error rises in {', '.join(rises)}: too few utterances to fit even this "
                    "one number on some folds for another."
                ]
                if rises
                else []
            ),
        ],
    )


def _run_of(runs: list[ScoredRun], corpus: str, protocol: str, variant: str) -> ScoredRun | None:
    """The run with the paper's settings that has a corpus' figures under a protocol."""
    found = (
        run
        for run in runs
        if run.corpus == corpus
        and run.variant == variant
        and protocol in run.scores
        and run.is_the_paper_s
    )
    return next(found, None)


def printed(run: ScoredRun, protocol: str) -> list[float | None]:
    """The paper's UAR and WAR for what a run did, under its protocol."""
    nothing: list[float | None] = [None, None]
    if not run.is_the_paper_s:
        return nothing
    if protocol == "best-epoch" and run.variant != "tim-net":
        ablated = paper()["table_s3_ablation"].get(run.corpus, {})
        return ablated.get({v: k for k, v in ABLATION_NAMES.items()}[run.variant], nothing)
    if run.variant != "tim-net":
        return nothing
    methods = paper().get(PAPER_TABLES.get(protocol, ""), {}).get(run.corpus, {})
    return methods.get("TIM-Net") or nothing


def _inside(pair: list[float | None], run: ScoredRun | None, protocol: str) -> str:
    """Whether the paper's figures lie inside our intervals."""
    if run is None:
        return ""
    return " / ".join(
        "yes" if bounds["low"] <= value <= bounds["high"] else "no"
        for value, bounds in zip(
            pair, (run.scores[protocol][name] for name in ("uar", "war")), strict=True
        )
        if value is not None
    )


def _ours(run: ScoredRun, protocol: str) -> Iterator[Cell]:
    """UAR, its interval, WAR, its interval."""
    for name in ("uar", "war"):
        figures = run.scores[protocol][name]
        yield Cell(print_figure(figures["value"]), run.name)
        yield Cell(f"{print_figure(figures['low'])} to {print_figure(figures['high'])}", run.name)


def _values(run: ScoredRun, protocol: str) -> list[float]:
    return [run.scores[protocol][name]["value"] for name in ("uar", "war")]


def _interval(run: ScoredRun, protocol: str, name: str, decimals: int = 2) -> Cell:
    figures = run.scores[protocol][name]
    value, low, high = (print_figure(figures[key], decimals) for key in ("value", "low", "high"))
    return Cell(_brackets(value, low, high), run.name)


def _brackets(value: str, low: str, high: str) -> str:
    return f"{value} [{low}, {high}]"


def _folds(figures: dict) -> str:
    if "fold_sd" not in figures:
        return NO_FIGURE
    return f"{print_figure(figures['fold_mean'])} ± {print_figure(figures['fold_sd'])}"
