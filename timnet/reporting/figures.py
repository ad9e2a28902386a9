"""Figures of a run, drawn from what git keeps of it; readable in print and by the colour-blind."""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from timnet.evaluation.protocols import CROSS, MEANING, PROTOCOLS
from timnet.paths import write_text
from timnet.records import tested_on

# Okabe and Ito, "Color Universal Design", 2008: told apart by all kinds of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
TITLE = 9.5  # points
WRAP = 54  # characters of SMALL type in a line of a figure
TITLE_WRAP = 40  # of a title
LONGEST = 18  # characters of a speaker's name beside axes; in a legend of few names
LONGEST_OF_MANY = 9  # above a small panel, and in a legend
_BASES = list(dict.fromkeys(protocol.base for protocol in PROTOCOLS))
STYLES: dict[str, dict[str, str]] = {  # colour and marker of each protocol
    protocol.name: {
        # best-epoch and last-epoch have the same folds, and colours of their own
        "color": COLOURS[0] if protocol.optimistic else COLOURS[1 + _BASES.index(protocol.base)],
        "marker": MARKERS[0] if protocol.optimistic else MARKERS[1 + _BASES.index(protocol.base)],
        "mfc": "none" if protocol.validated else "auto",
    }
    for protocol in PROTOCOLS
}
MARKS = {  # of what stands beside ours
    "the paper": {"marker": "D", "color": "black", "mfc": "none", "ms": 7},
    "SVM": {"marker": "s", "color": "black", "mfc": "none", "ms": 6},
    "recipe": {"marker": "*", "color": "black", "ms": 8},
}
SMALL = 8.0  # points, the smallest type
NARROW = 3.35  # inches: a column of print, and the width of a phone at its own size
POINTS = 125  # of a curve: what a column of print can show
FEW = 10  # utterances: of a speaker with fewer a UAR says nothing
FACETS = 10  # speakers: of more each has a small panel of its own
NAMED = 40  # speakers: of more the names are left out
CHANCE: Any = {"color": "0.3", "lw": 1.2, "ls": (0, (2, 2))}
STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "axes.labelsize": 8.5,
    "font.size": 8.5,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # each text of an SVG names them all
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "timnet",  # equal figures, equal bytes
}
# In all of this process, since matplotlib asks when a text is made, often by itself: names of
# speakers and corpora are no formulas, whatever `$` there is in them.
mpl.rcParams.update({"text.parse_math": False, "svg.fonttype": STYLE["svg.fonttype"]})


def all_figures(results: Path) -> Iterator[tuple[str, Figure]]:
    """Every figure of a run, with its name.

    Args:
        results: the run's folder below results/runs.
    """
    record = json.loads((results / "run.json").read_text(encoding="utf-8"))
    scores = json.loads((results / "scores.json").read_text(encoding="utf-8"))
    confusion = pl.read_csv(results / "confusion.csv")
    corpus = record["trained_on"]
    across = record["folds"]["protocol"] == CROSS  # of a source, which is trained elsewhere
    if across:
        tested = tested_on(record)
        corpus += f" to {tested[0] if len(tested) == 1 else f'{len(tested)} others'}"
    for protocol in scores:
        counts = _counts(confusion.filter(protocol=protocol), record["labels"])
        yield f"confusion-{protocol}", confusion_matrix(counts, record["labels"], corpus, protocol)
    if not across and not record.get("baseline"):  # which has no epochs and no fused vectors
        yield "curves", curves(pl.read_parquet(results / "history.parquet"), corpus)
        predictions = pl.read_parquet(results / "predictions.parquet").filter(epoch_kind="last")
        if len(predictions):
            yield "fused", fused_vectors(predictions, record["labels"], corpus)
    chance = 100 / len(record["labels"])
    if any("speakers" in of_protocol for of_protocol in scores.values()):
        yield "speakers", speakers(scores, corpus, chance)
    else:
        yield "corpora", corpora(scores, corpus, chance)
    scales = None if across else pl.read_csv(results / "scales.csv")
    if scales is not None and len(scales):
        settings = record["features"]["settings"]
        frame = 1000 * settings["hop"] / settings["sample_rate"]
        yield "scales", time_scales(scales, corpus, frame)


