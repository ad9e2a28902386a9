"""What the tables need of a run: what it is called, and in what it differs from the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timnet.errors import listing
from timnet.evaluation import protocols
from timnet.evaluation.compare import Change
from timnet.evaluation.intervals import FEW_CLUSTERS
from timnet.paper import paper
from timnet.records import RunRecord, adapts_to_speakers, tested_on
from timnet.reporting.render import NO_FIGURE, Cell, print_figure, signed

PAPER_S = "TIM-Net, the paper's"
OURS = "TIM-Net, ours"
TIM_NET = "TIM-Net"  # with the paper's recipe
PAPER_RECIPE = "paper"  # its name in params.yaml
NETWORK = "tim-net"  # the variant that is the whole network
ABLATION_NAMES = {
    "TCN": "tcn",
    "w/o BD": "without-bd",
    "w/o MS": "without-ms",
    "w/o DF": "without-df",
    "TIM-Net": NETWORK,
}
FREE = ("precision", "compiled", "tabs", "variant")  # compared in another way, or told apart
# values of a setting that the paper has not, at which it changes nothing
OFF = (None, 0, False, "none", "constant", "")
MOST_NAMED = 6  # runs in a note
# what an interval draws first, in words
DRAWN = {"utterances": "utterances", "speakers": "speakers", "folds": "folds of sentences"}
UNCHANGED = {"batch_norm_momentum": 0.01}  # as Keras has it


@dataclass(frozen=True)
class ScoredRun:
    """A run with its scores."""

    name: str
    record: RunRecord  # run.json: what was trained, on what, at which commit
    scores: dict[str, dict]  # by protocol, as of `score.scores`
    tuned_on: str | None = None  # the corpus by whose scores its recipe was chosen

    @property
    def corpus(self) -> str:
        return self.record["trained_on"]

    @property
    def tested_on(self) -> list[str]:
        return tested_on(self.record)

    @property
    def variant(self) -> str:
        return self.record["train"].get("variant", NETWORK)

    @property
    def recipe(self) -> str:
        return self.record.get("recipe", PAPER_RECIPE)

    @property
    def is_baseline(self) -> bool:
        return bool(self.record.get("baseline"))

    @property
    def is_network(self) -> bool:
        """Whether it is the whole TIM-Net, and neither a baseline nor an ablation."""
        return not self.is_baseline and self.variant == NETWORK

    @property
    def normalise(self) -> str:
        return self.record["train"].get("normalise", "none")

    @property
    def method(self) -> str:
        """What stands in the tables for what was trained."""
        if self.is_baseline:
            return svm(self.normalise)
        if self.variant != NETWORK:
            return {v: k for k, v in ABLATION_NAMES.items()}.get(self.variant, self.variant)
        return TIM_NET if self.recipe == PAPER_RECIPE else f"TIM-Net, recipe {self.recipe}"

    @property
    def beside_the_paper(self) -> str:
        """The same in a table that has the paper's TIM-Net too."""
        return OURS if self.method == TIM_NET else self.method

    @property
    def adapts_to_speakers(self) -> bool:
        """Whether it is adapted to each tested speaker by their own recordings."""
        return adapts_to_speakers(self.record["train"])

    def meaning(self, protocol: str) -> str:
        """What a protocol means for this run."""
        told = protocols.MEANING[protocol]
        return f"{told}; {ADAPTED_TO}" if self.adapts_to_speakers else told

    def by_protocol(self) -> Iterator[tuple[str, dict]]:
        """Its scores in the order of the protocols, from optimistic to strict."""
        return ((name, self.scores[name]) for name in protocols.ORDER if name in self.scores)

    def of_corpora(self, protocol: str) -> dict[str, dict]:
        """Its scores under a protocol by the corpus that was tested."""
        scores = self.scores[protocol]
        return scores.get("corpora") or dict.fromkeys(self.tested_on[:1], scores)

    @property
    def chance(self) -> float:
        """UAR of guesses, percent."""
        return 100 / len(self.record["labels"])

    @property
    def settings(self) -> str:
        """What two runs must share, but for their folds, for their scores to be compared."""
        features = self.record["features"]["settings"]
        return repr((self.record["train"], features, self.recipe, self.is_baseline))

    @property
    def differences(self) -> list[str]:
        """In what its settings are not the paper's, precision and seeds apart."""
        printed, train = paper(), self.record["train"]
        features = self.record["features"]["settings"]
        across = self.record["folds"]["protocol"] == protocols.CROSS
        length = (
            printed["signal_length_cross_corpus"]
            if across
            else printed["signal_length"].get(self.corpus)
        )
        tabs = printed["tabs"].get(self.corpus, printed["tabs"]["others"])
        pairs = [(name, train.get(name), value) for name, value in printed["training"].items()]
        pairs += [
            ("tabs", train.get("tabs"), tabs),
            ("resampler", features["resampler"], "kaiser_best_0_2_2"),
            # of other corpora the paper has none
            ("signal length", features["signal_length"], length or features["signal_length"]),
        ]
        if self.record["folds"]["protocol"] == "random":
            pairs.append(("folds", self.record["folds"].get("number", 10), 10))
        if validation := self.record["folds"].get("validation"):
            pairs.append(("groups for validation", validation, 0))
        told = [f"{name} {value}, not {theirs}" for name, value, theirs in pairs if value != theirs]
        groups = self.record["folds"].get("number")
        if self.record["folds"]["protocol"] == "speaker" and groups:
            told.append(f"{groups} groups of speakers, not each alone")
        return told + [
            f"{name} {value}"
            for name, value in _flat(train)
            if not (
                name in FREE
                or name in printed["training"]
                or value in OFF
                or value == UNCHANGED.get(name)
            )
        ]

    @property
    def is_the_paper_s(self) -> bool:
        """Whether all settings but seeds and precision are the paper's, so that they compare."""
        known = self.corpus in paper()["fold_seed"]
        return known and not self.is_baseline and not self.differences


