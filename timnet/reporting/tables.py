"""The tables of runs: the paper's with our scores beside the paper's, and overviews of ours.

Each function makes one table from the runs of this commit; `render` writes it as Markdown, CSV or
LaTeX, `report` as HTML. Nothing here is typed in: the paper's scores are in paper.json, ours in
the scores of a run. Tables across corpora are in `cross_tables`, those of recipes and baselines on
unseen speakers in `unseen_tables`, those of corpora in `corpus_tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from timnet.evaluation.protocols import (
    BEST_EPOCH,
    BOTH,
    CROSS,
    LAST_EPOCH,
    MEANING,
    ORDER,
    SENTENCE,
    SPEAKER,
    named,
)
from timnet.paper import paper
from timnet.records import Description, Validation
from timnet.reporting import corpus_tables, cross_tables, unseen_tables
from timnet.reporting.render import NO_FIGURE, NOT_HERE, Cell, Table, print_figure, row_of, signed
from timnet.reporting.scored import (
    ABLATION_NAMES,
    INTERVALS,
    NETWORK,
    OURS,
    PAPER_RECIPE,
    PAPER_S,
    SEEDS,
    Paired,
    ScoredRun,
    brackets,
    cells,
    chosen_recipe,
    compared_methods,
    departures,
    find,
    on_recipes,
    other_settings,
    points,
    rough,
    seeds,
)

GAIN = "gain"  # stands where corpora do, over all of them
OTHER = "other settings"  # stands where scores of the paper's settings would
NO_EPOCHS = f"An SVM has no epochs to choose from: its scores are those of `{LAST_EPOCH}`."
Pair = Sequence[float | None]  # UAR and WAR
# as printed, though each first value is a count over the corpus' size: probably [WAR, UAR]
SWAPPED = {
    BEST_EPOCH: {("ravdess", "GM-TCN 2022"), ("savee", "GM-TCN 2022")},
    LAST_EPOCH: {
        (corpus, method)
        for corpus in ("emodb", "ravdess", "savee")
        for method in ("GM-TCN", "CPAC")
    },
}
# what each protocol's UAR is held against
LESS_STRICT = {LAST_EPOCH: BEST_EPOCH, SPEAKER: LAST_EPOCH, SENTENCE: LAST_EPOCH, BOTH: SPEAKER}
PRINTED = {BEST_EPOCH: "table_1_single_corpus", LAST_EPOCH: "last_epoch_single_corpus"}


def all_tables(
    runs: list[ScoredRun],
    validations: dict[str, Validation],
    descriptions: dict[str, Description],
    paired: Paired,
    with_svm: Sequence[ScoredRun] = (),
) -> list[Table]:
    """Every table that tells of these runs or their corpora, in the order of the report.

    A table of runs that has the paper's scores alone, or no rows, is left out; never the overview.

    Args:
        runs: those of this commit.
        validations: corpus -> summary of its validation.
        descriptions: corpus -> what its recipe says of it.
        paired: the change from one run to another on the same utterances.
        with_svm: the chosen recipe on unseen speakers, together with the SVM.
    """
    first, *others = (
        overview(runs),
        strictness(runs),
        single_corpus(runs, BEST_EPOCH),
        single_corpus(runs, LAST_EPOCH),
        unseen_tables.controlled(runs, paired, with_svm),
        unseen_tables.judged(runs, paired),
        unseen_tables.joined(runs, paired, with_svm),
        unseen_tables.by_sex(runs),
        ablation(runs, paired),
        cross_tables.average(runs),
        cross_tables.pair_by_pair(runs),
        calibration(runs),
    )
    return [
        first,
        *(table for table in others if any(cell.run for row in table.rows for cell in row)),
        corpus_tables.corpora(validations, descriptions),
        corpus_tables.class_counts(validations),
    ]


def overview(runs: list[ScoredRun]) -> Table:
    """Every protocol on one corpus, and how UAR changes to it from a less strict one.

    Of recipes the paper's and the chosen one, of ablations those that Table S3 does not show.
    """
    listed = [run for run in runs if run in compared_methods(runs) or _apart(run)]
    rows, shown, seen = [], set(), list[ScoredRun]()
    for group in _groups(listed):
        own = [run for run in listed if (run.corpus, run.method) == group]
        for protocol, run, step in _with_steps(own):
            shown.add(protocol)
            seen.append(run)
            rows.append(_overview_row(protocol, run, step))
    return Table(
        "single-corpus",
        "Single corpora, every protocol",
        (
            "corpus",
            "method",
            "protocol",
            "paper UAR",
            "paper WAR",
            "UAR",
            "UAR, 95 % CI",
            "WAR",
            "WAR, 95 % CI",
            "seeds",
            "step",
            "run",
            "commit",
        ),
        rows,
        [f"`{protocol}`: {MEANING[protocol]}." for protocol in ORDER if protocol in shown]
        + [
            "UAR and WAR in percent, on the confusion matrix pooled over the folds. " + INTERVALS,
            SEEDS,
            *rough(seen),
            *on_recipes(seen),
            *_chances(seen),
            *_steps(shown),
            *other_settings(_each_once(seen)),
            *departures(run for run in _each_once(seen) if run.is_the_paper_s),
        ],
    )


def _with_steps(runs: list[ScoredRun]) -> Iterator[tuple[str, ScoredRun, float | None]]:
    """Scores within a corpus from optimistic to strict: protocol, run, and the points of UAR from
    the less strict protocol under the same settings, None where there is none.
    """
    before: dict[tuple[str, str], float] = {}  # settings and protocol -> UAR
    within = [protocol for protocol in ORDER if named(protocol).folds != CROSS]
    for protocol, run in ((p, run) for p in within for run in runs if p in run.scores):
        value = float(print_figure(run.scores[protocol]["uar"]["value"]))  # as in print
        before.setdefault((run.settings, protocol), value)
        less_strict = before.get((run.settings, LESS_STRICT.get(protocol, "")))
        yield protocol, run, None if less_strict is None else value - less_strict


def _overview_row(protocol: str, run: ScoredRun, step: float | None) -> list[Cell]:
    return [
        Cell(run.corpus),
        Cell(run.method),
        Cell(protocol),
        *(Cell(print_figure(value)) for value in printed(run, protocol)),
        *cells(run, protocol),
        Cell(seeds(run.scores[protocol]), run.name),
        Cell(NO_FIGURE) if step is None else Cell(signed(step), run.name),
        Cell(run.name),
        Cell(run.record["commit"]),
    ]


def _steps(shown: set[str]) -> list[str]:
    """What the steps between the protocols that are shown are."""
    told = [
        f"`{strict}` against `{loose}`"
        for strict, loose in LESS_STRICT.items()
        if {strict, loose} <= shown
    ]
    if not told:
        return []
    return [
        f"`step`: points of UAR at the same settings, {', '.join(told)}; those below half the "
        "CI width may be noise."
    ]


def _groups(runs: list[ScoredRun]) -> Iterable[tuple[str, str]]:
    """Corpus and method of runs, by corpus, the network before the baselines."""
    ordered = sorted(
        runs, key=lambda run: (run.corpus, run.is_baseline, run.variant != NETWORK, run.method)
    )
    return dict.fromkeys((run.corpus, run.method) for run in ordered)


def _each_once(runs: Iterable[ScoredRun]) -> list[ScoredRun]:
    return list({run.name: run for run in runs}.values())


def _apart(run: ScoredRun) -> bool:
    """Whether it is an ablation with other settings than the paper's: Table S3 has no such."""
    return not run.is_baseline and run.variant != NETWORK and not run.is_the_paper_s


def _chances(runs: list[ScoredRun]) -> list[str]:
    """What guesses reach in the corpora of some runs."""
    told = {
        run.corpus: f"{print_figure(run.chance)} % ({len(run.record['labels'])} emotions)"
        for run in sorted(runs, key=lambda run: run.corpus)
    }
    if not told:
        return []
    return ["Chance: " + ", ".join(f"{corpus} {text}" for corpus, text in told.items()) + "."]


def strictness(runs: list[ScoredRun]) -> Table:
    """UAR of each method under each protocol, a column for each one met."""
    listed = [run for run in compared_methods(runs) if set(run.scores) - {CROSS}]
    columns = [
        name
        for name in ORDER
        if named(name).folds != CROSS and any(name in run.scores for run in listed)
    ]
    rows = []
    for corpus, method in _groups(listed):
        row = [Cell(corpus), Cell(method)]
        for protocol in columns:
            run = find(runs, corpus, protocol, method=method)
            if run is None:
                row.append(Cell(NO_FIGURE))
            else:
                row.append(Cell(brackets(run.scores[protocol]["uar"], 1), run.name))
        if any(cell.run for cell in row):
            rows.append(row)
    return Table(
        "strictness",
        "UAR by method and protocol",
        ("corpus", "method", *columns),
        rows,
        [
            "UAR in percent, with its 95 % CI.",
            *(f"`{protocol}`: {MEANING[protocol]}." for protocol in columns),
            INTERVALS,
            *rough(listed),
            *on_recipes(listed),
            *_chances(listed),
        ],
    )


