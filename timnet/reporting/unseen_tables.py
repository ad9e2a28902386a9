"""Unseen speakers: recipes against the paper's, one by one, and the chosen one beside an SVM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timnet.evaluation.protocols import LAST_EPOCH, MEANING, SPEAKER
from timnet.paper import paper
from timnet.reporting.render import NO_FIGURE, Cell, Table, print_figure, signed
from timnet.reporting.scored import (
    INTERVALS,
    PAPER_RECIPE,
    SEEDS,
    TIM_NET,
    Paired,
    ScoredRun,
    brackets,
    cells,
    chosen_recipe,
    compared_methods,
    find,
    on_recipes,
    points,
    rough,
    seeds,
    svm,
)

SPEAKER_SVM = svm("speaker")
FEW_OF_A_SEX = 5  # speakers


def _on(runs: Sequence[ScoredRun], corpus: str) -> list[ScoredRun]:
    """Networks and baselines on a corpus: the paper's recipe, others, the chosen, baselines."""
    own = [
        run
        for run in runs
        if run.corpus == corpus and SPEAKER in run.scores and (run.is_network or run.is_baseline)
    ]
    chosen = chosen_recipe(runs)
    order = {PAPER_RECIPE: 0, chosen: 2}
    return sorted(own, key=lambda run: 3 if run.is_baseline else order.get(run.recipe, 1))


def _tuned_on(runs: Sequence[ScoredRun]) -> str | None:
    """The corpus on which the chosen recipe was tuned."""
    chosen = chosen_recipe(runs)
    return next((run.tuned_on for run in runs if chosen and run.recipe == chosen), None)


def controlled(runs: Sequence[ScoredRun], paired: Paired) -> Table:
    """Each recipe on the corpus of tuning, speaker-independent, against the paper's recipe."""
    corpus = _tuned_on(runs)
    own = _on(runs, corpus) if corpus else []
    reference = find(own, corpus or "", SPEAKER, is_network=True, recipe=PAPER_RECIPE)
    rows = []
    for run in own:
        told = f"recipe {run.recipe}" if run.is_network else run.method
        differs = "; ".join(run.differences) if run.is_network else "-"
        change = None
        if reference is not None and run is not reference:
            change = paired([(run, reference)], SPEAKER)
        rows.append(
            [
                Cell(told),
                Cell(differs or "the paper's settings"),
                *cells(run, SPEAKER)[:2],
                Cell(seeds(run.scores[SPEAKER]), run.name),
                Cell(points(change), run.name if change else ""),
                Cell(run.name),
            ]
        )
    return Table(
        "unseen-speakers",
        f"Unseen speakers: recipes on {corpus}" if corpus else "Unseen speakers: recipes",
        (
            "method",
            "settings that differ from the paper's",
            "UAR",
            "UAR, 95 % CI",
            "seeds",
            "against the paper's recipe",
            "run",
        ),
        rows,
        [
            f"`{SPEAKER}`: {MEANING[SPEAKER]}. Percent.",
            "Against the paper's recipe: points of UAR on the same utterances, the same speakers "
            "resampled for both, each the mean over its seeds; not significant where the interval "
            "includes 0.",
            INTERVALS,
            SEEDS,
            *rough(own),
            *on_recipes(own),
        ],
    )


