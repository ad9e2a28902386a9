from __future__ import annotations

from timnet.evaluation.protocols import MEANING, PROTOCOLS
from timnet.reporting import figures

SCORES = {
    protocol: {
        "uar": {"value": 60.0, "low": 50.0, "high": 70.0},
        "speakers": {"s1": {"uar": 55.0}, "s2": {"uar": 65.0}},
    }
    for protocol in ("speaker-independent", "speaker-independent-validated", "last-epoch")
}


def test_a_protocol_has_the_same_colour_in_all_figures() -> None:
    for protocol, scores in SCORES.items():
        over_all = figures.protocols([("demo", protocol, scores, 25.0, {})])
        by_speaker = figures.speakers({protocol: scores}, "demo", 25.0)
        first, second = (figure.axes[0].lines[0] for figure in (over_all, by_speaker))
        assert first.get_color() == second.get_color() == figures.STYLES[protocol]["color"]


def test_the_legend_of_the_protocols_names_what_is_drawn() -> None:
    scores = SCORES["speaker-independent"]
    for marks in ({}, {"SVM": 40.0, "recipe unseen": 50.0, "the paper": 92.0}):
        drawn = figures.protocols([("demo", "speaker-independent", scores, 25.0, marks)])
        told = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert told == ["ours", "95 % CI", "a speaker", *marks, "chance"]


def test_every_protocol_has_a_colour_and_a_name_that_fits() -> None:
    scores = SCORES["last-epoch"]
    rows = [("demo", protocol, scores, 25.0, {}) for protocol in MEANING]
    drawn = figures.protocols(rows)
    names = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert [name.replace("\n", "") for name in names] == [
        name.replace("-validated", "validated") for name in MEANING
    ]
    assert max(len(line) for name in names for line in name.split("\n")) <= 24
    base = {p.name: figures.STYLES[p.name]["color"] for p in PROTOCOLS if not p.validated}
    assert len(set(base.values())) == len(base)


def test_across_corpora_there_is_a_column_for_each() -> None:
    own = SCORES["last-epoch"] | {"uar": {"value": 60.0, "low": 50.0, "high": 70.0}}
    across = {"cross-corpus": {"uar": own["uar"], "corpora": {"one": own, "two": own}}}
    drawn = figures.corpora(across, "three to 2 others", 20.0)
    assert [text.get_text() for text in drawn.axes[0].get_xticklabels()] == ["one", "two"]
