"""A new project for a custom corpus: what `timnet init` writes.

The stages of this repository depend on the modules of its `timnet/`, file by file. A project that
uses an installed timnet has no such files. There `code.yaml` holds a hash of each module, and a
stage names these as parameters: a stage still runs again only when code that bears on its result
has changed. `python -m timnet.project.template` (`make template`) derives the files in `new/` from
this repository's own; a test holds the two together.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import timnet
from timnet.errors import ArtifactError, ParameterError, TimnetError, listing
from timnet.paper.runs import RECIPES
from timnet.paths import replacing, write_text
from timnet.project import git
from timnet.records import DamagedRecord, read_yaml

CODE = "code.yaml"
PACKAGE = Path(timnet.__file__).parent
NEW = Path(str(files("timnet.project").joinpath("new")))
# where each file of `new/` belongs; there no tool takes it for its own
PLACES = {
    "dvc.yaml": "dvc.yaml",
    "params.yaml": "params.yaml",
    "data.dvc.yaml": "data.dvc",
    "dvcignore.txt": ".dvcignore",
    "gitignore.txt": ".gitignore",
    "dvc-config.txt": ".dvc/config",
    "dvc-gitignore.txt": ".dvc/.gitignore",
}
HEAD = """\
# Recordings to tables. A stage is a command of `timnet`, and lists all that bears on its result:
# inputs, parameters, and by code.yaml the modules of the installed timnet that its numbers come
# from. `timnet init --update` takes both files to another version of timnet.
# What DVC keeps goes to no remote but `private`, models apart: recordings have licences.

"""


def write(folder: Path) -> None:
    """Start a project in a folder that is new or empty.

    Raises:
        ParameterError: something is there.
        TimnetError: there is no git; nothing was written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError(f"{folder} is not empty; name a new folder.")
    if git.ask(Path(), "--version") is None:
        raise TimnetError("git was not found. Install it, then run this again.")
    (folder / "data").mkdir(parents=True)
    for name, place in PLACES.items():
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(NEW / name, folder / place)
    write_text(folder / CODE, _as_yaml(hashes(folder / "dvc.yaml")))
    if git.ask(folder, "init", "--quiet", "--initial-branch", "main") is None:
        raise TimnetError(f"{folder}: `git init` failed.")
    git.run(folder, "add", "--all")


def update(folder: Path) -> list[str]:
    """Take the stages and the hashes of a project to the installed timnet; the modules that differ.

    Sections of params.yaml that stages name and that are new are added, empty.

    Raises:
        ParameterError: it is no project that `write` made, or its params.yaml cannot be read.
    """
    if not (folder / CODE).is_file():
        raise ParameterError(f"{folder} has no {CODE}: not a project made by `timnet init`.")
    changed = differing(folder)
    _add_sections(folder / "params.yaml")
    with replacing(folder / "dvc.yaml") as partial:
        shutil.copyfile(NEW / "dvc.yaml", partial)
    write_text(folder / CODE, _as_yaml(hashes(folder / "dvc.yaml")))
    return changed


def _add_sections(path: Path) -> None:
    try:
        known = read_yaml(path, dict[str, Any])
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror}).") from None
    except DamagedRecord as error:
        raise ParameterError(f"{path}: {error}") from None
    new = read_yaml(NEW / "params.yaml")
    if missing := [name for name, value in new.items() if not value and name not in known]:
        added = "".join(f"\n{name}: {{}}\n" for name in missing)
        write_text(path, path.read_text(encoding="utf-8").rstrip("\n") + "\n" + added)


def differing(folder: Path) -> list[str]:
    """Modules that are not those of a project's code.yaml; none where there is no such file."""
    if not (folder / CODE).is_file():
        return []
    here = hashes(NEW / "dvc.yaml")
    try:
        stated = read_yaml(folder / CODE, dict[str, str])
    except DamagedRecord:
        stated = {}
    return sorted(name for name in {*stated, *here} if stated.get(name) != here.get(name))


def refuse_other_code(folder: Path) -> None:
    """Stop where the project is of another timnet: DVC would not see that the code has changed.

    Raises:
        ArtifactError: naming the modules that differ.
    """
    changed = differing(folder)
    if changed:
        raise ArtifactError(
            f"{folder / CODE}: {listing(changed)} differ from the installed timnet, so DVC would "
            "not see that results may change. `timnet init --update` updates the project to this "
            "version; `timnet status` then lists what has to run."
        )


def hashes(stages: Path) -> dict[str, str]:
    """What is installed of all that the stages may name, by its name there."""
    return {name: _hash(name) for name in sorted(_named(read_yaml(stages)))}


def _named(content: Any) -> Iterator[str]:
    """Names of code.yaml in a dvc.yaml; of `timnet/corpora/${item}` those of all corpora."""
    for stage in content["stages"].values():
        for entry in stage.get("do", stage).get("params", []):
            for name in entry.get(CODE, []) if isinstance(entry, dict) else []:
                if "${" in name:
                    folder, _, rest = name.partition("/${item}")
                    ending = "." + rest.removeprefix("-") if rest else ".py"
                    for path in (PACKAGE.parent / folder).glob(f"*{ending}"):
                        yield key(path.relative_to(PACKAGE.parent).as_posix())
                else:
                    yield name


def key(path: str) -> str:
    """`timnet/dataset/folds.py` as code.yaml names it; a dot would part it, for DVC."""
    return path.removesuffix(".py").replace(".", "-")


def _hash(name: str) -> str:
    content = hashlib.sha256()
    for path in _files(name):
        content.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _files(name: str) -> list[Path]:
    path = PACKAGE.parent / name
    if path.is_dir():
        return sorted(path.glob("*.py"))
    stem = path.name
    (found,) = (each for each in path.parent.iterdir() if each.is_file() and key(each.name) == stem)
    return [found]


def derived(root: Path) -> dict[str, str]:
    """dvc.yaml and params.yaml of a new project, from those of this repository."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stages = yaml.load(root / "dvc.yaml")
    del stages["artifacts"]
    for stage in stages["stages"].values():
        work = stage.get("do", stage)
        own = [path for path in work["deps"] if path.startswith("timnet/")]
        for path in own:
            work["deps"].remove(path)
        entry = {CODE: [key(path) for path in own]}
        if own and "params" in work:
            work["params"].append(entry)
        elif own:
            work.insert(1, "params", [entry])  # behind the command
    params = yaml.load(root / "params.yaml")
    for section in (params, params["features"]):
        for name in ("corpora", "sets", "tuned_on", "runs", "sources", "transfers", "models"):
            if name in section:
                section[name] = {}
    # those that were only compared stay here
    for recipe in [name for name in params["recipes"] if name not in RECIPES]:
        del params["recipes"][recipe]
    return {
        "dvc.yaml": HEAD + _dumped(yaml, {"stages": stages["stages"]}),
        "params.yaml": _dumped(yaml, params),
    }


def _dumped(yaml: Any, content: Any) -> str:
    text = io.StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def _as_yaml(values: dict[str, str]) -> str:
    head = "# Hashes of the modules of timnet that stages depend on: see dvc.yaml.\n"
    return head + "".join(f'{name}: "{value}"\n' for name, value in values.items())


if __name__ == "__main__":
    for name, text in derived(PACKAGE.parent).items():
        write_text(NEW / name, text)
