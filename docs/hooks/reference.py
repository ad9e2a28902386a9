"""What of the site is written by the code itself: the command line, params.yaml, and files that lie
elsewhere in the repository. A hook of mkdocs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.core import TyperGroup

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
ELSEWHERE = {
    "reference/benchmarks.md": "benchmarks/README.md",
    "reference/changes.md": "CHANGELOG.md",
}
# Links that readers of the Markdown follow to the repository; the site has a page in their place.
PAGES = {path: place for place, path in ELSEWHERE.items()} | {
    "params.yaml": "reference/params.md",
    "timnet/cli": "reference/cli.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {"reference/cli.md": command_line(), "reference/params.md": parameters()}
    pages |= {place: (ROOT / path).read_text("utf-8") for place, path in ELSEWHERE.items()}
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to what lies elsewhere in the repository, as they are in the site."""
    here = page.file.src_uri
    if here in ELSEWHERE:  # its links to files of the repository lead nowhere in the site
        return re.sub(r"\[([^]]*)\]\((?!https?:|#)[^)]*\)", r"\1", markdown)
    up = "../" * here.count("/")
    for path, place in PAGES.items():
        markdown = re.sub(rf"\]\({up}\.\./{re.escape(path)}(?=[)#])", f"]({up}{place}", markdown)
    return markdown


def command_line() -> str:
    """Every command with its arguments and options, from its own help."""
    from timnet.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    panels: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        panel = getattr(command, "rich_help_panel", None)
        title = panel if isinstance(panel, str) else "Commands"
        panels.setdefault(title, []).append(_command(name, command))
    head = (
        "# Command line\n\nWritten from the program's own help: `timnet --help`, "
        "`timnet COMMAND --help`.\n"
    )
    return head + "".join(f"\n## {title}\n{''.join(each)}" for title, each in panels.items())


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join(["timnet", name, *(_metavar(each) for each in arguments)])
    usage += " [OPTIONS]" * bool(options)
    text = f"\n### timnet {name}\n\n{command.help or ''}\n\n```\n{usage}\n```\n"
    rows = [(f"`{_metavar(each)}`", each.help or "", _default(each)) for each in arguments]
    for each in options:
        names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
        rows.append((names, each.help or "", _default(each)))
    return text + _table(("argument or option", "meaning", "default"), rows)


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if callable(value) or value in (None, False, [], ()):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def parameters() -> str:
    """Every setting of params.yaml, from the models that check it."""
    from timnet.project.params import Params

    text = (
        "# params.yaml\n\nEvery setting, from the code that checks the file. A setting that is "
        "missing, misspelt or out of its range is named, and nothing runs.\n"
    )
    return text + _sections(Params, "")


def _sections(model: type[BaseModel], place: str) -> str:
    rows, below = [], ""
    for name, field in model.model_fields.items():
        path = f"{place}.{name}" if place else name
        annotation = field.annotation
        inner, where = _inner(annotation)
        said = _described(Annotated[annotation, *field.metadata] if field.metadata else annotation)
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        rows.append((f"`{name}`", said, field.description or _comment(model, name), default))
        for each in inner:
            below += _sections(each, path + where)
    title = f"\n## `{place or 'top level'}`\n\n" if place else "\n## Sections\n\n"
    doc = (model.__doc__ or "").strip()
    return (
        title
        + (f"{doc}\n\n" if doc and "BaseModel" not in doc else "")
        + _table(("setting", "value", "meaning", "default"), rows)
        + below
    )


def _inner(annotation: Any) -> tuple[list[type[BaseModel]], str]:
    """Models inside an annotation, and how a path goes on to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], ""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(args[0])
    found, where = [], ".NAME" if origin is dict else ""
    for each in args[1:] if origin is dict else args:
        inner, deeper = _inner(each)
        found += inner
        where += deeper if inner else ""
    return found, where


def _described(annotation: Any) -> str:
    """A type in words, with its bounds."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [_bound(each) for each in _flat(args[1:])]
        return ", ".join([_described(args[0]), *filter(None, bounds)])
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in args)
    if origin in (Union, UnionType):
        return " or ".join(_described(each) for each in args if each is not NoneType)
    if origin is dict:
        return f"one or more names, each with: {_described(args[1])}"
    if origin is list:
        return f"a list of: {_described(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "settings, below"
    words = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return words.get(annotation, str(annotation))


def _flat(metadata: Any) -> list[Any]:
    return [part for each in metadata for part in getattr(each, "metadata", [each])]


def _bound(constraint: Any) -> str:
    for name, words in BOUNDS.items():
        if getattr(constraint, name, None) is not None:
            return f"{words} {getattr(constraint, name):,}"
    if getattr(constraint, "min_length", None) is not None:
        return f"at least {constraint.min_length} of them"
    return ""


def _comment(model: type[BaseModel], name: str) -> str:
    """What the source says beside a field, or in the lines above it."""
    import inspect

    of = next(each for each in model.__mro__ if name in inspect.get_annotations(each))
    source = re.sub("  # type: ignore.*", "", inspect.getsource(of))
    found = re.search(rf"((?:^    # .+\n)*)^    {name}: (.+)$", source, re.MULTILINE)
    assert found, f"{of.__name__}.{name}"
    above = [line.strip(" #") for line in found[1].splitlines()]
    return " ".join([*above, *found[2].split("  # ")[1:]])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, ("---",) * len(head), *rows]
    cells = (
        " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in lines
    )
    return "\n" + "\n".join(f"| {line} |" for line in cells) + "\n"
