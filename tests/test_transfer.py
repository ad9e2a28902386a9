"""A source is trained once; what it says of another corpus is what a network trained for that
pair of corpora says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from timnet import schemas
from timnet.dataset import features
from timnet.dataset.folds import whole_table
from timnet.errors import ArtifactError
from timnet.training import baseline, outcome, train, transfer
from timnet.training.stack import TrainSettings
from timnet.training.train import Work

SETTINGS = TrainSettings(epochs=2, batch_size=32, tabs=2, compiled=False)
SEEDS = [3, 4]


@pytest.fixture(scope="module")
def files(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Features of the demo's corpus, and of a smaller one with other speakers and sounds."""
    source = reproduced / "build/features/demo-44100.parquet"
    one = pq.read_table(source)
    other = one.take(list(range(0, len(one), 3)))
    for name in ("utterance", "speaker"):
        column = pa.array([f"other-{value}" for value in other[name].to_pylist()])
        place = other.schema.get_field_index(name)
        other = other.set_column(place, one.schema.field(name), column)
    values = other["mfcc"].combine_chunks().flatten().to_numpy() * np.float32(1.25)
    size = one.schema.field("mfcc").type.list_size
    place = other.schema.get_field_index("mfcc")
    moved = pa.FixedSizeListArray.from_arrays(pa.array(values), size)
    other = other.set_column(place, one.schema.field("mfcc"), moved)
    target = tmp_path_factory.mktemp("transfer") / "other.parquet"
    pq.write_table(other.replace_schema_metadata(one.schema.metadata), target)
    return [source, target]


def labels_of(file: Path) -> tuple[str, ...]:
    return tuple(sorted(set(pq.read_table(file)["emotion"].to_pylist())))


def of_pair(files: list[Path]) -> pa.Table:
    """One fold that trains on all of the first corpus and tests all of the other."""
    trained, tested = (whole_table(features.read(file)[0]) for file in files)
    part = pa.array(["test"] * len(tested))
    tested = tested.set_column(3, schemas.FOLDS.field("part"), part)
    return pa.concat_tables([trained, tested])


def record_of(file: Path, train: dict, **more: object) -> dict:
    _, made = features.read(file)
    return {"labels": list(labels_of(file)), "features": made, "train": train, **more}


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    (
        {},
        {"normalise": "speaker"},
        {"normalise": "utterance"},
        {"normalise": "corpus"},
        {"precision": "bf16", "variant": "tcn"},
        {"by_speaker": True, "standardised": True, "normalise": "speaker"},
    ),
    ids=str,
)
def test_it_says_what_networks_trained_for_the_pair_say(
    files: list[Path], tmp_path: Path, recipe: dict
) -> None:
    settings, labels = replace(SETTINGS, **recipe), labels_of(files[0])
    alone = Work([files[0]], whole_table(features.read(files[0])[0]), labels, settings, SEEDS)
    pair = Work(files, of_pair(files), labels, settings, SEEDS)
    source = train.train(alone, tmp_path / "source")
    assert len(source.predictions) == 0
    outcome.write(source, tmp_path / "kept", "{}")
    weights = outcome.read_weights(tmp_path / "kept" / "weights.npz")
    target, _ = features.read(files[1])
    told = transfer.predictions(record_of(files[0], asdict(settings)), weights, target)
    expected = train.train(pair, tmp_path / "pair").predictions
    assert told.equals(expected.drop_columns("fused"))


@pytest.mark.parametrize("normalise", baseline.NORMALISE)
def test_a_baseline_is_transferred_alike(files: list[Path], tmp_path: Path, normalise: str) -> None:
    labels = labels_of(files[0])
    whole = whole_table(features.read(files[0])[0])
    source = train.train_baseline(Work([files[0]], whole, labels, SETTINGS, SEEDS), normalise)
    outcome.write(source, tmp_path / "kept", "{}")
    weights = outcome.read_weights(tmp_path / "kept" / "weights.npz")
    record = record_of(files[0], {"normalise": normalise}, baseline="svm")
    told = transfer.predictions(record, weights, features.read(files[1])[0])
    material = Work(files, of_pair(files), labels, SETTINGS, [0]).load()
    expected = baseline.predictions(
        material.mfcc, material.table, labels, material.splits, normalise
    )
    assert told.equals(expected.drop_columns("fused"))


def test_what_the_source_does_not_tell_apart_is_left_out(files: list[Path]) -> None:
    target, _ = features.read(files[1])
    labels = labels_of(files[0])
    record = record_of(files[0], {"normalise": "none"}, baseline="svm")
    record["labels"] = list(labels[1:])
    table = features.read(files[0])[0]
    known = table.filter(pc.not_equal(table["emotion"], labels[0]))
    work = Work([files[0]], whole_table(known), labels[1:], SETTINGS, SEEDS)
    weights = train.train_baseline(work, "none").weights
    told = transfer.predictions(record, weights, target)
    assert labels[0] not in told["emotion"].to_pylist()
    assert len(told) == len(target.filter(pc.not_equal(target["emotion"], labels[0])))
    with pytest.raises(ArtifactError, match=labels[1]):
        transfer.predictions(
            record, weights, target.filter(pc.not_equal(target["emotion"], labels[1]))
        )