# the change of pairs of runs under a protocol, mean over the corpora that they test, if known
Paired = Callable[[Sequence[tuple[ScoredRun, ScoredRun]], str], Change | None]


def svm(normalise: str = "none") -> str:
    """What the baseline is called."""
    return "SVM" if normalise == "none" else f"SVM, {normalise}-normalised"


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings and those below them, by name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {below}", each) for below, each in _flat(value))
        else:
            yield name, value


def find(
    runs: Iterable[ScoredRun], corpus: str, protocol: str, **wanted: object
) -> ScoredRun | None:
    """The first run trained on a corpus that has scores under a protocol and is as wanted.

    Args:
        wanted: values of its properties, such as `is_the_paper_s=True`.
    """
    return next(
        (
            run
            for run in runs
            if run.corpus == corpus
            and protocol in run.scores
            and all(getattr(run, name) == value for name, value in wanted.items())
        ),
        None,
    )


def chosen_recipe(runs: Iterable[ScoredRun]) -> str | None:
    """The recipe to judge: one that was tuned, or else not the paper's; that of most corpora."""
    others = [run for run in runs if run.is_network and run.recipe != PAPER_RECIPE]
    corpora: dict[str, set[str]] = {}
    for run in [run for run in others if run.tuned_on] or others:
        corpora.setdefault(run.recipe, set()).add(run.corpus)
    return max(corpora, key=lambda recipe: len(corpora[recipe]), default=None)


