"""The tables of the paper with our figures beside the paper's, as Markdown and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import polars as pl

from timnet.paper import paper
from timnet.score import MEANING

NO_FIGURE = "-"


@dataclass(frozen=True)
class ScoredRun:
    """What the tables need of a run."""

    name: str
    record: dict  # run.json: what was trained, on what, at which commit
    metrics: dict[str, dict[str, float]]  # protocol -> figures, as in `score.summary`

    @property
    def corpus(self) -> str:
        return self.record["trained_on"]

    @property
    def is_the_paper_s(self) -> bool:
        """Whether all settings but the seeds are the paper's, so that its figures compare."""
        printed, features = paper(), self.record["features"]["settings"]
        free = {"precision": None, "compiled": None}
        tabs = printed["tabs"].get(self.corpus, printed["tabs"]["others"])
        return (
            self.record["train"] | free
            == printed["training"] | free | {"tabs": tabs, "variant": "tim-net"}
            and self.record["folds"].get("number", 10) == 10
            and features["resampler"] == "kaiser_best_0_2_2"
            and features["signal_length"] == printed["signal_length"].get(self.corpus)
        )


def single_corpus(runs: list[ScoredRun]) -> pl.DataFrame:
    """One row a run and protocol: the paper's UAR and WAR, ours, their spread, the commit.

    The paper gives figures for `published` (Table 1) and, for four corpora, `corrected`; it has
    none for `speaker`. They stand beside runs with the paper's settings alone.
    """
    printed = {
        "published": paper()["table_1_single_corpus"],
        "corrected": paper()["corrected_single_corpus"],
        "speaker": {},
    }
    rows = []
    for run in runs:
        for protocol in printed:
            if protocol not in run.metrics:
                continue
            figures = run.metrics[protocol]
            theirs = (None, None)
            if run.is_the_paper_s:
                theirs = printed[protocol].get(run.corpus, {}).get("TIM-Net") or theirs
            rows.append(
                {
                    "corpus": run.corpus,
                    "protocol": protocol,
                    "paper UAR": print_figure(theirs[0]),
                    "paper WAR": print_figure(theirs[1]),
                    "UAR": print_figure(figures["uar"]),
                    "WAR": print_figure(figures["war"]),
                    "UAR over folds": _spread(figures, "uar"),
                    "WAR over folds": _spread(figures, "war"),
                    "utterances": str(run.record["utterances"]),
                    "seeds": str(len(run.record["seeds"])),
                    "run": run.name,
                    "commit": run.record["commit"],
                }
            )
    return pl.DataFrame(rows)


def print_figure(value: float | None) -> str:
    """Two decimals, half up as in print; a dash where there is no figure."""
    if value is None:
        return NO_FIGURE
    return str(Decimal(repr(value)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _spread(figures: dict[str, float], name: str) -> str:
    mean, deviation = figures[f"{name}_fold_mean"], figures[f"{name}_fold_sd"]
    return f"{print_figure(mean)} ± {print_figure(deviation)}"


def markdown(table: pl.DataFrame, title: str, notes: list[str]) -> str:
    """A page with a table whose columns align in plain text too, figures to the right."""
    columns = [[name, *table[name].to_list()] for name in table.columns]
    widths = [max(map(len, column)) for column in columns]
    right = [_is_figures(column[1:]) for column in columns]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if flush else "-")
        for width, flush in zip(widths, right, strict=True)
    ]
    body = [line(list(row)) for row in zip(*columns, strict=True)]
    text = [f"# {title}", "", body[0], line(rule), *body[1:], ""]
    return "\n".join([*text, *(f"- {note}" for note in notes), ""])


def _is_figures(cells: list[str]) -> bool:
    return all(cell[:1].isdigit() or cell == NO_FIGURE for cell in cells) and any(
        "." in cell or cell.isdigit() for cell in cells
    )


def protocol_notes(table: pl.DataFrame) -> list[str]:
    """What each protocol of a table means, for the reader of its figures."""
    shown = dict.fromkeys(table["protocol"].to_list())
    return [f"`{protocol}`: {MEANING[protocol]}." for protocol in shown] + [
        "UAR and WAR in percent, on the confusion matrix pooled over the folds; "
        "`over folds`: mean ± standard deviation of the folds' own figures."
    ]
