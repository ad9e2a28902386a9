"""From disk to label: one recording after loading, and a folder of them.

    python benchmarks/predict.py data/emovo --model emovo [--files 500]
    python benchmarks/predict.py data/emovo --weights EMOVO_1.zip

With `--weights` the networks are the authors'. Every number is of one run; the processor's time,
which other work on the machine disturbs less, stands beside the clock's.
"""

from __future__ import annotations

import os

from timnet.processes import WORKER_ENVIRONMENT

os.environ.update(WORKER_ENVIRONMENT)  # as `timnet predict` does, before the libraries read it

import argparse
import statistics
import time
from pathlib import Path

import soundfile
from authors import authors_model

from timnet import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the recordings of EMOVO")
    parser.add_argument("--files", type=int, default=500)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--model")
    models.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.wav"))[: arguments.files]
    if arguments.weights:
        model = authors_model(arguments.weights, arguments.folder)
    else:
        model = load_model(arguments.model)
    three = min(paths, key=lambda path: abs(soundfile.info(path).duration - 3))
    print(f"{len(paths)} files, {model.network.networks} networks, {os.cpu_count()} cores\n")
    print("| what               | networks | threads | ms a file | of processor | files a second |")
    print("| ------------------ | -------: | ------: | --------: | -----------: | -------------: |")
    for single in (True, False):
        networks = 1 if single else model.network.networks
        for _ in range(2):  # the first call pays for tables and caches
            list(model.predict_files([three], single=single))
        times, worked = [], time.process_time()
        for _ in range(50):
            start = time.perf_counter()
            list(model.predict_files([three], single=single))
            times.append(time.perf_counter() - start)
        _row(
            "one file of 3 s",
            networks,
            1,
            statistics.median(times),
            time.process_time() - worked,
            50,
        )
        for threads in (1, 2):
            start, worked = time.perf_counter(), time.process_time()
            done = len(list(model.predict_files(paths, single=single, workers=threads)))
            wall = (time.perf_counter() - start) / done
            _row(f"folder of {done}", networks, threads, wall, time.process_time() - worked, done)


def _row(what: str, networks: int, threads: int, wall: float, worked: float, files: int) -> None:
    print(
        f"| {what:18} | {networks:8} | {threads:7} | {1000 * wall:9.1f} "
        f"| {1000 * worked / files:12.1f} | {1 / wall:14.0f} |"
    )


if __name__ == "__main__":
    main()
