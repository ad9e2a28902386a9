"""Imports run one way: each room of `timnet` uses what stands before it, nothing behind it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

FOUNDATION = ("errors", "paths", "records", "schemas", "processes")
ORDER = (
    "foundation",
    "paper",
    "corpora",
    "dataset",
    "acquire",
    "training",
    "evaluation",
    "models",
    "reporting",
    "project",
    "cli",
    "flows",
)
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ("timnet", "flows")
    for path in (ROOT / folder).rglob("*.py")
)


def imported(path: Path) -> Iterator[str]:
    """The modules of the project that a file imports, anywhere in it, by their dotted names."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{name}" for name in names]
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in names if name.split(".")[0] in ("timnet", "flows"))


def room(name: str) -> str:
    """`timnet.paper.runs` stands in `paper`; what is no package of `timnet` in its foundation."""
    top, *below = name.split(".")
    if top == "flows":
        return top
    return below[0] if below and below[0] in ORDER else "foundation"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_imports_a_later_one(path: Path) -> None:
    if path == Path("timnet/__init__.py"):  # the door: `timnet.load_model`
        return
    here = ORDER.index(room(".".join(path.with_suffix("").parts)))
    assert [name for name in imported(path) if ORDER.index(room(name)) > here] == []


def test_no_module_imports_itself_in_the_end() -> None:
    files = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    uses = {
        name: {
            known
            for each in imported(path)
            for known in (each, each.rpartition(".")[0])
            if known in files and known not in (name, "timnet")
        }
        for name, path in files.items()
    }
    while loose := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in loose:
            del uses[name]
    assert sorted(uses) == []
