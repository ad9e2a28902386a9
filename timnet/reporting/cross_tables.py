"""Tables 2 and S4: trained on one corpus, tested on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from timnet.evaluation.protocols import CROSS, MEANING
from timnet.paper import paper
from timnet.paper.runs import CROSS_CORPORA, CROSS_SEEDS
from timnet.reporting.render import NO_FIGURE, NOT_HERE, Cell, Table, print_figure, row_of
from timnet.reporting.scored import (
    OURS,
    PAPER_S,
    ScoredRun,
    brackets,
    compared_methods,
    departures,
    on_recipes,
    other_settings,
    rough,
    seeds,
)

PAIRS = len(CROSS_CORPORA) * (len(CROSS_CORPORA) - 1)
Tested = dict[tuple[str, str], tuple[ScoredRun, Mapping[str, Any]]]  # pair -> run and its scores


def _methods(runs: list[ScoredRun]) -> dict[str, Tested]:
    """The pairs of corpora of each method: ours with the paper's settings first, even if empty.

    Runs of the paper's recipe with other settings stand apart, as a method of their own.
    """
    result: dict[str, Tested] = {OURS: {}}
    for run in sorted(compared_methods(runs), key=lambda run: run.is_baseline):
        if CROSS not in run.scores:
            continue
        method = run.beside_the_paper
        known = {run.corpus, *run.tested_on} <= set(CROSS_CORPORA)
        if method == OURS and known and not run.is_the_paper_s:
            method = f"{OURS}, other settings"
        for corpus, scores in run.of_corpora(CROSS).items():
            result.setdefault(method, {}).setdefault((run.corpus, corpus), (run, scores))
    return result


def _of_the_paper(tested: Tested) -> Tested:
    return {pair: found for pair, found in tested.items() if set(pair) <= set(CROSS_CORPORA)}


def _by_seed(tested: Tested) -> dict[str, np.ndarray]:
    """Mean over the pairs for each seed that all of them have, (seeds,) UAR and WAR."""
    drawn = [{draw["seed"]: draw for draw in scores["draws"]} for _, scores in tested.values()]
    shared = sorted(set.intersection(*map(set, drawn)))
    return {
        name: np.mean([[of[seed][name] for seed in shared] for of in drawn], 0)
        for name in ("uar", "war")
    }


def _spread(values: np.ndarray) -> str:
    mean = print_figure(float(values.mean()))
    return f"{mean} ± {print_figure(float(values.std(ddof=1)))}" if len(values) > 1 else mean


def average(runs: list[ScoredRun]) -> Table:
    """Table 2: the mean over the 20 ordered pairs of corpora, and its spread over seeds."""
    rows = []
    for method, scores in paper()["table_2_cross_corpus_average"].items():
        name = PAPER_S if method == "TIM-Net" else method
        spread = [f"{print_figure(m)} ± {print_figure(s)}" for m, s in scores.values()]
        rows.append(row_of(name, *spread, str(PAIRS), str(CROSS_SEEDS)))
    found = _methods(runs)
    for method, every in found.items():
        tested = _of_the_paper(every)
        number = Cell(str(len(tested)))
        if len(tested) < PAIRS:
            if method == OURS or tested:
                rows.append([Cell(method), Cell(NOT_HERE), Cell(NOT_HERE), number, Cell("")])
            continue
        by_seed = _by_seed(tested)
        name = next(iter(tested.values()))[0].name
        told = [Cell(_spread(values), name) for values in by_seed.values()]
        rows.append([Cell(method), *told, number, Cell(str(len(by_seed["uar"])))])
    return Table(
        "table-2",
        "Table 2: cross-corpus, mean over all pairs",
        ("method", "UAR", "WAR", "pairs", "seeds"),
        rows,
        [
            f"`{CROSS}`: {MEANING[CROSS]}. Five emotions. Mean ± standard deviation over seeds of "
            f"the mean over the {PAIRS} pairs; a method with fewer pairs has no mean.",
            *_notes(found),
        ],
    )


def _notes(found: dict[str, Tested]) -> list[str]:
    runs = {run.name: run for tested in found.values() for run, _ in tested.values()}.values()
    return [
        *on_recipes(runs),
        *other_settings(runs),
        *departures(run for run in runs if run.is_the_paper_s),
    ]


def pair_by_pair(runs: list[ScoredRun]) -> Table:
    """Table S4: every pair of corpora; below the paper's pairs those of other corpora."""
    printed = paper()["table_s4_cross_corpus_best"]
    rivals = [name for name in printed if name != "order"]
    found = _methods(runs)
    ours = found.pop(OURS)
    others = found  # each has a pair at least
    pairs = [tuple(pair.split(">")) for pair in printed["order"] if ">" in pair]
    every = {pair for tested in (ours, *others.values()) for pair in tested}
    rows = []
    for pair in (*pairs, *sorted(every - set(pairs))):
        row = [Cell(" to ".join(pair))]
        for method in rivals:
            values = printed[method][pairs.index(pair)] if pair in pairs else (None, None)
            row += [Cell(print_figure(value, 1)) for value in values]
        if pair in ours:
            run, scores = ours[pair]
            best = max(scores["draws"], key=lambda draw: draw["war"])
            row += [Cell(print_figure(best[name], 1), run.name) for name in ("uar", "war")]
            row += [Cell(brackets(scores[name], 1), run.name) for name in ("uar", "war")]
            row.append(Cell(seeds(scores), run.name))
        else:
            row += [Cell(NOT_HERE if pair in pairs else NO_FIGURE)] * 4 + [Cell("")]
        for theirs in others.values():
            cell = Cell(NO_FIGURE)
            if pair in theirs:
                run, scores = theirs[pair]
                cell = Cell(brackets(scores["uar"], 1), run.name)
            row.append(cell)
        rows.append(row)
    rows.insert(len(pairs), _average_row(printed, rivals, ours, list(others.values())))
    used = [run for each in (ours, *others.values()) for run, _ in each.values()]
    return Table(
        "table-s4",
        "Table S4: cross-corpus, pair by pair",
        (
            "pair",
            *(f"{method} {name}" for method in rivals for name in ("UAR", "WAR")),
            "ours, best UAR",
            "ours, best WAR",
            "ours, mean UAR",
            "ours, mean WAR",
            "seeds",
            *(f"{method} UAR" for method in others),
        ),
        rows,
        [
            "The paper's scores are the best of ten seeds ON THE TEST CORPUS: **optimistic**.",
            "`ours, best UAR` and `ours, best WAR`: both scores of one seed, the one with the best "
            "WAR on the test corpus, so its UAR can be below the mean. `seeds`: how many there are "
            "to choose from ± standard deviation of UAR over them.",
            "All other scores are means over seeds, with 95 % CI by bootstrap over speakers of the "
            "tested corpus and the utterances of each.",
            *rough(used),
            *_notes({OURS: ours, **others}),
        ],
    )


def _average_row(
    printed: Mapping[str, Any], rivals: list[str], ours: Tested, others: list[Tested]
) -> list[Cell]:
    """The mean over the paper's pairs, of methods that have all of them."""
    row = [Cell("average")]
    for method in rivals:
        row += [Cell(print_figure(value, 1)) for value in printed[method][-1]]
    own = _of_the_paper(ours)
    if len(own) == PAIRS:
        best = [max(scores["draws"], key=lambda draw: draw["war"]) for _, scores in own.values()]
        name = next(iter(own.values()))[0].name
        for metric in ("uar", "war"):
            of_best = float(np.mean([draw[metric] for draw in best]))
            row.append(Cell(print_figure(of_best, 1), name))
        row += [Cell(print_figure(float(v.mean()), 1), name) for v in _by_seed(own).values()]
        row.append(Cell(str(len(_by_seed(own)["uar"]))))
    else:
        row += [Cell("")] * 5
    for tested in map(_of_the_paper, others):
        whole = len(tested) == PAIRS
        mean = print_figure(float(_by_seed(tested)["uar"].mean()), 1) if whole else ""
        row.append(Cell(mean, next(iter(tested.values()))[0].name if whole else ""))
    return row
