"""params.yaml: read once, at the command line, and checked as a whole."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from timnet.corpora import CORPORA, CUSTOM
from timnet.errors import ParameterError, listing, suggestion
from timnet.records import DamagedRecord, adapts_to_speakers, read_yaml

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
BASELINE_NORMALISATIONS = ("none", "utterance", "speaker")  # `training.baseline.NORMALISE`


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
    corpus: str  # whose recordings are read, as in `corpora`
    signal_length: SignalLength  # samples at 22,050 Hz, to which recordings are padded or cropped


class Features(_Section):
    # how recordings come to 22,050 Hz: the paper's way, or a quality of the library soxr; names of
    # `timnet.dataset.features`, which numpy and pyarrow have to be there for
    resampler: Literal["kaiser_best_0_2_2", "soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"]
    sets: dict[Name, FeatureSet]  # named by corpus and length, such as `emovo-96000`


class Recipe(_Section):
    """How networks are trained; what a recipe leaves out has the paper's value, or is off."""

    # names and defaults of `timnet.training.stack.TrainSettings`, which torch has to be there for

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 500  # passes over the training part
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64  # utterances
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3  # of Adam, at its highest
    beta1: Share = 0.93  # of Adam: decay of the mean of gradients
    beta2: Share = 0.98  # of Adam: decay of the mean of their squares
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8  # of Adam
    label_smoothing: Share = 0.1  # in training alone: share of the target given to all emotions
    dropout: Share = 0.1  # share of channels that are dropped
    compiled: bool = True  # compile kernels at the start; false where there is no C++ compiler
    # to mean 0 and deviation 1 of each coefficient, over the training part (`corpus`), an utterance
    # or a speaker
    normalise: Literal["none", "corpus", "utterance", "speaker"] = "none"
    # of the learning rate over all epochs
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0  # of kernels, apart from Adam (AdamW)
    # share of a batch in batch norm's running statistics
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    balance: bool = False  # weight utterances so that every emotion counts alike
    by_speaker: bool = False  # batches of one speaker; tests by the speaker's own batch statistics
    standardised: bool = False  # batch norm's statistics for the fused vector too
    shift: Annotated[int, Field(ge=0, le=10_000)] = 0  # augmentation: frames, to either side
    speed: Share = 0.0  # augmentation: share by which time is stretched, either way
    vocal_tract: Share = 0.0  # augmentation: share by which the mel axis is stretched, either way
    # augmentation: deviation of an offset per coefficient, constant over an utterance
    channel: Annotated[float, Field(ge=0, le=100)] = 0.0
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0  # augmentation: deviation of added noise
    # augmentation: frames that are set to zero, at most
    time_mask: Annotated[int, Field(ge=0, le=10_000)] = 0
    # augmentation: neighbouring coefficients that are set to zero, at most
    coefficient_mask: Annotated[int, Field(ge=0, le=39)] = 0
    # augmentation: share of another utterance and its label, at most
    mixup: Annotated[float, Field(ge=0, le=1)] = 0.0


class Folds(_Section):
    # what a fold leaves out for the test: random utterances, speakers, sentences, or both
    protocol: Literal["random", "speaker", "sentence", "speaker-sentence"]
    # of folds, or of groups of speakers or sentences; `random` needs it
    number: Annotated[int, Field(ge=2, le=1000)] | None = None
    seeds: Seeds | None = None  # of `random`: each divides the utterances in another way
    # groups that choose the epoch, outside training and test
    validation: Annotated[int, Field(ge=0, le=1000)] = 0

    @model_validator(mode="after")
    def _fits_protocol(self) -> Folds:
        if self.protocol == "random" and (self.number is None or self.seeds is None):
            raise ValueError("protocol random needs number and seeds")
        if self.protocol != "random" and self.seeds is not None:
            raise ValueError(f"protocol {self.protocol} draws nothing at random, so no seeds")
        return self


class Network(_Section):
    tabs: Annotated[int, Field(ge=1, le=16)]  # temporal-aware blocks in each direction
    # the whole network; or without backward blocks (BD), with the last scale alone (without MS),
    # with the mean of the scales (without DF); or a plain temporal convolutional network (TCN)
    variant: Literal["tim-net", "without-bd", "without-ms", "without-df", "tcn"]