def judged(runs: Sequence[ScoredRun], paired: Paired) -> Table:
    """The chosen recipe on every corpus, speaker-independent, beside what it has to beat."""
    recipe = chosen_recipe(runs)
    tuned = _tuned_on(runs)
    name = f"recipe {recipe}" if recipe else "chosen recipe"
    wanted: dict[str, dict[str, object]] = {
        "paper's recipe": {"method": TIM_NET},
        "SVM": {"method": svm()},
        SPEAKER_SVM: {"method": SPEAKER_SVM},
        name: {"is_network": True, "recipe": recipe},
    }
    corpora = sorted({run.corpus for run in runs if recipe and run.recipe == recipe})
    found = {
        corpus: {label: find(runs, corpus, SPEAKER, **each) for label, each in wanted.items()}
        for corpus in corpora
    }
    found = {corpus: own for corpus, own in found.items() if own[name] is not None}
    encoders = paper().get("emobox_speaker_independent", {})
    rows = []

    def row(label: str, corpora: Sequence[str]) -> list[Cell]:
        """One corpus, or the mean over several."""
        told = [Cell(label)]
        for method in wanted:
            own = [run for corpus in corpora if (run := found[corpus][method]) is not None]
            if len(own) < len(corpora):
                told.append(Cell(NO_FIGURE))
            elif len(own) == 1:
                told.append(Cell(brackets(own[0].scores[SPEAKER]["uar"], 1), own[0].name))
            else:
                mean = np.mean([run.scores[SPEAKER]["uar"]["value"] for run in own])
                told.append(Cell(print_figure(float(mean), 1), own[0].name))
        for method in ("paper's recipe", SPEAKER_SVM):
            pairs = [
                (ours, theirs)
                for corpus in corpora
                if (ours := found[corpus][name]) and (theirs := found[corpus][method])
            ]
            change = paired(pairs, SPEAKER) if len(pairs) == len(corpora) else None
            told.append(Cell(points(change), pairs[0][0].name if change else ""))
        only = found[corpora[0]][name] if len(corpora) == 1 else None
        told.append(Cell(seeds(only.scores[SPEAKER]), only.name) if only else Cell(""))
        known = [encoders[corpus] for corpus in corpora if corpus in encoders]
        whole = len(known) == len(corpora)
        told.append(Cell(print_figure(float(np.mean(known)), 1) if whole else NO_FIGURE))
        return told

    rows = [row(corpus, [corpus]) for corpus in found]
    if len(found) > 1:
        rows.append(row("mean", list(found)))
    rest = [corpus for corpus in found if corpus != tuned]
    if 1 < len(rest) < len(found):
        rows.append(row(f"mean without {tuned}", rest))
    own = [run for each in found.values() for run in each.values() if run is not None]
    notes = [
        f"UAR in percent. `{SPEAKER}`: {MEANING[SPEAKER]}.",
        "Points of UAR against the paper's recipe and the SVM: on the same utterances, the same "
        "speakers resampled for both, each the mean over its seeds; of a mean, speakers of each "
        "corpus are drawn apart. Not significant where the interval includes 0.",
        INTERVALS,
        f"{SEEDS.removesuffix('.')}, of the {name}.",
        "SSL encoder: the best frozen self-supervised encoder of EmoBox (Ma et al., Interspeech "
        "2024), pre-trained and far larger, with other folds; its folds of emodb leak.",
        *rough(own),
        *on_recipes(own),
    ]
    return Table(
        "judged",
        "Unseen speakers: the chosen recipe on every corpus",
        (
            "corpus",
            *wanted,
            "against the paper's recipe",
            f"against {SPEAKER_SVM}",
            "seeds",
            "SSL encoder",
        ),
        rows,
        notes,
    )


def by_sex(runs: Sequence[ScoredRun]) -> Table:
    """UAR of female and male speakers, where a corpus has both and its recipe tells who is."""
    rows, few = [], False
    for run in sorted(compared_methods(runs), key=lambda run: (run.corpus, run.is_baseline)):
        for protocol in (LAST_EPOCH, SPEAKER):
            sexes = run.scores.get(protocol, {}).get("sexes", {})
            if len(sexes) < 2:
                continue
            told = [sexes[sex] for sex in ("female", "male")]
            gap = signed(told[0]["uar"] - told[1]["uar"])
            few |= any(each["speakers"] < FEW_OF_A_SEX for each in told)
            rows.append(
                [
                    Cell(run.corpus),
                    Cell(run.method),
                    Cell(protocol),
                    *(Cell(print_figure(each["uar"]), run.name) for each in told),
                    Cell(gap, run.name),
                    Cell(" / ".join(str(each["speakers"]) for each in told)),
                ]
            )
    return Table(
        "by-sex",
        "UAR of female and male speakers",
        (
            "corpus",
            "method",
            "protocol",
            "female UAR",
            "male UAR",
            "difference",
            "speakers, female / male",
        ),
        rows,
        [
            "Percent, mean over seeds; the difference in points.",
            *(
                ["With few speakers of a sex the difference may be due to individuals."]
                if few
                else []
            ),
        ],
    )
