"""Training of a stack of networks, one a fold and seed, together and independently.

Each network has its own data order, dropout, batch statistics and optimiser state, drawn from a
generator of its own: what it learns does not depend on who stands beside it in the stack.
Imports torch, numpy and the network alone, so that any machine with torch can run it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from timnet.errors import ArtifactError, TrainingError
from timnet.network import TIMNet, pad_channels

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the paper's training; the defaults are the paper's."""

    epochs: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    beta1: float = 0.93
    beta2: float = 0.98
    epsilon: float = 1e-8
    label_smoothing: float = 0.1  # on the training part alone
    dropout: float = 0.1
    tabs: int = 8
    precision: str = "fp32"
    compiled: bool = True  # kernels compiled at the start, which takes some seconds


@dataclass(frozen=True)
class Split:
    """What one network trains and is tested on."""

    fold: int
    seed: int  # of weights, order and dropout
    train: np.ndarray  # indices of utterances
    test: np.ndarray


@dataclass
class Scores:
    """What a network said of its test utterances after an epoch."""

    epoch: int  # from 1
    logits: Tensor  # (utterances, K)
    fused: Tensor  # (utterances, C)


@dataclass
class State:
    """Everything that an epoch changes; a checkpoint is exactly this."""

    network: TIMNet
    moments: list[tuple[Tensor, Tensor]]  # first and second, a pair a parameter
    steps: Tensor  # (S,) updates so far
    generators: list[torch.Generator]
    history: list[np.ndarray] = field(default_factory=list)  # an epoch: (S, 4) as in HISTORY
    last: list[Scores] = field(default_factory=list)  # a network
    best: list[Scores | None] = field(default_factory=list)  # a network; best ON THE TEST FOLD

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)


def train_stack(
    features: np.ndarray,
    labels: np.ndarray,
    splits: list[Split],
    classes: int,
    settings: TrainSettings,
    device: str = "cpu",
    checkpoint: Callable[[State], None] | None = None,
    resume: Callable[[State], None] | None = None,
) -> State:
    """Train one network a split, all together, to the last epoch.

    Args:
        features: (utterances, T, C) float32.
        labels: (utterances,) label indices below `classes`.
        checkpoint: called with the state after every epoch; may raise to stop.
        resume: called once with the fresh state, may fill it from a checkpoint.

    Returns:
        The final state: weights, history, predictions of the last epoch and of the one that was
        best on the test fold.

    Raises:
        TrainingError: a loss that is not finite, with fold, seed, epoch and step.
    """
    dtype = PRECISIONS[settings.precision]
    state = fresh_state(splits, classes, features.shape[2], settings, device)
    if resume:
        resume(state)
    network = state.network
    # (T, utterances, C): a batch is then (T, B, C) by one gather, time before batch
    frames = torch.from_numpy(features).transpose(0, 1).to(device, dtype)
    frames = pad_channels(frames, network.width).contiguous()
    targets = torch.from_numpy(labels).to(device, torch.int64)
    while state.epoch < settings.epochs:
        orders = [
            torch.from_numpy(split.train)[torch.randperm(len(split.train), generator=generator)]
            for split, generator in zip(splits, state.generators, strict=True)
        ]
        sums = np.zeros((len(splits), 2))  # loss and hits over the epoch
        for step, rows, index in _batches(orders, settings.batch_size):
            index = index.to(device)
            masks = _dropout(network, state.generators[rows], index.shape[1], settings.dropout)
            logits, _ = network(_gather(frames, index), masks.to(device), rows)
            losses, hits = _loss(logits, targets[index], settings.label_smoothing)
            if not torch.isfinite(losses).all():
                raise _not_finite(splits[rows], losses, state.epoch + 1, step + 1)
            network.zero_grad(set_to_none=True)
            losses.mean(1).sum().backward()
            _adam(state, rows, settings)
            sums[rows] += torch.stack((losses.sum(1), hits.sum(1)), 1).detach().cpu().numpy()
        state.last = _evaluate(network, frames, splits, settings.batch_size, state.epoch + 1)
        tested = np.array(
            [
                _test_figures(scores, targets[torch.from_numpy(split.test)])
                for scores, split in zip(state.last, splits, strict=True)
            ],
            np.float32,  # as the history keeps them, so that equals are equal
        )
        earlier = [epoch[:, 3] for epoch in state.history]
        for row, scores in enumerate(state.last):
            # the first of equals is kept
            if not earlier or tested[row, 1] > max(accuracies[row] for accuracies in earlier):
                state.best[row] = scores
        trained = sums / np.array([[len(split.train)] for split in splits])
        state.history.append(np.hstack((trained, tested)).astype(np.float32))
        if checkpoint:
            checkpoint(state)
    return state


def fresh_state(
    splits: list[Split], classes: int, channels: int, settings: TrainSettings, device: str
) -> State:
    network = TIMNet(len(splits), classes, settings.tabs, channels, settings.compiled)
    generators = []
    for row, split in enumerate(splits):
        # one stream a fold and seed, whatever the stack
        seed = np.random.SeedSequence((split.seed, split.fold)).generate_state(1, np.uint64)[0]
        generators.append(torch.Generator().manual_seed(int(seed >> 1)))
        network.initialise(row, generators[-1])
    network.to(device)
    return State(
        network,
        [(torch.zeros_like(p), torch.zeros_like(p)) for p in network.parameters()],
        torch.zeros(len(splits), dtype=torch.float64, device=device),
        generators,
        best=[None] * len(splits),
    )


