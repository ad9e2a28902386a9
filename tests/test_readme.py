"""What README says of results is what the commit says."""

from __future__ import annotations

import csv
import re

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_its_table_is_that_of_the_commit() -> None:
    with (ROOT / "results/tables/single-corpus.csv").open(encoding="utf-8") as file:
        committed = list(csv.DictReader(file))
    lines = iter(README.splitlines())
    head = next(cells(line) for line in lines if line.startswith("| corpus") and "UAR" in line)
    next(lines)
    shown = []
    for line in lines:
        if not line.startswith("|"):
            break
        shown.append(cells(line.replace("`", "").replace("**", "")))
    assert shown == [[row[name] for name in head] for row in committed]


def test_its_pictures_and_pages_are_there() -> None:
    places = re.findall(r"\]\(([^)#:]+)\)", README)
    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []
