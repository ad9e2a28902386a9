"""A model's card: all that there is to say of it, and the same as Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from timnet.dataset import features
from timnet.dataset.features import FeatureSettings
from timnet.errors import counted
from timnet.evaluation.intervals import FEW_CLUSTERS

Range = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """The recordings that a model was trained on, and their terms."""

    corpus: str
    title: str
    language: str
    licence: str
    citation: str
    source: str
    utterances: int
    speakers: int

    @property
    def non_commercial(self) -> bool:
        return "NC" in self.licence.replace("-", " ").split()


class Figures(_Section):
    """What the folds' networks reach under a protocol, percent."""

    protocol: str
    meaning: str
    utterances: int
    uar: float
    war: float
    uar_interval: Range  # 95 %, as of `timnet.evaluation.intervals`
    war_interval: Range
    uar_by_speaker: dict[str, float]


class Calibration(_Section):
    """One temperature for all networks, fitted on what each said of the fold it did not see."""

    temperature: Positive
    utterances: int
    error_before: Share  # expected calibration error
    error_after: Share


class Coverage(_Section):
    """What is gained by answers that are held back below a probability."""

    below: Share
    answered: Share  # of the held-out predictions
    correct: Share | None  # of those that are answered; None if none is


class Unenrolled(_Section):
    """What networks that adapt to a speaker reach without recordings of them."""

    figures: list[Figures]
    calibration: Calibration
    coverage: list[Coverage]


class Typical(_Section):
    """`out_of_domain.Reference` without its arrays."""

    seconds: Range
    longest: Positive
    level: Range
    sample_rates: tuple[int, ...]
    distance: Positive


class FeatureRecord(_Section):
    """How the features were made; see `features.fingerprint`."""

    revision: int
    settings: FeatureSettings
    frames: int
    libraries: dict[str, str]
    source: str

    @model_validator(mode="after")
    def _can_be_made(self) -> FeatureRecord:
        made = self.settings
        if (
            (made.sample_rate, made.hop) != (features.SAMPLE_RATE, features.HOP)
            or not features.FFT <= made.signal_length <= 10_000_000
            or not 0 < made.coefficients <= 128
            or self.frames != made.frames
        ):
            raise ValueError(f"feature settings that timnet cannot use: {made}")
        return self


class Card(_Section):
    """All that there is to say of a model but its weights."""

    name: str
    networks: Literal["folds", "whole"]  # one per fold; or one, trained on the whole corpus
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    variant: str
    data: Source
    features: FeatureRecord
    training: dict[str, bool | int | float | str]
    recipe: str = ""  # of params.yaml
    svm: bool = False  # whether an SVM stands beside the networks, for speakers who are enrolled
    seeds: list[int]
    run: str  # of params.yaml; its folds tested the settings
    figures: list[Figures]
    calibration: Calibration
    coverage: list[Coverage] = []  # older models have none
    unenrolled: Unenrolled | None = None  # of recipes that adapt to speakers
    enrolled: int = 0  # recordings of the one speaker whom the networks are adapted to
    typical: Typical
    commit: str
    device: str
    versions: dict[str, str]


def terms(card: Card) -> str:
    """Under which terms the training set leaves the model, in one sentence."""
    data = card.data
    if data.licence == "unknown":
        told = f"trained on {data.title}, whose terms are unknown: ask before sharing it"
    elif data.non_commercial:
        told = f"trained on {data.title} ({data.licence}): NOT for commercial use"
    else:
        told = f"trained on {data.title}, whose terms bind the model too: {data.licence}"
    cited = data.citation not in ("none", "unknown")
    return f"{told}; cite {data.citation}" if cited else told


def in_short(card: Card) -> str:
    """What a model is and how far to trust it, in a few lines for somebody who chose none."""
    data, chance = card.data, 100 / len(card.labels)
    lines = [
        f"{card.name}: TIM-Net trained on {data.title} ({data.language}, {data.speakers} "
        f"speakers). It recognises {', '.join(card.labels)}.",
    ]
    unseen = [each for each in card.figures if each.protocol.startswith("speaker")]
    if unseen:
        score = unseen[0]
        low, high = score.uar_interval
        lines.append(
            f"On unseen speakers of that corpus it scores {score.uar:.1f} % UAR (unweighted "
            f"average recall; 95 % CI {low:.1f} to {high:.1f}, chance {chance:.1f} %)."
        )
    else:
        lines.append("Its score on unseen speakers is unknown.")
    if told := without_enrolment(card):
        lines.append(f"That needs recordings of the speaker (`--enrol`); without, {told}")
    lines.append(
        "Expect less with other languages, rooms and microphones, and with emotions that are not "
        "acted."
    )
    return "\n".join(lines)


