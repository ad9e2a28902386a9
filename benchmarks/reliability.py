"""Kill -9 at random moments, and others at work on the same workspace: does anything come apart?

    python benchmarks/reliability.py kills [--kills 50] [--seed 1]
    python benchmarks/reliability.py flows
    python benchmarks/reliability.py server
    python benchmarks/reliability.py locks

`kills` ends commands of a miniature of the demo (one epoch, small networks), and its flow, by
SIGKILL at moments drawn evenly over the time that they take, then runs each to its end, and
compares every byte with what an undisturbed run leaves. `flows` starts eight flows at once on one
workspace. `server` stops and starts the Prefect server under a running flow. `locks` puts the locks
of dead processes in the way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flow import flow, label, left_in, run, state, twelve_stages

from flows.process_group import ProcessGroup
from flows.server import free_port, start_server
from timnet.acquire.synthesis import generate
from timnet.corpora.custom import LABELS
from timnet.paths import Workspace
from timnet.project.demo import set_up

ROOT = Path(__file__).resolve().parent.parent
DEAD = 99_999_999  # no process has this number: it is above the system's largest
MOST = 300.0  # s that anything may take
GONE = 15.0  # s that helpers of a killed process may take to notice


@dataclass(frozen=True)
class Target:
    """A command to kill, and what it makes; paths below the workspace."""

    name: str
    command: tuple[str, ...]
    makes: tuple[str, ...]
    share: int  # of the kills, of all shares

    def clear(self, root: Path) -> None:
        """As before its first run."""
        for path in self.makes:
            shutil.rmtree(root / path, ignore_errors=True)
            (root / path).unlink(missing_ok=True)


TIMNET = (sys.executable, "-m", "timnet")
RESULTS = "results/runs/demo-random"
COMMANDS = (
    Target(
        "acquire",
        (*TIMNET, "acquire", "mine", "--csv", f"mine/{LABELS}", "--no-add"),
        ("data/mine",),
        9,
    ),
    Target(
        "features", (*TIMNET, "features", "demo-44100"), ("build/features/demo-44100.parquet",), 10
    ),
    Target("train", (*TIMNET, "train", "demo-random"), ("build/train/demo-random",), 10),
    Target("score", (*TIMNET, "score", "demo-random"), (RESULTS,), 9),
    Target("tables", (*TIMNET, "tables"), ("results/tables",), 6),
)
FLOW = Target(
    "flow",
    (sys.executable, "-m", "flows.reproduce", "tables", "--allow-data-changes"),
    (
        *(f"build/train/demo-{name}" for name in ("random", "speaker")),
        *(f"results/runs/demo-{name}" for name in ("random", "speaker")),
        "results/tables",
    ),
    6,
)


def miniature(root: Path) -> None:
    """The demo brought up to date, with one epoch of small networks."""
    set_up(ROOT, root)
    shorten(root, {"epochs: 22": "epochs: 1", "tabs: 3": "tabs: 2", "size: 8": "size: 64"})
    run(root, "dvc", "repro")


def shorten(root: Path, changes: dict[str, str]) -> None:
    path = Workspace(root).params
    text = path.read_text(encoding="utf-8")
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def own_recordings(root: Path) -> None:
    """A folder with a table beside the workspace's own, to be acquired."""
    generate(root / "mine", 2)
    label(root / "mine")


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))


