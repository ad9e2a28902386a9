"""Whether training again gives the same bits, and in what two runs were made in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def verdict(kept: pa.Table, again: pa.Table, history: pa.Table, new: pa.Table) -> str:
    """In words, whether a fold that was trained again is the one that was kept.

    Args:
        kept, again: predictions, `schemas.predictions`.
        history, new: what training told of each epoch, `schemas.HISTORY`.
    """
    if kept.equals(again) and history.equals(new):
        return f"the same bits, {len(kept)} predictions and {len(history)} epochs"
    if kept["utterance"].to_pylist() != again["utterance"].to_pylist():
        return "the test utterances differ: the folds or the features are not those of the run"

    def last(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(table["epoch_kind"].to_pylist()) == "last"
        logits = np.array(table["logits"].to_pylist())[rows]
        return logits, logits.argmax(1)

    (logits, told), (others, tells) = last(kept), last(again)
    losses = [np.array(table["train_loss"]) for table in (history, new)]
    apart = np.flatnonzero(losses[0] != losses[1])
    since = f"training losses differ from epoch {apart[0] + 1} on; " if len(apart) else ""
    return (
        f"NOT the same bits: {since}logits of the last epoch differ by up to "
        f"{np.abs(logits - others).max():.2g}, {int((told != tells).sum())} of {len(told)} "
        "utterances are predicted differently"
    )


def of_fold(table: pa.Table, fold: int) -> pa.Table:
    """The rows of one fold."""
    return table.filter(pc.equal(table["fold"], fold))


def made_with(record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run: what its scores depend on, apart from code and data."""
    folds = {f"folds' {name}": value for name, value in record["folds"].items()}
    features = record["features"]["settings"]
    return {"seeds": record["seeds"], **folds, **features, **record["train"]}


def differing(
    now: Mapping[str, Any], then: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Entries of `now` that were different, those of inner mappings by their own name."""
    for name, value in now.items():
        if isinstance(value, dict):
            yield from differing(value, then[name])
        elif then.get(name) != value:
            yield name.removesuffix("_name"), (value, then.get(name))
