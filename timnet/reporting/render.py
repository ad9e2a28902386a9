"""What a table is, and a table as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

NO_FIGURE = "-"
NARROW = 8  # columns at most that a page of LaTeX takes at its own size
NOT_HERE = "not in this commit"


@dataclass(frozen=True)
class Cell:
    text: str
    run: str = ""  # whose score it is: the key of its provenance


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; what it says of itself stands in the notes."""

    name: str  # of its files
    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def print_figure(value: float | None, decimals: int = 2) -> str:
    """Rounded half up, as in print; a dash where there is no number."""
    if value is None:
        return NO_FIGURE
    exact = Decimal(repr(round(float(value), 9)))  # a sum of printed numbers is no 0.92499999
    return str(exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def signed(points: float) -> str:
    """Points with their sign, rounded as in print; what rounds to 0 is +0.00."""
    text = print_figure(points)
    return text if float(text) < 0 else f"+{text.removeprefix('-')}"


def row_of(*texts: str) -> list[Cell]:
    """A row of texts that are no run's."""
    return [Cell(text) for text in texts]


def markdown(table: Table) -> str:
    """A page with a table whose columns align in plain text too, numbers to the right."""
    columns = [
        [name, *(_cell(row[place].text) for row in table.rows)]
        for place, name in enumerate(table.columns)
    ]
    widths = [max(map(len, column)) for column in columns]
    right = [is_figures(column[1:]) for column in columns]

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
    header, *body = [line(list(row)) for row in zip(*columns, strict=True)]
    text = [f"# {table.title}", "", header, line(rule), *body, ""]
    return "\n".join([*text, *(f"- {note}" for note in table.notes), ""])


def plain(text: str) -> str:
    """Text that somebody gave, such as the name of a file, as it is: no Markdown, no formula."""
    return re.sub(r"[\\`*_|<$~]|(?<=\])\(", r"\\\g<0>", " ".join(text.splitlines()))


def literals(text: str) -> str:
    """What `plain` marked as characters of a private area, which no other form gives a meaning."""
    return re.sub(r"\\([\\`*_|<$~(])", lambda mark: chr(_PRIVATE + ord(mark[1])), text)


def shown(text: str) -> str:
    """The characters that `literals` put aside."""
    return "".join(
        chr(ord(char) - _PRIVATE) if _PRIVATE <= ord(char) < _PRIVATE + 128 else char
        for char in text
    )


_PRIVATE = 0xE000


def _cell(text: str) -> str:
    return text if re.fullmatch(r"\*\*[^*|]+\*\*", text) else plain(text)


def as_csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([cell.text for cell in row] for row in table.rows)
    return out.getvalue()


def latex(table: Table) -> str:
    """A `table` environment with booktabs' rules, one between groups of the first column."""
    aligned = "".join(
        "r" if is_figures([row[place].text for row in table.rows]) else "l"
        for place in range(len(table.columns))
    )
    wide = "*" if len(table.columns) > NARROW else ""  # over both columns of a page
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{table{wide}}}",
        f"  \\caption{{{_tex(table.title)}}}",
        *(["  \\scriptsize\\setlength{\\tabcolsep}{3pt}"] if wide else []),
        f"  \\begin{{tabular}}{{{aligned}}}",
        "    \\toprule",
        f"    {' & '.join(map(_tex, table.columns))} \\\\",
        "    \\midrule",
    ]
    before = table.rows[0][0].text if table.rows else ""
    grouped = len({row[0].text for row in table.rows}) < len(table.rows)
    for row in table.rows:
        if grouped and row[0].text != before:
            lines.append("    \\midrule")
        before = row[0].text
        lines.append(f"    {' & '.join(_tex(cell.text) for cell in row)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    lines += [f"  \\par\\footnotesize {_tex(note)}" for note in table.notes]
    return "\n".join([*lines, f"\\end{{table{wide}}}", ""])


def is_figures(texts: list[str]) -> bool:
    """Whether a column holds numbers, and so is flush right."""
    numbers = re.compile(r"[+-]?\d+(\.\d+)?( ± .*| to .*| \[.*| / \d+)?")
    told = [text for text in texts if text not in ("", NO_FIGURE, NOT_HERE)]
    return bool(told) and all(numbers.fullmatch(text) for text in told)


def _tex(text: str) -> str:
    special = {"±": r"$\pm$", "†": r"$\dagger$", "\\": r"\textbackslash{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}"}
    special |= {char: f"\\{char}" for char in "&%$#_{}"}
    text = "".join(special.get(char, char) for char in literals(text))
    text = re.sub(r"`([^`]*)`", r"\\texttt{\1}", text)
    text = re.sub(r"\*\*([^*]*)\*\*", r"\\textbf{\1}", text)
    return "".join(
        special.get(shown(char), shown(char)) if shown(char) != char else char for char in text
    )