def compared_methods(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Runs that overviews show: the paper's recipe, the chosen one and the baselines."""
    chosen = chosen_recipe(runs)
    return [
        run
        for run in runs
        if run.is_baseline or (run.is_network and run.recipe in (PAPER_RECIPE, chosen))
    ]


def departures(runs: Iterable[ScoredRun]) -> list[str]:
    """In what runs beside the paper's scores are not as the paper's after all."""
    said: dict[str, list[str]] = {}
    for run in runs:
        precision, theirs = (
            run.record["train"].get("precision", "fp32"),
            paper()["fold_seed"].get(run.corpus),
        )
        told = [] if precision == "fp32" else [f"precision {precision}, not fp32"]
        seeds = run.record["folds"].get("seeds", [theirs])
        if seeds != [theirs]:
            told.append(f"folds of seed {', '.join(map(str, seeds))}, not {theirs}")
        if told:
            said.setdefault("; ".join(told), []).append(run.name)
    return [f"{_named(names)} from the paper in this: {told}." for told, names in said.items()]


def _named(names: Sequence[str]) -> str:
    listed = listing((f"`{name}`" for name in names), MOST_NAMED)
    return f"{listed} {'differs' if len(names) == 1 else 'differ'}"


def other_settings(runs: Iterable[ScoredRun]) -> list[str]:
    """Runs on the paper's corpora with other settings than the paper's, and which."""
    said: dict[str, list[str]] = {}
    for run in runs:
        if run.corpus in paper()["fold_seed"] and not run.is_baseline and run.differences:
            said.setdefault("; ".join(run.differences), []).append(f"`{run.name}`")
    return [
        f"{listing(names, MOST_NAMED)}: other settings: {told}." for told, names in said.items()
    ]


def rough(runs: Iterable[ScoredRun]) -> list[str]:
    """A note on intervals over few speakers or folds of sentences, where a run has such."""
    few: dict[str, set[str]] = {}
    for run in runs:
        for protocol in filter(protocols.known, run.scores):
            drawn = DRAWN[protocols.named(protocol).varies]
            for corpus, scores in run.of_corpora(protocol).items():
                if scores.get("clusters", FEW_CLUSTERS) < FEW_CLUSTERS:
                    few.setdefault(drawn, set()).add(f"{corpus} {scores['clusters']}")
    if not few:
        return []
    known = [drawn for drawn in DRAWN.values() if drawn in few]
    told = (f"{', '.join(sorted(few[drawn]))} {drawn}" for drawn in known)
    return [
        f"Intervals over few {' or '.join(known)} are rough, and more often too narrow than too "
        f"wide: {'; '.join(told)}."
    ]


def on_recipes(runs: Iterable[ScoredRun]) -> list[str]:
    """Notes on recipes that were tuned, and on methods that need recordings of who is tested."""
    runs = list(runs)
    tuned = dict.fromkeys((run.recipe, run.tuned_on) for run in runs if run.tuned_on)
    methods = dict.fromkeys(run.method for run in runs if run.adapts_to_speakers)
    return [
        *(
            f"Recipe {recipe} was chosen by its scores on the test speakers of {corpus}, so its "
            "own score there is optimistic; on the other corpora it is used unchanged."
            for recipe, corpus in tuned
        ),
        *([f"{'; '.join(methods)}: {ADAPTED_TO}."] if methods else []),
    ]


ADAPTED_TO = (
    "adapted to each tested speaker by statistics of all of their own recordings, the tested ones "
    "among them, without labels"
)
INTERVALS = (
    "95 % CI: bootstrap over utterances; where speakers are unseen, over speakers and the "
    "utterances of each; where sentences are, over folds of sentences. Scores are means over "
    "training seeds, and the CI ignores seed variance."
)
SEEDS = "`seeds`: number of training seeds ± standard deviation of UAR over them."


def ci(scores: Mapping[str, Any]) -> str:
    """`82.66 to 88.19`, of UAR or WAR."""
    return f"{print_figure(scores['low'])} to {print_figure(scores['high'])}"


def brackets(scores: Mapping[str, Any], decimals: int = 2) -> str:
    """`85.54 [82.66, 88.19]`, of UAR or WAR."""
    value, low, high = (print_figure(scores[key], decimals) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def seeds(scores: Mapping[str, Any]) -> str:
    """`3 ± 0.52`: how many draws, and how their UAR varies."""
    number, spread = len(scores["draws"]), scores["uar"].get("seed_sd")
    return str(number) if spread is None else f"{number} ± {print_figure(spread)}"


def points(change: Change | None, name: str = "uar") -> str:
    """`-7.14 [-10.17, -4.21]`, of a change."""
    if change is None:
        return NO_FIGURE
    value, low, high = map(signed, change.points[name])
    return f"{value} [{low}, {high}]"


def cells(run: ScoredRun, protocol: str) -> list[Cell]:
    """UAR, its interval, WAR, its interval."""
    told = []
    for name in ("uar", "war"):
        scores = run.scores[protocol][name]
        told += [Cell(print_figure(scores["value"]), run.name), Cell(ci(scores), run.name)]
    return told
