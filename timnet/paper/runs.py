"""What the paper's tables need: each of them as runs with the paper's settings."""

from __future__ import annotations

from itertools import permutations

from timnet.errors import ParameterError, suggestion
from timnet.paper import paper

ABLATIONS = ("without-bd", "without-ms", "without-df", "tcn")  # network.VARIANTS, Table S3
CROSS_CORPORA = ("casia", "emodb", "emovo", "ravdess", "savee")  # of the paper's 20 pairs
CROSS_SEEDS = 10

TABLES = {
    "table-1": "Table 1 and the authors' later last-epoch results: random folds",
    "speaker-independent": "the same network, speaker-independent folds",
    "table-2": "Tables 2 and S4: trained on one corpus, tested on another",
    "table-s3": "Table S3: ablations",
}


def runs(table: str, corpora: list[str]) -> dict[str, dict]:
    """The runs of a table over some corpora, by name, as params.yaml has them.

    Raises:
        ParameterError: a table or corpus that the paper has not, or one corpus for table-2.
    """
    if table not in TABLES:
        raise ParameterError(
            f"no table {table!r}; known are {', '.join(TABLES)}.{suggestion(table, TABLES)}"
        )
    known = CROSS_CORPORA if table == "table-2" else tuple(paper()["fold_seed"])
    for corpus in corpora:
        if corpus not in known:
            raise ParameterError(
                f"{table} has no {corpus}; it has {', '.join(known)}.{suggestion(corpus, known)}"
            )
    if table == "table-2":
        if len(corpora) < 2:
            raise ParameterError("table-2 needs two corpora or more: each is tested on others.")
        return {
            f"{one}-to-{other}": _run(one, other, {"protocol": "cross-corpus"}, "tim-net")
            for one, other in permutations(corpora, 2)
        }
    variants = ABLATIONS if table == "table-s3" else ("tim-net",)
    result = {}
    for corpus in corpora:
        random = {"protocol": "random", "number": 10, "seeds": [paper()["fold_seed"][corpus]]}
        folds = {"protocol": "speaker"} if table == "speaker-independent" else random
        for variant in variants:
            ending = {"table-1": "random", "speaker-independent": "speaker"}.get(table, variant)
            result[f"{corpus}-{ending}"] = _run(corpus, corpus, folds, variant)
    return result


def _run(trained_on: str, tested_on: str, folds: dict, variant: str) -> dict:
    across = trained_on != tested_on
    tabs, lengths = paper()["tabs"], paper()["signal_length"]
    return {
        "trained_on": trained_on,
        "tested_on": tested_on,
        "signal_length": (paper()["signal_length_cross_corpus"] if across else lengths[trained_on]),
        "folds": folds,
        "network": {"tabs": tabs.get(trained_on, tabs["others"]), "variant": variant},
        "precision": "fp32",
        "seeds": list(range(CROSS_SEEDS if across else 1)),
    }