class Trained(_Section):
    """What is trained on a corpus: networks or a baseline."""

    trained_on: str  # corpus, as in `corpora`
    signal_length: SignalLength  # names the features with the corpus: one of `features.sets`
    recipe: Name  # one of `recipes`
    network: Network | None = None  # size and variant of TIM-Net; needed unless it is a baseline
    # of training; tf32: on a GPU; needed with `network`
    precision: Literal["fp32", "tf32", "bf16"] | None = None
    # one network each: initial weights, data order, dropout; needed with `network`
    seeds: Seeds | None = None
    baseline: Literal["svm"] | None = None  # a support vector machine in place of networks

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Trained:
        of_networks = ("network", "precision", "seeds")
        given = [name for name in of_networks if getattr(self, name) is not None]
        if self.baseline and given:
            raise ValueError(f"a baseline has no {' and no '.join(given)}")
        if not self.baseline and len(given) < len(of_networks):
            missing = [name for name in of_networks if name not in given]
            raise ValueError(f"missing {', '.join(missing)} (or `baseline: svm`)")
        return self

    @property
    def features(self) -> str:
        """Name of the feature set that is read."""
        return f"{self.trained_on}-{self.signal_length}"


class Run(Trained):
    """Trained and tested on the folds of a corpus."""

    folds: Folds  # how the corpus is divided into training and test


class Source(Trained):
    """Trained on a whole corpus, for models and to be tested on other corpora."""

    # all of the corpus, or those that all of the paper's corpora share, for `transfers`
    emotions: Literal["shared", "all"]


class Transfer(_Section):
    """A source tested on another corpus."""

    source: str  # one of `sources`, with `emotions: shared`
    tested_on: str  # another corpus than the source's
    signal_length: SignalLength  # the source's


class TrainedModel(_Section):
    run: str  # whose scores and calibration the model has
    corpus: str  # the run's
    networks: str  # the run's name, for its folds' networks; or one of `sources`
    # an SVM beside networks that adapt to a speaker: for who is enrolled, the mean of both
    svm: bool = False


