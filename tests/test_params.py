"""What is said of settings that cannot be: in the words of params.yaml, not of a library."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from timnet.dataset import features, normalise
from timnet.errors import ParameterError
from timnet.paper import paper
from timnet.project import params
from timnet.training import baseline, network, stack

CASES = {
    "trained_on: dmo": "runs.demo-random: unknown corpus 'dmo' in corpora. Did you mean 'demo'?",
    "trained_on: casia": "runs.demo-random: unknown corpus 'casia' in corpora. Add it there.",
    "seeds: []": "runs.demo-random.seeds: expected a list of 1 or more, got []",
    "seeds: 1": "runs.demo-random.seeds: expected a list, such as [1, 2], got 1",
    "seeds: [-1]": "runs.demo-random.seeds.0: expected at least 0, got -1",
    "folds: random": "runs.demo-random.folds: expected settings, each with its name, such as ",
    "recipe: papr": "runs.demo-random: unknown recipe 'papr' in recipes. Did you mean 'paper'?",
    "baseline: svm": "runs.demo-random: a baseline has no network and no precision and no seeds",
    "precision: 16": "runs.demo-random.precision: expected 'fp32', 'tf32' or 'bf16', got 16",
    "signal_length: long": "runs.demo-random.signal_length: expected a whole number, got 'long'",
}


@pytest.mark.parametrize("setting", CASES)
def test_settings_that_cannot_be(tmp_path: Path, setting: str) -> None:
    path, name = tmp_path / "params.yaml", setting.partition(":")[0]
    demo = (ROOT / "timnet" / "demo.yaml").read_text()
    if name == "baseline":  # beside a network
        demo = demo.replace("    recipe: paper\n", "    recipe: paper\n    baseline: none\n")
    path.write_text(re.sub(rf"^    {name}:.*", f"    {setting}", demo, count=1, flags=re.MULTILINE))
    with pytest.raises(ParameterError) as caught:
        params.read(path)
    assert str(caught.value).startswith(f"{path}: correct these settings:\n")
    assert CASES[setting] in str(caught.value)


@pytest.mark.parametrize(
    ("tuned", "said"),
    [
        ("papr: demo", "tuned_on: unknown recipe 'papr' in recipes. Did you mean 'paper'?"),
        ("paper: dmo", "tuned_on.paper: unknown corpus 'dmo' in corpora. Did you mean 'demo'?"),
    ],
)
def test_tuning_names_a_recipe_and_a_corpus(tmp_path: Path, tuned: str, said: str) -> None:
    path, demo = tmp_path / "params.yaml", (ROOT / "timnet" / "demo.yaml").read_text()
    path.write_text(demo.replace("tuned_on: {}", f"tuned_on: {{{tuned}}}"))
    with pytest.raises(ParameterError) as caught:
        params.read(path)
    assert said in str(caught.value)


def test_a_recipe_has_the_settings_of_training_and_the_paper_s_values() -> None:
    of_run = {"tabs", "variant", "precision"}
    trained = {field.name: field.default for field in fields(stack.TrainSettings)}
    assert params.Recipe().model_dump() == {
        name: value for name, value in trained.items() if name not in of_run
    }
    choices = {
        "schedule": stack.SCHEDULES,
        "normalise": normalise.NORMALISATIONS,
    }
    for name, known in choices.items():
        assert get_args(params.Recipe.model_fields[name].annotation) == tuple(known)
    resamplers = (features.EXACT_RESAMPLER, *features.SOXR_RESAMPLERS)
    assert get_args(params.Features.model_fields["resampler"].annotation) == resamplers
    most = params.Recipe.model_fields["coefficient_mask"].metadata
    assert features.COEFFICIENTS in [getattr(each, "le", None) for each in most]
    precisions = str(params.Trained.model_fields["precision"].annotation)
    assert all(repr(name) in precisions for name in network.PRECISIONS)
    assert params.BASELINE_NORMALISATIONS == baseline.NORMALISE
    printed = paper()["training"]
    assert {name: trained[name] for name in printed} == printed


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("normalise", "emotion"),
        ("schedule", "linear"),
        ("mixup", 1.5),
        ("speed", 1.0),
        ("batch_norm_momentum", 0),
        ("shift", -1),
        ("coefficient_mask", 40),
        ("weight_decay", -0.1),
        ("balance", 1),
    ],
)
def test_recipes_have_their_ranges(tmp_path: Path, setting: str, value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        changed(tmp_path, lambda content: content["recipes"]["paper"].update({setting: value}))
    assert f"recipes.paper.{setting}: expected" in str(caught.value)


def test_a_recipe_may_leave_everything_out(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda content: content["recipes"].update(plain={}))
    assert found.recipes["plain"] == params.Recipe()


def changed(folder: Path, change: Callable[[dict], object]) -> params.Params:
    """The demo's parameters, with a source and a transfer to a second corpus, after a change."""
    content = YAML(typ="safe").load(ROOT / "timnet" / "demo.yaml")
    content["corpora"]["mine"] = "custom"
    content["features"]["sets"]["mine-44100"] = {"corpus": "mine", "signal_length": 44100}
    network = content["runs"]["demo-random"]
    source = {name: value for name, value in network.items() if name != "folds"}
    content["sources"] = {
        "demo-shared": {**source, "emotions": "shared"},
        "demo-whole": {**source, "emotions": "all"},
        "demo-svm": {
            "trained_on": "demo", "signal_length": 44100, "emotions": "shared",
            "recipe": "paper", "baseline": "svm",
        },
    }  # fmt: skip
    transfer = {"source": "demo-shared", "tested_on": "mine", "signal_length": 44100}
    content["transfers"] = {"demo-to-mine": transfer}
    content["models"]["whole"] = {
        "run": "demo-speaker", "corpus": "demo", "networks": "demo-whole"
    }  # fmt: skip
    change(content)
    path = folder / "params.yaml"
    YAML().dump(content, path)
    return params.read(path)


