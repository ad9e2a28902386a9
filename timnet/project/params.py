"""params.yaml: read once, at the command line, and checked as a whole."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from timnet.corpora import CORPORA, CUSTOM
from timnet.dataset.features import EXACT_RESAMPLER, SOXR_RESAMPLERS
from timnet.errors import ParameterError, suggestion
from timnet.records import DamagedRecord, read_yaml

_SHORT = reprlib.Repr()  # for what YAML's aliases can make endless
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds must differ from each other")
    return seeds


# files and stages are named by it
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
SignalLength = Annotated[int, Field(ge=2048, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Share = Annotated[float, Field(ge=0, lt=1)]


# what is said of pydantic's findings, by their type
EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "settings, each with its name, such as `name: value`",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list, such as [1, 2]",
    "literal_error": "{expected}",
    "model_type": "settings, each with its name, such as `name: value`",
    "string_pattern_mismatch": "small letters and digits, with single hyphens between them",
    "string_too_long": "at most {max_length} characters",
    "string_type": "text",
    "too_short": "a list of {min_length} or more",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FeatureSet(_Section):
    corpus: str
    signal_length: SignalLength


class Features(_Section):
    resampler: Literal[(EXACT_RESAMPLER, *SOXR_RESAMPLERS)]  # type: ignore[valid-type]
    sets: dict[Name, FeatureSet]


class Train(_Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    beta1: Share
    beta2: Share
    epsilon: Annotated[float, Field(gt=0, le=1)]
    label_smoothing: Share
    dropout: Share
    compiled: bool


class Folds(_Section):
    protocol: Literal["random", "speaker", "cross-corpus"]
    number: Annotated[int, Field(ge=2, le=1000)] | None = None
    seeds: Seeds | None = None

    @model_validator(mode="after")
    def _fits_protocol(self) -> Folds:
        given = [name for name in ("number", "seeds") if getattr(self, name) is not None]
        if self.protocol == "random" and len(given) < 2:
            raise ValueError("protocol random needs number and seeds")
        if self.protocol == "speaker" and given:
            raise ValueError(
                "protocol speaker takes its folds from the recipe; remove number and seeds"
            )
        if self.protocol == "cross-corpus" and given:
            raise ValueError(
                "protocol cross-corpus tests on another corpus; remove number and seeds"
            )
        return self


class Network(_Section):
    tabs: Annotated[int, Field(ge=1, le=16)]
    variant: Literal["tim-net", "without-bd", "without-ms", "without-df", "tcn"]


class Run(_Section):
    trained_on: str
    tested_on: str  # the same corpus, but under protocol cross-corpus
    signal_length: SignalLength
    folds: Folds
    network: Network
    precision: Literal["fp32", "bf16"]
    seeds: Seeds

    @property
    def corpora(self) -> list[str]:
        """What the run trains and is tested on, each once."""
        return list(dict.fromkeys((self.trained_on, self.tested_on)))

    @property
    def features(self) -> list[str]:
        """Names of the feature sets that the run reads."""
        return [f"{corpus}-{self.signal_length}" for corpus in self.corpora]


class TrainedModel(_Section):
    run: str
    corpus: str  # that the run is trained on
    networks: Literal["folds", "whole"]  # those of the folds, or one trained on all of the corpus


class Params(_Section):
    corpora: dict[Name, Name]  # name -> module of timnet.corpora that reads it
    features: Features
    train: Train
    runs: dict[Name, Run]
    models: dict[Name, TrainedModel] = {}

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        for name, module in self.corpora.items():
            if module != (name if name in CORPORA else CUSTOM):
                raise ValueError(
                    f"corpora.{name}: write `{name}: {name if name in CORPORA else CUSTOM}`, the "
                    "module of timnet/corpora that reads it."
                )
        for name, features in self.features.sets.items():
            if name != f"{features.corpus}-{features.signal_length}":
                raise ValueError(
                    f"features.sets.{name}: this set is named "
                    f"{features.corpus}-{features.signal_length}"
                )
            if features.corpus not in self.corpora:
                raise ValueError(
                    f"features.sets.{name}: add {features.corpus} to corpora, or drop the set"
                )
        for name, run in self.runs.items():
            for corpus in run.corpora:
                if corpus not in self.corpora:
                    near = suggestion(corpus, self.corpora) or " Add it there."
                    raise ValueError(f"runs.{name}: unknown corpus {corpus!r} in corpora.{near}")
            if (run.folds.protocol == "cross-corpus") != (run.trained_on != run.tested_on):
                raise ValueError(
                    f"runs.{name}: cross-corpus folds train on one corpus and test on another; "
                    "the other protocols need trained_on and tested_on to be the same"
                )
            for corpus, needed in zip(run.corpora, run.features, strict=True):
                if needed not in self.features.sets:
                    raise ValueError(
                        f"runs.{name}: reads features {needed}, which are not in features.sets; "
                        f"add `{needed}: {{corpus: {corpus}, "
                        f"signal_length: {run.signal_length}}}` there"
                    )
        for name, model in self.models.items():
            if model.run not in self.runs:
                near = suggestion(model.run, self.runs)
                raise ValueError(f"models.{name}: unknown run {model.run!r} in runs.{near}")
            if model.corpus != self.runs[model.run].trained_on:
                raise ValueError(
                    f"models.{name}: run {model.run} is trained on "
                    f"{self.runs[model.run].trained_on}, not on {model.corpus}"
                )
        return self

    def run(self, name: str) -> Run:
        """The run named `name`; ParameterError if there is none."""
        return _named("run", name, self.runs)

    def feature_set(self, name: str) -> FeatureSet:
        return _named("feature set", name, self.features.sets)

    def model(self, name: str) -> TrainedModel:
        return _named("model", name, self.models)

    def corpus(self, name: str) -> str:
        return _named("corpus", name, {each: each for each in self.corpora})


def _named(kind: str, name: str, known: dict):
    if name in known:
        return known[name]
    raise ParameterError(
        f"unknown {kind} {name!r} in params.yaml; it has {', '.join(known) or 'none'}."
        f"{suggestion(name, known)}"
    )


def read(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        ParameterError: no such file, not YAML, or values that are missing, misspelt or out of
            range; all of them are named at once.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise ParameterError(
            f"{path}: no such file. Run timnet in the root of the project, which contains "
            "params.yaml."
        ) from None
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror}).") from None
    except DamagedRecord as error:
        raise ParameterError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{path}: empty; expected {', '.join(Params.model_fields)}.")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        lines = [f"  - {_complaint(dict(problem))}" for problem in error.errors()]
        raise ParameterError("\n".join([f"{path}: correct these settings:", *lines])) from None
    return params


def _complaint(problem: dict) -> str:
    """One of pydantic's findings in words: where, what, what was expected."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{where}: missing"
    if problem["type"] == "extra_forbidden":
        fields = _fields(problem["loc"][:-1])
        known = f" Known here: {', '.join(fields)}." if fields else ""
        return f"{where}: unknown setting.{suggestion(str(problem['loc'][-1]), fields)}{known}"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    expected = EXPECTED.get(problem["type"])
    said = f"expected {expected.format(**problem.get('ctx', {}))}" if expected else problem["msg"]
    return f"{where}: {said}, got {_SHORT.repr(problem['input'])}"


def _fields(location: tuple) -> list[str]:
    """The settings that exist at a place of params.yaml."""
    sections: dict[tuple, type[BaseModel]] = {
        (): Params,
        ("features",): Features,
        ("train",): Train,
    }
    if location in sections:
        return list(sections[location].model_fields)
    if location[:1] == ("models",):
        return list(TrainedModel.model_fields)
    if location[:1] == ("runs",):
        below: dict[tuple, type[BaseModel]] = {(): Run, ("folds",): Folds, ("network",): Network}
        section = below.get(tuple(location[2:]))
        return list(section.model_fields) if section else []
    return list(FeatureSet.model_fields) if location[:2] == ("features", "sets") else []
