"""How long stages would take here: by how long others took here, and by how much there is to do.

What a stage took lies in build/times, with how much it did. The speed of a kind of stage is the sum
of one over the sum of the other, so that a stage that never ran is estimated from its like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from timnet import records
from timnet.errors import listing
from timnet.paths import Workspace
from timnet.project.machine import has_bf16
from timnet.project.params import Params, Run, Trained

TIMED = ("manifest", "validate", "features", "train", "source", "model")  # the others take seconds
EMOVO = 588 * 188 * 16  # work of a fold-epoch: utterances x frames x blocks
# Where nothing was ever trained: work per second on two cores with compiled kernels, with bf16
# instructions and without, as benchmarks/README.md has it. tf32 needs a GPU, of which a CPU's
# speed says nothing; among those of a GPU it is near fp32.
ELSEWHERE = {"fp32": 1.16 * EMOVO, "tf32": 1.16 * EMOVO, "bf16": 1.86 * EMOVO}
ELSEWHERE_WITHOUT_BF16 = {"fp32": 0.54 * EMOVO, "tf32": 0.54 * EMOVO, "bf16": 0.07 * EMOVO}
HOP = 512  # samples per frame


@dataclass
class Estimate:
    """Of some stages, one after the other."""

    seconds: float = 0.0
    elsewhere: bool = False  # whether part of it is by what another machine took
    unknown: list[str] = field(default_factory=list)  # stages of which nothing is known
    timed: int = 0  # stages that are timed at all

    def __str__(self) -> str:
        if not self.timed or (self.seconds < 1 and not self.unknown):
            return "seconds"
        if self.timed == len(self.unknown):
            return "not known yet"
        said = f"about {duration(self.seconds)}"
        if self.elsewhere:
            said += " on two cores"
        return f"{said}; not known yet: {listing(self.unknown)}" if self.unknown else said


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def estimate(
    workspace: Workspace,
    params: Params,
    stages: Iterable[str],
    known: Mapping[str, float] | None = None,
) -> Estimate:
    """How long some stages would take, were they run one after the other.

    Args:
        known: as of `speeds`, where several estimates are wanted.
    """
    known = speeds(workspace, params) if known is None else known
    elsewhere = ELSEWHERE if has_bf16() else ELSEWHERE_WITHOUT_BF16
    result = Estimate()
    for stage in stages:
        kind = _kind(stage, params)
        if kind is None:
            continue
        result.timed += 1
        work = _work(workspace, params, stage)
        speed, precision = known.get(kind), kind.removeprefix("train ")
        if speed is None and precision != kind:  # by another precision, or another machine
            here = next((p for p in elsewhere if f"train {p}" in known), None)
            if here:
                speed = known[f"train {here}"] * elsewhere[precision] / elsewhere[here]
            elif precision != "tf32":
                speed, result.elsewhere = elsewhere[precision], True
        if work is None or speed is None:
            result.unknown.append(stage)
        else:
            result.seconds += work / speed
    return result


def in_slow_bf16(params: Params, stages: Iterable[str]) -> list[str]:
    """Runs and sources among some stages that ask for bf16, on a CPU without its instructions."""
    if has_bf16():
        return []
    asked = (stage.partition("@") for stage in sorted(stages))
    return [
        item
        for name, _, item in asked
        if name in ("train", "source") and _trained(params, name, item).precision == "bf16"
    ]


def training_work(run: Trained, utterances: int) -> float:
    """Of one epoch of one network: utterances x frames x blocks.

    Of all utterances, whatever part of them a fold leaves to train on.
    """
    assert run.network is not None
    both_ways = run.network.variant not in ("tcn", "without-bd")
    frames = run.signal_length // HOP + 1
    return float(utterances * frames * run.network.tabs * (1 + both_ways))


def _kind(stage: str, params: Params) -> str | None:
    """Stages of a kind do the same, and so at the same speed; None if it is not timed."""
    name, _, item = stage.partition("@")
    if name not in TIMED:
        return None
    if name in ("train", "source"):
        trained = _trained(params, name, item)
        return None if trained.baseline else f"train {trained.precision}"  # which takes seconds
    return name


def _trained(params: Params, stage: str, item: str) -> Trained:
    return params.runs[item] if stage == "train" else params.sources[item]


def speeds(workspace: Workspace, params: Params) -> dict[str, float]:
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
    if name == "model":
        return _utterances(workspace, params.models[item].corpus)
    run = _trained(params, name, item)
    utterances = _utterances(workspace, run.trained_on)
    if utterances is None or run.seeds is None:
        return None
    networks = len(run.seeds)
    if isinstance(run, Run):
        folds = _folds(workspace, run, item)
        if folds is None:
            return None
        networks *= folds * len(run.folds.seeds or [0])
    return params.recipes[run.recipe].epochs * networks * training_work(run, utterances)


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
    """How many networks a draw of the folds has; None if only the folds themselves tell."""
    from timnet import corpora, schemas
    from timnet.errors import ArtifactError, CorpusError

    if run.folds.number and run.folds.protocol != "speaker-sentence":
        return run.folds.number
    with suppress(ArtifactError):  # not there yet, or damaged
        table = schemas.read(workspace.folds(name), schemas.FOLDS)
        return len(set(table["fold"].to_pylist()))
    if run.folds.protocol != "speaker":
        return None
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
