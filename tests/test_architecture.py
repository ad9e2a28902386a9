"""The rooms of `timnet`: imports run one way, and stages depend on the code that they run.

A stage of dvc.yaml depends on the modules in which its work is done (`WORK`), and on what these
import from `timnet`, directly or in the end: the import closure, with the files that lie beside a
module and are named in it. The foundation is left out: errors, paths, the form of files and tables,
processes. It bears on no number, and where it changes a form, the next stage refuses the file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from timnet.corpora import CORPORA, CUSTOM

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


def imported(path: Path, for_types: bool = True) -> Iterator[str]:
    """The modules of the project that a file imports, anywhere in it, by their dotted names.

    Args:
        for_types: also what is imported for annotations alone.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    if not for_types:
        tree.body = [node for node in tree.body if not _is_for_types(node)]
    for node in ast.walk(tree):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{name}" for name in names]
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in names if name.split(".")[0] in ("timnet", "flows"))


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def room(name: str) -> str:
    """`timnet.paper.runs` stands in `paper`; what is no package of `timnet` in its foundation."""
    top, *below = name.split(".")
    if top == "flows":
        return top
    return below[0] if below and below[0] in ORDER else "foundation"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_imports_a_later_one(path: Path) -> None:
    # the doors: `timnet.load_model` and the program
    if path in (Path("timnet/__init__.py"), Path("timnet/__main__.py")):
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
            for each in imported(path, for_types=False)
            for known in (each, each.rpartition(".")[0])
            if known in files and known not in (name, "timnet")
        }
        for name, path in files.items()
    }
    while loose := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in loose:
            del uses[name]
    assert sorted(uses) == []


# where the work of each stage is done, and so its numbers come from: `timnet.training.train` is not
# there, which spreads training over processes and changes no number
WORK = {
    "manifest": ["timnet.dataset.manifest", "timnet.corpora.${item}"],
    "validate": ["timnet.dataset.validate", "timnet.corpora.${item}"],
    "features": ["timnet.dataset.features"],
    "folds": ["timnet.dataset.folds"],
    "train": [
        "timnet.training.stack",
        "timnet.training.outcome",
        "timnet.training.baseline",
    ],
    "source": [
        "timnet.training.stack",
        "timnet.training.outcome",
        "timnet.training.baseline",
        "timnet.dataset.folds",
    ],
    "score": ["timnet.evaluation.results"],
    "figures": ["timnet.reporting.figures"],
    "transfer": [
        "timnet.training.transfer",
        "timnet.evaluation.results",
        "timnet.reporting.figures",
    ],
    "model": ["timnet.models.build"],
    "tables": ["timnet.reporting.gather", "timnet.reporting.write"],
    "report": ["timnet.reporting.gather", "timnet.reporting.report"],
}
FILES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}


def closure(names: list[str]) -> set[str]:
    """The files of some modules and of all that they import, without the foundation."""
    found, queue = set[str](), list(names)
    while queue:
        name = queue.pop()
        path = FILES[name]
        if path.as_posix() in found or room(name) == "foundation":
            continue
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if len(tree.body) > 1:  # else a package's sentence
            found.add(path.as_posix())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        beside = (ROOT / path).parent.glob("*.[hj]*")
        found |= {path.with_name(each.name).as_posix() for each in beside if each.name in texts}
        # `from timnet.paper import runs` runs `timnet/paper/__init__.py` too
        for each in imported(path, for_types=False):
            queue += {n for n in (each, each.rpartition(".")[0]) if n in FILES}
    return found


@pytest.mark.parametrize("stage", WORK)
def test_a_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    declared = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert declared.keys() == WORK.keys()
    stated = [
        each for each in declared[stage].get("do", declared[stage])["deps"] if "timnet/" in each
    ]
    for recipe in (*CORPORA, CUSTOM):
        work = closure([name.replace("${item}", recipe) for name in WORK[stage]])
        if stage == "validate":
            work.add(f"timnet/corpora/originals/{recipe}.txt")
            assert (ROOT / f"timnet/corpora/originals/{recipe}.txt").is_file()
        assert sorted(each.replace("${item}", recipe) for each in stated) == sorted(work)


def test_tables_and_report_follow_the_lists_of_corpora_runs_and_transfers() -> None:
    """A corpus, run or transfer that params.yaml drops is dropped from them."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert {name: stages[name]["params"] for name in ("tables", "report")} == {
        name: ["corpora", "runs", "transfers", "tuned_on"] for name in ("tables", "report")
    }


def tree() -> str:
    """The rooms in the order of their imports, a line each: the first sentence of each package."""
    lines = [f"{'timnet/':14}The foundation, which all use: {', '.join(sorted(FOUNDATION))}."]
    for name in ORDER[1:]:
        folder = ROOT / (name if name == "flows" else f"timnet/{name}")
        sentence = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        shown = f"{name}/" if name == "flows" else f"  {name}/"
        lines.append(f"{shown:14}{str(sentence).splitlines()[0]}")
    return "\n".join(lines)


def test_the_tree_in_the_docs_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert f"```\n{tree()}\n```" in text
