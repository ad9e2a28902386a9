from __future__ import annotations

from timnet.reporting import figures

SCORES = {
    protocol: {
        "uar": {"value": 60.0, "low": 50.0, "high": 70.0},
        "speakers": {"s1": {"uar": 55.0}, "s2": {"uar": 65.0}},
    }
    for protocol in ("speaker-independent", "cross-corpus")
}


def test_a_protocol_has_the_same_colour_in_all_figures() -> None:
    for protocol, scores in SCORES.items():
        over_all = figures.protocols([("demo", protocol, scores, 25.0, None)])
        by_speaker = figures.speakers({protocol: scores}, "demo", 25.0)
        first, second = (figure.axes[0].lines[0] for figure in (over_all, by_speaker))
        assert first.get_color() == second.get_color() == figures.PROTOCOLS[protocol]["color"]


def test_the_legend_of_the_protocols_names_what_is_drawn() -> None:
    for printed, marks in ((None, []), (92.0, ["the paper"])):
        drawn = figures.protocols(
            [("demo", "speaker-independent", SCORES["speaker-independent"], 25.0, printed)]
        )
        told = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert told == ["ours", "95 %, over utterances", "a speaker", *marks, "chance"]
