"""The report: one HTML page that needs no network, from tables, figures and validations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup, escape

from timnet.errors import listing
from timnet.evaluation.intervals import CONFIDENCE
from timnet.evaluation.protocols import CROSS, MEANING, ORDER, SPEAKER, named
from timnet.paper import paper
from timnet.records import Description, Validation, originals, tested_on
from timnet.reporting.render import (
    NOT_HERE,
    Cell,
    Table,
    is_figures,
    literals,
    print_figure,
    shown,
)
from timnet.reporting.scored import (
    MOST_NAMED,
    PAPER_RECIPE,
    TIM_NET,
    ScoredRun,
    compared_methods,
    on_recipes,
)
from timnet.reporting.tables import GAIN

MARK = "†"
UNSEEN = (SPEAKER, CROSS)  # for which recipes other than the paper's are meant
CAPTIONS = {
    "confusion": "Confusion matrix, one row per true emotion.",
    "curves": "Loss and accuracy. Nothing is selected on the test curves except for `best-epoch`.",
    "fused": "The fused vectors, by emotion and by speaker. Clusters of speakers in a run with "
    "random folds: the network recognises voices. Speaker-independent runs have one network per "
    "fold of speakers, so there clusters mean nothing.",
    "corpora": "UAR on each corpus that was tested.",
    "scales": "Weight of each time scale.",
    "speakers": "UAR of each speaker, sorted.",
}


def page(
    tables: list[Table],
    overview: Path,
    runs: list[ScoredRun],
    figures: dict[str, Path],
    validations: dict[str, Validation],
    descriptions: dict[str, Description],
) -> str:
    """The whole page.

    Args:
        tables: as of `tables.all_tables`.
        overview: SVG that shows the first of them.
        runs: those of this commit.
        figures: run -> folder of its figures.
        validations: corpus -> summary of its validation.
        descriptions: corpus -> what its recipe says of it.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rich"] = rich
    template = environment.from_string(
        files("timnet.reporting").joinpath("report.html").read_text(encoding="utf-8")
    )
    told = headlined(runs)
    # so that the page opens quickly; the figures of the others lie beside it
    # of the chosen recipe those on unseen speakers, for which it was chosen
    networks = {
        run.name
        for run in told
        if run.is_network and (run.recipe == PAPER_RECIPE or {*UNSEEN} & run.scores.keys())
    }
    inside = {run.name for run in runs if not run.is_network and not run.is_baseline}
    inside |= networks or {run.name for run in runs}
    return template.render(
        title=title(runs),
        cards=cards(told),
        legend=[
            *(
                f"`{name}`: {MEANING[name]}."
                for name in MEANING
                if any(name in run.scores for run in told)
            ),
            *on_recipes(told),
        ],
        tables=[_shown(table) | {"link": _link(table, tables)} for table in tables],
        overview=_image(overview),
        runs=[
            _drawn(figures[run.name], run.name in inside)
            | {
                "name": run.name,
                "record": run.record,
                "scores": _scores(run),
                "provenance": _lines(run, validations),
            }
            for run in runs
        ],
        corpora=[
            {"recipe": descriptions[name], "summary": summary, "originals": originals(summary)}
            for name, summary in validations.items()
        ],
        commits=sorted({run.record["commit"] for run in runs}),
        told={run.name: "\n".join([run.name, *_lines(run, validations)]) for run in runs},
    )


def title(runs: Sequence[ScoredRun]) -> str:
    """What the page is called: a reproduction only where a corpus of the paper is trained on."""
    if any(run.corpus in paper()["fold_seed"] for run in runs):
        return "TIM-Net, reproduced"
    corpora = dict.fromkeys(name for run in runs for name in (run.corpus, *run.tested_on))
    return f"Speech emotion recognition: {listing(corpora, MOST_NAMED)}"


