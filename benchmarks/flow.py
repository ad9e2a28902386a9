"""The flow beside a plain `dvc repro`: how fast, and whether kills leave the same result.

    python benchmarks/flow.py speed [--pause 3] [--pause 0]
    python benchmarks/flow.py kills [--runs 20]

`speed` brings the demo with four more synthetic corpora up to date from nothing, once by
`dvc repro` and once by the flow with two workers, with so many seconds of waiting before each
command. The time of the flow holds its own start, not that of the server.

`kills` lets the flow with eight workers run a graph of 12 stages, kills it once or twice at random
moments by a random signal, lets it come to its end, and compares what is there with what a plain
`dvc repro` gives.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from ruamel.yaml import YAML

from flows.process_group import ProcessGroup
from flows.server import free_port, start_server
from timnet.acquire.synthesis import generate
from timnet.acquire.table import import_table
from timnet.corpora import custom, demo
from timnet.project.demo import set_up

ROOT = Path(__file__).resolve().parent.parent
EXTRA = ("demo-b", "demo-c", "demo-d", "demo-e")
MOST = 180.0  # s that a run may take


def twelve_stages(root: Path) -> None:
    """a1..a4 -> b1..b4 -> c1 (of b1, b2), c2 (of b3, b4) -> d -> e: half a second each."""
    needs = {f"a{i}": ["source.txt"] for i in range(1, 5)}
    needs |= {f"b{i}": [f"a{i}.out"] for i in range(1, 5)}
    needs |= {"c1": ["b1.out", "b2.out"], "c2": ["b3.out", "b4.out"]}
    needs |= {"d": ["c1.out", "c2.out"], "e": ["d.out"]}
    stages = {
        name: {
            "cmd": f"sleep 0.5; (echo {name}; cat {' '.join(deps)}) > {name}.out",
            "deps": deps,
            "outs": [f"{name}.out"],
        }
        for name, deps in needs.items()
    }
    root.mkdir()
    (root / "source.txt").write_text("source\n")
    YAML().dump({"stages": stages}, root / "dvc.yaml")
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "init", "--quiet")


def five_corpora(root: Path) -> None:
    """The demo's workspace with four more corpora, a run each way on all, and short training."""
    set_up(ROOT, root)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    params["recipes"]["paper"].update(epochs=1, batch_size=64)
    params["runs"] = {}
    for seed, name in enumerate(("demo", *EXTRA)):
        folder = root / "data" / name
        if name != "demo":
            generate(folder, seed)
            label(folder)
            import_table(folder / custom.LABELS, name, root / "data")
            params["corpora"][name] = "custom"
            params["features"]["sets"][f"{name}-44100"] = {"corpus": name, "signal_length": 44100}
        for protocol in ("random", "speaker"):
            folds: dict[str, Any] = {"protocol": protocol}
            if protocol == "random":
                folds |= {"number": 5, "seeds": [1]}
            params["runs"][f"{name}-{protocol}"] = {
                "trained_on": name,
                "signal_length": 44100,
                "folds": folds,
                "recipe": "paper",
                "network": {"tabs": 2, "variant": "tim-net"},
                "precision": "fp32",
                "seeds": [0],
            }
    yaml.dump(params, root / "params.yaml")
    run(root, "dvc", "add", "--quiet", "data")


def label(folder: Path) -> None:
    with (folder / custom.LABELS).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "speaker", "emotion"))
        for each in demo.read(folder):
            rows.writerow((each.path, each.speaker, each.emotion))


def wait_first(root: Path, seconds: float) -> None:
    """Let every command wait before it begins."""
    yaml = YAML()
    pipeline = yaml.load(root / "dvc.yaml")
    for stage in pipeline["stages"].values():
        body = stage.get("do", stage)
        body["cmd"] = f"sleep {seconds:g}; {body['cmd']}"
    yaml.dump(pipeline, root / "dvc.yaml")


