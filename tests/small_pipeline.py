"""A workspace of stages that take no time, and what tests of flows on it need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ROOT, commit, run
from ruamel.yaml import YAML

# copy@one -> score@one -+
# copy@two -> score@two -+-> tables -> report
STAGES = """\
stages:
  copy:
    foreach: [one, two]
    do:
      cmd: sh work.sh data/${item}/take.txt copy/${item}.txt
      deps:
        - data/${item}
      outs:
        - copy/${item}.txt
  score:
    foreach: [one, two]
    do:
      cmd: sh work.sh copy/${item}.txt score/${item}.txt
      deps:
        - copy/${item}.txt
      outs:
        - score/${item}.txt
  tables:
    cmd: mkdir -p results/tables && cat score/*.txt > results/tables/single-corpus.md
    deps:
      - score/one.txt
      - score/two.txt
    outs:
      - results/tables/single-corpus.md:
          cache: false
  report:
    cmd: cp results/tables/single-corpus.md results/report.html
    deps:
      - results/tables/single-corpus.md
    outs:
      - results/report.html:
          cache: false
"""
ALL = ["copy@one", "copy@two", "score@one", "score@two", "tables", "report"]

# What a stage finds in its input decides whether it copies it, fails, waits until it is killed,
# wants to be the only one or not to be alone, or waits the first time alone.
WORK = """\
case $(cat $1) in
  broken) echo "cannot read $1" >&2; exit 3 ;;
  slow) touch running; sleep 600 ;;
  stubborn) trap '' TERM; touch running; while :; do sleep 1; done ;;
  alone) mkdir busy || exit 4; sleep 1; rmdir busy ;;
  once) mkdir ../once 2>/dev/null && { touch running; sleep 600; } ;;
  together) touch here-$(basename $2); while [ ! -e here-one.txt -o ! -e here-two.txt ]
    do sleep 0.1; done ;;
esac
sleep ${PAUSE:-0}; mkdir -p $(dirname $2); cp $1 $2
"""


def make(root: Path) -> Path:
    """A workspace in which nothing has run."""
    for corpus in ("one", "two"):
        (root / "data" / corpus).mkdir(parents=True)
        write_recording(root, corpus, f"# {corpus}\n")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "work.sh").write_text(WORK)
    run(root, "git", "init", "--quiet", "--initial-branch", "main")
    dvc(root, "init", "--quiet")
    dvc(root, "add", "--quiet", "data")
    commit(root)
    return root


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))


def write_recording(root: Path, corpus: str, content: str) -> None:
    (root / "data" / corpus / "take.txt").write_text(content)


def dvc(root: Path, *arguments: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *arguments).stdout


def lock(root: Path) -> Any:
    """What DVC has noted about the stages."""
    return YAML(typ="safe").load(root / "dvc.lock")


def launch(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The flow `reproduce` on recordings as they are."""
    return launch_flow("reproduce", root, "--allow-data-changes", *arguments, **environment)


def launch_flow(
    name: str, root: Path, *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """A flow in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"flows.{name}", "--workspace", str(root), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(holds: Callable[[], Any], seconds: float = 180.0) -> Any:
    """Wait for what the server, told by a queue of events, learns with delay."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return result
