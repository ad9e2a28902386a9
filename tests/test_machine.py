from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from timnet.cli.common import need_compiler, place_kernels
from timnet.errors import ParameterError


@pytest.fixture
def noexec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder, taken for that of temporary files, that is mounted noexec."""
    folder = tmp_path / "noexec"
    folder.mkdir()
    real = os.statvfs

    def statvfs(path: os.PathLike) -> object:
        found = real(path)
        if Path(path).is_relative_to(folder):
            return SimpleNamespace(f_flag=found.f_flag | os.ST_NOEXEC)
        return found

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    return folder


def test_kernels_lie_where_programs_may_run(noexec: Path, tmp_path: Path) -> None:
    place_kernels(tmp_path / "build" / "kernels")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "build" / "kernels")


def test_a_command_that_trains_takes_them_there(
    noexec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "true")
    need_compiler("cpu")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "build" / "kernels")


def test_no_place_for_kernels_is_told(noexec: Path) -> None:
    with pytest.raises(ParameterError, match=r"noexec.*TORCHINDUCTOR_CACHE_DIR"):
        place_kernels(noexec / "build")


def test_a_place_that_is_named_is_kept(noexec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = str(noexec.parent / "mine" / "not yet there")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", named)
    place_kernels(noexec / "build")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == named
