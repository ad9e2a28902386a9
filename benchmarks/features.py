"""Milliseconds per utterance, from WAV to cached features: ours beside what one would run instead.

    python benchmarks/features.py data/emovo [--utterances 96]

Three ways over the same recordings, in one run, on one process and on two:

    timnet      the exact resampler as a bank of filters, librosa's MFCC, Parquet
    resampy     as the authors' code goes: librosa and resampy with the old table, and the features
                of a file written as text and read back
    soxr        plain librosa: its default resampler, the same MFCC, a NumPy file written

Times are without start-up and first calls, which are paid once per run and shown apart.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from timnet.dataset.features import FeatureSettings
from timnet.processes import worker_environment

SETTINGS = FeatureSettings(96000)


def by_timnet(path: Path, scratch: Path) -> None:
    from timnet.dataset import features

    values = features.of_file(path, SETTINGS, features.mel_filters())
    assert isinstance(values, np.ndarray)
    table = pa.table({"mfcc": pa.FixedSizeListArray.from_arrays(values.ravel(), values.size)})
    pq.write_table(table, scratch / f"{path.stem}.parquet")


def by_resampy(path: Path, scratch: Path) -> None:
    import librosa
    from old_resampy import by_resampy as resampled

    from timnet.dataset.features import centre

    signal, rate = librosa.load(path, sr=None)
    signal = resampled(signal, int(rate))
    values = librosa.feature.mfcc(y=centre(signal, SETTINGS.signal_length), sr=22050, n_mfcc=39)
    text = scratch / f"{path.stem}.txt"
    np.savetxt(text, values.T)
    np.loadtxt(text)


def by_soxr(path: Path, scratch: Path) -> None:
    import librosa

    from timnet.dataset.features import centre

    signal, _ = librosa.load(path, sr=22050)
    values = librosa.feature.mfcc(y=centre(signal, SETTINGS.signal_length), sr=22050, n_mfcc=39)
    np.save(scratch / f"{path.stem}.npy", values.T)


WAYS = {"timnet": by_timnet, "resampy": by_resampy, "soxr": by_soxr}


def measure(way: str, paths: list[Path], scratch: Path) -> tuple[float, list[float], float]:
    """Seconds of the first call, seconds a file after it, peak memory of this process in MB."""
    start = time.perf_counter()
    WAYS[way](paths[0], scratch)
    first = time.perf_counter() - start
    times = []
    for path in paths:
        start = time.perf_counter()
        WAYS[way](path, scratch)
        times.append(time.perf_counter() - start)
    return first, times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--utterances", type=int, default=96)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.wav"))
    paths = paths[:: max(1, len(paths) // arguments.utterances)][: arguments.utterances]
    print(f"{len(paths)} utterances of {arguments.folder}\n")
    print("| way     | cores | ms per utterance | ratio | first call, s | peak memory, MB |")
    print("| ------- | ----: | --------------: | ----: | ------------: | --------------: |")
    for cores in (1, 2):
        base = 0.0
        for way in ("resampy", "soxr", "timnet"):
            with (
                TemporaryDirectory() as scratch,
                worker_environment(),
                ProcessPoolExecutor(cores, get_context("spawn")) as pool,
            ):
                halves = [paths[core::cores] for core in range(cores)]
                results = list(pool.map(measure, [way] * cores, halves, [Path(scratch)] * cores))
            times = [value for _, values, _ in results for value in values]
            each = 1000 * statistics.median(times) / cores
            base = base or each
            first, memory = max(r[0] for r in results), sum(r[2] for r in results)
            print(
                f"| {way:7} | {cores:5} | {each:15.1f} | {base / each:5.1f} "
                f"| {first:13.1f} | {memory:15.0f} |"
            )


if __name__ == "__main__":
    main()
