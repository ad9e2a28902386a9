"""How long stages would take here: by how long others took here, and by how much there is to do.

What a stage took lies in build/times, with how much it did. The speed of a kind of stage is the sum
of one over the sum of the other, so that a stage that never ran is estimated from its like.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from timnet import records
from timnet.paths import Workspace
from timnet.project.params import Params, Run

TIMED = ("manifest", "validate", "features", "train", "model")  # the others take seconds
# Where nothing was ever trained: work a second on two cores with compiled kernels, as
# benchmarks/README.md has it for EMOVO (0.80 and 1.53 fold-epochs a second)
ELSEWHERE = {"fp32": 0.80 * 588 * 188 * 16, "bf16": 1.53 * 588 * 188 * 16}
HOP = 512  # samples per frame


@dataclass
class Estimate:
    """Of some stages, one after the other."""

    seconds: float = 0.0
    elsewhere: bool = False  # whether part of it is by what another machine took
    unknown: list[str] = field(default_factory=list)  # stages of which nothing is known
    timed: int = 0  # stages that are timed at all

    def __str__(self) -> str:
        if not self.timed:
            return "seconds"
        if self.timed == len(self.unknown):
            return "not known yet"
        said = f"about {duration(self.seconds)}"
        if self.elsewhere:
            said += " on two cores"
        return f"{said}, and {', '.join(self.unknown)}" if self.unknown else said


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def estimate(workspace: Workspace, params: Params, stages: Iterable[str]) -> Estimate:
    """How long some stages would take, were they run one after the other."""
    speeds = _speeds(workspace, params)
    result = Estimate()
    for stage in stages:
        kind = _kind(stage, params)
        if kind is None:
            continue
        result.timed += 1
        work = _work(workspace, params, stage)
        # a network trains at another precision too, if at another speed
        near = next((speeds[k] for k in speeds if k.startswith(kind.split()[0])), None)
        speed = speeds.get(kind, near)
        if speed is None and kind.startswith("train"):
            speed, result.elsewhere = ELSEWHERE[kind.split()[1]], True
        if work is None or speed is None:
            result.unknown.append(stage)
        else:
            result.seconds += work / speed
    return result


def training_work(run: Run, utterances: int) -> float:
    """Of one epoch of one network: utterances x frames x blocks.

    Of all utterances, whatever part of them a fold leaves to train on.
    """
    both_ways = run.network.variant not in ("tcn", "without-bd")
    frames = run.signal_length // HOP + 1
    return float(utterances * frames * run.network.tabs * (1 + both_ways))


def _kind(stage: str, params: Params) -> str | None:
    """Stages of a kind do the same, and so at the same speed; None if it is not timed."""
    name, _, item = stage.partition("@")
    if name not in TIMED:
        return None
    if name == "train":
        return f"train {params.runs[item].precision}"
    if name == "model" and params.models[item].networks == "whole":
        return f"train {params.runs[params.models[item].run].precision}"
    return name


def _speeds(workspace: Workspace, params: Params) -> dict[str, float]:
    """Work a second by kind of stage, of all that was timed here."""
    work, seconds = dict[str, float](), dict[str, float]()
    for path in sorted(workspace.times("*").parent.glob("*.json")):
        try:
            took = records.read(path, records.Time)
            kind = took.get("kind") or _kind(path.stem, params)
        except (
            FileNotFoundError,
            records.DamagedRecord,
            KeyError,
        ):  # KeyError: no such run
            continue
        if kind is not None and "work" in took and took["seconds"] > 0:
            work[kind] = work.get(kind, 0.0) + took["work"]
            seconds[kind] = seconds.get(kind, 0.0) + took["seconds"]
    return {kind: work[kind] / seconds[kind] for kind in work if work[kind]}


def _work(workspace: Workspace, params: Params, stage: str) -> float | None:
    """How much a stage has to do, in the unit of its kind; None if that is not known yet."""
    name, _, item = stage.partition("@")
    if name in ("manifest", "validate"):
        return _utterances(workspace, item)
    if name == "features":
        return _utterances(workspace, params.features.sets[item].corpus)
    model = params.models.get(item) if name == "model" else None
    if model and model.networks == "folds":
        return _utterances(workspace, model.corpus)
    run = params.runs[model.run if model else item]
    utterances = _utterances(workspace, run.trained_on)
    if utterances is None:
        return None
    epochs = params.train.epochs
    if model:
        return epochs * len(run.seeds) * training_work(run, utterances)
    folds = _folds(workspace, run, item)
    if folds is None:
        return None
    draws = len(run.seeds) * len(run.folds.seeds or [0])
    return epochs * folds * draws * training_work(run, utterances)


def _utterances(workspace: Workspace, corpus: str) -> int | None:
    from timnet import corpora
    from timnet.errors import CorpusError

    if rows := _rows(workspace.manifest(corpus)):
        return rows
    try:
        return corpora.corpus(corpus, workspace.data).utterances
    except CorpusError:
        return None


def _folds(workspace: Workspace, run: Run, name: str) -> int | None:
    """How many networks a draw of the folds has."""
    from timnet import corpora, schemas
    from timnet.errors import ArtifactError, CorpusError

    if run.folds.protocol == "cross-corpus":
        return 1
    if run.folds.number:
        return run.folds.number
    with suppress(ArtifactError):  # not there yet, or damaged
        table = schemas.read(workspace.folds(name), schemas.FOLDS)
        return len(set(table["fold"].to_pylist()) - {-1})
    with suppress(CorpusError):  # a custom corpus whose folder is not here
        recipe = corpora.corpus(run.trained_on, workspace.data)
        return len(recipe.speaker_groups or recipe.speakers)
    return None


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid):
        return 0