def _batches(orders: list[Tensor], size: int) -> Iterator[tuple[int, slice, Tensor]]:
    """Batches of an epoch: (step, networks that take part, their utterances (S', B)).

    The last batch of an epoch is ragged and folds differ in size; neighbours whose batches are
    equally long go together, so that no batch is padded and batch norm needs no weights.
    """
    for step in range(-(-max(map(len, orders)) // size)):
        batches = [order[step * size : (step + 1) * size] for order in orders]
        first = 0
        for length, group in itertools.groupby(map(len, batches)):
            rows = slice(first, first + len(list(group)))
            first = rows.stop
            if length:
                yield step, rows, torch.stack(batches[rows])


def _gather(frames: Tensor, index: Tensor) -> Tensor:
    """frames (T, utterances, C), index (S', B) -> (S', T, B, C)"""
    return torch.stack([frames.index_select(1, row) for row in index])


def _dropout(network: TIMNet, generators: list, batch: int, rate: float) -> Tensor:
    """Spatial dropout: whole channels of an utterance; (S', L, 2, D, B, C), 0 or 1 / (1 - rate)."""
    shape = (network.tabs, 2, 2, batch, network.width)
    kept = [torch.rand(shape, generator=generator) >= rate for generator in generators]
    return torch.stack(kept) / (1 - rate)


def _loss(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross entropy and whether the utterance was recognised, (S', B) each."""
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing
    )
    return losses.view(targets.shape), logits.argmax(2) == targets


@torch.no_grad()
def _adam(state: State, rows: slice, settings: TrainSettings) -> None:
    """One step of Adam for the networks in `rows`, with Keras' place for epsilon."""
    state.steps[rows] += 1
    steps = state.steps[rows]
    rate = settings.learning_rate * (1 - settings.beta2**steps).sqrt() / (1 - settings.beta1**steps)
    for parameter, moments in zip(state.network.parameters(), state.moments, strict=True):
        gradient = parameter.grad
        if gradient is None:  # a convolution's bias before batch norm
            continue
        first, second = (moment[rows] for moment in moments)
        gradient = gradient[rows]
        first.lerp_(gradient, 1 - settings.beta1)
        second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        rates = rate.to(first.dtype).view(-1, *[1] * (first.ndim - 1))
        parameter[rows] -= rates * first / (second.sqrt() + settings.epsilon)


@torch.no_grad()
def _evaluate(
    network: TIMNet, frames: Tensor, splits: list[Split], batch: int, epoch: int
) -> list[Scores]:
    """Each network on its own test utterances."""
    result = []
    for row, split in enumerate(splits):
        parts = []
        for index in torch.from_numpy(split.test).to(frames.device).split(batch):
            logits, fused = network(_gather(frames, index[None]), rows=slice(row, row + 1))
            parts.append((logits[0].cpu(), fused[0, :, : network.channels].cpu()))
        logits, fused = (torch.cat(part) for part in zip(*parts, strict=True))
        result.append(Scores(epoch, logits, fused))
    return result


def _test_figures(scores: Scores, targets: Tensor) -> tuple[float, float]:
    """Mean cross entropy and accuracy."""
    losses, hits = _loss(scores.logits[None], targets.cpu()[None], 0.0)
    return losses.mean().item(), hits.double().mean().item()


def _not_finite(splits: list[Split], losses: Tensor, epoch: int, step: int) -> TrainingError:
    row = int((~torch.isfinite(losses)).any(1).nonzero()[0])
    return TrainingError(
        f"fold {splits[row].fold}, seed {splits[row].seed}: the loss is not finite at epoch "
        f"{epoch}, step {step}. Lower train.learning_rate, or look for recordings with absurd "
        "values."
    )


def save_state(state: State, path: Path, fingerprint: str) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "fingerprint": fingerprint,
        "network": state.network.state_dict(),
        "moments": state.moments,
        "steps": state.steps,
        "generators": [generator.get_state() for generator in state.generators],
        "history": [torch.from_numpy(epoch) for epoch in state.history],
        "last": [vars(scores) for scores in state.last],
        "best": [scores and vars(scores) for scores in state.best],
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_state(state: State, path: Path, fingerprint: str) -> None:
    """Fill a fresh state from a checkpoint.

    Raises:
        ArtifactError: the checkpoint is damaged, or of other parameters or data.
    """
    try:
        saved = torch.load(path, map_location=state.steps.device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ArtifactError(
            f"{path}: not a readable checkpoint ({error}). Delete it to train from the start."
        ) from None
    if saved["fingerprint"] != fingerprint:
        raise ArtifactError(
            f"{path}: this checkpoint is of other parameters, data or code. "
            "Delete it to train from the start."
        )
    state.network.load_state_dict(saved["network"])
    state.moments = saved["moments"]
    state.steps = saved["steps"]
    for generator, content in zip(state.generators, saved["generators"], strict=True):
        generator.set_state(content.cpu())
    state.history = [epoch.cpu().numpy() for epoch in saved["history"]]
    state.last = [Scores(**scores) for scores in saved["last"]]
    state.best = [scores and Scores(**scores) for scores in saved["best"]]
