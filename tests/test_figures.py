from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from timnet.evaluation.protocols import MEANING, PROTOCOLS
from timnet.reporting import figures

SVG = "{http://www.w3.org/2000/svg}"

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


def test_across_corpora_there_is_a_row_for_each() -> None:
    own = SCORES["last-epoch"] | {"uar": {"value": 60.0, "low": 50.0, "high": 70.0}}
    across = {"cross-corpus": {"uar": own["uar"], "corpora": {"one": own, "two": own}}}
    drawn = figures.corpora(across, "three to 2 others", 20.0)
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["one", "two"]


def scored(number: int, few: int = 0) -> dict:
    """Scores of so many speakers, of whom the first ones said too little."""
    return {
        "uar": {"value": 60.0, "low": 50.0, "high": 70.0},
        "speakers": {
            f"s{each}": {
                "uar": 100.0 if each < few else 50.0 + each,
                "utterances": 9 + 9 * (each >= few),
            }
            for each in range(number)
        },
    }


def names(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_speakers_are_sorted_and_all_of_them_can_be_read() -> None:
    drawn = figures.speakers({"speaker-independent": scored(29)}, "demo", 25.0)
    assert names(drawn) == [f"s{each}" for each in range(29)]
    height = drawn.get_size_inches()[1]
    assert height / 29 > 0.14  # inches: a line of small type
    assert drawn.get_size_inches()[0] <= figures.NARROW  # of a phone
    assert names(figures.speakers({"speaker-independent": scored(91)}, "demo", 25.0)) == []


def test_speakers_who_said_little_are_counted_and_not_drawn() -> None:
    drawn = figures.speakers({"speaker-independent": scored(12, few=2)}, "demo", 25.0)
    assert len(names(drawn)) == 10 and not {"s0", "s1"} & set(names(drawn))
    told = [text.get_text() for text in drawn.axes[0].texts]
    assert any("2 with fewer than 10 utterances" in text for text in told)
    over_all = figures.protocols([("demo", "speaker-independent", scored(12, few=2), 25.0, {})])
    assert 100.0 not in over_all.axes[0].lines[0].get_xdata()


def test_numbers_stand_beside_what_is_drawn() -> None:
    near_chance = {"uar": {"value": 25.0, "low": 20.0, "high": 30.0}, "speakers": {}}
    drawn = figures.protocols([("demo", "speaker-independent", near_chance, 25.0, {})])
    (number,) = (text for text in drawn.axes[0].texts if text.get_text() == "25.0")
    assert number.get_position()[0] > 1  # in widths of the axes


def test_many_speakers_have_a_panel_each() -> None:
    generator = np.random.default_rng(0)
    for number, panels in ((6, 2), (24, 1 + 24)):
        rows = 4 * number
        predictions = pl.DataFrame(
            {
                "fold_seed": [1] * rows,
                "seed": [0] * rows,
                "fold": [row % 2 for row in range(rows)],
                "emotion": ["angry" if row % 2 else "sad" for row in range(rows)],
                "speaker": [f"s{row % number}" for row in range(rows)],
                "fused": generator.normal(size=(rows, 5)).tolist(),
            }
        )
        drawn = figures.fused_vectors(predictions, ["angry", "sad"], "demo")
        assert len(drawn.axes) == panels
        titles = [part.get_suptitle() for part in drawn.subfigs]
        assert titles == ["demo, last epoch: t-SNE by emotion", "by speaker"]


@pytest.mark.filterwarnings("error")
def test_few_utterances_are_drawn_too() -> None:
    """A fold each, as random folds of a small corpus are: none has another beside it."""
    predictions = pl.DataFrame(
        {
            "fold_seed": [1] * 6,
            "seed": [0] * 6,
            "fold": range(6),
            "emotion": ["angry", "sad"] * 3,
            "speaker": ["s1"] * 6,
            "fused": np.eye(6).tolist(),
        }
    )
    assert len(figures.fused_vectors(predictions, ["angry", "sad"], "demo").axes) == 2


ODD = (
    "p$_$q",
    "a$b$c",
    "_anna",
    "x|y",
    "*b*",
    "<b>Tom</b>",
    "c&d",
    "a`b",
    "\\alpha",
    "%s",
    "王小明",
)


@pytest.mark.filterwarnings("error")
def test_names_of_speakers_are_drawn_as_they_are(tmp_path: Path) -> None:
    scores = scored(0)
    scores["speakers"] = {name: {"uar": 50.0, "utterances": 20} for name in ODD}
    rows = 4 * len(ODD)
    # with a legend, and with a panel each
    for number, longest in ((4, figures.LONGEST), (len(ODD), figures.LONGEST_OF_MANY)):
        predictions = pl.DataFrame(
            {
                "fold_seed": [1] * rows,
                "seed": [0] * rows,
                "fold": [0] * rows,
                "emotion": ["angry", "sad"] * (rows // 2),
                "speaker": [ODD[row % number] for row in range(rows)],
                "fused": np.random.default_rng(0).normal(size=(rows, 5)).tolist(),
            }
        )
        figures.save(figures.fused_vectors(predictions, ["angry", "sad"], "demo"), tmp_path / "x")
        assert {figures.short(name, longest) for name in ODD[:number]} <= texts(tmp_path / "x.svg")
    figures.save(figures.speakers({"speaker-independent": scores}, "demo", 25.0), tmp_path / "x")
    assert set(ODD) <= texts(tmp_path / "x.svg")


def texts(svg: Path) -> set[str]:
    return {element.text or "" for element in ElementTree.parse(svg).iter(f"{SVG}text")}


def test_long_names_keep_their_beginning_and_their_end() -> None:
    one, two = (figures.short(f"speaker-of-milano-0{n}", 12) for n in (1, 2))
    assert one != two and len(one) == 12
    assert one.startswith("spea") and one.endswith("-01")
    assert figures.short("f1", 9) == "f1"
    assert figures.short("a\u202eb", 9) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("corpus", ["casia", "a-" * 29 + "a"])
def test_a_title_is_as_wide_as_its_figure(corpus: str) -> None:
    protocol = "speaker-and-sentence-independent"
    drawn = figures.confusion_matrix(np.eye(2), ["angry", "sad"], corpus, protocol)
    title = drawn.get_suptitle()
    assert max(map(len, title.splitlines())) <= figures.TITLE_WRAP
    assert "confusion matrix" in title and corpus[:20] in title


def test_a_figure_is_one_svg_of_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        drawn = figures.speakers({"last-epoch": SCORES["last-epoch"]}, "demo", 25.0)
        figures.save(drawn, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "two.svg"]
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_marks_keep_their_places_and_texts_their_digits(tmp_path: Path) -> None:
    figure = Figure((4, 3))
    axes = figure.subplots()
    axes.scatter(range(300), [number / 7 for number in range(300)], color="#009E73", lw=0, s=9)
    axes.set_title("0.12345 of it")
    figures.save(figure, tmp_path / "marks")
    text = (tmp_path / "marks.svg").read_text()
    root = ElementTree.fromstring(text)
    assert "0.12345 of it" in [each.text for each in root.iter(f"{SVG}text")]
    (group,) = (each for each in root.iter(f"{SVG}g") if len(each.findall(f"{SVG}use")) == 300)
    assert group.get("style", "").startswith("fill: #009e73")
    left = [float(use.get("x", "nan")) for use in group.findall(f"{SVG}use")]
    steps = {round(b - a, 1) for a, b in itertools.pairwise(left)}
    assert len(steps) <= 2 and max(steps) > 0  # evenly spaced, to a tenth of a point
    assert len(text) < 300 * 80


def test_curves_of_a_long_run_have_a_point_for_some_epochs() -> None:
    for epochs, points, told in ((500, 125, ", 4 epochs a point"), (100, 100, "networks")):
        losses = [1 / epoch for epoch in range(1, epochs + 1)]
        columns = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
        history = pl.DataFrame(
            {"epoch": range(1, epochs + 1), "fold_seed": 1, "seed": 0, "fold": 0}
            | dict.fromkeys(columns, losses)
        )
        upper = figures.curves(history, "demo").axes[0]
        (x, y) = upper.lines[0].get_data()
        assert len(x) == len(y) == points
        assert 1 <= x[0] < x[-1] <= epochs
        assert y[0] <= 1 and y[-1] >= 1 / epochs and list(y) == sorted(y, reverse=True)
        assert " ".join(upper.texts[0].get_text().split()).endswith(told)
