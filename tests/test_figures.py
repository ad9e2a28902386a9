from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import polars as pl
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


def test_across_corpora_there_is_a_column_for_each() -> None:
    own = SCORES["last-epoch"] | {"uar": {"value": 60.0, "low": 50.0, "high": 70.0}}
    across = {"cross-corpus": {"uar": own["uar"], "corpora": {"one": own, "two": own}}}
    drawn = figures.corpora(across, "three to 2 others", 20.0)
    assert [text.get_text() for text in drawn.axes[0].get_xticklabels()] == ["one", "two"]


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
        assert upper.texts[0].get_text().endswith(told)
