"""Training of a stack of networks, one per fold and seed, together and independently.

Each network has its own data order, dropout, batch statistics and optimiser state, drawn from
streams of its own: what it learns does not depend on who stands beside it in the stack.
Imports torch, numpy and the network alone, so that any machine with torch can run it.

An epoch runs without waiting for the host: on a GPU it is captured once as a CUDA graph and
replayed.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from timnet.dataset import normalise
from timnet.errors import ArtifactError, TrainingError
from timnet.training import streams
from timnet.training.augment import AUGMENTATIONS, augment
from timnet.training.network import BATCH_NORM_MOMENTUM, PRECISIONS, TIMNet, pad_channels
from timnet.training.splits import Split

SCHEDULES = ("constant", "cosine", "one-cycle")
WARM_UP = 0.3  # share of a one-cycle training in which the rate rises


@dataclass(frozen=True)
class TrainSettings:
    """A recipe with a network; the defaults are the paper's, what it has not is off."""

    epochs: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    beta1: float = 0.93
    beta2: float = 0.98
    epsilon: float = 1e-8
    label_smoothing: float = 0.1  # on the training part alone
    dropout: float = 0.1
    tabs: int = 8
    variant: str = "tim-net"
    precision: str = "fp32"
    compiled: bool = True  # kernels compiled at the start, which takes some seconds
    normalise: str = "none"  # one of normalise.NORMALISATIONS
    schedule: str = "constant"  # of the learning rate, over the whole training
    weight_decay: float = 0.0  # of kernels, a step and learning rate (Loshchilov, Hutter, 2019)
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM  # share of a batch in running statistics
    balance: bool = False  # weigh utterances so that every emotion counts alike
    # a batch holds one speaker, so that batch norm takes away what is theirs; a tested speaker
    # has the statistics of their own recordings (Li et al., "Adaptive Batch Normalization", 2018),
    # which needs no labels
    by_speaker: bool = False
    standardised: bool = False  # the fused vector too goes through batch norm's statistics
    # augmentation, see `augment`: at most so far, drawn for each utterance of a batch
    shift: int = 0  # frames, to either side, round the end
    speed: float = 0.0  # share by which time is stretched, either way
    vocal_tract: float = 0.0  # share by which the mel axis is stretched, either way
    channel: float = 0.0  # deviation of an offset per coefficient, constant over the utterance
    noise: float = 0.0  # deviation of what is added to each value
    time_mask: int = 0  # frames that are set to zero (SpecAugment)
    coefficient_mask: int = 0  # neighbouring coefficients that are set to zero
    mixup: float = 0.0  # share of another utterance and of its label

    @property
    def augmented(self) -> bool:
        return any(getattr(self, name) for name in AUGMENTATIONS)


@dataclass
class Scores:
    """What each network said of its test utterances after an epoch of its own."""

    epoch: Tensor  # (S,), from 1
    logits: Tensor  # (S, U, K); U the most test utterances of a network, others are padded
    fused: Tensor  # (S, U, C)


@dataclass
class State:
    """Everything that an epoch changes; a checkpoint is exactly this. Changed in place alone."""

    network: TIMNet
    moments: tuple[Tensor, Tensor]  # first and second, (S, weights)
    steps: Tensor  # (S,) updates so far
    last: Scores
    best: Scores  # of the epoch that was best on the validation part; without one ON THE TEST FOLD
    best_accuracy: Tensor  # (S,)
    history: list[np.ndarray] = field(default_factory=list)  # an epoch: (S, 4) as in HISTORY

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)


@dataclass
class _Material:
    """What an epoch reads, and where it leaves its figures; all on the device."""

    frames: Tensor  # (T, utterances, C): a batch is then (T, B, C) by one gather
    sounding: Tensor | None  # (T, utterances) bool, where each network has statistics of its own:
    statistics: tuple[Tensor, Tensor] | None  # mean and deviation, (S, C)
    targets: Tensor  # (utterances,)
    weights: Tensor | None  # (S, K) of an utterance of each class
    tested: Tensor  # (S, U) utterances: test part, validation part, padded with the first
    counted: Tensor  # (S, U) bool: the test part
    chosen_by: Tensor  # (S, U) bool: the validation part, the test part where there is none
    by_speaker: list[_TestedSpeakers]  # none where networks are tested by running statistics
    total_steps: Tensor  # (S,) of the whole training
    seeds: Tensor  # (S,) of dropout
    order: Tensor  # (S, longest training part), filled before an epoch
    losses: Tensor  # (S, steps) sum over the batch
    hits: Tensor  # (S,) over the epoch
    figures: Tensor  # (S, 2) test loss and accuracy