def figure_rows(runs: list[ScoredRun]) -> list[tuple[str, str, dict, float, dict[str, float]]]:
    """What `figures.protocols` draws: TIM-Net with the paper's recipe, by corpus and protocol.

    Beside its scores stand the UAR of the paper, of the chosen recipe and of the SVM.
    """
    rows = []
    chosen = chosen_recipe(runs)
    own = [run for run in runs if run.is_network and run.recipe == PAPER_RECIPE]
    for run in sorted(own, key=lambda run: run.corpus):
        for protocol, scores in run.by_protocol():
            if named(protocol).folds == CROSS:
                continue
            others = {
                f"recipe {chosen}": find(
                    runs, run.corpus, protocol, is_network=True, recipe=chosen
                ),
                "SVM": find(runs, run.corpus, protocol, method="SVM"),
            }
            marks = {
                name: other.scores[protocol]["uar"]["value"]
                for name, other in others.items()
                if other is not None
            }
            theirs = printed(run, protocol)[0]
            if theirs is not None:
                marks["the paper"] = theirs
            rows.append((run.corpus, protocol, scores, run.chance, marks))
    return rows


def single_corpus(runs: list[ScoredRun], protocol: str) -> Table:
    """Table 1 (`best-epoch`) or the authors' later scores (`last-epoch`), with all rivals."""
    marked, rows = False, []
    gains: dict[str, dict[str, tuple[Pair, list[Pair]]]] = {PAPER_S: {}}
    shown: list[ScoredRun] = []
    for corpus, methods in paper()[PRINTED[protocol]].items():
        run = find(runs, corpus, protocol, is_the_paper_s=True, variant=NETWORK)
        rivals = [pair for method, pair in methods.items() if method != "TIM-Net"]
        for method, pair in methods.items():
            swapped = (corpus, method) in SWAPPED[protocol]
            marked |= swapped
            name = PAPER_S if method == "TIM-Net" else method
            inside = _inside(pair, run, protocol) if method == "TIM-Net" and pair else ""
            told = [print_figure(value) for value in pair or (None, None)]
            ends = "†" if swapped else ""
            rows.append(row_of(corpus, name + ends, told[0], "", told[1], "", "", inside))
        if rivals and methods["TIM-Net"]:
            gains[PAPER_S][corpus] = methods["TIM-Net"], rivals
        others = [
            other
            for other in compared_methods(runs)
            if other.corpus == corpus and _own(other, protocol) in other.scores and other is not run
        ]
        ours = [run] if run else []
        if not any(other.beside_the_paper == OURS for other in (*ours, *others)):
            rows.append(row_of(corpus, OURS, NOT_HERE, "", NOT_HERE, "", "", ""))
        for each in (*ours, *sorted(others, key=lambda other: other.is_baseline)):
            apart = each is not run and each.beside_the_paper == OURS
            method = f"{OURS}, {OTHER}" if apart else each.beside_the_paper
            own = _own(each, protocol)
            spread = Cell(seeds(each.scores[own]), each.name)
            rows.append([Cell(corpus), Cell(method), *cells(each, own), spread, Cell("")])
            shown.append(each)
            if rivals and not apart:
                values = [each.scores[own][name]["value"] for name in ("uar", "war")]
                gains.setdefault(method, {})[corpus] = values, rivals
    rows += _gain_rows(gains)
    svms = any(run.is_baseline for run in shown)
    claim = [signed(value) for value in _mean_gain(gains[PAPER_S].values())]
    notes = [
        f"`{protocol}`: {MEANING[protocol]}. Percent, pooled over ten folds.",
        "`gain`: mean over corpora of a method minus the best of the rivals, UAR and WAR apart; "
        "the paper's beside it is over the same corpora. Over all "
        f"{len(gains[PAPER_S])} corpora with rivals the paper's is {claim[0]} UAR and {claim[1]} "
        "WAR" + (", its headline claim." if protocol == BEST_EPOCH else "."),
        "`paper inside`: whether the paper's score lies inside our 95 % CI (UAR / WAR).",
        INTERVALS,
        SEEDS,
        *([NO_EPOCHS] if protocol == BEST_EPOCH and svms else []),
        *other_settings(shown),
        *departures(run for run in shown if run.is_the_paper_s),
    ]
    if marked:
        notes.append(
            "† As printed. UAR and WAR appear to be swapped: the first is a whole number of "
            "utterances divided by the size of the corpus."
        )
    name, title = {
        BEST_EPOCH: ("table-1", "Table 1: single corpus, best epoch on the test fold"),
        LAST_EPOCH: ("last-epoch", "Single corpus, last epoch"),
    }[protocol]
    columns = ("corpus", "method", "UAR", "UAR, 95 % CI", "WAR", "WAR, 95 % CI", "seeds")
    return Table(name, title, (*columns, "paper inside"), rows, notes)


