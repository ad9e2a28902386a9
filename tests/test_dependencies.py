"""The pins are whole, agree with each other and with the bounds, and are what is installed here;
and the clone is found once it is installed.

So a resolver that is given them has no choice. That a Prefect server of these versions starts, that
its pages show and its schedules fire, see test_flow_reproduce.py and test_flow_ui.py.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from conftest import ROOT, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what Prefect itself allows and does not work with, see /docs/reliability.md
BROKEN = {"fastapi": "0.151.0", "sqlalchemy": "2.1.0", "prefect": "3.9.0"}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stated = [line.split("#")[0].strip() for line in lines]
    pairs = (line.split("==") for line in stated if line)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


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


def test_a_script_beside_the_clone_finds_the_package(tmp_path: Path) -> None:
    """Where its own folder comes first, and in it a folder `timnet` that is no package."""
    pytest.importorskip("setuptools")
    clone, place = tmp_path / "timnet", tmp_path / "place"
    for package in ("timnet", "timnet/cli", "timnet/corpora", "flows"):
        (clone / package).mkdir(parents=True)
        shutil.copy(ROOT / package / "__init__.py", clone / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
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
