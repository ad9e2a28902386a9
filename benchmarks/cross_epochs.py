"""Across corpora: what choosing the epoch on the tested corpus is worth.

    python benchmarks/cross_epochs.py emovo

Trains the source of a corpus as `timnet source CORPUS-shared` does (the first seed; the same bits)
and tests it every ten epochs on the other corpora. Prints UAR of the last epoch, which the tables
have, and of the epoch with the best accuracy ON THE TESTED CORPUS, which is optimistic.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from timnet.corpora.corpus import SHARED_EMOTIONS
from timnet.dataset import features
from timnet.dataset.folds import whole_table
from timnet.evaluation import metrics
from timnet.paper.runs import CROSS_CORPORA
from timnet.processes import worker_environment
from timnet.training import transfer
from timnet.training.network import PRECISIONS
from timnet.training.outcome import outcome
from timnet.training.stack import State, TrainSettings, train_stack
from timnet.training.train import Work

EVERY = 10  # epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=CROSS_CORPORA)
    parser.add_argument("--features", type=Path, default=Path("build/features"))
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    paths = {name: given.features / f"{name}-100000.parquet" for name in CROSS_CORPORA}
    tables = {name: features.read(path)[0] for name, path in paths.items()}
    settings = TrainSettings(epochs=given.epochs, precision=given.precision)
    split = whole_table(tables.pop(given.corpus), shared=True)
    material = Work([paths[given.corpus]], split, SHARED_EMOTIONS, settings, [0]).load()
    record = {
        "labels": SHARED_EMOTIONS,
        "train": asdict(settings),
        "features": {"settings": {"coefficients": material.mfcc.shape[2]}},
    }
    scores: dict[str, list[tuple[int, float, float]]] = {name: [] for name in tables}
    bar = iter(track(range(given.epochs), given.corpus))

    def test(state: State) -> None:
        next(bar)
        if state.epoch % EVERY and state.epoch != given.epochs:
            return
        trained = outcome(
            material.splits, [state], material.table, material.mfcc, SHARED_EMOTIONS, None, "none"
        )
        for name, table in tables.items():
            told = transfer.predictions(record, trained.weights, table)
            truth = [SHARED_EMOTIONS.index(emotion) for emotion in told["emotion"].to_pylist()]
            said = np.array(told["logits"].to_pylist()).argmax(1)
            matrix = metrics.confusion_matrix(np.array(truth), said, len(SHARED_EMOTIONS))
            scores[name].append((state.epoch, 100 * metrics.uar(matrix), 100 * metrics.war(matrix)))

    with worker_environment():
        train_stack(
            material.mfcc, material.targets, material.splits, len(SHARED_EMOTIONS), settings,
            checkpoint=test,
        )  # fmt: skip
    next(bar, None)
    print("source,tested on,last epoch UAR,best epoch,best epoch UAR")
    for name, found in scores.items():
        best = max(found, key=lambda each: each[2])
        print(f"{given.corpus},{name},{found[-1][1]:.2f},{best[0]},{best[1]:.2f}")


if __name__ == "__main__":
    main()
