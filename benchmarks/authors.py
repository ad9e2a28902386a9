"""A model of the authors' own weights, for what is to be tried without training.

Its networks are those of the folds, each at the epoch that was best ON ITS TEST FOLD.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from timnet import schemas
from timnet.corpora import CORPORA
from timnet.dataset import features, folds, manifest
from timnet.evaluation import authors_weights, parity
from timnet.models import build
from timnet.models.model import Model
from timnet.paper import paper
from timnet.training.network import pad_channels


def authors_model(weights: Path, folder: Path, corpus: str = "emovo", workers: int = 2) -> Model:
    """The authors' networks of a corpus with its recordings in `folder`."""
    recipe, printed = CORPORA[corpus], paper()
    rows = manifest.build(recipe, folder)
    settings, networks = parity.settings(recipe), authors_weights.read_networks(weights)
    record = {
        "commit": "none: the authors' weights",
        "device_name": "unknown",
        "features": features.fingerprint(rows, settings),
        "folds": {"protocol": "random"},
        "labels": recipe.labels,
        "seeds": [],
        "train": printed["training"] | {"tabs": networks.tabs, "variant": "tim-net"},
        "trained_on": corpus,
        "versions": {},
    }
    nothing = schemas.predictions(networks.classes, networks.channels).empty_table()
    recordings = build.read_recordings(
        rows, folder, build.TrainedRun("authors", record, nothing, networks), workers
    )
    fold_of = folds.random_folds(len(rows), networks.networks, printed["fold_seed"][corpus])
    said = []
    for row, fold in enumerate(fold_of.tolist()):
        values = pad_channels(torch.from_numpy(recordings.mfcc[row]), networks.width)
        logits, fused = networks(values[None, :, None], rows=slice(fold, fold + 1))
        said.append(
            {
                **{name: rows[name][row].as_py() for name in ("utterance", "speaker", "emotion")},
                "fold_seed": printed["fold_seed"][corpus],
                "fold": fold,
                "seed": 0,
                "epoch_kind": "best_on_test",
                "epoch": 0,
                "logits": logits[0, 0].tolist(),
                "fused": fused[0, 0, : networks.channels].tolist(),
            }
        )
    table = pa.Table.from_pylist(said, schema=nothing.schema)
    run = build.TrainedRun("the authors' weights", record, table, networks)
    return build.of_run(f"{corpus}-authors", run, recordings, recipe.description)