@dataclass
class _TestedSpeakers:
    """A speaker each of some networks, all of whose recordings give batch norm's statistics."""

    rows: slice  # the networks
    all: Tensor  # (S', N) every utterance of the speaker
    tested: Tensor  # (S', M) places in `tested` of those that the network tests


def train_stack(
    features: np.ndarray,
    labels: np.ndarray,
    splits: list[Split],
    classes: int,
    settings: TrainSettings,
    device: str = "cpu",
    checkpoint: Callable[[State], None] | None = None,
    resume: Callable[[State], None] | None = None,
    speakers: np.ndarray | None = None,
) -> State:
    """Train one network a split, all together, to the last epoch.

    Args:
        features: (utterances, T, C) float32; by speaker or utterance already normalised.
        labels: (utterances,) label indices below `classes`.
        checkpoint: called with the state after every epoch; may raise to stop.
        resume: called once with the fresh state, may fill it from a checkpoint.
        speakers: (utterances,) numbers of who speaks, for settings.by_speaker.

    Returns:
        The final state: weights, history, predictions of the last epoch and of the one that was
        best on the validation part, or, where a split has none, on the test fold.

    Raises:
        TrainingError: a loss that is not finite, with fold, seed, epoch and step.
    """
    # what follows fills what it allocates; with deterministic algorithms torch would do so before
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    state = fresh_state(splits, classes, features.shape[2], settings, device)
    if resume:
        resume(state)
    who = speakers if settings.by_speaker else None
    material = _material(features, labels, splits, settings, state, who)
    sizes = np.array(_sizes(splits, settings.batch_size, who))
    batches = list(_batches(sizes.tolist(), settings.batch_size))

    def epoch() -> None:
        _train_epoch(state, material, batches, settings)
        _test_epoch(state, material, settings)

    run = epoch
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"
        state.network.build_kernels(PRECISIONS[settings.precision])
        run = _captured(epoch)
    while state.epoch < settings.epochs:
        number = state.epoch + 1
        for row, split in enumerate(splits):
            order = _order(split, number, settings.batch_size, who)
            material.order[row, : len(order)].copy_(torch.from_numpy(order))
        run()
        losses = material.losses.cpu()
        if not torch.isfinite(losses).all():
            raise _not_finite(splits, losses, number)
        trained = torch.stack((losses.double().sum(1), material.hits.cpu().double()), 1).numpy()
        figures = np.hstack((trained / sizes[:, None], material.figures.cpu().numpy()))
        state.history.append(figures.astype(np.float32))
        if checkpoint:
            checkpoint(state)
    return state


def _sizes(splits: list[Split], batch: int, speakers: np.ndarray | None) -> list[int]:
    """Utterances of an epoch of each network."""
    return [len(_order(split, 0, batch, speakers)) for split in splits]


