"""Fold-epochs a second: our training beside the loop that one would write instead.

    python benchmarks/training.py [--epochs 4] [--rounds 3]
    python benchmarks/training.py --profile
    python benchmarks/training.py --device cuda [--epochs 500]

Arrays of EMOVO's shape (588 utterances, 188 frames, 39 coefficients, 7 emotions, 10 folds), since
speed does not depend on what they hold. An epoch trains a fold and tests it.

On the CPU, all on the cores that there are:

    plain       one fold: PyTorch's own layers (timnet/training/definition.py), torch.optim.Adam,
                batches of 64, all cores on one product
    timnet      the project's: a network per process, a core each

On a GPU `plain` trains one fold likewise and `timnet` all ten in one stack. First calls, which
compile and are paid once per run, are left out of the rates and shown apart.

`--profile` says where a core's time goes in a training step of one network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F

from timnet.dataset.folds import random_folds
from timnet.processes import worker_environment
from timnet.training.definition import PlainTIMNet
from timnet.training.network import TIMNet
from timnet.training.splits import Split
from timnet.training.stack import State, TrainSettings, train_stack

UTTERANCES, FRAMES, CHANNELS, CLASSES, FOLDS, BATCH = 588, 188, 39, 7, 10, 64
PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}


def material() -> tuple[np.ndarray, np.ndarray, list[Split]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, UTTERANCES)
    features = rng.normal(labels[:, None, None], 5, (UTTERANCES, FRAMES, CHANNELS))
    of = random_folds(UTTERANCES, FOLDS, 1)
    splits = [
        Split(1, fold, 0, np.flatnonzero(of != fold), np.flatnonzero(of == fold))
        for fold in range(FOLDS)
    ]
    return features.astype(np.float32), labels, splits


def plain(device: str, epochs: int) -> list[float]:
    """Moments at which an epoch of one fold ended, the first after what is paid once."""
    features, labels, (split, *_) = material()
    x = torch.from_numpy(features).transpose(1, 2).contiguous().to(device)
    y = torch.from_numpy(labels).to(device)
    network = PlainTIMNet(CLASSES).to(device)
    adam = torch.optim.Adam(network.parameters(), 1e-3, (0.93, 0.98))
    ended = []
    for _ in range(epochs + 1):
        network.train()
        for index in torch.from_numpy(np.random.permutation(split.train)).to(device).split(BATCH):
            loss = F.cross_entropy(network(x[index]), y[index], label_smoothing=0.1)
            adam.zero_grad()
            loss.backward()
            adam.step()
        network.eval()
        with torch.no_grad():
            test = torch.from_numpy(split.test).to(device)
            (network(x[test]).argmax(1) == y[test]).float().mean().item()
        ended.append(time.perf_counter())
    return ended


def timnet(folds: list[int], precision: str, device: str, epochs: int) -> list[float]:
    """The same of a stack of folds; on the CPU called in a process of its own."""
    if device == "cpu":
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    features, labels, splits = material()
    ended = []

    def note(_: State) -> None:
        ended.append(time.perf_counter())

    # a GPU runs its second epoch to capture it
    warm = 1 if device == "cpu" else 2
    settings = TrainSettings(epochs=epochs + warm, precision=precision)
    chosen = [splits[fold] for fold in folds]
    train_stack(features, labels, chosen, CLASSES, settings, device, checkpoint=note)
    return ended[warm - 1 :]


def rate(ended: list[float], folds: int) -> float:
    """Fold-epochs a second."""
    return folds * (len(ended) - 1) / (ended[-1] - ended[0])


def on_cpu(epochs: int, rounds: int) -> None:
    from timnet.cli.common import workers  # needs more than a bare GPU machine has

    cores = workers()
    torch.set_num_threads(cores)
    rates: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    for _ in range(rounds):
        start = time.perf_counter()
        ended = plain("cpu", epochs)
        rates.setdefault("plain, fp32", []).append(rate(ended, 1))
        first.setdefault("plain, fp32", ended[0] - start)
        for precision in ("fp32", "bf16"):
            name = f"timnet, {precision}"
            start = time.perf_counter()
            with (
                worker_environment(),
                ProcessPoolExecutor(cores, get_context("spawn")) as pool,
            ):
                futures = [
                    pool.submit(timnet, [fold], precision, "cpu", epochs) for fold in range(cores)
                ]
                parts = [future.result() for future in futures]
            rates.setdefault(name, []).append(sum(rate(ended, 1) for ended in parts))
            first.setdefault(name, max(ended[0] for ended in parts) - start)
    show(f"{cores} cores", rates, first)


def on_gpu(epochs: int) -> None:
    rates, first = {}, {}
    for name, call, folds in (
        ("plain, fp32", lambda: plain("cuda", min(epochs, 20)), 1),
        ("timnet, fp32", lambda: timnet(list(range(FOLDS)), "fp32", "cuda", epochs), FOLDS),
        ("timnet, bf16", lambda: timnet(list(range(FOLDS)), "bf16", "cuda", epochs), FOLDS),
    ):
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with worker_environment():
            ended = call()
        rates[name], first[name] = [rate(ended, folds)], ended[0] - start
        memory = torch.cuda.max_memory_allocated() / 2**20
        print(f"{name}: {ended[-1] - ended[0]:.1f} s, peak memory {memory:.0f} MB", flush=True)
    show(torch.cuda.get_device_name(), rates, first)


def profile(steps: int = 10) -> None:
    """Seconds of a step of one network on one core by kind of work, as a table."""
    torch.set_num_threads(1)
    print("| a step on one core | products, ms | passes, ms | the rest, ms | products, GFLOP/s |")
    print("| :-- | --: | --: | --: | --: |")
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = TIMNet(1, CLASSES, compiled=True)
        network.initialise(0, torch.Generator().manual_seed(0))
        x = torch.randn(1, FRAMES, BATCH, network.width).to(kind)
        masks = torch.ones(1, network.tabs, 2, 2, BATCH, network.width)
        target = torch.zeros(BATCH, dtype=torch.long)

        def step(network=network, x=x, masks=masks, target=target) -> None:
            logits, _ = network(x, masks)
            F.cross_entropy(logits[0], target).backward()
            network.zero_grad()

        for _ in range(3):
            step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            for _ in range(steps):
                step()
        spent = {"products": 0.0, "passes": 0.0, "rest": 0.0}
        for event in found.key_averages():
            of = "passes" if "CompiledFxGraph" in event.key else "rest"
            spent["products" if event.key in PRODUCTS else of] += event.self_cpu_time_total / 1e3
        products, passes, rest = (value / steps for value in spent.values())
        convolutions = network.tabs * 2 * 2  # of two taps, in two directions
        # one product forward and two backward, each of a multiplication and an addition
        flop = convolutions * 2 * 3 * 2 * FRAMES * BATCH * network.width**2
        rate = flop / products / 1e6
        print(
            f"| {precision} | {products:.0f} | {passes:.0f} | {rest:.0f} | {rate:.0f} |", flush=True
        )


def show(place: str, rates: dict[str, list[float]], first: dict[str, float]) -> None:
    base = statistics.median(rates["plain, fp32"])
    print(f"| on {place} | fold-epochs a second | ratio | first epoch, s |")
    print("| :-- | --: | --: | --: |")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {middle / base:.2f} | {first[name]:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--epochs", type=int, help="timed; default 4 on the CPU, 500 on a GPU")
    parser.add_argument("--rounds", type=int, default=3, help="on the CPU (3); the median is shown")
    parser.add_argument("--profile", action="store_true", help="where a step's time goes")
    given = parser.parse_args()
    if given.profile:
        profile()
        sys.exit()
    if given.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("training: torch finds no GPU here.")
        on_gpu(given.epochs or 500)
    else:
        on_cpu(given.epochs or 4, given.rounds)