def _own(run: ScoredRun, protocol: str) -> str:
    """The protocol whose scores a run has: a baseline has no epochs to choose from."""
    return LAST_EPOCH if run.is_baseline and protocol == BEST_EPOCH else protocol


def _gain_rows(gains: dict[str, dict[str, tuple[Pair, list[Pair]]]]) -> list[list[Cell]]:
    """A row for each method, after one of the paper's over the same corpora."""

    def row(method: str, over: str, values: Sequence[float]) -> list[Cell]:
        uar, war = map(signed, values)
        return row_of(GAIN, f"{method}, {over}", uar, "", war, "", "", "")

    every = gains[PAPER_S]
    rows, told = [], set[frozenset[str]]()
    for method in [name for name in gains if name != PAPER_S]:
        corpora = frozenset(gains[method]) & frozenset(every)
        if not corpora:
            continue
        over = f"{len(corpora)} of {len(every)} corpora"
        if corpora not in told:
            told.add(corpora)
            rows.append(row(PAPER_S, over, _mean_gain(every[corpus] for corpus in sorted(corpora))))
        own = _mean_gain(gains[method][corpus] for corpus in sorted(corpora))
        rows.append(row(method, over, own))
    if OURS not in gains:
        whole = f"{len(every)} of {len(every)} corpora"
        rows.insert(0, row(PAPER_S, whole, _mean_gain(every.values())))
        rows.insert(1, row_of(GAIN, OURS, NOT_HERE, "", NOT_HERE, "", "", ""))
    return rows


def _mean_gain(gains: Iterable[tuple[Pair, list[Pair]]]) -> list[float]:
    """Mean points above the best of the rivals, UAR and WAR apart."""
    found = []
    for pair, rivals in gains:
        best = [
            max(value for value in column if value is not None)
            for column in zip(*rivals, strict=True)
        ]
        found.append([ours - theirs for ours, theirs in zip(pair, best, strict=True)])  # type: ignore[operator]
    return np.mean(found, 0).tolist()