def save(figure: Figure, path: Path) -> None:
    """Write `path`.svg atomically; equal figures give equal bytes."""
    drawn = io.StringIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # text stays text, and a reader's fonts may well have what those here lack
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(drawn, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    write_text(path.with_suffix(".svg"), lighter(drawn.getvalue()))


def lighter(svg: str) -> str:
    """The same picture in a third of the bytes: git keeps it, and the report holds dozens.

    Coordinates (in points) get two decimals; comments and indentation go; the style that marks in
    a row have in common is told once.
    """
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: _DECIMALS.sub(_rounded, tag[0]), svg)
    return _MARKS.sub(_told_once, svg)


_DECIMALS = re.compile(r"\d+\.\d{3,}")
_MARKS = re.compile(r'<use [^>]*style="([^"]*)"/>(?:\n<use [^>]*style="\1"/>)+')


def _rounded(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _told_once(marks: re.Match) -> str:
    style = f' style="{marks[1]}"'
    return f"<g{style}>\n{marks[0].replace(style, '')}\n</g>"


def confusion_matrix(counts: np.ndarray, labels: list[str], corpus: str, protocol: str) -> Figure:
    """Row-normalised confusion matrix in percent, as Figures S1 to S3; counts (K, K)."""
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    title = f"{corpus}, {protocol}: confusion matrix"
    height = 0.32 * len(labels) + 1.3 + 0.16 * (len(_lines_of(title)) - 1)
    figure, axes = _figure(max(NARROW, 0.34 * len(labels) + 0.95), height)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(*share.shape):
        # print, like the paper: whole percent, half up
        text = f"{np.floor(share[row, column] + 0.5):.0f}"
        ink = "white" if share[row, column] > 55 else "0.15" if share[row, column] >= 0.5 else "0.5"
        axes.text(column, row, text, ha="center", va="center", color=ink)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted, %", ylabel="true emotion")
    _title(figure, title, MEANING[protocol])
    return figure


def curves(history: pl.DataFrame, corpus: str) -> Figure:
    """Loss and accuracy by epoch: median over the networks, and the middle 80 % of them.

    Of long runs a point stands for some epochs, so that no curve has more than `POINTS`.
    """
    longest = int(history.select(pl.col("epoch").max()).item())
    span = -(-longest // POINTS)  # epochs a point, rounded up
    point = (pl.col("epoch") - 1) // span * span + (span + 1) / 2
    figure, (upper, lower) = _figure(NARROW, 3.9, 2)
    for axes, name, factor, unit in (
        (upper, "loss", 1, "cross entropy"),
        (lower, "accuracy", 100, "accuracy, %"),
    ):
        for part, colour in (("train", COLOURS[0]), ("test", COLOURS[1])):
            value = pl.col(f"{part}_{name}") * factor
            rows = history.group_by(epoch=point).agg(
                value.median().alias("median"),
                value.quantile(0.1).alias("low"),
                value.quantile(0.9).alias("high"),
            )
            rows = rows.sort("epoch")
            epochs = rows["epoch"].to_numpy()
            axes.fill_between(epochs, rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)
            axes.plot(epochs, rows["median"], color=colour, lw=1.1, label=part)
        axes.set(ylabel=unit, xlim=(1, max(longest, 2)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    upper.set_yscale("log")
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_locator(NullLocator())
    lower.legend(frameon=False, loc="best", fontsize=SMALL)
    lower.set(xlabel="epoch")
    networks = len(history.select("fold_seed", "seed", "fold").unique())
    each = f", {span} epochs a point" if span > 1 else ""
    below = f"median and central 80 % of {networks} networks{each}"
    _title(figure, f"{corpus}: loss and accuracy over epochs", below)
    return figure


def fused_vectors(predictions: pl.DataFrame, labels: list[str], corpus: str) -> Figure:
    """t-SNE of the fused vectors of the test folds, by emotion and by speaker (Figure 3)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    first = predictions.row(0, named=True)
    own = predictions.filter(fold_seed=first["fold_seed"], seed=first["seed"])
    vectors = np.array(own["fused"].to_list(), np.float64)
    for fold in own["fold"].unique():  # each fold's network has a space of its own
        rows = (own["fold"] == fold).to_numpy()
        spread = vectors[rows].std(0)
        vectors[rows] = (vectors[rows] - vectors[rows].mean(0)) / np.where(spread > 0, spread, 1)
    if vectors.any():
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        with threadpool_limits(1):  # threads that wait for each other take ten times as long
            points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
    else:  # one utterance in each fold: none has another to be compared with
        points = np.zeros((len(vectors), 2))
    speakers = sorted(own["speaker"].unique(), key=_natural)
    columns = 6
    below = math.ceil(len(speakers) / columns) if len(speakers) > FACETS else 0
    with mpl.rc_context(STYLE):
        heights = (3.4, 0.6 * below + 0.4 if below else 3.4)
        figure = Figure((NARROW, sum(heights)), layout="constrained")
        both: Any = figure.subfigures(2, height_ratios=heights)
        upper, lower = both
        _scatter(upper.subplots(), points, own["emotion"], labels)
        if below:
            _panels(lower.subplots(below, columns, squeeze=False), points, own["speaker"], speakers)
        else:
            _scatter(lower.subplots(), points, own["speaker"], speakers)
    for part, title in ((upper, f"{corpus}, last epoch: t-SNE by emotion"), (lower, "by speaker")):
        part.suptitle(title, x=0.02, ha="left", fontsize=TITLE, fontweight="bold")
    return figure


def _scatter(axes, points: np.ndarray, of: pl.Series, groups: list[str]) -> None:
    """Points in the plane, in the colours and with the names of their groups."""
    handles = [
        axes.scatter(
            *points[(of == group).to_numpy()].T,
            s=7,
            lw=0,
            alpha=0.8,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        )
        for number, group in enumerate(groups)
    ]
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    wide = max(map(len, groups)) > LONGEST_OF_MANY
    axes.legend(
        handles,  # with labels given here, since those of artists must not begin with `_`
        [short(group, LONGEST) for group in groups],
        frameon=False,
        fontsize=SMALL,
        ncols=2 if wide else 4,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        handletextpad=0.1,
        columnspacing=0.8,
        markerscale=1.6,
    )


def _panels(panels, points: np.ndarray, of: pl.Series, groups: list[str]) -> None:
    """A panel a group: its points before those of all."""
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, group in zip(panels.flat, groups, strict=False):
        own = (of == group).to_numpy()
        # everybody else as one image: as shapes they are megabytes in 24 panels
        axes.scatter(*points.T, s=0.6, lw=0, color="0.8", rasterized=True)
        axes.scatter(*points[own].T, s=2.5, lw=0, color=COLOURS[1])
        axes.set_title(short(group, LONGEST_OF_MANY), fontsize=6.5, pad=1)


def short(name: str, longest: int) -> str:
    """A name of so many characters at most, with its beginning and its end: both may tell it."""
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    if len(name) <= longest:
        return name
    end = longest // 2
    return f"{name[: longest - end - 1]}…{name[-end:]}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Key by which `a2` stands before `a10`."""
    return [(int(part or 0), "") if part.isdecimal() else (0, part) for part in _parts(name)]


def _parts(name: str) -> list[str]:
    return re.split(r"([0-9]{1,9})", name)


def protocols(rows: list[tuple[str, str, dict, float, dict[str, float]]]) -> Figure:
    """UAR of a network under each protocol, beside chance, the paper's and others'.

    Args:
        rows: corpus, protocol, its scores as of `score.scores`, the UAR of guesses, and the UAR of
            others by name (`the paper`, `SVM`, `recipe ...`); from top to bottom.
    """
    corpora = list(dict.fromkeys(corpus for corpus, *_ in rows))
    places = [place + corpora.index(corpus) for place, (corpus, *_) in enumerate(rows)]
    height = len(rows) + len(corpora)  # a line for the name of each corpus
    figure, axes = _figure(NARROW, 0.27 * height + 1.7)
    for place, (_, protocol, scores, chance, marks) in zip(places, rows, strict=True):
        colour, uar = STYLES[protocol]["color"], scores["uar"]
        spread = [each["uar"] for each in with_enough_utterances(scores).values()]
        axes.plot(spread, [place] * len(spread), "|", color=colour, alpha=0.55, ms=9)
        axes.plot([uar["low"], uar["high"]], [place] * 2, color=colour, lw=3.5, alpha=0.35)
        axes.plot(uar["value"], place, "o", color=colour, ms=6)
        for name, value in marks.items():
            axes.plot(value, place, ls="", **_mark(name))
        # beside the axes, where no line or mark is
        beside: Any = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": SMALL}
        half_up = uar["value"] + 1e-6  # as in print
        axes.text(1.02, place, f"{half_up:.1f}", **beside)
        axes.plot([chance] * 2, [place - 0.5, place + 0.5], **CHANCE)
    for corpus in corpora:
        first = min(p for p, (other, *_) in zip(places, rows, strict=True) if other == corpus)
        left: Any = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
        axes.text(-0.02, first - 0.9, corpus, weight="bold", **left)
    axes.plot([], [], "o", color="0.4", ms=6, label="ours")
    axes.plot([], [], color="0.4", lw=3.5, alpha=0.35, label="95 % CI")
    axes.plot([], [], "|", color="0.4", ms=9, label="a speaker")
    for name in dict.fromkeys(name for *_, marks in rows for name in marks):
        axes.plot([], [], ls="", **_mark(name), label=name)
    axes.plot([], [], **CHANCE, label="chance")
    axes.set_yticks(places, [_broken(protocol) for _, protocol, *_ in rows])
    axes.set(xlabel="UAR, %", xlim=(0, 100), ylim=(height - 1.4, -1.5))
    axes.grid(axis="x", alpha=0.25)
    figure.legend(
        frameon=False,
        loc="outside lower center",
        ncols=3,
        fontsize=SMALL,
        columnspacing=1.2,
        handletextpad=0.4,
    )
    below = "best-epoch: chosen ON THE TEST FOLD, optimistic"
    _title(figure, "UAR under each protocol", below)
    return figure


def _broken(protocol: str) -> str:
    """A protocol's name in lines that fit beside axes."""
    return protocol.replace("-and-sentence", "-\nand-sentence").replace("-validated", "\nvalidated")


def _mark(name: str) -> Any:
    return MARKS["recipe" if name.startswith("recipe") else name]


def corpora(scores: dict[str, dict], corpus: str, chance: float) -> Figure:
    """UAR on each corpus that was tested, and of its speakers; `chance` in percent."""
    protocols = [protocol for protocol in MEANING if protocol in scores]
    names = list(scores[protocols[0]]["corpora"])
    figure, axes = _figure(NARROW, 0.5 * len(names) + 1.7)
    for number, protocol in enumerate(protocols):
        style: Any = STYLES[protocol] | {"lw": 0, "ms": 6}
        shift = 0.2 * (number - (len(protocols) - 1) / 2)
        for place, name in enumerate(names):
            own, at = scores[protocol]["corpora"][name], place + shift
            spread = [each["uar"] for each in with_enough_utterances(own).values()]
            axes.plot(spread, [at] * len(spread), "|", color=style["color"], alpha=0.5, ms=9)
            bounds = [own["uar"]["low"], own["uar"]["high"]]
            axes.plot(bounds, [at] * 2, color=style["color"], lw=3.5, alpha=0.35)
        values = [scores[protocol]["corpora"][name]["uar"]["value"] for name in names]
        axes.plot(values, np.arange(len(names)) + shift, **style, label=protocol)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="UAR, %", xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.25)
    axes.axvline(chance, **CHANCE, label="chance")
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=SMALL)
    _title(figure, f"{corpus}: UAR on each corpus", "bars: 95 % CI; dashes: speakers")
    return figure


def speakers(scores: dict[str, dict], corpus: str, chance: float) -> Figure:
    """UAR of each speaker under each protocol, sorted by the last of them; `chance` in percent."""
    protocols = [protocol for protocol in MEANING if protocol in scores]
    by_name = {
        protocol: {
            name: each["uar"] for name, each in with_enough_utterances(scores[protocol]).items()
        }
        for protocol in protocols
    }
    leading = by_name[protocols[-1]]
    names = sorted(leading, key=lambda name: leading[name])
    named = len(names) <= NAMED
    height = 0.15 * len(names) if named else 0.05 * len(names)
    figure, axes = _figure(NARROW, max(height, 0.6) + 1.6)
    for number, protocol in enumerate(protocols):
        own = by_name[protocol]
        shown = [place for place, name in enumerate(names) if name in own]
        shift = 0.2 * (number - (len(protocols) - 1) / 2)
        style: Any = STYLES[protocol] | {"lw": 0, "ms": 4 if named else 2.5}
        at = np.array(shown) + shift
        axes.plot([own[names[place]] for place in shown], at, **style, label=protocol)
        axes.axvline(scores[protocol]["uar"]["value"], color=style["color"], lw=0.8, alpha=0.6)
    shown_names = [short(name, LONGEST) for name in names]
    axes.set_yticks(range(len(names)) if named else [], shown_names if named else [])
    axes.set(xlabel="UAR, %", xlim=(0, 100), ylim=(-0.7, max(len(names), 1) - 0.3))
    axes.grid(axis="both" if named else "x", alpha=0.25)
    axes.axvline(chance, **CHANCE, label="chance")
    figure.legend(
        frameon=False, loc="outside lower center", ncols=3, fontsize=SMALL, columnspacing=1.0
    )
    below = f"{len(names)} speakers, sorted; lines: all speakers"
    if left_out := len(scores[protocols[-1]]["speakers"]) - len(names):
        below += f"\nnot drawn: {left_out} with fewer than {FEW} utterances"
    _title(figure, f"{corpus}: UAR of each speaker", below)
    return figure


def with_enough_utterances(scores: dict) -> dict[str, dict]:
    """The speakers of whom there are enough utterances to tell a UAR."""
    return {
        name: each
        for name, each in scores["speakers"].items()
        if each.get("utterances", FEW) >= FEW
    }


def time_scales(scales: pl.DataFrame, corpus: str, frame: float) -> Figure:
    """Learned weight of each time scale, a dot a network; `frame` in ms from frame to frame."""
    figure, axes = _figure(NARROW, 2.8)
    # only their ratio matters: the classifier can undo sign and size
    own = scales.with_columns(
        share=pl.col("weight").abs()
        / pl.col("weight").abs().sum().over("fold_seed", "seed", "fold")
    )
    blocks = sorted(own["block"].unique())
    for number, block in enumerate(blocks):
        values = 100 * own.filter(block=block)["share"].to_numpy()
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        axes.plot(number + np.array(spread), values, "o", ms=3, color=COLOURS[0], alpha=0.6, mew=0)
        axes.plot([number - 0.3, number + 0.3], [np.median(values)] * 2, color=COLOURS[1], lw=1.6)
    # two convolutions of width 2 a block: block j adds 2 * 2^(j - 1) frames to what it sees
    reach = [frame * sum(2 * 2**j for j in range(block)) for block in blocks]
    axes.set_xticks(
        range(len(blocks)),
        [f"{b}\n{_seconds(ms)}" for b, ms in zip(blocks, reach, strict=True)],
    )
    axes.set(
        xlabel="block, and its receptive field, s",
        ylabel="share of the weight, %",
        ylim=(0, None),
    )
    axes.grid(axis="y", alpha=0.25)
    _title(
        figure,
        f"{corpus}: weights of the time scales",
        "absolute values; dots: networks, bars: median",
    )
    return figure


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.2f}" if ms < 1000 else f"{ms / 1000:.1f}"


def _counts(rows: pl.DataFrame, labels: list[str]) -> np.ndarray:
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for _, actual, predicted, utterances in rows.iter_rows():
        counts[place[actual], place[predicted]] = utterances
    return counts


def _figure(width: float, height: float, rows: int = 1):
    """A figure of a size in inches and its axes, one below the other."""
    with mpl.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        return figure, figure.subplots(rows)


def _lines_of(title: str) -> list[str]:
    """A title in lines that fit; behind its colon one begins."""
    if len(title) <= TITLE_WRAP:
        return [title]
    before, colon, behind = title.partition(": ")
    return textwrap.wrap(before + colon.strip(), TITLE_WRAP) + textwrap.wrap(behind, TITLE_WRAP)


def _title(figure, title: str, below: str = "") -> None:
    """A title and lines below it, at the left edge of a figure, whatever its axes are."""
    titles = _lines_of(title)
    lines = [line for part in below.splitlines() for line in textwrap.wrap(part, WRAP)]
    room = "\n" * math.ceil(1.25 * SMALL * len(lines) / TITLE)  # for the lines, in its own
    title = "\n".join(titles) + room
    figure.suptitle(title, x=0.02, ha="left", fontsize=TITLE, fontweight="bold")
    place: Any = {"xycoords": "figure fraction", "textcoords": "offset points", "va": "top"}
    under = -(1.9 + 1.25 * (len(titles) - 1)) * TITLE
    text = figure.axes[0].annotate(
        "\n".join(lines), (0.02, 1), (0, under), **place, fontsize=SMALL, color="0.35"
    )
    text.set_in_layout(False)
