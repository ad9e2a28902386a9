"""How a model fares on other speakers, microphones and languages: what a user of it should expect.

    python benchmarks/languages.py --model emovo emodb=data/emodb ravdess=data/ravdess
    python benchmarks/languages.py --weights EMOVO_1.zip --trained-on data/emovo emodb=...

Recordings of emotions that the model does not know are left out. `out of domain` is the share that
prediction flags as out of domain; `confidence` the mean probability of the predicted
emotion, to be compared with WAR (accuracy).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from authors import authors_model

from timnet import load_model
from timnet.corpora import CORPORA
from timnet.evaluation import calibration, metrics
from timnet.models.model import Model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+", metavar="CORPUS=FOLDER")
    parser.add_argument("--trained-on", type=Path, help="the recordings of EMOVO, for --weights")
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--model")
    models.add_argument("--weights", type=Path, help="the authors' own for EMOVO")
    arguments = parser.parse_args()
    if arguments.weights:
        model = authors_model(arguments.weights, arguments.trained_on)
    else:
        model = load_model(arguments.model)
    card = model.card
    print(f"{card.name}, {card.run}: {', '.join(card.labels)}\n")
    for each in card.figures:
        print(f"{card.data.title} itself, `{each.protocol}`: UAR {each.uar:.2f} %")
    print()
    tables = [_table(model, *pair.split("=", 1)) for pair in arguments.corpora]
    print(
        "| corpus  | language | utterances | chance | UAR, % | WAR, % | confidence, % | out of "
        "domain, % |"
    )
    print("| ------- | -------- | ---------: | -----: | -----: | -----: | ---------: | --------: |")
    for line, _ in tables:
        print(line)
    for _, confusion in tables:
        print(f"\n{confusion}")


def _table(model: Model, corpus: str, folder: str) -> tuple[str, str]:
    """A line of scores, and the confusion matrix in row percents."""
    recipe, labels = CORPORA[corpus], model.labels
    known = [each for each in recipe.read(Path(folder)) if each.emotion in labels]
    paths = [Path(folder, each.path) for each in known]
    truth = np.array([labels.index(each.emotion) for each in known])
    found = []
    for path, each in model.predict_files(paths, workers=2):
        if isinstance(each, str):
            sys.exit(f"{path}: cannot be read: {each}")
        found.append(each)
    given = np.stack([each.probabilities for each in found])
    confusion = metrics.confusion_matrix(truth, given.argmax(1), len(labels))
    flagged = np.mean([bool(each.out_of_domain) for each in found])
    scores = (
        f"| {recipe.title:7} | {recipe.language:8} | {len(known):10} "
        f"| {100 / len(set(truth)):6.1f} | {100 * metrics.uar(confusion):6.1f} "
        f"| {100 * metrics.war(confusion):6.1f} | {100 * given.max(1).mean():10.1f} "
        f"| {100 * flagged:16.0f} |"
    )
    error = calibration.expected_error(given, truth)
    rows = [f"{recipe.title}, row percents (expected calibration error {100 * error:.1f} %):\n"]
    rows.append("| true \\ predicted | " + " | ".join(f"{label:>8}" for label in labels) + " |")
    rows.append("| ---------------- | " + " | ".join("-------:" for _ in labels) + " |")
    for label, counts in zip(labels, confusion, strict=True):
        if counts.sum():
            shares = " | ".join(f"{100 * count / counts.sum():8.0f}" for count in counts)
            rows.append(f"| {label:16} | {shares} |")
    return scores, "\n".join(rows)


if __name__ == "__main__":
    main()