def run(root: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{command} ended with {result.returncode}:\n{result.stderr}")
    return result.stdout


def flow(root: Path, url: str, workers: int) -> subprocess.Popen[str]:
    options = ("--workspace", str(root), "--max-workers", str(workers))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.reproduce", *options],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": url, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_in(root: Path) -> list[list[str]]:
    """Commands of the processes at work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def state(root: Path) -> tuple[object, dict[str, str]]:
    """What DVC noted, and what was made."""
    made = {path.name: path.read_text() for path in root.glob("*.out")}
    return YAML(typ="safe").load(root / "dvc.lock"), made


def killed(root: Path, url: str, chance: random.Random, expected: object) -> str:
    """Kill a run once or twice, end it, and say what is wrong, or nothing."""
    blows = []
    for _ in range(chance.choice((1, 2))):
        process = flow(root, url, workers=8)
        moment = chance.uniform(1.0, 20.0)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            blow = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            blows.append(f"{blow.name} after {moment:.1f} s")
            process.send_signal(blow)
            process.communicate(timeout=MOST)
    deadline = time.monotonic() + 15
    while left_in(root) and time.monotonic() < deadline:  # of a run killed by SIGKILL
        time.sleep(0.1)
    faults = [f"left: {left}"] if (left := left_in(root)) else []
    process = flow(root, url, workers=8)
    _, said = process.communicate(timeout=MOST)
    if process.returncode:
        faults.append(said.strip().splitlines()[-1])
    elif state(root) != expected:
        faults.append("another dvc.lock or other files than `dvc repro`")
    elif "up to date" not in run(root, "dvc", "status"):
        faults.append("`dvc status` is not clean")
    print(f"{', '.join(blows) or 'not killed'}: {'; '.join(faults) or 'as dvc repro'}", flush=True)
    return "; ".join(faults)


def kills(folder: Path, url: str, runs: int) -> Counter[str]:
    """How many of the runs ended as they should, and how the others."""
    twelve_stages(folder / "new")
    serial = Path(shutil.copytree(folder / "new", folder / "serial", symlinks=True))
    run(serial, "dvc", "repro")
    expected, chance = state(serial), random.Random(1)
    counts = Counter[str]()
    for number in range(runs):
        root = Path(shutil.copytree(folder / "new", folder / str(number), symlinks=True))
        counts[killed(root, url, chance, expected) or "as dvc repro"] += 1
    return counts


def speed(folder: Path, url: str, pause: float) -> None:
    five_corpora(folder / "new")
    if pause:
        wait_first(folder / "new", pause)
    seconds = []
    for name in ("dvc repro", "flow"):
        root = Path(shutil.copytree(folder / "new", folder / name, symlinks=True))
        start = time.perf_counter()
        if name == "flow":
            process = flow(root, url, workers=2)
            _, said = process.communicate()
            if process.returncode:
                raise SystemExit(said)
        else:
            run(root, "dvc", "repro")
        seconds.append(time.perf_counter() - start)
    plain, ours = seconds
    print(f"| {pause:7g} | {plain:12.0f} | {ours:7.0f} | {plain / ours:5.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "kills"))
    parser.add_argument("--pause", type=float, action="append", help="s before each command")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch, ProcessGroup() as processes:
        os.environ["PREFECT_HOME"] = str(Path(scratch, "prefect"))
        url = start_server(processes, free_port())
        if arguments.what == "kills":
            Path(scratch, "kills").mkdir()
            print(dict(kills(Path(scratch, "kills"), url, arguments.runs)))
            return
        print("| wait, s | dvc repro, s | flow, s | ratio |")
        print("| ------: | -----------: | ------: | ----: |")
        for pause in arguments.pause or (3.0, 0.0):
            folder = Path(scratch, f"pause-{pause:g}")
            folder.mkdir()
            speed(folder, url, pause)


if __name__ == "__main__":
    main()