def markdown(card: Card) -> str:
    """The card as a page."""
    data, made = card.data, card.features
    sections = [
        f"# {card.name}",
        f"TIM-Net ({card.variant}, {card.training['tabs']} blocks) recognises {len(card.labels)} "
        f"emotions in speech: {', '.join(card.labels)}. {_networks(card)}",
        "## Terms",
        terms(card)[0].upper() + terms(card)[1:] + ".",
        "## Trained on",
        f"{data.title}, {data.language}: {data.utterances} utterances of {data.speakers} speakers, "
        f"{data.source}. {_typical(card)}",
        "## Scores",
        _figures(card),
        f"Chance is {100 / len(card.labels):.1f} %. {_reach(card)} `timnet predict` flags "
        "recordings that are out of domain.",
        "## Probabilities",
        _probabilities(card),
        *([_coverage(card, card)] if card.coverage else []),
        *_enrolment(card),
        "## Made by",
        "\n".join(
            f"- {what}: {value}"
            for what, value in {
                "run": card.run,
                "recipe": card.recipe,
                "commit": card.commit,
                "seeds": ", ".join(map(str, card.seeds)),
                "device": card.device,
                "versions": _pairs(card.versions),
                "training": _pairs(card.training),
                "features": _pairs(vars(made.settings)),
                "code of the features": f"revision {made.revision}; {_pairs(made.libraries)}",
                "recordings, SHA-256": made.source,
            }.items()
            if value
        ),
    ]
    return "\n\n".join(sections)


def _across(card: Card) -> bool:
    """Whether the run tested on another corpus: one network, trained on all of its own."""
    return any(each.protocol == "cross-corpus" for each in card.figures)


def _networks(card: Card) -> str:
    if card.networks == "whole":
        tested = "network on another corpus" if _across(card) else "folds"
        return (
            f"One network, trained on the whole corpus with the settings of run {card.run}. The "
            f"scores below are those of that run's {tested}: no data are left to test this network "
            "on."
        )
    if _across(card):
        return f"It is the one network of run {card.run}, tested on another corpus."
    return f"The networks of the folds of run {card.run} vote; `--single` uses only the first."


def _reach(card: Card) -> str:
    """Where the figures hold."""
    if _across(card):
        return "These are scores on one other corpus; expect different ones on a third."
    return (
        "These are scores within one corpus; expect much lower ones with other people, "
        "microphones and languages."
    )


def without_enrolment(card: Card) -> str:
    """What networks that adapt to speakers do where they are adapted to none, and the cost."""
    if card.unenrolled is None or card.enrolled:
        return ""
    scores, without = card.figures[-1], card.unenrolled.figures[-1]
    return (
        f"{card.name} uses {' and '.join(_adapted_by(card))} of its training set in place of the "
        f"speaker's. Under `{scores.protocol}` this reaches {without.uar:.1f} % UAR, not "
        f"{scores.uar:.1f} %."
    )


def _adapted_by(card: Card) -> list[str]:
    """What networks take from a speaker's recordings."""
    found = ["batch norm's statistics"] if card.training.get("by_speaker") else []
    scale = card.training.get("normalise") == "speaker"
    return found + ["mean and deviation of the features"] * scale


def _enrolment(card: Card) -> list[str]:
    """What the model needs of a speaker, and what it is worth without; as sections."""
    if card.unenrolled is None:
        return []
    now = f"Without enrolment, {without_enrolment(card)}"
    if card.enrolled:
        by = counted(card.enrolled, "recording")
        now = f"This file is adapted to one speaker, by {by}. Before, its scores were:"
    fitted = card.unenrolled.calibration
    return [
        "## Enrolment",
        "The networks need recordings of the speaker, without labels, several emotions among them "
        "(`timnet predict --enrol FOLDER`, or `--one-speaker`): "
        f"{' and '.join(_adapted_by(card))} are theirs. {_beside(card)}The scores and "
        "probabilities above are those of speakers enrolled by all of their own recordings in the "
        f"corpus, about {_of_each_speaker(card)} each, the tested one among them.",
        now,
        _figures(card.unenrolled),
        f"Logits are then divided by {fitted.temperature:.3f}; the expected calibration error is "
        f"{100 * fitted.error_before:.1f} % before, {100 * fitted.error_after:.1f} % after.",
        _coverage(card, card.unenrolled),
    ]