def headlined(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The networks of the cards, and the SVMs, which are what a network has to beat.

    Ablations and the recipes that were tried have tables. Without networks it is all runs.
    """
    networks = [run for run in compared_methods(runs) if run.is_network]
    if not networks:
        return list(runs)
    return [*networks, *(run for run in runs if run.is_baseline)]


def cards(runs: Sequence[ScoredRun]) -> list[dict]:
    """The headline figures, a card per corpus: its protocols from optimistic to strict.

    Args:
        runs: as of `headlined`.
    """
    found: dict[str, dict[tuple[str, str], dict]] = {}  # corpus -> protocol and what is said of it
    for protocol, own in _by_method(runs):
        about, score = _headline(protocol, own)
        group = {"protocol": protocol, "about": about, "chance": own[0].chance, "scores": []}
        groups = found.setdefault(own[0].corpus, {})
        groups.setdefault((protocol, about), group)["scores"].append(score)
    return [
        {
            "corpus": corpus,
            "chance": print_figure(next(iter(groups.values()))["chance"]),
            "protocols": list(groups.values()),
        }
        for corpus, groups in sorted(found.items())
    ]


def _by_method(runs: Sequence[ScoredRun]) -> list[tuple[str, list[ScoredRun]]]:
    """Protocols, and the run of a line of a card; across corpora all runs of a method.

    From optimistic to strict, the paper's recipe first and the SVMs last.
    """
    found: dict[tuple[str, ...], list[ScoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.is_baseline, run.recipe != PAPER_RECIPE)):
        for protocol, _ in run.by_protocol():
            line = run.method if _across(protocol) else run.name
            found.setdefault((protocol, run.corpus, line), []).append(run)
    ordered = sorted(found.items(), key=lambda item: ORDER.index(item[0][0]))
    return [(protocol, own) for (protocol, *_), own in ordered]


def _headline(protocol: str, runs: list[ScoredRun]) -> tuple[str, dict]:
    """One line of a card, and what stands above all such lines."""
    uars = [run.scores[protocol]["uar"] for run in runs]
    wars = [run.scores[protocol]["war"]["value"] for run in runs]
    values = [each["value"] for each in uars]
    low, high, about = uars[0]["low"], uars[0]["high"], f"{CONFIDENCE}\u00a0%\u00a0CI"
    if len(runs) > 1:
        low, high, about = min(values), max(values), "mean, lowest to highest"
    if _across(protocol):
        tested = ", ".join(sorted({name for run in runs for name in run.tested_on}))
        about += f"; on {tested}; chance {print_figure(runs[0].chance)} %"
    told = f"{', '.join(run.name for run in runs)}: {runs[0].meaning(protocol)}"
    return about, {
        "method": runs[0].method.removeprefix(f"{TIM_NET}, "),
        "uar": print_figure(mean(values)),
        "range": f"{print_figure(low)} to {print_figure(high)}",
        "told": f"{told}; WAR {print_figure(mean(wars))} %",
    }


def _across(protocol: str) -> bool:
    return named(protocol).folds == CROSS


def _shown(table: Table) -> dict:
    columns = [
        {"name": name, "figures": is_figures([row[place].text for row in table.rows])}
        for place, name in enumerate(table.columns)
    ]
    absent = _absent(table)
    kept, folded = ([r for r in table.rows if (r[0].text in absent) == a] for a in (False, True))
    named = ", ".join(absent) if len(absent) <= 6 else f"{len(absent)} {table.columns[0]}s"
    # a note on a mark stands where the mark does
    marks = [note for note in table.notes if note.startswith(MARK)]
    notes = [note for note in table.notes if note not in marks]
    return {
        "table": table,
        "columns": columns,
        "rows": kept,
        "absent": folded,
        "named": named,
        "grouped": len({row[0].text for row in table.rows}) < len(table.rows),
        "notes": notes + (marks if _marked(kept) else []),
        "absent_notes": marks if _marked(folded) and not _marked(kept) else [],
    }


def _link(table: Table, others: list[Table]) -> str:
    """What a table is called in the list of them: its title up to a colon, if no other has that."""
    short = table.title.split(":")[0]
    return (
        short if [other.title.split(":")[0] for other in others].count(short) == 1 else table.title
    )


def _marked(rows: list[list[Cell]]) -> bool:
    return any(MARK in cell.text for row in rows for cell in row)


def _absent(table: Table) -> list[str]:
    """Corpora, or pairs of them, of which nothing of ours is in this commit."""
    if table.columns[0] not in ("corpus", "pair"):
        return []
    groups: dict[str, list[Cell]] = {}
    for row in table.rows:
        groups.setdefault(row[0].text, []).extend(row)
    return [
        name
        for name, cells in groups.items()
        if name != GAIN
        and any(cell.text == NOT_HERE for cell in cells)
        and not any(cell.run for cell in cells)
    ]


def _scores(run: ScoredRun) -> str:
    """What came out of a run, in a line."""
    return "; ".join(
        f"{protocol} {print_figure(scores['uar']['value'])} %"
        for protocol, scores in run.by_protocol()
    )


def _drawn(folder: Path, inside: bool) -> dict[str, list]:
    """The figures of a run, in the page or named beside it."""
    paths = sorted(folder.glob("*.svg"))
    if inside:
        return {"figures": [_figure(path) for path in paths], "beside": []}
    return {"figures": [], "beside": [path.name for path in paths]}


def _figure(path: Path) -> dict:
    kind = path.stem.split("-")[0]
    protocol = path.stem.partition("-")[2]
    return {
        "name": path.stem,
        **_image(path),
        "caption": CAPTIONS[kind] + (f" {protocol}: {MEANING[protocol]}." if protocol else ""),
    }


def _image(path: Path) -> dict:
    """A figure as a page has it, with its size in CSS's pixels, so that nothing moves later."""
    content = path.read_text(encoding="utf-8")
    size = [float(found) for found in _SIZE.findall(content[:1000])[:2]]  # points
    width, height = (round(points * 100 / 72) for points in size)
    return {"source": Markup(address(content)), "width": width, "height": height}


def address(svg: str) -> str:
    """A picture as the address of itself, ready to stand between double quotes in HTML.

    As text it takes a quarter less room than in Base64. What an address or an attribute gives
    another meaning is encoded; of double quotes there are so many that tags get single ones.
    """
    swapped = _TAG.sub(lambda tag: tag[0].translate(_QUOTES), svg.replace("\n", " ").strip())
    return f"data:image/svg+xml,{quote(swapped, safe=_AS_IT_IS)}"


_SIZE = re.compile(r'(?:width|height)="([0-9.]+)pt"')
_TAG = re.compile(r"<[^>]*>")
_QUOTES = str.maketrans("\"'", "'\"")
_AS_IT_IS = " !$'()*+,/:;<=>?@[]^`{|}"


def _lines(run: ScoredRun, validations: dict[str, Validation]) -> list[str]:
    """Where the scores of a run come from, one line per fact."""
    record, features = run.record, run.record["features"]
    corpora = dict.fromkeys((record["trained_on"], *tested_on(record)))
    return [
        f"commit {record['commit']}",
        f"recordings of {record['trained_on']}: SHA-256 {features['source']}",
        *(f"{name}: {originals(validations[name])}" for name in corpora if name in validations),
        f"features: revision {features['revision']}; {_pairs(features['settings'])}",
        f"folds: {_pairs(record['folds'])}",
        f"model seeds: {', '.join(map(str, record['seeds']))}",
        f"training: {_pairs(record['train'])}",
        f"device: {record['device_name']}",
        f"versions: {_pairs(record['versions'])}",
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def rich(text: str) -> Markup:
    """`code` and **strong** of a note as HTML."""
    html = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(literals(text))))
    html = re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", html)
    return Markup("".join(char if shown(char) == char else escape(shown(char)) for char in html))
