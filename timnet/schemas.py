"""The tables that stages hand to each other: one declared schema each, checked on every write
and read.

All are Parquet. Columns named `utterance` hold canonical ids; rows of one utterance order
everywhere: that of the manifest, (label index, natural order of the file name).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from timnet.errors import ArtifactError
from timnet.paths import replacing

SINGLE = ("manifest", "features", "folds")  # stages that write one table each
MANIFEST = pa.schema(
    [
        pa.field("utterance", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("sentence", pa.string()),
        pa.field("path", pa.string(), nullable=False),  # below the corpus' folder
        pa.field("sample_rate", pa.int32(), nullable=False),  # Hz
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),  # a channel
        pa.field("sha256", pa.string(), nullable=False),  # of the file's bytes
    ]
)

# of random folds; 0 where nothing is drawn
FOLD_SEED = pa.field("fold_seed", pa.int32(), nullable=False)

FOLDS = pa.schema(
    [
        FOLD_SEED,
        pa.field("fold", pa.int32(), nullable=False),  # from 0
        pa.field("utterance", pa.string(), nullable=False),
        # of this fold: "train", "validation" or "test"; what is left out has no row
        pa.field("part", pa.string(), nullable=False),
    ]
)

HISTORY = pa.schema(
    [
        FOLD_SEED,
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),  # the model's seed
        pa.field("epoch", pa.int32(), nullable=False),  # from 1
        pa.field("train_loss", pa.float32(), nullable=False),  # mean over utterances, smoothed
        pa.field("train_accuracy", pa.float32(), nullable=False),
        pa.field("test_loss", pa.float32(), nullable=False),
        pa.field("test_accuracy", pa.float32(), nullable=False),
    ]
)


def features(size: int) -> pa.Schema:
    """Features of a corpus at one signal length; `size` = frames x coefficients."""
    return pa.schema(
        [
            pa.field("utterance", pa.string(), nullable=False),
            pa.field("speaker", pa.string(), nullable=False),
            pa.field("emotion", pa.string(), nullable=False),
            pa.field("frames", pa.int32(), nullable=False),
            pa.field("mfcc", pa.list_(pa.float32(), size), nullable=False),  # (frames, 39), flat
        ]
    )


def mfcc(table: pa.Table) -> np.ndarray:
    """The MFCC of a table of `features`, (utterances, frames, coefficients) float32, writable."""
    flat = table["mfcc"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), table["frames"][0].as_py(), -1).copy()


def predictions(classes: int, channels: int | None) -> pa.Schema:
    """What each network said of each test utterance; logits in the order of the labels.

    Args:
        channels: size of the fused vectors; None: without them, as of transfers.
    """
    # g_drf, before the classifier
    fused = (
        [pa.field("fused", pa.list_(pa.float32(), channels), nullable=False)] if channels else []
    )
    return pa.schema(
        [
            pa.field("utterance", pa.string(), nullable=False),
            pa.field("speaker", pa.string(), nullable=False),
            FOLD_SEED,
            pa.field("fold", pa.int32(), nullable=False),
            pa.field("seed", pa.int32(), nullable=False),
            # "last", "best_on_validation" or "best_on_test"
            pa.field("epoch_kind", pa.string(), nullable=False),
            pa.field("epoch", pa.int32(), nullable=False),  # from 1
            pa.field("emotion", pa.string(), nullable=False),  # the true label
            pa.field("logits", pa.list_(pa.float32(), classes), nullable=False),
            *fused,
        ]
    )


def predictions_of(record: dict) -> pa.Schema:
    """`predictions` of a run, whose sizes its record (run.json) tells."""
    across = record["folds"]["protocol"] == "cross-corpus"
    channels = None if across else record["features"]["settings"]["coefficients"]
    return predictions(len(record["labels"]), channels)


def write(table: pa.Table, path: Path, schema: pa.Schema) -> None:
    """Write `table` atomically. Two calls with equal tables give equal bytes."""
    check(table.schema, schema, path)
    with writing(path, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def writing(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """A writer whose file appears at the end: `path` holds the old one or the whole new one."""
    with (
        replacing(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", **options) as writer,
    ):
        yield writer


class DamagedTable(ValueError):
    """What was read is not the table that it is to be; says in what."""


def read(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read a table and refuse one that is damaged or has other columns than `schema`.

    Raises:
        ArtifactError: no such file, not Parquet, or another schema.
    """
    try:
        with path.open("rb") as file:
            return parse(file, schema)
    except FileNotFoundError:
        stage = path.parent.name  # a folder of build/ is named as the stage that writes it
        alone = f", or `timnet {stage} {path.stem}` alone" if stage in SINGLE else ""
        raise ArtifactError(f"{path}: no such file. Run `dvc repro`{alone}.") from None
    except DamagedTable as error:
        raise ArtifactError(f"{path}: {error}. Delete it and run `dvc repro`.") from None
    except OSError as error:
        raise ArtifactError(
            f"{path}: not a readable Parquet file ({error.strerror}). Delete it and run "
            "`dvc repro`."
        ) from None


def parse(file: BinaryIO, schema: pa.Schema | None = None) -> pa.Table:
    """A table, as it stands in a file or in bytes; args as of `read`.

    Raises:
        DamagedTable: not Parquet, or of another schema.
    """
    try:
        # In this thread alone: those of Arrow may let go of the file after the table is here, and
        # abort a program that is ending by then (apache/arrow#34314).
        table = pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DamagedTable(f"not a readable Parquet file ({error})") from None
    if schema is not None:
        _compare(table.schema, schema)
    return table


def check(actual: pa.Schema, expected: pa.Schema, path: Path) -> None:
    """Refuse a table that has other columns than `expected`: ArtifactError."""
    try:
        _compare(actual, expected)
    except DamagedTable as error:
        raise ArtifactError(f"{path}: {error}. Delete it and run `dvc repro`.") from None


def _compare(actual: pa.Schema, expected: pa.Schema) -> None:
    if actual.equals(expected, check_metadata=False):
        return
    names = actual.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DamagedTable(
            f"columns differ from the declared schema: more than one {', '.join(twice)}"
        )
    wrong = [
        f"{name}: {actual.field(name).type if name in actual.names else 'missing'}"
        f" (expected {expected.field(name).type})"
        for name in expected.names
        if name not in actual.names or actual.field(name).type != expected.field(name).type
    ]
    wrong += [f"{name}: not expected" for name in actual.names if name not in expected.names]
    raise DamagedTable(
        f"columns differ from the declared schema: {'; '.join(wrong) or 'nullability'}"
    )