def _of_each_speaker(card: Card) -> int:
    """Recordings of the training set, on average."""
    return card.data.utterances // card.data.speakers


def _beside(card: Card) -> str:
    if not card.svm:
        return ""
    return (
        "Each network is then joined with an SVM on statistics of the features, normalised by the "
        "speaker's recordings: by the mean of the probabilities of both. "
    )


def vouched(card: Card, below: float) -> str:
    """What the card vouches for if answers less probable than `below` are held back."""
    rows = card.coverage
    if card.unenrolled and not card.enrolled:
        rows = card.unenrolled.coverage
    known = [each for each in rows if each.below <= below]
    if not known:
        return f"{card.name} has no figures on answers that are held back."
    row = max(known, key=lambda each: each.below)
    right = "" if row.correct is None else f", and {100 * row.correct:.1f} % of these are correct"
    measured = ""
    if card.enrolled:
        measured = (
            f" That is with about {_of_each_speaker(card)} recordings of each speaker, not "
            f"{card.enrolled}."
        )
    return (
        f"Of the held-out predictions of run {card.run} {100 * row.answered:.1f} % reach "
        f"{row.below:g}{right} (`timnet card`).{measured}"
    )


def _coverage(card: Card, of: Card | Unenrolled) -> str:
    """What `--abstain-below` would bring."""
    rows = [
        (
            f"{each.below:g}",
            f"{100 * each.answered:.1f}",
            "-" if each.correct is None else f"{100 * each.correct:.1f}",
        )
        for each in of.coverage
    ]
    return (
        "With `timnet predict --abstain-below P` no emotion is given that is less probable than P. "
        f"Of {of.calibration.utterances} held-out predictions of single networks of run "
        f"{card.run}, so many would be answered, and so many of these correctly:\n\n"
        f"{_table(('P', 'answered, %', 'correct of these, %'), rows)}"
    )


def _probabilities(card: Card) -> str:
    """What the temperature was fitted on, and what its error is worth."""
    fitted = card.calibration
    if _across(card):
        scored = f"utterances of the other corpus by the network of run {card.run}"
        worth = "on the predictions that it was fitted on; expect more on others"
    else:
        scored = f"utterances that a network of run {card.run} was not trained on"
        worth = "each fold with the temperature of the other folds"
    sentences = [
        f"All logits are divided by {fitted.temperature:.3f}, fitted on {fitted.utterances} "
        f"predictions for {scored}.",
        "Expected calibration error of single networks of that run: "
        f"{100 * fitted.error_before:.1f} % before, {100 * fitted.error_after:.1f} % after "
        f"({worth}).",
    ]
    if card.networks == "whole":
        sentences.append(
            "This network was trained on all data, so how well the temperature fits it is unknown."
        )
    elif not _across(card):
        sentences.append("The mean probability of several networks is somewhat less confident.")
    return " ".join(sentences)


def _typical(card: Card) -> str:
    low, high = card.typical.seconds
    quiet, loud = card.typical.level
    rates = ", ".join(map(str, card.typical.sample_rates))
    return (
        f"Most last {low:.1f} to {high:.1f} s at {quiet:.0f} to {loud:.0f} dB below full scale, "
        f"recorded at {rates} Hz."
    )


def _figures(of: Card | Unenrolled) -> str:
    """A row per protocol, and what each of them means."""
    rows = [
        (
            f"`{each.protocol}`",
            _with(each.uar, each.uar_interval),
            _with(each.war, each.war_interval),
            f"{min(each.uar_by_speaker.values()):.1f} to {max(each.uar_by_speaker.values()):.1f}",
            str(each.utterances),
        )
        for each in of.figures
    ]
    head = ("protocol", "UAR, %", "WAR, %", "UAR of single speakers, %", "utterances")
    notes = "\n".join(f"- `{each.protocol}`: {each.meaning}." for each in of.figures)
    return (
        f"{_table(head, rows)}\n\n{notes}\n- In brackets: 95 % CI by bootstrap over utterances, "
        f"and over speakers where these are unseen; with fewer than {FEW_CLUSTERS} speakers it is "
        "rough."
    )


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _pairs(values: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table that aligns in plain text too."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    widths = [max(width, 3) for width in widths]

    def line(cells: tuple[str, ...]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = tuple("-" * width for width in widths)
    return "\n".join(map(line, (head, rule, *rows)))
