"""Tables S1 and S2: what the corpora are, in print and in the manifests of this commit."""

from __future__ import annotations

from typing import Any

from timnet.paper import paper
from timnet.records import Description, Validation
from timnet.reporting.render import NO_FIGURE, NOT_HERE, Cell, Table, print_figure, row_of


def corpora(validations: dict[str, Validation], descriptions: dict[str, Description]) -> Table:
    """Table S1: what the corpora are, in print and in our manifests.

    Args:
        validations: corpus -> summary of its validation.
        descriptions: corpus -> what its recipe says of it.
    """
    rows = []
    of_paper = paper()["table_s1_corpora"]
    for corpus, printed in of_paper.items():
        theirs = (
            printed["language"],
            f"{printed['speakers_male']} / {printed['speakers_female']}",
            str(printed["utterances"]),
            print_figure(printed["khz"], 1),
        )
        ours = (NOT_HERE, NOT_HERE, NOT_HERE, NOT_HERE)
        if corpus in validations:
            ours = _counted(validations[corpus], descriptions[corpus])
        rows += [row_of(corpus, "paper", *theirs), row_of(corpus, "ours", *ours)]
    rows += [
        row_of(corpus, "ours", *_counted(seen, descriptions[corpus]))
        for corpus, seen in validations.items()
        if corpus not in of_paper
    ]
    unknown = [each for each in descriptions.values() if "unknown" in each["speakers"].values()]
    columns = ("corpus", "", "language", "speakers, male / female", "utterances", "kHz")
    return Table(
        "table-s1",
        "Table S1: corpora",
        columns,
        rows,
        [
            "Ours: counted in the manifests of this commit. 22.1 and 48 kHz of CASIA and IEMOCAP "
            "are as printed in the paper, and doubtful.",
            *(
                ["Where the sex of a speaker is unknown, all are counted together."]
                if unknown
                else []
            ),
        ],
    )


def _counted(validation: Validation, description: Description) -> tuple[str, str, str, str]:
    """Language, speakers, utterances and sample rates of a corpus as its manifest has them."""
    seen = _observed(validation)
    sexes = [description["speakers"][speaker] for speaker in seen["all speakers"]]
    speakers = f"{sexes.count('male')} / {sexes.count('female')}"
    return (
        description["language"],
        str(validation["speakers"]) if "unknown" in sexes else speakers,
        str(validation["utterances"]),
        ", ".join(print_figure(rate / 1000, 1) for rate in seen.get("sample rates", [])),
    )


def class_counts(validations: dict[str, Validation]) -> Table:
    """Table S2: utterances per emotion, in print and in our manifests."""
    printed = paper()["table_s2_class_counts"]
    here = {corpus: _observed(seen).get("class counts", {}) for corpus, seen in validations.items()}
    every = (*printed.values(), *here.values())
    emotions = sorted({emotion for counts in every for emotion in counts})

    def row(corpus: str, whose: str, counts: dict[str, int]) -> list[Cell]:
        return row_of(corpus, whose, *(str(counts.get(e, NO_FIGURE)) for e in emotions))

    rows = []
    for corpus, theirs in printed.items():
        rows.append(row(corpus, "paper", theirs))
        if corpus in here:
            rows.append(row(corpus, "ours", here[corpus]))
        else:
            rows.append(row_of(corpus, "ours", NOT_HERE, *[""] * (len(emotions) - 1)))
    rows += [row(corpus, "ours", here[corpus]) for corpus in here if corpus not in printed]
    return Table(
        "table-s2",
        "Table S2: utterances per emotion",
        ("corpus", "", *emotions),
        rows,
        ["Ours: counted in the manifests of this commit."],
    )


def _observed(validation: Validation) -> dict[str, Any]:
    return {check["check"]: check.get("observed") for check in validation["checks"]}
