"""Where everything lies below the project's root: one place that knows."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Workspace:
    """Paths of a checkout: data (DVC), build (DVC's cache), results (git)."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def corpus(self, corpus: str) -> Path:
        return self.data / corpus

    def manifest(self, corpus: str) -> Path:
        return self.root / "build" / "manifest" / f"{corpus}.parquet"

    def features(self, name: str) -> Path:
        return self.root / "build" / "features" / f"{name}.parquet"

    def shards(self, name: str) -> Path:
        """Outside the outputs of the stage, as the checkpoints of training are."""
        return self.root / "build" / "shards" / name

    def folds(self, run: str) -> Path:
        return self.root / "build" / "folds" / f"{run}.parquet"

    def training(self, run: str) -> Path:
        return self.root / "build" / "train" / run

    def model(self, name: str) -> Path:
        return self.root / "build" / "models" / f"{name}.safetensors"

    def checkpoints(self, name: str) -> Path:
        """Of a run, or of `model@` and a model's name.

        Outside the outputs of the stage, since DVC deletes those before it runs.
        """
        return self.root / "build" / "checkpoints" / name

    def times(self, name: str) -> Path:
        """How long a stage took here; known to no other stage."""
        return self.root / "build" / "times" / f"{name}.json"

    def progress(self, stage: str) -> Path:
        """How far a stage is, while it runs, for who watches it; known to no other stage."""
        return self.root / "build" / "progress" / f"{stage}.json"

    @property
    def runs(self) -> Path:
        return self.root / "results" / "runs"

    def run_results(self, run: str) -> Path:
        return self.runs / run

    def figures(self, run: str) -> Path:
        return self.root / "results" / "figures" / run

    @property
    def validations(self) -> Path:
        return self.root / "results" / "validation"

    def validation(self, corpus: str) -> Path:
        return self.validations / f"{corpus}.json"

    def description(self, corpus: str) -> Path:
        return self.root / "results" / "corpora" / f"{corpus}.json"

    @property
    def tables(self) -> Path:
        return self.root / "results" / "tables"

    @property
    def report(self) -> Path:
        return self.root / "results" / "report.html"

    @property
    def retraining(self) -> Path:
        """Where a scheduled run works, apart from what a person does in the checkout."""
        return self.root / "build" / "retrain"

    @property
    def dvc(self) -> Path:
        return self.root / ".dvc"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` at the end: the old one or the whole new one
    is there, never a part.

    Raises:
        IsADirectoryError: `path` is a folder.
    """
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill that takes the place of `folder`, with all that it held, at the end."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _raise(error: OSError) -> None:
    raise error


def names_below(folder: Path, unread: Callable[[OSError], None] = _raise) -> Iterator[Path]:
    """All names in a folder but those of folders, in a fixed order.

    Through links to folders, but in no circle.

    Args:
        unread: is told of folders that cannot be read.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=unread, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file atomically; equal content gives equal bytes."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
