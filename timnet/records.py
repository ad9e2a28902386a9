"""Files of JSON and YAML that commands read: one declared shape each, checked on every read.

What `timnet.schemas` is for tables. They are kept in git, where a merge or a hand can damage them.
Settings, params.yaml, are `timnet.project.params`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic wants these before Python 3.12
)

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError
from pydantic_core import from_json
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typing_extensions import TypedDict

from timnet.errors import ArtifactError, listing

# beside its own errors, what ruamel lets through: of `!!int x`, a 13th month, a thousand brackets
YAML_TROUBLE = (YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Settings(TypedDict):
    """Of features; what else stands there is `features.FeatureSettings`' business."""

    signal_length: PositiveInt
    resampler: str
    coefficients: PositiveInt


class Features(TypedDict):
    revision: int
    settings: Settings
    source: str
    libraries: NotRequired[dict[str, str]]  # versions


class Folds(TypedDict):
    protocol: str
    number: NotRequired[int]
    seeds: NotRequired[list[int]]
    validation: NotRequired[int]


class Training(TypedDict):
    """Settings of `training.stack.TrainSettings`; a baseline has only how it is normalised."""

    epochs: NotRequired[PositiveInt]
    tabs: NotRequired[PositiveInt]
    variant: NotRequired[str]
    precision: NotRequired[str]
    compiled: NotRequired[bool]
    normalise: NotRequired[str]


class TrainedRecord(TypedDict):
    """run.json as training leaves it: what was trained, on what, with what."""

    commit: str
    device: str
    device_name: str
    features: Features
    folds: Folds
    labels: Annotated[list[str], Field(min_length=2)]
    seeds: Annotated[list[int], Field(min_length=1)]
    train: Training
    recipe: NotRequired[str]
    baseline: NotRequired[str | None]
    trained_on: str
    utterances: int
    versions: dict[str, str]


class RunRecord(TrainedRecord):
    """run.json of what was tested too: all but a source's."""

    tested_on: str | Annotated[list[str], Field(min_length=1)]


def tested_on(record: Mapping[str, Any]) -> list[str]:
    """The corpora that a run tests, as its `Run` has them."""
    tested = record["tested_on"]
    return [tested] if isinstance(tested, str) else list(tested)


def adapts_to_speakers(training: Mapping[str, Any]) -> bool:
    """Whether networks trained by these settings adapt to a speaker by recordings of theirs."""
    return bool(training.get("by_speaker")) or training.get("normalise") == "speaker"


Percent = Annotated[float, Field(ge=0, le=100)]


class Score(TypedDict):
    """UAR or WAR, percent."""

    value: Percent
    low: Percent
    high: Percent
    fold_mean: Percent
    fold_sd: NotRequired[Percent]
    seed_sd: NotRequired[Percent]


class Speaker(TypedDict):
    uar: Percent
    war: Percent
    utterances: int


class Sex(Speaker):
    speakers: PositiveInt


class Draw(TypedDict):
    fold_seed: int
    seed: int
    uar: Percent
    war: Percent


class Evaluation(TypedDict):
    """What a protocol gave; `timnet.evaluation.score.scores` says what each entry is."""

    uar: Score
    war: Score
    draws: Annotated[list[Draw], Field(min_length=1)]
    clusters: NotRequired[PositiveInt]
    calibration: NotRequired[dict[str, float]]


class OneCorpus(Evaluation):
    speakers: dict[str, Speaker]
    sexes: NotRequired[dict[str, Sex]]


class AcrossCorpora(Evaluation):
    """The mean over the corpora that were tested, and each of them."""

    corpora: Annotated[dict[str, OneCorpus], Field(min_length=1)]


Scores = dict[str, OneCorpus | AcrossCorpora]  # scores.json, by protocol
Metrics = dict[str, dict[str, Percent]]  # metrics.json: scores by protocol


class Check(TypedDict):
    check: str
    severity: str
    passed: bool
    message: NotRequired[str]
    observed: NotRequired[Any]  # of the check's own form
    expected: NotRequired[Any]


class Validation(TypedDict):
    """What validation found of a corpus."""

    corpus: str
    utterances: int
    speakers: int
    passed: bool
    checks: list[Check]


def originals(validation: Mapping[str, Any]) -> str:
    """In words: how many recordings of a validated corpus are the originals, byte for byte."""
    for check in validation["checks"]:
        if check["check"] == "originals":
            return f"{check['observed']} of {check['expected']} recordings are the originals"
    return "no hashes of its original recordings are known"


class Description(TypedDict):
    """results/corpora: what the recipe says of a corpus, `Corpus.description`."""

    id: str
    title: str
    language: str
    licence: str
    citation: str
    source: str
    speakers: dict[str, str]
    speaker_groups: list[list[str]]
    quirks: list[str]


class Contract(TypedDict):
    """corpus.json of a custom corpus: see `timnet.corpora.custom`."""

    id: str
    title: str
    language: str
    licence: str
    citation: str
    source: str
    speakers: dict[str, str]
    counts: Annotated[dict[str, PositiveInt], Field(min_length=2)]
    sample_rates: list[PositiveInt]
    channels: list[PositiveInt]
    seconds: tuple[float, float]
    redistributable: NotRequired[bool]


class Time(TypedDict):
    """How long a stage took, and for how much: see `timnet.project.estimates`."""

    seconds: float
    work: NotRequired[float]
    kind: NotRequired[str]


class Entry(TypedDict):
    """What DVC noted of a file or folder."""

    path: str
    md5: NotRequired[str]
    size: NotRequired[int]
    nfiles: NotRequired[int]


class Stage(TypedDict):
    deps: NotRequired[list[Entry]]
    outs: NotRequired[list[Entry]]


class Lock(TypedDict):
    """dvc.lock."""

    stages: NotRequired[dict[str, Stage]]


class Tracked(TypedDict):
    """data.dvc."""

    outs: Annotated[list[Entry], Field(min_length=1)]


class DamagedRecord(ValueError):
    """A file is not what it is to be; says in what."""


def read(path: Path, shape: Any) -> Any:
    """The content of a JSON file; args, errors as of `parse`, and those of the system."""
    return parse(path.read_bytes(), shape)


def read_artifact(path: Path, shape: Any) -> Any:
    """The content of a JSON file of the pipeline.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        return read(path, shape)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file. Run `dvc repro`.") from None
    except DamagedRecord as error:
        raise ArtifactError(f"{path}: {error}. Run `dvc repro`.") from None


def parse(content: bytes, shape: Any) -> Any:
    """The content of a JSON file, as it stands there.

    Args:
        shape: what it must have; more is no fault.

    Raises:
        DamagedRecord: not JSON, or of another shape.
    """
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise DamagedRecord(f"not valid JSON: {error}") from None
    _check(content, _adapter(shape).validate_json)
    return found


def read_yaml(path: Path, shape: Any = Any) -> Any:
    """The content of a YAML file; args and errors as of `parse`, and those of the system."""
    try:
        found = YAML(typ="safe").load(path)
    except YAML_TROUBLE as error:
        raise DamagedRecord(f"not valid YAML: {error}") from None
    _check(found, _adapter(shape).validate_python)
    return found


def _check(content: Any, validate: Callable[..., Any]) -> None:
    try:
        validate(content, strict=True)
    except ValidationError as error:
        wrong = (
            f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
            for each in error.errors(include_input=False)
        )
        raise DamagedRecord(listing(wrong)) from None


@cache
def _adapter(shape: Any) -> TypeAdapter:
    return TypeAdapter(shape)
