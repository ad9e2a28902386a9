"""Networks, or a baseline, of a whole corpus tested on another one.

They are trained once, as a source, whatever other corpora test them: nothing of a target reaches
the training. What a target is normalised by needs no labels, or is the source's own.

Axes as in `network`: S networks, T frames, B utterances of a batch, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from timnet import schemas
from timnet.dataset import normalise
from timnet.errors import ArtifactError
from timnet.training import baseline
from timnet.training.network import PRECISIONS, pad_channels
from timnet.training.outcome import NETWORKS, networks


def predictions(
    record: dict[str, Any], weights: dict[str, np.ndarray], target: pa.Table
) -> pa.Table:
    """What a source says of the utterances of another corpus: rows of `schemas.predictions`.

    Without the fused vectors: no figure shows them, and there is a table for every pair of corpora.

    Args:
        record: the content of the source's run.json.
        weights: as of `outcome.read_weights`.
        target: features of the other corpus, of the source's signal length.

    Raises:
        ArtifactError: the target lacks an emotion that the source tells apart.
    """
    labels = record["labels"]
    missing = set(labels) - set(target["emotion"].to_pylist())
    if missing:
        raise ArtifactError(
            f"the corpus that is tested has no {', '.join(sorted(missing))}; the source tells "
            f"{', '.join(labels)} apart."
        )
    tested = target.filter(pc.is_in(target["emotion"], pa.array(labels)))
    mfcc, speakers = schemas.mfcc(tested), tested["speaker"].to_pylist()
    if record.get("baseline"):
        by = record["train"]["normalise"]
        one = baseline.transferred(weights, mfcc, np.array(speakers), len(labels), by)
        logits, epoch = one[None].astype(np.float32), 1
    else:
        logits = _logits(record, weights, mfcc, speakers)
        epoch = record["train"]["epochs"]
    number, utterances = logits.shape[:2]
    own = {name: np.repeat(weights[name], utterances).astype(np.int32) for name in NETWORKS}
    again = np.tile(np.arange(utterances), number)
    columns = {
        **own,
        "utterance": tested["utterance"].take(again),
        "speaker": tested["speaker"].take(again),
        "epoch_kind": ["last"] * len(again),
        "epoch": np.full(len(again), epoch, np.int32),
        "emotion": tested["emotion"].take(again),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), len(labels)),
    }
    schema = schemas.predictions(len(labels), None)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _logits(
    record: dict[str, Any],
    weights: dict[str, np.ndarray],
    mfcc: np.ndarray,
    speakers: list[str],
) -> np.ndarray:
    """Logits of every network, (S, utterances, K) float32; in batches, as training tests."""
    stack, settings = networks(record, weights, np.arange(len(weights["seed"]))), record["train"]
    size, by_speaker = settings["batch_size"], settings["by_speaker"]
    sounding: torch.Tensor | None = None
    if settings["normalise"] == "speaker":
        mfcc = normalise.by_group(mfcc, speakers)
    elif settings["normalise"] == "utterance":
        mfcc = normalise.by_group(mfcc, range(len(mfcc)))
    elif settings["normalise"] == "corpus":  # each network's own, of what it was trained on
        sounding = torch.from_numpy(normalise.sounding_frames(mfcc).T.copy())  # T, utterances
        mean, deviation = (
            torch.from_numpy(weights[name])[:, None, None] for name in ("mean", "deviation")
        )
    frames = torch.from_numpy(mfcc).transpose(0, 1)  # T, utterances, C

    def inputs(rows: np.ndarray) -> torch.Tensor:
        """Some utterances as every network takes them, (S, T, B, C)."""
        batch = frames[None, :, rows]
        if sounding is not None:
            known = sounding[None, :, rows, None]
            batch = torch.where(known, (batch - mean) / deviation, torch.tensor(0.0))
        x = pad_channels(batch, stack.width).to(PRECISIONS[settings["precision"]])
        return x.expand(stack.networks, -1, -1, -1).contiguous()

    every = np.arange(len(mfcc))
    parts = [every[start : start + size] for start in every[::size]]
    if by_speaker:
        who = np.array(speakers)
        parts = [np.flatnonzero(who == speaker) for speaker in dict.fromkeys(speakers)]
    logits = np.empty((stack.networks, len(mfcc), len(record["labels"])), np.float32)
    for rows in parts:
        if by_speaker:
            stack.adapt(inputs(rows))
        logits[:, rows] = stack(inputs(rows))[0].numpy()
    return logits
