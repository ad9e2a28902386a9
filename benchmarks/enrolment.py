"""UAR on unseen speakers by how much of their speech adapts the networks, without labels.

    python benchmarks/enrolment.py emovo-speaker-adapted emodb-speaker-adapted

Reads what `dvc repro train@RUN` left, writes the rows of these runs to enrolment.csv, and prints
the table of docs/explanation/unseen-speakers.md. Every network tests the speakers of its fold, in
fp32.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch

from timnet import schemas
from timnet.dataset import features
from timnet.evaluation import metrics
from timnet.models import enrolment
from timnet.training import outcome

TABLE = Path(__file__).with_suffix(".csv")
DRAWS = 3  # for every training seed others, of the recordings that enrol a speaker
NUMBERS = (1, 3, 10)  # of recordings that are drawn
PARTS = 5  # of a speaker's recordings, each tested after enrolment with the others
NEUTRAL = "neutral"
ORDER = {  # kinds of enrolment, in words
    "nothing": "nothing",
    "the tested alone": "the tested recording alone",
    "1, other": "1 other recording",
    "3, other": "3 others",
    "10, other": "10 others",
    "all neutral, other": "all other neutral ones",
    "4 of 5 parts, other": "four fifths of all, others",
    "all, the tested among them": "all, the tested among them",
}
COLUMNS = (
    "run",
    "speakers",
    "prior",
    "enrolled_with",
    "uar",
    "draws_sd",
    "seeds_sd",
    "draws",
    "seeds",
)
Trial = tuple[str, int, np.ndarray, np.ndarray]  # kind, draw, who is enrolled with and tested


def trials(emotions: np.ndarray, random: np.random.Generator) -> Iterator[Trial]:
    """How one speaker is enrolled and tested: places of recordings, among these (recordings,).

    "Other" recordings are none that is tested. By the last two kinds a speaker is enrolled with
    what is tested too.
    """
    every, none = np.arange(len(emotions)), np.arange(0)
    yield "nothing", 0, none, every
    for draw in range(DRAWS):
        order = random.permutation(every)
        for number in NUMBERS:
            yield f"{number}, other", draw, order[:number], np.sort(order[number:])
    neutral = np.flatnonzero(emotions == NEUTRAL)
    if len(neutral) > 1:
        yield "all neutral, other", 0, neutral, np.setdiff1d(every, neutral)
        for one in neutral:
            yield "all neutral, other", 0, np.setdiff1d(neutral, one), np.array([one])
    order = random.permutation(every)
    for part in range(PARTS):
        tested = np.sort(order[part::PARTS])
        yield "4 of 5 parts, other", 0, np.setdiff1d(every, tested), tested
    yield "all, the tested among them", 0, every, every
    for one in every:
        yield "the tested alone", 0, np.array([one]), np.array([one])


def measure(name: str, build: Path) -> list[dict]:
    """The rows of a run."""
    folder = build / "train" / name
    record = json.loads((folder / "run.json").read_text())
    if not record["train"].get("by_speaker") or record["train"]["normalise"] != "none":
        raise SystemExit(
            f"{name}: expected a recipe with `by_speaker: true` that normalises nothing"
        )
    length = record["features"]["settings"]["signal_length"]
    table, _ = features.read(build / "features" / f"{record['trained_on']}-{length}.parquet")
    mfcc = schemas.mfcc(table)
    emotion, speaker = (np.array(table[name].to_pylist()) for name in ("emotion", "speaker"))
    truth = np.searchsorted(record["labels"], emotion)
    told = schemas.read(folder / "predictions.parquet")
    last = pc.equal(told["epoch_kind"], "last")
    weights = outcome.read_weights(folder / "weights.npz")
    seeds = sorted(set(weights["seed"].tolist()))
    said: dict[tuple[str, int], np.ndarray] = {}  # kind and draw: (seeds, utterances)
    for row, (fold, seed) in enumerate(zip(weights["fold"], weights["seed"], strict=True)):
        network = outcome.networks(record, weights, np.array([row]))
        own = pc.and_(pc.equal(told["fold"], fold), pc.equal(told["seed"], seed))
        for who in sorted(set(told.filter(pc.and_(last, own))["speaker"].to_pylist())):
            rows = np.flatnonzero(speaker == who)
            random = np.random.default_rng((seed, sorted(set(speaker)).index(who)))
            for kind, draw, enrolled, tested in trials(emotion[rows], random):
                adapted = network
                if len(enrolled):
                    own = mfcc[rows[enrolled]]
                    adapted, _ = enrolment.adapted(network, None, record["train"], own)
                logits, _ = adapted(enrolment.frames(adapted, None, mfcc[rows[tested]]))
                predicted = said.setdefault((kind, draw), np.full((len(seeds), len(mfcc)), -1))
                predicted[seeds.index(seed), rows[tested]] = logits[0].argmax(1).numpy()
        print(f"{name}: fold {fold}, seed {seed}", flush=True)
    result = []
    for kind in dict.fromkeys(kind for kind, _ in said):
        draws = [predicted for (other, _), predicted in said.items() if other == kind]
        uar = np.array([[_uar(truth, own, len(record["labels"])) for own in one] for one in draws])
        result.append(
            {
                "run": name,
                "speakers": len(set(speaker)),
                "prior": f"{enrolment.PRIOR:g}",
                "enrolled_with": kind,
                "uar": f"{uar.mean():.2f}",
                "draws_sd": f"{uar.std(0, ddof=1).mean():.2f}" if len(draws) > 1 else "",
                "seeds_sd": f"{uar.mean(0).std(ddof=1):.2f}" if len(seeds) > 1 else "",
                "draws": len(draws),  # of each seed
                "seeds": len(seeds),
            }
        )
    return result


def markdown(rows: list[dict]) -> str:
    """A row per kind of enrolment, a column per run; of every prior that was measured."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    kinds = sorted(
        dict.fromkeys((row["enrolled_with"], float(row["prior"])) for row in rows),
        key=lambda kind: (-kind[1], list(ORDER).index(kind[0])),
    )
    seeds = {row["run"]: row["seeds"] for row in rows}
    heads = [f"{run.split('-')[0].upper()}, {seeds[run]} seeds" for run in runs]
    lines = ["| enrolled with | " + " | ".join(heads).replace(" 1 seeds", " 1 seed") + " |"]
    lines.append("| --- |" + " ---: |" * len(runs))
    for kind, prior in kinds:
        if prior != enrolment.PRIOR and kind not in [f"{number}, other" for number in NUMBERS]:
            continue  # all others hardly differ
        cells = []
        for run in runs:
            own = [row for row in rows if (row["run"], row["enrolled_with"]) == (run, kind)]
            own = [row for row in own if float(row["prior"]) == prior]
            spread = own and (own[0]["draws_sd"] or own[0]["seeds_sd"])
            after = f" ± {float(spread):.1f}" if spread else ""
            cells.append(f"{float(own[0]['uar']):.1f}{after}" if own else "-")
        name = ORDER[kind] + ("" if prior == enrolment.PRIOR else f", prior {prior:g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _uar(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    tested = predicted >= 0
    return 100 * metrics.uar(metrics.confusion_matrix(truth[tested], predicted[tested], classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="runs of a recipe with `by_speaker: true`")
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument(
        "--prior", type=float, default=enrolment.PRIOR, help="recordings that training counts as"
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    enrolment.PRIOR = given.prior
    kept = []
    if given.table.exists():
        with given.table.open(newline="") as file:
            kept = [
                row
                for row in csv.DictReader(file)
                if row["run"] not in given.runs or row["prior"] != f"{given.prior:g}"
            ]
    for run in given.runs:
        start = time.perf_counter()
        kept += measure(run, given.build)
        print(f"{run}: {time.perf_counter() - start:.0f} s")
        with given.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
    print(markdown(kept))


if __name__ == "__main__":
    main()
