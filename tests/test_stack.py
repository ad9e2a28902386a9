from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from timnet.errors import ArtifactError, TrainingError
from timnet.processes import worker_environment
from timnet.training import streams
from timnet.training.network import VARIANTS
from timnet.training.stack import Split, State, TrainSettings, load_state, save_state, train_stack

SETTINGS = TrainSettings(epochs=3, batch_size=8, tabs=3, compiled=False)
CLASSES = 3
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


@pytest.fixture(params=("cpu", pytest.param("cuda", marks=GPU)))
def device(request) -> Iterator[str]:
    """Each device, set as training sets it."""
    with worker_environment():
        torch.use_deterministic_algorithms(True)
        yield request.param
        torch.use_deterministic_algorithms(False)


def material(utterances: int = 47) -> tuple[np.ndarray, np.ndarray]:
    """Features whose level tells the label, with noise, (utterances, 20, 39)."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, utterances)
    features = rng.normal(labels[:, None, None], 2, (utterances, 20, 39))
    return features.astype(np.float32), labels


def splits(folds: int = 3, seed: int = 0, utterances: int = 47) -> list[Split]:
    """Folds of 16, 16 and 15 of 47, so that training parts differ by one."""
    fold_of = np.arange(utterances) % folds
    return [
        Split(1, fold, seed, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(folds)
    ]


def weights(state: State, row: int) -> torch.Tensor:
    return torch.cat([value.flatten().cpu() for value in state.network.arrays(row).values()])


def test_a_fold_in_a_stack_trains_as_the_fold_alone() -> None:
    # 50 steps and more
    settings = TrainSettings(epochs=13, batch_size=8, tabs=3, compiled=False)
    parts = [*splits(), *splits(seed=1)]
    together = train_stack(*material(), parts, CLASSES, settings)
    for row, part in enumerate(parts):
        alone = train_stack(*material(), [part], CLASSES, settings)
        ours = np.stack(together.history)[:, row]
        np.testing.assert_allclose(ours, np.stack(alone.history)[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights(together, row), weights(alone, 0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("variant", ("without-bd", "without-ms", "without-df", "tcn"))
def test_an_ablation_in_a_stack_trains_as_alone(variant: str) -> None:
    settings = TrainSettings(epochs=3, batch_size=8, tabs=3, variant=variant, compiled=False)
    together = train_stack(*material(), splits(), CLASSES, settings)
    alone = train_stack(*material(), splits()[1:2], CLASSES, settings)
    np.testing.assert_allclose(
        np.stack(together.history)[:, 1], np.stack(alone.history)[:, 0], rtol=1e-5, atol=1e-6
    )


def test_dropout_is_that_share_of_channels_and_another_at_every_step() -> None:
    seeds = torch.tensor([1, 2])
    masks = [streams.dropout(seeds, torch.tensor([n, n]), (4, 2, 2, 64, 40), 0.1) for n in (0, 1)]
    for mask in masks:
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
        assert (mask == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert (masks[0] == masks[1]).float().mean().item() == pytest.approx(0.82, abs=0.01)
    assert (masks[0][0] == masks[0][1]).float().mean().item() == pytest.approx(0.82, abs=0.01)
    again = streams.dropout(seeds[1:], torch.tensor([0]), (4, 2, 2, 64, 40), 0.1)
    assert torch.equal(again[0], masks[0][1])


def test_folds_of_very_different_size_train_as_alone() -> None:
    """As when speakers are left out: some networks have no batch left while others go on."""
    fold_of = np.repeat([0, 1, 2], [5, 12, 30])
    parts = [
        Split(1, fold, 0, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(3)
    ]
    together = train_stack(*material(), parts, CLASSES, SETTINGS)
    assert together.steps.tolist() == [18, 15, 9]
    for row, part in enumerate(parts):
        alone = train_stack(*material(), [part], CLASSES, SETTINGS)
        np.testing.assert_allclose(
            np.stack(together.history)[:, row], np.stack(alone.history)[:, 0], rtol=1e-5, atol=1e-6
        )


def test_the_same_seed_gives_the_same_bits(device: str) -> None:
    first, second = (
        train_stack(*material(), splits(), CLASSES, SETTINGS, device) for _ in range(2)
    )
    assert np.array_equal(np.stack(first.history), np.stack(second.history))
    assert torch.equal(weights(first, 1), weights(second, 1))


def test_another_seed_gives_another_network() -> None:
    first, second = (
        train_stack(*material(), splits(seed=seed), CLASSES, SETTINGS) for seed in (0, 1)
    )
    assert not torch.equal(weights(first, 0), weights(second, 0))


class Stop(Exception):
    pass


RECIPES = (
    {"normalise": "corpus"},
    {"schedule": "one-cycle"},
    {"schedule": "cosine", "weight_decay": 0.1},
    {"balance": True},
    {"batch_norm_momentum": 0.1},
    {"standardised": True},
    {"shift": 3},
    {"speed": 0.1},
    {"vocal_tract": 0.1},
    {"channel": 0.2},
    {"noise": 0.1},
    {"time_mask": 4},
    {"coefficient_mask": 4},
    {"mixup": 0.4},
    {"mixup": 0.4, "balance": True, "precision": "bf16", "shift": 2, "normalise": "corpus"},
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(recipe))
def test_under_every_setting_a_fold_trains_as_the_fold_alone(recipe: dict) -> None:
    settings = replace(SETTINGS, **recipe)
    parts = [with_validation(split) for split in splits()]
    together = train_stack(*material(), parts, CLASSES, settings)
    alone = train_stack(*material(), parts[1:2], CLASSES, settings)
    plain = train_stack(*material(), parts[1:2], CLASSES, SETTINGS)
    for of in (together, alone, plain):
        assert np.isfinite(np.stack(of.history)).all()
    assert np.array_equal(np.stack(together.history)[:, 1], np.stack(alone.history)[:, 0])
    assert torch.equal(weights(together, 1), weights(alone, 0))
    assert torch.equal(together.best.logits[1], alone.best.logits[0])
    assert not torch.equal(weights(alone, 0), weights(plain, 0))  # it does something


def with_validation(split: Split) -> Split:
    """Five utterances of the training part choose the epoch."""
    return replace(split, train=split.train[5:], validation=split.train[:5])


def test_the_best_epoch_on_the_validation_part_never_sees_the_test_part() -> None:
    settings = replace(SETTINGS, epochs=8)
    parts = [with_validation(split) for split in splits()]
    features, labels = material()
    alone = train_stack(features, labels, parts[:1], CLASSES, settings)
    others = labels.copy()
    others[parts[0].test] = (labels[parts[0].test] + 1) % CLASSES
    again = train_stack(features, others, parts[:1], CLASSES, settings)
    assert alone.best.epoch.tolist() == again.best.epoch.tolist()
    assert torch.equal(alone.best.logits, again.best.logits)


def test_a_stopped_training_with_a_recipe_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, epochs=4, schedule="one-cycle", shift=3, speed=0.1, noise=0.1, mixup=0.4,
        time_mask=4, normalise="corpus", weight_decay=0.1, balance=True,
    )  # fmt: skip
    undisturbed = train_stack(*material(), splits(), CLASSES, settings)

    def checkpoint(state: State) -> None:
        save_state(state, tmp_path / "state.pt", "print")
        if state.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train_stack(*material(), splits(), CLASSES, settings, checkpoint=checkpoint)
    resumed = train_stack(
        *material(),
        splits(),
        CLASSES,
        settings,
        resume=lambda state: load_state(state, tmp_path / "state.pt", "print"),
    )
    assert np.array_equal(np.stack(undisturbed.history), np.stack(resumed.history))
    for row in range(3):
        assert torch.equal(weights(undisturbed, row), weights(resumed, row))


@pytest.mark.parametrize("epoch", (1, 2, 3))
def test_a_stopped_training_ends_in_the_same_bits(tmp_path: Path, device: str, epoch: int) -> None:
    settings = replace(SETTINGS, epochs=4)  # on a GPU the first runs, the second is captured
    undisturbed = train_stack(*material(), splits(), CLASSES, settings, device)

    def checkpoint(state: State) -> None:
        save_state(state, tmp_path / "state.pt", "print")
        if state.epoch == epoch:
            raise Stop

    with pytest.raises(Stop):
        train_stack(*material(), splits(), CLASSES, settings, device, checkpoint)
    resumed = train_stack(
        *material(),
        splits(),
        CLASSES,
        settings,
        device,
        resume=lambda state: load_state(state, tmp_path / "state.pt", "print"),
    )
    assert np.array_equal(np.stack(undisturbed.history), np.stack(resumed.history))
    for row in range(3):
        assert torch.equal(weights(undisturbed, row), weights(resumed, row))
        assert torch.equal(undisturbed.best.logits[row], resumed.best.logits[row])


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = train_stack(*material(), splits(), CLASSES, TrainSettings(1, 8, tabs=3, compiled=False))
    save_state(state, path, "one")
    with pytest.raises(
        ArtifactError, match="this checkpoint was made with other parameters, data or code"
    ):
        load_state(state, path, "other")
    path.write_bytes(b"cut off")
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_state(state, path, "one")


def test_the_best_epoch_on_the_test_fold_is_the_first_of_equals() -> None:
    settings = TrainSettings(epochs=8, batch_size=8, tabs=3, compiled=False)
    state = train_stack(*material(), splits(), CLASSES, settings)
    accuracies = np.stack(state.history)[:, :, 3]
    assert state.best.epoch.tolist() == (accuracies.argmax(0) + 1).tolist()
    assert state.last.epoch.tolist() == [8, 8, 8]


def test_of_equal_accuracies_the_first_epoch_is_kept() -> None:
    """Also where 32 bits round the accuracy, as for 7 of 48."""
    features, labels = material(96)
    split = Split(1, 0, 0, np.arange(48, 96), np.arange(48))
    settings = TrainSettings(epochs=30, batch_size=16, tabs=2, learning_rate=1e-5, compiled=False)
    state = train_stack(features, labels, [split], CLASSES, settings)
    accuracies = np.stack(state.history)[:, 0, 3]
    assert len(set(accuracies.tolist())) < len(accuracies)  # there are equals
    assert state.best.epoch[0] == accuracies.argmax() + 1


def test_label_smoothing_touches_training_alone() -> None:
    state = train_stack(*material(), splits(), CLASSES, SETTINGS)
    _, labels = material()
    for row, split in enumerate(splits()):
        logits = state.last.logits[row, : len(split.test)]
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[split.test]))
        assert state.history[-1][row, 2] == pytest.approx(expected.item(), rel=1e-5)


def test_a_loss_that_is_not_finite_names_fold_epoch_and_step() -> None:
    features, labels = material()
    features[46, 3, 2] = np.nan  # in the training parts of folds 0 and 2, tested in fold 1
    with pytest.raises(
        TrainingError, match=r"fold [02], seed 0: the loss is not finite at epoch 1"
    ):
        train_stack(features, labels, splits(), CLASSES, SETTINGS)


def test_it_learns() -> None:
    settings = TrainSettings(epochs=25, batch_size=8, tabs=3, compiled=False)
    state = train_stack(*material(), splits(), CLASSES, settings)
    loss = np.stack(state.history)[:, :, 0].mean(1)
    assert loss[-1] < 0.7 * loss[0]


def test_bf16_follows_fp32() -> None:
    settings = TrainSettings(epochs=6, batch_size=8, tabs=3, precision="bf16", compiled=False)
    other = TrainSettings(epochs=6, batch_size=8, tabs=3, compiled=False)
    low = train_stack(*material(), splits(), CLASSES, settings)
    full = train_stack(*material(), splits(), CLASSES, other)
    losses = [np.stack(state.history)[-1, :, 0].mean() for state in (low, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@GPU
@pytest.mark.parametrize("precision", ("fp32", "bf16"))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_trains_near_the_cpu(variant: str, precision: str) -> None:
    settings = replace(SETTINGS, epochs=4, variant=variant, precision=precision)
    places = {"cuda": replace(settings, compiled=True), "cpu": settings}
    whole = Split(1, 0, 0, np.arange(47), np.arange(0))  # nothing left to test, as of a source
    for parts in (splits(), [whole]):
        ours, cpu = (
            np.stack(train_stack(*material(), parts, CLASSES, chosen, place).history)[..., 0]
            for place, chosen in places.items()
        )
        np.testing.assert_allclose(ours, cpu, rtol=0.02 if precision == "fp32" else 0.1)


def compiled_weights(device: str) -> list[float]:
    torch.use_deterministic_algorithms(True)
    settings = replace(SETTINGS, epochs=4, compiled=True)
    return weights(train_stack(*material(), splits(), CLASSES, settings, device), 1).tolist()


@GPU
def test_compiled_kernels_of_a_gpu_give_the_same_bits_in_every_process() -> None:
    found = []
    for _ in range(2):
        with worker_environment(), ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append(process.submit(compiled_weights, "cuda").result())
    assert found[0] == found[1]