def contents(root: Path, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Every file of what a command makes."""
    files: list[Path] = []
    for path in paths:
        made = root / path
        files += [file for file in made.rglob("*") if file.is_file()] if made.is_dir() else []
        files += [made] if made.is_file() else []
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(files)}


def launch(root: Path, command: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        return subprocess.Popen(
            command, cwd=root, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def gone(root: Path) -> bool:
    """Whether no process works in a folder, after some seconds at most."""
    deadline = time.monotonic() + GONE
    while left_in(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not left_in(root)


def undisturbed(root: Path, target: Target) -> tuple[float, dict[str, bytes]]:
    """The seconds that a command takes, and what it makes."""
    target.clear(root)
    start = time.monotonic()
    process = launch(root, target.command, root / ".log")
    if process.wait(MOST):
        raise SystemExit(f"{target.name}: {(root / '.log').read_text()}")
    return time.monotonic() - start, contents(root, target.makes)


def killed(
    root: Path, target: Target, moment: float, expected: dict[str, bytes], clean: bool
) -> list[str]:
    """Kill a command at a moment and run it again to its end; says what is wrong."""
    target.clear(root)
    process = launch(root, target.command, root / ".log")
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    faults = [] if gone(root) else [f"left: {left_in(root)}"]
    between = contents(root, target.makes)
    for name, found in between.items():
        if found != expected.get(name) and not Path(name).name.startswith("."):
            faults.append(f"half-written after the kill: {name}")
    process = launch(root, target.command, root / ".log")
    if process.wait(MOST):
        said = (root / ".log").read_text().strip().splitlines()
        faults.append(f"the restart ended with {process.returncode}: {said[-1:]}")
    elif contents(root, target.makes) != expected:
        faults.append("other bytes than an undisturbed run")
    elif clean and "up to date" not in run(root, "dvc", "status", "tables"):
        faults.append("`dvc status` is not clean")
    return faults if gone(root) else [*faults, "processes left after the restart"]


def kill(root: Path, target: Target, times: int, chance: random.Random) -> list[str]:
    """Kill a command so many times; says what was wrong, each time with its moment."""
    seconds, expected = undisturbed(root, target)
    faults = []
    for number in range(times):
        # one in each stretch of its time, so that no part goes untried
        moment = seconds * (number + chance.random()) / times
        found = killed(root, target, moment, expected, clean=target.name != "acquire")
        faults += [f"{target.name}, killed after {moment:.2f} s: {fault}" for fault in found]
    print(
        f"| {target.name:8} | {times:5} | {seconds:9.1f} | {len(expected):5} | {len(faults):4} |",
        flush=True,
    )
    return faults


def kills(ready: Path, scratch: Path, times: int, seed: int) -> list[str]:
    """All targets, each in a copy of a workspace that is up to date."""
    chance, faults = random.Random(seed), []
    shares = sum(target.share for target in (*COMMANDS, FLOW))
    print("| killed   | times | takes, s  | files | lost |")
    print("| -------- | ----: | --------: | ----: | ---: |")
    for target in COMMANDS:
        root = copied(ready, scratch / target.name)
        if target.name == "acquire":
            own_recordings(root)
        faults += kill(root, target, round(times * target.share / shares), chance)
    root = copied(ready, scratch / FLOW.name)
    shutil.rmtree(root / ".dvc" / "cache" / "runs", ignore_errors=True)  # or it only restores
    return faults + kill(root, FLOW, round(times * FLOW.share / shares), chance)


def eight_flows(scratch: Path, url: str) -> list[str]:
    """One of eight works on the workspace, the others wait for it or say who is at work."""
    twelve_stages(scratch / "new")
    serial = copied(scratch / "new", scratch / "serial")
    run(serial, "dvc", "repro")
    root = copied(scratch / "new", scratch / "eight")
    processes = [flow(root, url, workers=2) for _ in range(8)]
    said = [process.communicate(timeout=MOST)[1] for process in processes]
    done = [process.returncode for process in processes]
    faults = [
        f"one ended with {code}: {words.strip()[-300:]}"
        for code, words in zip(done, said, strict=True)
        if code and ("another run is at work here" not in words or "Traceback" in words)
    ]
    print(f"{done.count(0)} of 8 flows ended well, {8 - done.count(0)} were told who is at work")
    return faults + compared(root, serial)


def restarted_server(scratch: Path) -> list[str]:
    """A server that is away for some seconds under a running flow."""
    twelve_stages(scratch / "new")
    serial = copied(scratch / "new", scratch / "serial")
    run(serial, "dvc", "repro")
    root, port = copied(scratch / "new", scratch / "away"), free_port()
    with ProcessGroup() as processes:
        url = start_server(processes, port)
        process = flow(root, url, workers=1)
        deadline = time.monotonic() + MOST
        while not (root / "a1.out").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    with ProcessGroup() as processes:
        start_server(processes, port)
        _, said = process.communicate(timeout=MOST)
        print(f"the flow ended with {process.returncode}: {said.strip().splitlines()[-1:]}")
        faults = ["a traceback is its last word"] if said.strip().endswith("Error") else []
        if process.returncode:
            again = flow(root, url, workers=1)
            _, said = again.communicate(timeout=MOST)
            print(f"the next one ended with {again.returncode}")
            faults += [said.strip()[-300:]] if again.returncode else []
    return faults + compared(root, serial)


def compared(root: Path, serial: Path) -> list[str]:
    """What is wrong with a workspace of twelve stages beside that of a plain `dvc repro`."""
    faults = [] if gone(root) else [f"left: {left_in(root)}"]
    if not (root / "dvc.lock").exists():
        return [*faults, "nothing was made"]
    if state(root) != state(serial):
        faults.append("another dvc.lock or other files than `dvc repro`")
    if "up to date" not in run(root, "dvc", "status"):
        faults.append("`dvc status` is not clean")
    return faults


def dead_locks(root: Path, *outputs: str) -> None:
    """Locks of a process that is no more, of every kind that is taken on a workspace."""
    temporary = root / ".dvc" / "tmp"
    temporary.mkdir(exist_ok=True)
    (temporary / "lock").write_text(f"{DEAD}\n", encoding="utf-8")
    owner = {"pid": DEAD, "cmd": "dvc repro"}
    busy = {"write": {str(root / name): owner for name in outputs}, "read": {}}
    (temporary / "rwlock").write_text(json.dumps(busy), encoding="utf-8")
    (temporary / "rwlock.lock").write_text("", encoding="utf-8")
    (temporary / "reproduce.lock").write_text(f"mad-cat, process {DEAD}, since yesterday\n")


def left_locks(scratch: Path, url: str) -> list[str]:
    """Locks that a dead process left stop nobody."""
    twelve_stages(scratch / "new")
    serial = copied(scratch / "new", scratch / "serial")
    run(serial, "dvc", "repro")
    root = copied(scratch / "new", scratch / "left")
    dead_locks(root, "a1.out", "e.out")
    process = flow(root, url, workers=2)
    _, said = process.communicate(timeout=MOST)
    print(f"the flow ended with {process.returncode}: {said.strip().splitlines()[-1:]}")
    return ([said.strip()[-500:]] if process.returncode else []) + compared(root, serial)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("kills", "flows", "server", "locks"))
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--ready", type=Path, help="a miniature made before")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name, ProcessGroup() as processes:
        scratch = Path(name)
        os.environ["PREFECT_HOME"] = str(scratch / "prefect")
        checks: dict[str, Callable[[], list[str]]] = {
            "flows": lambda: eight_flows(scratch, os.environ["PREFECT_API_URL"]),
            "server": lambda: restarted_server(scratch),
            "locks": lambda: left_locks(scratch, os.environ["PREFECT_API_URL"]),
        }
        if arguments.what != "server":
            os.environ["PREFECT_API_URL"] = start_server(processes, free_port())
        if arguments.what == "kills":
            ready = arguments.ready or scratch / "ready"
            if not ready.exists():
                miniature(ready)
            faults = kills(ready, scratch, arguments.kills, arguments.seed)
        else:
            faults = checks[arguments.what]()
    print("\n".join(faults) or "nothing was lost")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
