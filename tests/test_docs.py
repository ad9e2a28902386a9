"""The documentation: it builds, its links lead somewhere, and what it tells to type is true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reference
import typer
from conftest import ROOT, edit, run
from pydantic import BaseModel
from ruamel.yaml import YAML
from test_template import table_of_recordings

from timnet.cli import app
from timnet.project.params import Params

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'sh title="(?:Run by (?P<tests>.+)|Not run by a test: (?P<reason>.+))"')
PROGRAMS = ("timnet", "dvc", "prefect", "python", "make", "git", "docker", "pip", "uv")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Every block of code of a page, with what stands behind its fence."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found["info"].strip(), found["text"]


def commands(text: str) -> list[list[str]]:
    """The commands of a block, their words without what a shell would add."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"&&|\|\|?|;", line.split(" #")[0])]
    return [shlex.split(part) for part in parts if set(part.split()[:1]) & set(PROGRAMS)]


READ_ON_A_GIT_HOST = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
]
ON_THE_HOST = "../../actions/"  # of README's badge


@pytest.mark.parametrize("page", READ_ON_A_GIT_HOST, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_to_files_of_the_repository(page: Path) -> None:
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout
    files = {ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()}
    known = files | {folder for path in files for folder in path.parents}
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    targets = {(first or second).partition("#")[0] for first, second in links}
    relative = {each for each in targets if each and not re.match(r"\w+:", each)}
    here = sorted(each for each in relative if not each.startswith(ON_THE_HOST))
    assert [each for each in here if (page.parent / each).resolve() not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_of_commands_is_run_or_says_why_not(page: Path) -> None:
    for info, text in blocks(page):
        if not info.startswith("sh"):
            first = set(text.split()[:1]) & {*PROGRAMS, "cd", "export", "$"}
            assert info or not first, page
            continue
        marked = TITLE.fullmatch(info)
        assert marked, f"{page}: say which test runs it, or why none does: {info!r}"
        if marked["tests"]:
            tests = "".join((ROOT / name).read_text() for name in marked["tests"].split(" and "))
            known = {words[1] for words in commands(text) if words[0] == "timnet"}
            if marked["tests"] != "tests/test_docs.py":  # this one runs what it finds there
                assert [word for word in known if word not in tests] == [], page


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for _, text in blocks(page):
        for program, *words in commands(text):
            if program == "dvc" and "-S" in words:
                key = words[words.index("-S") + 1].partition("=")[0]
                place: Any = YAML(typ="safe").load(ROOT / "params.yaml")
                for name in key.split("."):
                    assert name in place, f"{page.name}: {key} is no setting"
                    place = place[name]
            if program != "timnet" or not words or words[0].startswith("-"):
                continue
            command = group.commands[words[0]]
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            given = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
            assert given <= {*known, "--help"}, f"{page.name}: timnet {' '.join(words)}"


def test_every_setting_is_explained() -> None:
    rows = [line for line in reference.parameters().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    for row in rows:
        name, value, meaning, default = (cell.strip() for cell in row.strip("|").split(" | "))
        assert value and meaning and default, name


def built(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **settings},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    result = built(folder)
    assert result.returncode == 0, result.stderr
    return folder / "site"


@pytest.mark.slow
def test_the_site_asks_no_other_server_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    loaded = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(https?:)?//[^\s\">]+")
    for page in pages:
        assert loaded.findall(page.read_text()) == [], page


@pytest.mark.slow
def test_every_command_and_every_setting_has_its_place(site: Path) -> None:
    page = (site / "reference/cli/index.html").read_text()
    names = typer.main.get_command(app).commands
    assert [name for name in names if f'id="timnet-{name}"' not in page] == []
    page = (site / "reference/params/index.html").read_text()
    assert [name for name in settings(Params) if f"<code>{name}</code>" not in page] == []


def settings(model: type[BaseModel]) -> set[str]:
    """Names of all settings below a model."""
    schema = model.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    return {name for each in models for name in each.get("properties", ())}


@pytest.mark.slow
def test_a_broken_link_fails(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Page\n\n[there](nowhere.md) [here](#nowhere)\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: []\nextra_css: []\nnav: [{{Page: index.md}}]\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "nowhere.md" in result.stderr and "#nowhere" in result.stderr


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def steps(workflow: Path) -> dict[str, str]:
    """What a workflow's steps run, by their name, or by the command itself."""
    jobs = YAML(typ="safe").load(workflow)["jobs"].values()
    every = (step for job in jobs for step in job["steps"] if "run" in step)
    return {step.get("name", step["run"]): step["run"] for step in every}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_that_there_are(workflow: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = [words[1] for text in steps(workflow).values() for words in _made(text)]
    assert called and set(called) <= targets


def _made(text: str) -> list[list[str]]:
    return [words for words in commands(text) if words[0] == "make"]


@pytest.mark.slow
def test_ci_compares_and_gates_a_clone_without_recordings(tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", "--shared", ROOT, "clone")
    clone = tmp_path / "clone"
    run(clone, "git", "checkout", "--quiet", "--detach")
    run(clone, "git", "branch", "--force", "main", "HEAD")
    (clone / ".venv/bin").mkdir(parents=True)  # what `make venv` would make, of this clone
    (clone / ".venv/bin/activate").write_text(
        f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={clone}\n"
    )
    known = steps(ROOT / ".github/workflows/results.yml")
    summary = f"export GITHUB_STEP_SUMMARY={tmp_path / 'summary.md'}\n"
    run(clone, "bash", "-eo", "pipefail", "-c", summary + known["Compare"])
    comment = (clone / "compare.md").read_text()
    assert comment == (tmp_path / "summary.md").read_text()
    head = comment.splitlines()[0]
    assert head in known["Comment"]  # by which a later run finds it
    assert "| emovo-random " in comment and "tables that changed: none." in comment
    assert "| UAR of emovo-random, last-epoch " in run(clone, "bash", "-ec", known["Gate"]).stdout
    # GitLab's job, as the page has it, runs the same commands
    (example,) = (text for info, text in blocks(ROOT / "docs/how-to/ci.md") if info == "yaml")
    (job,) = YAML(typ="safe").load(example).values()
    asked = [words for line in job["script"] for words in commands(line) if words[0] == "timnet"]
    assert asked == [["timnet", "compare", "main"], ["timnet", "gate", "main"]]


@pytest.mark.slow
def test_the_tutorial_leads_to_a_report(tmp_path: Path) -> None:
    page = ROOT / "docs/tutorial/custom-corpus.md"
    table_of_recordings(tmp_path)
    project = tmp_path / "my-project"
    run_blocks = [text for info, text in blocks(page) if info.startswith("sh")]
    assert run_blocks[0].splitlines()[:2] == ["timnet init my-project", "cd my-project"]
    run(tmp_path, "sh", "-ec", run_blocks[0])
    for setting in (("user.name", "test"), ("user.email", "test@localhost")):
        run(project, "git", "config", *setting)
    run(project, "sh", "-ec", run_blocks[1])
    for_a_first_look(project / "params.yaml")
    said = [run(project, "sh", "-ec", text).stdout for text in run_blocks[2:]]
    assert "| mine " in said[0]  # the table
    assert said[1].startswith("# mine\n")
    assert len(said[1].splitlines()) > 36  # a line per recording
    assert (project / "results/report.html").is_file()


def for_a_first_look(path: Path) -> None:
    """The settings that the page names, in place of the paper's."""
    path.write_text(re.sub(r"tabs: \d+", "tabs: 2", path.read_text()))
    edit(path, "epochs: 500", "epochs: 3")
    edit(path, "compiled: true", "compiled: false")