class Params(_Section):
    corpora: dict[Name, Name]  # each with the module of timnet/corpora that reads it, or `custom`
    features: Features  # what networks read: MFCC of each corpus
    recipes: dict[Name, Recipe]  # how networks are trained
    tuned_on: dict[Name, Name] = {}  # recipes chosen by scores, each with the corpus of these
    runs: dict[Name, Run]  # trained and tested on folds of one corpus
    sources: dict[Name, Source] = {}  # trained on a whole corpus
    transfers: dict[Name, Transfer] = {}  # sources that are tested on another corpus
    models: dict[Name, TrainedModel] = {}  # files for `timnet predict`

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        for name, module in self.corpora.items():
            if module != (name if name in CORPORA else CUSTOM):
                raise ValueError(
                    f"corpora.{name}: write `{name}: {name if name in CORPORA else CUSTOM}`, the "
                    f"module of timnet/corpora that reads it.{suggestion(name, CORPORA)}"
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
        for recipe, corpus in self.tuned_on.items():
            if recipe not in self.recipes:
                near = suggestion(recipe, self.recipes)
                raise ValueError(f"tuned_on: unknown recipe {recipe!r} in recipes.{near}")
            if corpus not in self.corpora:
                near = suggestion(corpus, self.corpora)
                raise ValueError(f"tuned_on.{recipe}: unknown corpus {corpus!r} in corpora.{near}")
        for section in ("runs", "sources"):
            for name, trained in getattr(self, section).items():
                self._check_trained(f"{section}.{name}", trained)
        for name, transfer in self.transfers.items():
            self._check_transfer(f"transfers.{name}", transfer)
        for name, model in self.models.items():
            self._check_model(f"models.{name}", model)
        names = [*self.runs, *self.sources, *self.transfers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: one name for two of runs, sources and transfers")
        return self

    def _check_trained(self, place: str, trained: Trained) -> None:
        if trained.recipe not in self.recipes:
            near = suggestion(trained.recipe, self.recipes)
            raise ValueError(f"{place}: unknown recipe {trained.recipe!r} in recipes.{near}")
        normalise = self.recipes[trained.recipe].normalise
        if trained.baseline and normalise not in BASELINE_NORMALISATIONS:
            raise ValueError(
                f"{place}: a baseline cannot be normalised by {normalise}; choose a recipe with "
                f"normalise: {', '.join(BASELINE_NORMALISATIONS)}"
            )
        self._check_features(place, trained.trained_on, trained.signal_length)

    def _check_features(self, place: str, corpus: str, signal_length: int) -> None:
        if corpus not in self.corpora:
            near = suggestion(corpus, self.corpora) or " Add it there."
            raise ValueError(f"{place}: unknown corpus {corpus!r} in corpora.{near}")
        needed = f"{corpus}-{signal_length}"
        if needed not in self.features.sets:
            raise ValueError(
                f"{place}: reads features {needed}, which are not in features.sets; add "
                f"`{needed}: {{corpus: {corpus}, signal_length: {signal_length}}}` there"
            )

    def _check_transfer(self, place: str, transfer: Transfer) -> None:
        if transfer.source not in self.sources:
            near = suggestion(transfer.source, self.sources)
            raise ValueError(f"{place}: unknown source {transfer.source!r} in sources.{near}")
        source = self.sources[transfer.source]
        if source.emotions != "shared":
            raise ValueError(
                f"{place}: source {transfer.source} is trained on all emotions of its corpus; "
                "another corpus can test one with `emotions: shared`"
            )
        if source.trained_on == transfer.tested_on:
            raise ValueError(
                f"{place}: source {transfer.source} is trained on {transfer.tested_on} itself"
            )
        if source.signal_length != transfer.signal_length:
            raise ValueError(
                f"{place}: signal_length: expected {source.signal_length}, as of source "
                f"{transfer.source}, got {transfer.signal_length}"
            )
        self._check_features(place, transfer.tested_on, transfer.signal_length)

    def _check_model(self, place: str, model: TrainedModel) -> None:
        if model.run not in self.runs:
            raise ValueError(
                f"{place}: unknown run {model.run!r} in runs.{suggestion(model.run, self.runs)}"
            )
        run = self.runs[model.run]
        if model.corpus != run.trained_on:
            raise ValueError(
                f"{place}: run {model.run} is trained on {run.trained_on}, not on {model.corpus}"
            )
        if run.baseline:
            raise ValueError(f"{place}: run {model.run} is a baseline; a model needs networks")
        recipe = self.recipes[run.recipe]
        if recipe.normalise not in ("none", "speaker") or recipe.standardised:
            raise ValueError(
                f"{place}: run {model.run} is trained by recipe {run.recipe}, whose normalise: "
                "corpus or utterance, or standardised, a model cannot follow when it predicts"
            )
        by_speakers = adapts_to_speakers(vars(recipe)) and run.folds == Folds(protocol="speaker")
        if model.svm and not by_speakers:
            raise ValueError(
                f"{place}: svm: needs a run whose folds are `{{protocol: speaker}}` and nothing "
                "else, and a recipe that adapts to speakers, such as `adapted`"
            )
        if model.networks == model.run:
            return
        if model.networks not in self.sources:
            near = suggestion(model.networks, [model.run, *self.sources])
            raise ValueError(
                f"{place}: networks: expected {model.run}, whose folds' networks vote, or one of "
                f"sources, got {model.networks!r}.{near}"
            )
        source = self.sources[model.networks]
        if source.emotions != "all":
            raise ValueError(
                f"{place}: source {model.networks} is trained on the shared emotions alone; a "
                "model needs one with `emotions: all`"
            )
        for name in ("trained_on", "signal_length", "recipe", "network"):
            ours, theirs = getattr(source, name), getattr(run, name)
            if ours != theirs:
                raise ValueError(
                    f"{place}: run {model.run} cannot vouch for source {model.networks}, which "
                    f"differs in its {name}"
                )

    @property
    def scored(self) -> list[str]:
        """Names of all that has results of its own: runs, and transfers behind them."""
        return [*self.runs, *self.transfers]

    def corpora_of(self, name: str) -> list[str]:
        """The corpora that a run, a source or a transfer reads."""
        if name in self.transfers:
            transfer = self.transfers[name]
            return [self.sources[transfer.source].trained_on, transfer.tested_on]
        return [(self.runs | self.sources)[name].trained_on]

    def run(self, name: str) -> Run:
        """The run named `name`; ParameterError if there is none."""
        return _named("run", name, self.runs)

    def source(self, name: str) -> Source:
        return _named("source", name, self.sources)

    def transfer(self, name: str) -> Transfer:
        return _named("transfer", name, self.transfers)

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
        f"unknown {kind} {name!r} in params.yaml; it has {listing(known, 10) or 'none'}."
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
        found = "empty" if content is None else f"{_SHORT.repr(content)} as a whole"
        raise ParameterError(f"{path}: {found}; expected {', '.join(Params.model_fields)}.")
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
    sections: dict[str, type[BaseModel]] = {
        "recipes": Recipe,
        "runs": Run,
        "sources": Source,
        "transfers": Transfer,
        "models": TrainedModel,
    }
    below: dict[tuple, type[BaseModel]] = {("folds",): Folds, ("network",): Network}
    section: type[BaseModel] | None = None
    if location in ((), ("features",)):
        section = Features if location else Params
    elif location[:2] == ("features", "sets"):
        section = FeatureSet
    elif location[0] in sections:
        rest = tuple(location[2:])
        section = below.get(rest) if rest else sections[location[0]]
    return list(section.model_fields) if section else []
