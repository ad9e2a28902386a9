"""What README says of results is what the commit says."""

from __future__ import annotations

import csv
import re
from itertools import takewhile

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown(first: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of README whose first columns are those."""
    lines = iter(README.splitlines())
    head = next(cells(line) for line in lines if line.startswith(first) and "UAR" in line)
    next(lines)
    plain = (line.replace("`", "").replace("**", "") for line in lines)
    return head, [cells(line) for line in takewhile(lambda line: line.startswith("|"), plain)]


def committed(table: str) -> list[dict[str, str]]:
    with (ROOT / f"results/tables/{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_its_tables_are_those_of_the_commit() -> None:
    head, rows = shown("| corpus")
    whole = [row for row in committed("single-corpus") if row["network"] == "tim-net"]
    assert rows == [[row[name] for name in head] for row in whole]
    head, rows = shown("| network")
    here = [row for row in committed("table-s3") if row["corpus"] == "emovo" and row["precision"]]
    assert rows == [[row[name] for name in head] for row in here]


def test_its_pictures_and_pages_are_there() -> None:
    places = re.findall(r"\]\(([^)#:]+)\)", README)
    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []
