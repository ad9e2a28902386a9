"""What the paper's tables, and stricter evaluations, need: entries of params.yaml."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from timnet.errors import ParameterError, suggestion
from timnet.paper import paper

ABLATIONS = ("without-bd", "without-ms", "without-df", "tcn")  # network.VARIANTS, Table S3
CROSS_CORPORA = ("casia", "emodb", "emovo", "ravdess", "savee")  # of the paper's 20 pairs
CROSS_SEEDS = 10
RECIPE = "paper"
NORMALISED = "speaker-normalised"  # recipe of the baseline that knows its speakers' range
ADAPTED = "adapted"  # for unseen speakers; adapts to a speaker's recordings, without labels
RECIPES: dict[str, dict[str, Any]] = {  # settings that differ from the paper's
    RECIPE: {},
    NORMALISED: {"normalise": "speaker"},
    ADAPTED: {"epochs": 40, "schedule": "one-cycle", "by_speaker": True},
}
# what is trained on one corpus and tested on the others, by the ending of its name
ACROSS: dict[str, dict[str, dict[str, Any]]] = {
    "table-2": {"": {"recipe": RECIPE}},
    "table-2-adapted": {"-adapted": {"recipe": ADAPTED}},
    "table-2-baseline": {
        "-svm": {"baseline": "svm", "recipe": RECIPE},
        "-svm-normalised": {"baseline": "svm", "recipe": NORMALISED},
    },
}
SENTENCE_GROUPS = {"sentence": 10, "both": 5}  # into which sentences are dealt
SENTENCES = {"ravdess": 2}  # where there are fewer

TABLES = {
    "table-1": "Table 1 and the authors' later last-epoch results: random folds",
    "speaker": "the same network, speaker-independent folds",
    "sentence": "the same network, sentence-independent folds",
    "both": "the same network, neither speaker nor sentence in both train and test",
    "baseline": "the SVM, random and speaker-independent folds, with and without normalisation",
    "table-2": "Tables 2 and S4: trained on one corpus, tested on another",
    "table-2-adapted": "the same pairs, by the recipe that adapts to each tested speaker",
    "table-2-baseline": "the same pairs, by the SVM, with and without normalisation",
    "table-s3": "Table S3: ablations",
}
Entries = dict[str, dict[str, dict[str, Any]]]  # section of params.yaml -> name -> entry


def corpora_of(table: str) -> tuple[str, ...]:
    """The corpora that a table may have: the paper's, or those whose sentences are known."""
    known = table in ("sentence", "both", *ACROSS)
    return CROSS_CORPORA if known else tuple(paper()["fold_seed"])


def entries(table: str, corpora: list[str], seeds: int | None = None) -> Entries:
    """What params.yaml has to hold for a table over some corpora, by section and name.

    Args:
        seeds: of each network; None: one, and ten across corpora, as the paper has it.

    Raises:
        ParameterError: a table or corpus that there is not, or one corpus for pairs of them.
    """
    if table not in TABLES:
        raise ParameterError(
            f"unknown table {table!r}; known are {', '.join(TABLES)}.{suggestion(table, TABLES)}"
        )
    known = corpora_of(table)
    for corpus in corpora:
        if corpus not in known:
            raise ParameterError(
                f"{table} has no {corpus}; it has {', '.join(known)}.{suggestion(corpus, known)}"
            )
    if table in ACROSS:
        return _across(table, corpora, seeds or CROSS_SEEDS)
    runs: dict[str, dict[str, Any]] = {}
    for corpus in corpora:
        random = {"protocol": "random", "number": 10, "seeds": [paper()["fold_seed"][corpus]]}
        groups = min(SENTENCE_GROUPS.get(table, 0), SENTENCES.get(corpus, 10))
        folds: dict[str, dict[str, Any]] = {
            "table-1": random,
            "table-s3": random,
            "speaker": {"protocol": "speaker"},
            "sentence": {"protocol": "sentence", "number": groups},
            "both": {"protocol": "speaker-sentence", "number": groups},
        }
        if table == "baseline":
            svm = {"baseline": "svm", **_of_corpus(corpus)}
            speaker = folds["speaker"]
            runs[f"{corpus}-svm-random"] = svm | {"folds": random, "recipe": RECIPE}
            runs[f"{corpus}-svm-speaker"] = svm | {"folds": speaker, "recipe": RECIPE}
            runs[f"{corpus}-svm-normalised-speaker"] = svm | {
                "folds": speaker,
                "recipe": NORMALISED,
            }
            continue
        for variant in ABLATIONS if table == "table-s3" else ("tim-net",):
            endings = {"table-1": "random", "table-s3": variant, "both": "speaker-sentence"}
            runs[f"{corpus}-{endings.get(table, table)}"] = {
                **_of_corpus(corpus),
                "folds": folds[table],
                **_networks(corpus, variant, seeds or 1),
            }
    return {"recipes": _recipes(runs), "runs": runs}


def _across(table: str, corpora: list[str], seeds: int) -> Entries:
    """Sources of some corpora, and transfers of all ordered pairs of them."""
    if len(corpora) < 2:
        raise ParameterError(f"{table} needs two corpora or more: each is tested on the others.")
    length = paper()["signal_length_cross_corpus"]
    sources, transfers = {}, {}
    for ending, own in ACROSS[table].items():
        for corpus in corpora:
            networks = {} if "baseline" in own else _networks(corpus, "tim-net", seeds)
            common = {"trained_on": corpus, "signal_length": length, "emotions": "shared"}
            sources[f"{corpus}-shared{ending}"] = common | networks | own
        for one, other in permutations(corpora, 2):
            transfers[f"{one}{ending}-to-{other}"] = {
                "source": f"{one}-shared{ending}",
                "tested_on": other,
                "signal_length": length,
            }
    return {"recipes": _recipes(sources), "sources": sources, "transfers": transfers}


def _recipes(trained: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The recipes that some runs or sources name, with their settings."""
    return {entry["recipe"]: RECIPES[entry["recipe"]] for entry in trained.values()}


def _of_corpus(corpus: str) -> dict[str, Any]:
    return {"trained_on": corpus, "signal_length": paper()["signal_length"][corpus]}


def _networks(corpus: str, variant: str, seeds: int) -> dict[str, Any]:
    tabs = paper()["tabs"]
    return {
        "recipe": RECIPE,
        "network": {"tabs": tabs.get(corpus, tabs["others"]), "variant": variant},
        "precision": "fp32",
        "seeds": list(range(seeds)),
    }