def test_sources_and_transfers_are_read(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda content: None)
    assert found.scored == ["demo-random", "demo-speaker", "demo-to-mine"]
    assert found.corpora_of("demo-to-mine") == ["demo", "mine"]
    assert found.sources["demo-svm"].baseline == "svm"


REFUSED: dict[str, tuple[Callable[[dict], object], str]] = {
    "no such source": (
        lambda c: c["transfers"]["demo-to-mine"].update(source="demo-sharde"),
        "demo-to-mine: unknown source 'demo-sharde' in sources. Did you mean 'demo-shared'?",
    ),
    "source of all emotions": (
        lambda c: c["transfers"]["demo-to-mine"].update(source="demo-whole"),
        "transfers.demo-to-mine: source demo-whole is trained on all emotions",
    ),
    "own corpus": (
        lambda c: c["transfers"]["demo-to-mine"].update(tested_on="demo"),
        "transfers.demo-to-mine: source demo-shared is trained on demo itself",
    ),
    "other length": (
        lambda c: c["transfers"]["demo-to-mine"].update(signal_length=55125),
        "transfers.demo-to-mine: signal_length: expected 44100, as of source demo-shared",
    ),
    "no features": (
        lambda c: c["features"]["sets"].pop("mine-44100"),
        "transfers.demo-to-mine: reads features mine-44100",
    ),
    "one name twice": (
        lambda c: c["sources"].update({"demo-random": c["sources"]["demo-whole"]}),
        "demo-random: one name for two of runs, sources and transfers",
    ),
    "network left out": (
        lambda c: c["sources"]["demo-shared"].pop("network"),
        "sources.demo-shared: missing network (or `baseline: svm`)",
    ),
    "baseline by corpus": (
        lambda c: c["recipes"]["paper"].update(normalise="corpus"),
        "sources.demo-svm: a baseline cannot be normalised by corpus",
    ),
    "model of the shared emotions": (
        lambda c: c["models"]["whole"].update(networks="demo-shared"),
        "models.whole: source demo-shared is trained on the shared emotions alone",
    ),
    "model of another network": (
        lambda c: c["sources"]["demo-whole"].update(network={"tabs": 2, "variant": "tcn"}),
        "models.whole: run demo-speaker cannot vouch for source demo-whole, which differs in its",
    ),
    "model of a baseline": (
        lambda c: c["runs"].update(
            {"demo-speaker": {
                "trained_on": "demo", "signal_length": 44100, "recipe": "paper",
                "folds": {"protocol": "speaker"}, "baseline": "svm",
            }}
        ),
        "run demo-speaker is a baseline; a model needs networks",
    ),
    "svm beside networks that do not adapt": (
        lambda c: c["models"]["whole"].update(svm=True),
        "models.whole: svm: needs a run whose folds are `{protocol: speaker}` and nothing else",
    ),
    "svm beside folds of several speakers": (
        lambda c: (
            c["models"]["whole"].update(svm=True),
            c["recipes"]["paper"].update(by_speaker=True),
            c["runs"]["demo-speaker"]["folds"].update(number=2),
        ),
        "models.whole: svm: needs a run whose folds are `{protocol: speaker}` and nothing else",
    ),
    "model that would have to normalise": (
        lambda c: (
            c["recipes"].update(own={"normalise": "corpus"}),
            c["runs"]["demo-speaker"].update(recipe="own"),
        ),
        "run demo-speaker is trained by recipe own, whose normalise: corpus or utterance, or",
    ),
    "misspelt in a transfer": (
        lambda c: c["transfers"]["demo-to-mine"].update(test_on="mine"),
        "transfers.demo-to-mine.test_on: unknown setting. Did you mean 'tested_on'?",
    ),
    "misspelt in a recipe": (
        lambda c: c["recipes"]["paper"].update(normalize="none"),
        "recipes.paper.normalize: unknown setting. Did you mean 'normalise'?",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_together(
    tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        changed(tmp_path, change)
    assert message in str(caught.value)