def ablation(runs: list[ScoredRun], paired: Paired) -> Table:
    """Table S3: parts of the network taken away, and the SVM."""
    rows, used, apart = [], list[ScoredRun](), list[ScoredRun]()
    for corpus, methods in paper()["table_s3_ablation"].items():
        whole = find(runs, corpus, LAST_EPOCH, is_the_paper_s=True, variant=NETWORK)
        for method in (*ABLATION_NAMES, "SVM"):
            theirs = methods.get(method, (None, None))
            row = [Cell(corpus), Cell(method), *(Cell(print_figure(value)) for value in theirs)]
            if method == "SVM":
                run = find(runs, corpus, LAST_EPOCH, method="SVM")
                if run is None:
                    continue
            else:
                variant = ABLATION_NAMES[method]
                run = find(runs, corpus, LAST_EPOCH, is_the_paper_s=True, variant=variant)
                other = find(
                    runs, corpus, LAST_EPOCH, is_baseline=False, variant=variant,
                    recipe=PAPER_RECIPE,
                )  # fmt: skip
                if run is None:
                    text = NOT_HERE if other is None else OTHER
                    rows.append(row + [Cell(text), Cell(text), Cell("")] * 2 + [Cell("")] * 2)
                    apart += [other] if other else []
                    continue
            used.append(run)
            for protocol in (BEST_EPOCH, LAST_EPOCH):
                if protocol not in run.scores:
                    row += [Cell(NO_FIGURE), Cell(NO_FIGURE), Cell("")]
                    continue
                scores = run.scores[protocol]
                row.append(Cell(brackets(scores["uar"]), run.name))
                row.append(Cell(print_figure(scores["war"]["value"]), run.name))
                held = whole is not None and run is not whole
                change = paired([(run, whole)], protocol) if whole and held else None
                row.append(Cell(points(change), run.name) if change else Cell(""))
            row.append(Cell(seeds(run.scores[LAST_EPOCH]), run.name))
            row.append(Cell("" if run.is_baseline else run.record["train"]["precision"]))
            rows.append(row)
    mixed = len({run.record["train"]["precision"] for run in used if not run.is_baseline}) > 1
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
            "seeds",
            "precision",
        ),
        rows,
        [
            f"The paper's scores are `{BEST_EPOCH}`: {MEANING[BEST_EPOCH]}.",
            "w/o BD: no backward blocks; w/o MS: only the last time scale; w/o DF: the mean over "
            "the scales instead of learned weights; TCN: residual blocks, forward only.",
            "In brackets: 95 % CI by bootstrap over utterances. Against TIM-Net: points of UAR, "
            "the same utterances resampled for both, each the mean over its seeds; not "
            "significant where the interval includes 0. The CI ignores seed variance"
            + (" but includes the difference between precisions." if mixed else "."),
            *other_settings(apart),
            *departures(run for run in used if run.is_the_paper_s),
        ],
    )


def calibration(runs: list[ScoredRun]) -> Table:
    """How far what the networks claim is from what they get right."""
    told = [
        (run, protocol, scores["calibration"])
        for run in compared_methods(runs)
        for protocol, scores in run.by_protocol()
        if "calibration" in scores
    ]
    rows = [
        [
            Cell(run.name),
            Cell(protocol),
            *(
                Cell(print_figure(own[name]), run.name)
                for name in ("error_before", "error_after", "temperature")
            ),
        ]
        for run, protocol, own in told
    ]
    rises = dict.fromkeys(
        f"`{run.name}`" for run, _, own in told if own["error_after"] > own["error_before"]
    )
    notes = [
        "error: expected calibration error over 15 bins, of the last epoch's probabilities for "
        "utterances unseen in training, of the first training seed. After: with all logits divided "
        "by one temperature, each fold's fitted on the other folds (Guo et al., ICML 2017). The "
        "temperature in the table is that of all folds.",
    ]
    if any(run.is_baseline for run, *_ in told):
        notes.append(
            "An SVM gives decision values and no probabilities: its error before the temperature "
            "is meaningless."
        )
    if rises:
        notes.append(
            f"The error rises in {', '.join(rises)}: the temperature is the one of least "
            "cross-entropy, which this error does not have to follow."
        )
    return Table(
        "calibration",
        "Calibration: claimed and actual accuracy",
        ("run", "protocol", "error, %", "error after, %", "temperature"),
        rows,
        notes,
    )


def printed(run: ScoredRun, protocol: str) -> Pair:
    """The paper's UAR and WAR for what a run did, under its protocol."""
    nothing: Pair = (None, None)
    if not run.is_the_paper_s:
        return nothing
    if run.variant != NETWORK:
        if protocol != BEST_EPOCH:
            return nothing
        return paper()["table_s3_ablation"].get(run.corpus, {}).get(run.method, nothing)
    methods = paper().get(PRINTED.get(protocol, ""), {}).get(run.corpus, {})
    return methods.get("TIM-Net") or nothing


def _inside(pair: Pair, run: ScoredRun | None, protocol: str) -> str:
    """Whether the paper's scores lie inside our intervals."""
    if run is None:
        return ""
    return " / ".join(
        "yes" if bounds["low"] <= value <= bounds["high"] else "no"
        for value, bounds in zip(
            pair, (run.scores[protocol][name] for name in ("uar", "war")), strict=True
        )
        if value is not None
    )
