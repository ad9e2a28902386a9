"""The pins are whole, agree with each other and with the bounds, and are what is installed here;
and the clone is found once it is installed.

So a resolver that is given them has no choice. That a Prefect server of these versions starts, that
its pages show and its schedules fire, see test_flow_reproduce.py and test_flow_ui.py.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT, run
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

_TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, PACKAGES = _TOML["project"], _TOML["tool"]["setuptools"]["packages"]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")
LOCKED = (ROOT / "uv.lock").read_text()
LOCK = tomllib.loads(LOCKED)
# what Prefect itself allows and does not work with, see /docs/explanation/reliability.md
BROKEN = {"fastapi": "0.151.0", "sqlalchemy": "2.1.0", "prefect": "3.9.0"}


def constraints() -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]


def pins() -> dict[str, Version]:
    """Those for this interpreter and system."""
    return {
        canonicalize_name(each.name): Version(str(each.specifier).removeprefix("=="))
        for each in constraints()
        if each.marker is None or each.marker.evaluate()
    }


def bounds() -> list[Requirement]:
    """What pyproject.toml asks for, extras included."""
    extras = [each for group in PROJECT["optional-dependencies"].values() for each in group]
    stated = [Requirement(each) for each in (*PROJECT["dependencies"], *extras)]
    return [each for each in stated if each.name != PROJECT["name"]]


def test_every_requirement_has_a_pin_within_its_bounds() -> None:
    pinned = pins()
    wrong = [
        f"{each}: {pinned.get(canonicalize_name(each.name), 'not pinned')}"
        for each in bounds()
        if not each.specifier.contains(pinned.get(canonicalize_name(each.name), Version("0")))
    ]
    assert wrong == []


def test_pip_is_given_what_is_locked() -> None:
    """`make lock` writes both; every version stands in both."""
    locked = {
        (canonicalize_name(each["name"]), Version(each["version"]))
        for each in LOCK["package"]
        if each["name"] != PROJECT["name"]
    }
    given = {
        (canonicalize_name(each.name), Version(str(each.specifier).removeprefix("==")))
        for each in constraints()
    }
    assert given == locked


def test_the_lock_is_of_these_requirements() -> None:
    (own,) = (each for each in LOCK["package"] if each["name"] == PROJECT["name"])
    assert own["source"] == {"editable": "."}
    extras = PROJECT["optional-dependencies"]
    asked = {(canonicalize_name(each.name), str(each.specifier)) for each in bounds()}
    locked = {
        (each["name"], str(SpecifierSet(each.get("specifier", ""))))
        for each in own["metadata"]["requires-dist"]
        if each["name"] != PROJECT["name"]
    }
    assert locked == asked
    assert set(own["metadata"]["provides-extras"]) == set(extras)
    assert SpecifierSet(LOCK["requires-python"]) == SpecifierSet(PROJECT["requires-python"])


def test_the_lock_names_public_places_alone() -> None:
    """Neither a mirror nor a folder of the machine that it was made on."""
    hosts = {urlsplit(each).hostname for each in re.findall(r'"(\w+://[^"]+)"', LOCKED)}
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    sources = {tuple(each["source"]) for each in LOCK["package"]}
    assert sources == {("registry",), ("editable",)}


def test_pythons_are_stated_once_everywhere() -> None:
    classifier = "Programming Language :: Python :: "
    stated = [
        each.removeprefix(classifier)
        for each in PROJECT["classifiers"]
        if each.startswith(classifier)
    ]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert stated == [f"3.{minor}" for minor in range(30) if f"3.{minor}.9" in allowed]
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/tests.yml")
    assert workflow["jobs"]["quick"]["strategy"]["matrix"]["python"] == stated


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_server_is_out_of_bounds(name: str) -> None:
    (bound,) = (each for each in bounds() if canonicalize_name(each.name) == name)
    assert not bound.specifier.contains(Version(BROKEN[name]))
    assert bound.specifier.contains(pins()[name])


def test_the_pins_are_whole_and_agree() -> None:
    """Whatever a pinned package needs is pinned, in a version that it takes."""
    pinned, wrong, absent = pins(), list[str](), list[str]()
    for name, version in pinned.items():
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another system
            absent.append(name)
            continue
        if Version(found.version).public != version.public:
            wrong.append(f"{name} {found.version} is installed, pinned is {version}")
            continue
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            pin = pinned.get(canonicalize_name(needed.name))
            if pin is None:
                wrong.append(f"{name} needs {needed}, which is not pinned")
            elif not needed.specifier.contains(pin, prereleases=True):
                wrong.append(f"{name} needs {needed}, pinned is {pin}")
    assert wrong == []
    assert len(absent) < len(pinned) / 10, absent


def test_every_package_is_packed() -> None:
    there = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in ("flows", "timnet")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PACKAGES) == there


def test_a_script_beside_the_clone_finds_the_package(tmp_path: Path) -> None:
    """Where its own folder comes first, and in it a folder `timnet` that is no package."""
    pytest.importorskip("setuptools")
    clone, place = tmp_path / "timnet", tmp_path / "place"
    for name in PACKAGES:
        package = Path(name.replace(".", "/"))
        (clone / package).mkdir(parents=True)
        shutil.copy(ROOT / package / "__init__.py", clone / package)
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, clone)
    build = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    run(clone, sys.executable, "-c", build)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    # as the interpreter takes up its own folder of packages, before the script runs
    installed = (
        f"import site; site.addsitedir({str(place)!r}); import timnet; print(timnet.__file__)"
    )
    isolated = "import sys; sys.path.insert(0, ''); "
    said = run(tmp_path, sys.executable, "-I", "-S", "-c", isolated + installed).stdout
    assert said == f"{clone / 'timnet' / '__init__.py'}\n"


def test_the_wheel_holds_all_that_the_program_reads(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    listed = run(ROOT, "git", "ls-files", "timnet", "flows", *BUILT_FROM).stdout.split()
    for name in listed:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    run(clone, sys.executable, "-c", build)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert sorted({*listed} - {*BUILT_FROM} - packed) == []