def _order(split: Split, epoch: int, batch: int, speakers: np.ndarray | None) -> np.ndarray:
    """The utterances of an epoch in their order.

    With speakers in whole batches of one speaker each, whose last is filled with the speaker's
    first ones again.
    """
    rng = np.random.default_rng((split.seed, split.fold, epoch))
    order = rng.permutation(split.train)
    if speakers is None:
        return order
    batches: list[np.ndarray] = []
    for speaker in np.unique(speakers[order]):
        own = order[speakers[order] == speaker]
        number = -(-len(own) // batch)
        batches += np.array_split(np.resize(own, number * batch), number)
    return np.concatenate([batches[place] for place in rng.permutation(len(batches))])


def _tested_speakers(
    splits: list[Split], tested: np.ndarray, speakers: np.ndarray, device: torch.device
) -> list[_TestedSpeakers]:
    """Whom the networks test, neighbours together that have as many utterances of theirs."""
    own = [list(dict.fromkeys(speakers[split.tested].tolist())) for split in splits]
    result = []
    for place in range(max(map(len, own))):
        jobs = []
        for row, split in enumerate(splits):
            if place < len(own[row]):
                speaker = own[row][place]
                every = np.flatnonzero(speakers == speaker)
                at = np.flatnonzero(speakers[tested[row, : len(split.tested)]] == speaker)
                jobs.append((row, every, at))
        groups = itertools.groupby(
            enumerate(jobs), lambda job: (job[1][0] - job[0], len(job[1][1]), len(job[1][2]))
        )
        for _, group in groups:
            rows, everyone, places = zip(*(job for _, job in group), strict=True)
            result.append(
                _TestedSpeakers(
                    slice(rows[0], rows[-1] + 1),
                    torch.from_numpy(np.stack(everyone)).to(device),
                    torch.from_numpy(np.stack(places)).to(device),
                )
            )
    return result


def fresh_state(
    splits: list[Split], classes: int, channels: int, settings: TrainSettings, device: str
) -> State:
    """The state before the first epoch, with drawn weights."""
    network = TIMNet(
        len(splits),
        classes,
        settings.tabs,
        channels,
        settings.variant,
        settings.compiled,
        settings.standardised,
    )
    for row, split in enumerate(splits):
        network.initialise(row, torch.Generator().manual_seed(_stream(split, "weights")))
    network.to(device)
    s, tested = len(splits), max(len(split.tested) for split in splits)
    weights = sum(value[0].numel() for value in _trained(network))

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(s, *shape, dtype=dtype, device=device)

    def scores() -> Scores:
        return Scores(
            zeros(dtype=torch.int64), zeros(tested, classes), zeros(tested, network.width)
        )

    return State(
        network,
        (zeros(weights), zeros(weights)),
        zeros(dtype=torch.int64),
        scores(),
        scores(),
        zeros() - 1,
    )


def _stream(split: Split, purpose: str) -> int:
    """Seed of a random stream, one per fold and seed, whatever the stack."""
    words = np.random.SeedSequence((split.seed, split.fold)).generate_state(2, np.uint64)
    return int(words[("weights", "dropout").index(purpose)] >> 1)


def _material(
    features: np.ndarray,
    labels: np.ndarray,
    splits: list[Split],
    settings: TrainSettings,
    state: State,
    speakers: np.ndarray | None,
) -> _Material:
    classes = state.network.classes
    device, s, width = state.steps.device, len(splits), state.network.width
    frames = torch.from_numpy(features).transpose(0, 1)
    sounding, statistics = None, None
    if settings.normalise == "corpus":  # of its own training part, so each network has others
        sound = normalise.sounding_frames(features)
        each = [normalise.statistics(features[s.train], sound[s.train]) for s in splits]
        means, deviations = (torch.from_numpy(np.stack(part)) for part in zip(*each, strict=True))
        sounding = torch.from_numpy(sound.T.copy()).to(device)
        statistics = (
            pad_channels(means, width).to(device),
            (pad_channels(deviations - 1, width) + 1).to(device),
        )
    else:
        frames = frames.to(device, PRECISIONS[settings.precision])
    tested = np.zeros(state.last.logits.shape[:2], np.int64)
    counted, chosen_by = np.zeros(tested.shape, bool), np.zeros(tested.shape, bool)
    for row, split in enumerate(splits):
        tested[row, : len(split.tested)] = split.tested
        counted[row, : len(split.test)] = True
        first = len(split.test) if len(split.validation) else 0
        chosen_by[row, first : len(split.tested)] = True
    weights = None
    if settings.balance:
        counts = np.stack([np.bincount(labels[s.train], minlength=classes) for s in splits])
        shares = counts.sum(1, keepdims=True) / np.maximum((counts > 0).sum(1, keepdims=True), 1)
        weights = torch.from_numpy((shares / np.maximum(counts, 1)).astype(np.float32)).to(device)
    sizes = _sizes(splits, settings.batch_size, speakers)
    longest = max(sizes)
    steps = [settings.epochs * -(-size // settings.batch_size) for size in sizes]
    by_speaker = [] if speakers is None else _tested_speakers(splits, tested, speakers, device)
    return _Material(
        pad_channels(frames, width).contiguous().to(device),
        sounding,
        statistics,
        torch.from_numpy(labels).to(device, torch.int64),
        weights,
        torch.from_numpy(tested).to(device),
        torch.from_numpy(counted).to(device),
        torch.from_numpy(chosen_by).to(device),
        by_speaker,
        torch.tensor(steps, device=device),
        torch.tensor([_stream(split, "dropout") for split in splits], device=device),
        torch.zeros(s, longest, dtype=torch.int64, device=device),
        torch.zeros(s, -(-longest // settings.batch_size), device=device),
        torch.zeros(s, device=device),
        torch.zeros(s, 2, device=device),
    )


def _captured(epoch: Callable[[], None]) -> Callable[[], None]:
    """`epoch` as one CUDA graph: run as it is the first time, captured the second, replayed."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    calls = itertools.count()

    def run() -> None:
        match next(calls):
            case 0:  # on a stream of its own, as torch asks of what is captured later
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    epoch()
                torch.cuda.current_stream().wait_stream(stream)
                return
            case 1:
                with torch.cuda.graph(graph):
                    epoch()
        graph.replay()

    return run


def _train_epoch(
    state: State,
    material: _Material,
    batches: list[tuple[int, slice, slice]],
    settings: TrainSettings,
) -> None:
    network = state.network
    material.losses.zero_()
    material.hits.zero_()
    for step, rows, columns in batches:
        index = material.order[rows, columns]
        shape = (network.tabs, 2, network.variant.directions, index.shape[1], network.width)
        draws = material.seeds[rows], state.steps[rows]
        masks = streams.dropout(*draws, shape, settings.dropout)
        frames, share = _gather(material, index, rows, settings), None
        if settings.augmented:
            frames, share = augment(frames, *draws, settings, network.channels)
        logits, _ = network(frames, masks, rows, settings.batch_norm_momentum)
        targets = material.targets[index]
        losses, hits = _loss(logits, targets, settings.label_smoothing)
        if material.weights is not None:
            losses = losses * material.weights[rows].gather(1, targets)
        if share is not None:
            losses = _mixed(losses, logits, material, targets, rows, share, settings)
        network.zero_grad(set_to_none=True)
        losses.mean(1).sum().backward()
        _adam(state, material, rows, settings)
        material.losses[rows, step] = losses.detach().sum(1)
        material.hits[rows] += hits.sum(1)


def _batches(sizes: list[int], batch: int) -> Iterator[tuple[int, slice, slice]]:
    """Batches of an epoch: (step, networks that take part, places in their order).

    The last batch of an epoch is ragged and folds differ in size; neighbours whose batches are
    equally long go together, so that no batch is padded and batch norm needs no weights.
    """
    for step in range(-(-max(sizes) // batch)):
        start, first = step * batch, 0
        ends = [min(start + batch, size) for size in sizes]
        for end, group in itertools.groupby(ends):
            rows = slice(first, first + len(list(group)))
            first = rows.stop
            if end > start:
                yield step, rows, slice(start, end)


def _gather(material: _Material, index: Tensor, rows: slice, settings: TrainSettings) -> Tensor:
    """Frames of a batch: index (S', B) -> (S', T, B, C)"""
    frames = torch.stack([material.frames.index_select(1, row) for row in index])
    if material.statistics is None or material.sounding is None:
        return frames
    mean, deviation = (values[rows, None, None] for values in material.statistics)
    sounding = torch.stack([material.sounding.index_select(1, row) for row in index])
    normal = torch.where(sounding[..., None], (frames - mean) / deviation, 0.0)
    return normal.to(PRECISIONS[settings.precision])


def _loss(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross entropy and whether the utterance was recognised, (S', B) each."""
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing
    )
    return losses.view(targets.shape), logits.argmax(2) == targets


def _mixed(
    losses: Tensor,
    logits: Tensor,
    material: _Material,
    targets: Tensor,
    rows: slice,
    share: Tensor,
    settings: TrainSettings,
) -> Tensor:
    """Under mixup: `losses` against an utterance's label, and those against its partner's."""
    partners = targets.flip(1)
    others, _ = _loss(logits, partners, settings.label_smoothing)
    if material.weights is not None:
        others = others * material.weights[rows].gather(1, partners)
    return losses * (1 - share) + others * share


def _schedule(progress: Tensor, schedule: str) -> Tensor:
    """Factor of the learning rate at a share of all steps, (S',) from 0 to 1."""
    if schedule == "constant":
        return torch.ones_like(progress)
    if schedule == "cosine":
        return (1 + torch.cos(math.pi * progress)) / 2
    rising = 0.04 + 0.96 * progress / WARM_UP
    falling = (1 + torch.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
    return torch.where(progress < WARM_UP, rising, falling)


def _trained(network: TIMNet) -> list[Tensor]:
    """The weights that gradients reach: a convolution's bias before batch norm is left out."""
    return [value for name, value in network.named_parameters() if name != "bias"]


@torch.no_grad()
def _adam(state: State, material: _Material, rows: slice, settings: TrainSettings) -> None:
    """One step of Adam for the networks in `rows`, with Keras' place for epsilon."""
    state.steps[rows] += 1
    steps = state.steps[rows].double()
    rate = settings.learning_rate * (1 - settings.beta2**steps).sqrt() / (1 - settings.beta1**steps)
    factor = _schedule((steps - 1) / material.total_steps[rows], settings.schedule)
    rate = rate * factor
    weights = [(value, value.grad) for value in _trained(state.network)]
    gradient = torch.cat([grad[rows].flatten(1) for _, grad in weights if grad is not None], 1)
    first, second = (moment[rows] for moment in state.moments)
    first.lerp_(gradient, 1 - settings.beta1)
    second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
    change = rate.float()[:, None] * first / (second.sqrt() + settings.epsilon)
    if settings.weight_decay:
        decay = (settings.learning_rate * settings.weight_decay * factor).float()
        network = state.network
        for kernel in (network.input_kernel, network.kernel, network.dense_kernel):
            kernel[rows] *= 1 - decay.view(-1, *[1] * (kernel.ndim - 1))
    sizes = [value[0].numel() for value, _ in weights]
    for (value, _), part in zip(weights, change.split(sizes, 1), strict=True):
        value[rows] -= part.view_as(value[rows])


@torch.no_grad()
def _test_epoch(state: State, material: _Material, settings: TrainSettings) -> None:
    """Each network on its own test utterances; what was better than before is kept."""
    last, best = state.last, state.best
    if material.by_speaker:
        _test_by_speaker(state, material, settings)
    else:
        batch = settings.batch_size
        for start in range(0, material.tested.shape[1], batch):
            part = slice(start, start + batch)
            frames = _gather(material, material.tested[:, part], slice(None), settings)
            last.logits[:, part], last.fused[:, part] = state.network(frames)
    last.epoch += 1
    losses, hits = _loss(last.logits, material.targets[material.tested], 0.0)
    number = material.counted.sum(1)
    loss = torch.where(material.counted, losses, 0.0).sum(1) / number
    material.figures.copy_(torch.stack((loss, _accuracy(hits, material.counted)), 1))
    accuracy = _accuracy(hits, material.chosen_by)
    better = accuracy > state.best_accuracy  # the first of equals is kept
    state.best_accuracy.copy_(torch.where(better, accuracy, state.best_accuracy))
    best.epoch.copy_(torch.where(better, last.epoch, best.epoch))
    best.logits.copy_(torch.where(better[:, None, None], last.logits, best.logits))
    best.fused.copy_(torch.where(better[:, None, None], last.fused, best.fused))


def _test_by_speaker(state: State, material: _Material, settings: TrainSettings) -> None:
    """Each speaker by the statistics of their own recordings; running ones stay what they were."""
    network = state.network
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    for who in material.by_speaker:
        network.adapt(_gather(material, who.all, who.rows, settings), who.rows)
        index = material.tested[who.rows].gather(1, who.tested)
        frames = _gather(material, index, who.rows, settings)
        both = network(frames, rows=who.rows)
        for scores, found in zip((state.last.logits, state.last.fused), both, strict=True):
            place = who.tested[..., None].expand(-1, -1, found.shape[2])
            scores[who.rows].scatter_(1, place, found)
    for buffer, value in before:
        buffer.copy_(value)


def _accuracy(hits: Tensor, of: Tensor) -> Tensor:
    """Share of the utterances `of` (S, U) each network that were recognised, (S,).

    32 bits, as the history keeps it, so that equals are equal.
    """
    return ((hits & of).sum(1) / of.sum(1).double()).float()


def _not_finite(splits: list[Split], losses: Tensor, epoch: int) -> TrainingError:
    """About the first step whose loss is not finite; losses (S, steps)."""
    step, row = (~torch.isfinite(losses)).T.nonzero()[0].tolist()
    return TrainingError(
        f"fold {splits[row].fold}, seed {splits[row].seed}: the loss is not finite at epoch "
        f"{epoch}, step {step + 1}. Lower the recipe's learning_rate, or look for recordings with "
        "extreme values."
    )


def save_state(state: State, path: Path, fingerprint: str) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "fingerprint": fingerprint,
        "tensors": _tensors(state),
        "history": [torch.from_numpy(epoch) for epoch in state.history],
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
            f"{path}: this checkpoint was made with other parameters, data or code. Delete it to "
            "train from the start."
        )
    for name, tensor in _tensors(state).items():
        tensor.copy_(saved["tensors"][name])
    state.history = [epoch.cpu().numpy() for epoch in saved["history"]]


def _tensors(state: State) -> dict[str, Tensor]:
    """All tensors of a state, by name; the state's own, not copies."""
    named = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    named |= {"moments.0": state.moments[0], "moments.1": state.moments[1], "steps": state.steps}
    for kind, scores in (("last", state.last), ("best", state.best)):
        named |= {f"{kind}.{name}": value for name, value in vars(scores).items()}
    return named | {"best_accuracy": state.best_accuracy}
