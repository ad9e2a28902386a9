"""A network and an SVM on speakers who are enrolled by few recordings: alone and joined.

    python benchmarks/joined.py emodb emovo [--prior 1]

UAR in percent of the first seed of the run CORPUS-speaker-adapted, in fp32: every fold's network,
and an SVM trained on the same fold, adapted to the tested speakers by so many of their recordings
(two draws), and tested on all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from timnet import records, schemas
from timnet.cli.common import open_workspace
from timnet.dataset import features
from timnet.evaluation import calibration, metrics
from timnet.models import build, enrolment, svm
from timnet.training.network import TIMNet

ENROLLED = (1, 3, 10, None)  # None: all
DRAWS = 2


def measure(corpus: str) -> Iterator[tuple[str, list[float]]]:
    """Rows: enrolled with, and UAR of the network, of the SVM, of both."""
    workspace, params = open_workspace()
    name = f"{corpus}-speaker-adapted"
    folder = workspace.training(name)
    record = records.read_artifact(folder / "run.json", records.TrainedRecord)
    run = build.read_run(name, folder, record)
    table, _ = features.read(workspace.features(params.run(name).features))
    mfcc, speakers = schemas.mfcc(table), np.array(table["speaker"].to_pylist())
    truth = np.array([run.labels.index(each) for each in table["emotion"].to_pylist()])
    of = {row["utterance"]: row["fold"] for row in run.predictions.to_pylist()}
    folds = np.array([of[each] for each in table["utterance"].to_pylist()])
    random = np.random.default_rng(0)
    draws = {number: DRAWS if number else 1 for number in ENROLLED}
    said = {
        number: np.full((3, times, len(truth)), -1) for number, times in draws.items()
    }  # by network, SVM, both
    for row, fold in enumerate(run.folds):
        network = TIMNet(1, len(run.labels), run.networks.tabs, run.networks.channels)
        network.load_arrays(0, run.networks.arrays(row))
        train = folds != fold
        machine = svm.of(mfcc[train], speakers[train], truth[train])
        for speaker in np.unique(speakers[~train]):
            own = np.flatnonzero(speakers == speaker)
            for number, times in draws.items():
                for draw in range(times):
                    chosen = mfcc[random.permutation(own)[:number]]
                    adapted, _ = enrolment.adapted(network, None, record["train"], chosen)
                    inputs = enrolment.frames(adapted, None, mfcc[own])
                    ours = adapted(inputs)[0][0].numpy()
                    theirs = machine.enrolled(chosen).logits(mfcc[own], len(run.labels))
                    three = ours, theirs, calibration.joined(ours, theirs)
                    for place, logits in enumerate(three):
                        said[number][place, draw, own] = logits.argmax(1)
    for number, told in said.items():
        matrices = [
            [metrics.confusion_matrix(truth, one, len(run.labels)) for one in each] for each in told
        ]
        uar = [100 * float(np.mean([metrics.uar(one) for one in each])) for each in matrices]
        yield str(number or "all"), uar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+", metavar="CORPUS")
    parser.add_argument("--prior", type=float, default=svm.PRIOR, help="in place of svm.PRIOR")
    given = parser.parse_args()
    svm.PRIOR = given.prior
    torch.set_num_threads(1)
    print("| corpus | enrolled with | network | SVM | both |")
    print("| :-- | --: | --: | --: | --: |")
    for corpus in given.corpora:
        for enrolled, uar in measure(corpus):
            cells = " | ".join(f"{value:.1f}" for value in uar)
            print(f"| {corpus} | {enrolled} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
