"""Unseen speakers: recipes against the paper's, one by one, and the chosen one beside an SVM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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
REFERENCE = "paper's recipe"
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


def to_join(runs: Sequence[ScoredRun]) -> list[tuple[ScoredRun, ScoredRun]]:
    """The chosen recipe on each corpus, speaker-independent, and the SVM that takes as much."""
    recipe = chosen_recipe(runs)
    corpora = dict.fromkeys(run.corpus for run in runs if recipe and run.recipe == recipe)
    pairs = (
        (
            find(runs, corpus, SPEAKER, is_network=True, recipe=recipe),
            find(runs, corpus, SPEAKER, method=SPEAKER_SVM),
        )
        for corpus in corpora
    )
    return [(network, machine) for network, machine in pairs if network and machine]


def controlled(
    runs: Sequence[ScoredRun], paired: Paired, with_svm: Sequence[ScoredRun] = ()
) -> Table:
    """Each recipe on the corpus of tuning, speaker-independent, against the paper's recipe."""
    corpus = _tuned_on(runs)
    own = [*_on(runs, corpus), *(run for run in with_svm if run.corpus == corpus)] if corpus else []
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


Methods = dict[str, dict[str, ScoredRun]]  # name -> corpus -> run


def judged(runs: Sequence[ScoredRun], paired: Paired) -> Table:
    """The chosen recipe on every corpus, speaker-independent, beside what it has to beat."""
    methods, tuned = _methods(runs), _tuned_on(runs)
    name = list(methods)[-1]
    table = _on_every_corpus(methods, list(methods), (REFERENCE, SPEAKER_SVM), tuned, paired)
    encoders = paper().get("emobox_speaker_independent", {})
    for row, corpora in zip(table.rows, _with_means(methods[name], tuned).values(), strict=True):
        known = [encoders[corpus] for corpus in corpora if corpus in encoders]
        whole = len(known) == len(corpora)
        row.append(Cell(print_figure(float(np.mean(known)), 1) if whole else NO_FIGURE))
        row.append(_against(methods[REFERENCE], methods[svm()], corpora, paired))
    table.notes.extend(
        [
            f"`{REFERENCE} against {svm()}`: the same comparison of the paper's recipe with the "
            f"plain SVM. The other two are of the {name}.",
            "SSL encoder: the best frozen self-supervised encoder of EmoBox (Ma et al., "
            "Interspeech 2024), pre-trained and far larger, with other folds; its folds of emodb "
            "leak.",
        ]
    )
    return replace(
        table,
        name="judged",
        title="Unseen speakers: the chosen recipe on every corpus",
        columns=(*table.columns, "SSL encoder", f"{REFERENCE} against {svm()}"),
    )


def joined(runs: Sequence[ScoredRun], paired: Paired, with_svm: Sequence[ScoredRun]) -> Table:
    """The chosen recipe together with the SVM, and what each adds to the other."""
    methods = _methods(runs)
    name = list(methods)[-1]
    both = f"{name} + SVM"
    methods[both] = {run.corpus: run for run in with_svm}
    shown, against = (SPEAKER_SVM, name, both), (REFERENCE, name, SPEAKER_SVM)
    table = _on_every_corpus(methods, shown, against, _tuned_on(runs), paired)
    table.notes.insert(
        1,
        f"{both}: the mean of the probabilities that {name} and {SPEAKER_SVM} give each emotion; "
        "nothing is fitted.",
    )
    return replace(
        table, name="joined", title="Unseen speakers: the chosen recipe together with the SVM"
    )


def _methods(runs: Sequence[ScoredRun]) -> Methods:
    """Speaker-independent runs by corpus: the paper's recipe, the baselines, the chosen recipe."""
    recipe = chosen_recipe(runs)
    wanted: dict[str, dict[str, object]] = {
        REFERENCE: {"method": TIM_NET},
        svm(): {"method": svm()},
        SPEAKER_SVM: {"method": SPEAKER_SVM},
        f"recipe {recipe}" if recipe else "chosen recipe": {"is_network": True, "recipe": recipe},
    }
    corpora = sorted({run.corpus for run in runs if recipe and run.recipe == recipe})
    return {
        label: {
            corpus: run
            for corpus in corpora
            if (run := find(runs, corpus, SPEAKER, **each)) is not None
        }
        for label, each in wanted.items()
    }


def _with_means(corpora: Iterable[str], tuned: str | None) -> dict[str, list[str]]:
    """Each corpus, all of them, and those that nothing was tuned on, by the name of their row."""
    every = sorted(corpora)
    rest = [corpus for corpus in every if corpus != tuned]
    groups = {corpus: [corpus] for corpus in every}
    if len(every) > 1:
        groups["mean"] = every
    if 1 < len(rest) < len(every):
        groups[f"mean without {tuned}"] = rest
    return groups


def _on_every_corpus(
    methods: Methods,
    shown: Sequence[str],
    against: Sequence[str],
    tuned: str | None,
    paired: Paired,
) -> Table:
    """Methods on the corpora of the last one shown, and their means; without a name.

    Args:
        shown: the methods that have a column; the last is judged.
        against: the methods that it is held against.
        tuned: the corpus on which it was tuned.
    """
    judged = methods[shown[-1]]

    def row(label: str, corpora: Sequence[str]) -> list[Cell]:
        """One corpus, or the mean over several."""
        told = [Cell(label)]
        for method in shown:
            own = [methods[method][corpus] for corpus in corpora if corpus in methods[method]]
            if len(own) < len(corpora):
                told.append(Cell(NO_FIGURE))
            elif len(own) == 1:
                told.append(Cell(brackets(own[0].scores[SPEAKER]["uar"], 1), own[0].name))
            else:
                mean = np.mean([run.scores[SPEAKER]["uar"]["value"] for run in own])
                told.append(Cell(print_figure(float(mean), 1), own[0].name))
        told += [_against(judged, methods[method], corpora, paired) for method in against]
        only = judged[corpora[0]] if len(corpora) == 1 else None
        told.append(Cell(seeds(only.scores[SPEAKER]), only.name) if only else Cell(""))
        return told

    own = [run for method in shown for run in methods[method].values()]
    return Table(
        "",
        "",
        (
            "corpus",
            *shown,
            *(f"against {'' if method == SPEAKER_SVM else 'the '}{method}" for method in against),
            "seeds",
        ),
        [row(label, corpora) for label, corpora in _with_means(judged, tuned).items()],
        [
            f"UAR in percent. `{SPEAKER}`: {MEANING[SPEAKER]}.",
            "Points of UAR against another method: on the same utterances, the same speakers "
            "resampled for both, each the mean over its seeds; of a mean, speakers of each corpus "
            "are drawn apart. Not significant where the interval includes 0.",
            INTERVALS,
            f"{SEEDS.removesuffix('.')}, of the {shown[-1]}.",
            *rough(own),
            *on_recipes(own),
        ],
    )


def _against(
    ours: Mapping[str, ScoredRun],
    theirs: Mapping[str, ScoredRun],
    corpora: Sequence[str],
    paired: Paired,
) -> Cell:
    """The change from one method to another, mean over corpora that both must have."""
    if not set(corpora) <= set(ours) & set(theirs):
        return Cell(NO_FIGURE)
    change = paired([(ours[corpus], theirs[corpus]) for corpus in corpora], SPEAKER)
    return Cell(points(change), ours[corpora[0]].name if change else "")


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
