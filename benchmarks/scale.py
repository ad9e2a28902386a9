"""Memory and time of feature extraction as the corpus grows: 1,000 to 100,000 utterances of 4 s.

    python benchmarks/scale.py [1000 10000 100000]

The recordings are generated sound; a few hundred files stand for all, read again and again.
Peak memory is that of all processes together, sampled ten times per second, shared pages counted
in each.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
import soundfile

from timnet import schemas
from timnet.dataset import features
from timnet.dataset.features import FeatureSettings

FILES, RATE, SECONDS = 200, 16000, 4


def manifest(utterances: int) -> pa.Table:
    rows = [
        {
            "utterance": f"u{index:06}",
            "speaker": f"s{index % 10}",
            "emotion": "neutral",
            "sentence": None,
            "path": f"{index % FILES:03}.wav",
            "sample_rate": RATE,
            "channels": 1,
            "samples": RATE * SECONDS,
            "sha256": f"{index % FILES:064}",
        }
        for index in range(utterances)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


class Memory(threading.Thread):
    """Peak of the resident memory of this process and its children, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.going = 0, True

    def run(self) -> None:
        while self.going:
            own = psutil.Process(os.getpid())
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.1)


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [1000, 10_000, 100_000]
    rng = np.random.default_rng(0)
    print("| utterances | seconds | ms per utterance | peak memory, MB | file, MB |")
    print("| ---------: | ------: | --------------: | --------------: | -------: |")
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        for index in range(FILES):
            sound = rng.normal(0, 0.1, RATE * SECONDS)
            soundfile.write(folder / f"{index:03}.wav", sound, RATE, subtype="PCM_16")
        for size in sizes:
            target, shards = folder / f"{size}.parquet", folder / "shards"
            table = manifest(size)
            memory = Memory()
            memory.start()
            start = time.perf_counter()
            features.extract(table, folder, FeatureSettings(88200), target, shards, 2)
            seconds = time.perf_counter() - start
            memory.going = False
            memory.join()
            print(
                f"| {size:10,} | {seconds:7.1f} | {1000 * seconds / size:15.2f} "
                f"| {memory.peak / 1e6:15.0f} | {target.stat().st_size / 1e6:8.0f} |",
                flush=True,
            )
            target.unlink()


if __name__ == "__main__":
    main()
