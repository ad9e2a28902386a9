"""Everything that a GPU can tell, in one call, on a machine with torch, numpy and pyarrow alone.

    python benchmarks/gpu.py tests speed stacks --features build/features --out out
    python benchmarks/gpu.py runs --plan build/gpu/plan.json --out out --seconds 400

    tests     those that need a GPU
    speed     EMOVO's ten folds: the plain loop, then fp32, tf32 and bf16: fold-epochs per second,
              joules, peak memory, and whether a second run gives the same bits
    stacks    fold-epochs per second of 10 to 200 networks at once
    screen    recipes of a plan on EMOVO: UAR of each on unseen speakers, or on folds of a file
    runs      the runs of a plan, each written as `timnet train` writes it, into pieces of a tar

Each result is printed and kept in OUT/results.jsonl as soon as it is there. `--epochs 2 --device
cpu` rehearses the same on a CPU.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from timnet import schemas  # noqa: E402
from timnet.dataset import features as feature_files  # noqa: E402
from timnet.dataset import normalise  # noqa: E402
from timnet.processes import worker_environment  # noqa: E402
from timnet.training import outcome, train  # noqa: E402
from timnet.training.definition import PlainTIMNet  # noqa: E402
from timnet.training.splits import Split, of_folds  # noqa: E402
from timnet.training.stack import State, TrainSettings, train_stack  # noqa: E402

PIECE_BYTES = 16_400_000  # of one file that comes back, at most
EMOVO = "emovo-96000.parquet"
PRECISIONS = ("bf16", "tf32", "fp32")


class Bench:
    """What all steps share: where features lie, where results go, how long there is."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.start = given, time.monotonic()
        self.device: str = given.device
        given.out.mkdir(parents=True, exist_ok=True)

    def keep(self, **found: Any) -> None:
        """Print a result and keep it."""
        line = json.dumps({"at": round(time.monotonic() - self.start, 1), **found})
        print(line, flush=True)
        with (self.given.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")

    def left(self) -> float:
        """Seconds that are left."""
        return self.given.seconds - (time.monotonic() - self.start)

    def emovo(self) -> tuple[np.ndarray, np.ndarray, pa.Table]:
        """Features, label indices, and what else EMOVO's file says of each utterance."""
        table = feature_files.read(self.given.features / EMOVO)[0]
        names = sorted(set(table["emotion"].to_pylist()))
        labels = np.array([names.index(name) for name in table["emotion"].to_pylist()])
        return schemas.mfcc(table), labels, table

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class Power(threading.Thread):
    """Joules that the GPU took, from its power ten times per second; None where unreadable."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.joules: float | None = 0.0
        self.going = True
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.watts: Callable[[], float] = lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            self.watts()
        except Exception:  # no such library or card: the number is left out
            self.joules, self.going = None, False

    def run(self) -> None:
        last = time.monotonic()
        while self.going and self.joules is not None:
            time.sleep(0.1)
            now = time.monotonic()
            self.joules += self.watts() * (now - last)
            last = now


def random_splits(utterances: int, networks: int = 10, folds: int = 10) -> list[Split]:
    """Splits of shuffled folds, over again with other seeds where there are more networks."""
    of = np.random.default_rng(1).permutation(utterances) % folds
    return [
        Split(
            1,
            n % folds,
            n // folds,
            np.flatnonzero(of != n % folds),
            np.flatnonzero(of == n % folds),
        )
        for n in range(networks)
    ]


def tests(bench: Bench) -> None:
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-k", "gpu or cuda", "-p", "no:cacheprovider"]
    files = [str(ROOT / "tests" / name) for name in ("test_stack.py", "test_gpu_kernels.py")]
    try:
        done = subprocess.run(
            [*command, *files],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=min(120, bench.left()),
        )
        said, code = done.stdout[-3000:] + done.stderr[-500:], done.returncode
    except subprocess.TimeoutExpired as error:
        said, code = str(error.stdout)[-3000:], -1
    (bench.given.out / "tests.txt").write_text(said)
    last = [line for line in said.splitlines() if line.strip()][-1:] or [""]
    bench.keep(step="tests", code=code, seconds=round(time.monotonic() - start, 1), said=last[0])


def plain_loop(mfcc: np.ndarray, labels: np.ndarray, device: str, epochs: int = 4) -> float:
    """Fold-epochs per second of one fold as one would train it first: layers, Adam, batches."""
    split = random_splits(len(labels))[0]
    x = torch.from_numpy(mfcc).transpose(1, 2).contiguous().to(device)
    y = torch.from_numpy(labels).to(device)
    test = torch.from_numpy(split.test).to(device)
    network = PlainTIMNet(len(set(labels.tolist()))).to(device)
    adam = torch.optim.Adam(network.parameters(), 1e-3, (0.93, 0.98))
    start = 0.0
    for epoch in range(epochs + 1):
        network.train()
        for index in torch.from_numpy(np.random.permutation(split.train)).to(device).split(64):
            loss = F.cross_entropy(network(x[index]), y[index], label_smoothing=0.1)
            adam.zero_grad()
            loss.backward()
            adam.step()
        network.eval()
        with torch.no_grad():
            (network(x[test]).argmax(1) == y[test]).float().mean().item()
        if epoch == 0:  # what is paid once is left out
            start = time.perf_counter()
    return epochs / (time.perf_counter() - start)


def speed(bench: Bench) -> None:
    mfcc, labels, _ = bench.emovo()
    rate = plain_loop(mfcc, labels, bench.device)
    bench.keep(step="speed", what="plain loop, fp32", fold_epochs_per_second=round(rate, 2))
    kept: dict[str, np.ndarray] = {}
    for precision in bench.given.precisions:
        settings = TrainSettings(epochs=bench.given.epochs, precision=precision)
        if bench.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        power, start = Power(), time.monotonic()
        moments: list[float] = []

        def note(_: State, moments: list[float] = moments) -> None:
            moments.append(time.monotonic())

        power.start()
        state = train_stack(
            mfcc, labels, random_splits(len(labels)), 7, settings, bench.device, note
        )
        bench.wait()
        seconds = time.monotonic() - start
        power.going = False
        steady = 10 * (len(moments) - 2) / (moments[-1] - moments[1]) if len(moments) > 2 else 0
        found: dict[str, Any] = {
            "what": precision,
            "epochs": settings.epochs,
            "seconds": round(seconds, 2),
            "first_epoch_s": round(moments[0] - start, 2),
            "fold_epochs_per_second": round(steady, 1),
            "loss": round(float(state.history[-1][:, 0].mean()), 5),
            "test_accuracy": round(float(state.history[-1][:, 3].mean()), 4),
        }
        if bench.device == "cuda":
            found["peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
            found["joules"] = power.joules and round(power.joules)
        bench.keep(step="speed", **found)
        kept |= {
            f"{precision}_last": state.last.logits.cpu().numpy(),
            f"{precision}_history": np.stack(state.history),
        }
        np.savez_compressed(bench.given.out / "speed.npz", allow_pickle=False, **kept)
        short = replace(settings, epochs=min(6, settings.epochs))
        two = [
            train_stack(mfcc, labels, random_splits(len(labels)), 7, short, bench.device)
            for _ in range(2)
        ]
        pairs = zip(*(state.network.parameters() for state in two), strict=True)
        same = all(torch.equal(one, other) for one, other in pairs)
        bench.keep(step="bits", what=precision, same_twice=same)


def profile(bench: Bench) -> None:
    """Microseconds of an epoch's kernels, the largest first."""
    mfcc, labels, _ = bench.emovo()
    splits = random_splits(len(labels))
    settings = TrainSettings(epochs=1, precision=bench.given.precisions[0])
    train_stack(mfcc, labels, splits, 7, settings, bench.device)
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, activity.CUDA]) as found:
        train_stack(mfcc, labels, splits, 7, settings, bench.device)
        bench.wait()
    rows = [
        (round(each.self_device_time_total), each.count, each.key[:70])
        for each in found.key_averages()
        if each.self_device_time_total > 0 and each.device_type != torch.autograd.DeviceType.CPU
    ]
    rows.sort(reverse=True)
    bench.keep(step="profile", microseconds=sum(row[0] for row in rows), kernels=rows[:24])


def stacks(bench: Bench) -> None:
    mfcc, labels, _ = bench.emovo()
    for networks in (10, 20, 50, 100, 200):
        if bench.left() < 30:
            return
        settings = TrainSettings(epochs=min(6, bench.given.epochs), precision="bf16")
        moments: list[float] = []

        def note(_: State, moments: list[float] = moments) -> None:
            moments.append(time.monotonic())

        train_stack(
            mfcc, labels, random_splits(len(labels), networks), 7, settings, bench.device, note
        )
        if len(moments) > 2:
            rate = networks * (len(moments) - 2) / (moments[-1] - moments[1])
            bench.keep(step="stacks", networks=networks, fold_epochs_per_second=round(rate, 1))
        if bench.device == "cuda":
            torch.cuda.empty_cache()


def screen(bench: Bench) -> None:
    """UAR on EMOVO of each recipe of the plan, last epoch, and on the way."""
    mfcc, labels, table = bench.emovo()
    speakers = table["speaker"].to_pylist()
    names = sorted(set(speakers))
    of = np.array([names.index(speaker) for speaker in speakers])
    plan = json.loads(bench.given.plan.read_text())
    normal = {
        "none": mfcc,
        "corpus": mfcc,
        "utterance": normalise.by_group(mfcc, range(len(mfcc))),
        "speaker": normalise.by_group(mfcc, speakers),
    }
    for entry in plan["screen"]:
        if bench.left() < plan.get("reserve", 5):
            return
        settings = TrainSettings(**{"epochs": 40, "precision": "bf16"} | entry["settings"])
        seeds = list(range(entry.get("seeds", 3)))
        if "folds" in entry:
            folds = pq.read_table(bench.given.plan.parent / entry["folds"])
            splits = of_folds(folds, table["utterance"].to_pylist(), seeds)
        else:
            splits = [
                Split(0, fold, seed, np.flatnonzero(of != fold), np.flatnonzero(of == fold))
                for seed in seeds
                for fold in range(len(names))
            ]
        every, start = max(1, settings.epochs // 4), time.monotonic()
        found: list[list[float]] = []

        def note(
            state: State, found: list = found, every: int = every, splits: list = splits
        ) -> None:
            if state.epoch % every == 0:
                found.append(uars(state, splits, labels))

        state = train_stack(
            normal[settings.normalise],
            labels,
            splits,
            7,
            settings,
            bench.device,
            note,
            speakers=of,
        )
        means = [round(float(np.mean(each)), 2) for each in found]
        spread = round(float(np.std(found[-1], ddof=1)), 2) if len(found[-1]) > 1 else None
        bench.keep(
            step="screen",
            name=entry["name"],
            uar=means,
            seeds_vote=round(voted(state, splits, labels), 2),
            train_loss=round(float(state.history[-1][:, 0].mean()), 3),
            seeds_sd=spread,
            seconds=round(time.monotonic() - start, 1),
        )


def voted(state: State, splits: list[Split], labels: np.ndarray) -> float:
    """UAR of the mean probability of all seeds, percent."""
    given = state.last.logits.softmax(2).cpu().numpy()
    total = np.zeros((len(labels), given.shape[2]))
    for row, split in enumerate(splits):
        total[split.test] += given[row, : len(split.test)]
    tested = np.unique(np.concatenate([split.test for split in splits]))
    hits, truth = total.argmax(1)[tested] == labels[tested], labels[tested]
    return 100 * float(np.mean([hits[truth == k].mean() for k in np.unique(truth)]))


def uars(state: State, splits: list[Split], labels: np.ndarray) -> list[float]:
    """UAR of each seed, pooled over its folds, percent."""
    said = state.last.logits.argmax(2).cpu().numpy()
    result = []
    for seed in dict.fromkeys(split.seed for split in splits):
        rows = [row for row, split in enumerate(splits) if split.seed == seed]
        truth = np.concatenate([labels[splits[row].test] for row in rows])
        told = np.concatenate([said[row, : len(splits[row].test)] for row in rows])
        recalls = [(told[truth == k] == k).mean() for k in np.unique(truth)]
        result.append(100 * float(np.mean(recalls)))
    return result


def runs(bench: Bench) -> None:
    plan = json.loads(bench.given.plan.read_text())
    for entry in plan["runs"]:
        target = bench.given.out.parent / "runs" / entry["name"]
        needed = [bench.given.features / name for name in entry["features"]]
        if bench.left() < entry.get("seconds", 20) or not all(path.exists() for path in needed):
            bench.keep(step="runs", name=entry["name"], skipped=True)
            continue
        start = time.monotonic()
        settings = TrainSettings(**entry["settings"])
        if bench.given.rehearse:
            settings = replace(settings, epochs=bench.given.epochs, compiled=False)
        folds = pq.read_table(bench.given.plan.parent / entry["folds"])
        work = train.Work(
            needed, folds, tuple(entry["labels"]), settings, entry["seeds"], entry["keep_best"]
        )
        try:
            done = train.train(
                work, bench.given.out.parent / "checkpoints" / entry["name"], bench.device
            )
        except Exception as error:  # the others go on
            bench.keep(
                step="runs", name=entry["name"], error=f"{type(error).__name__}: {error}"[:500]
            )
            continue
        record = entry["record"] | {
            "device": bench.device,
            "device_name": torch.cuda.get_device_name() if bench.device == "cuda" else "CPU",
            "versions": entry["record"]["versions"]
            | {
                "python": sys.version.split()[0],
                "numpy": np.__version__,
                "torch": torch.__version__,
            },
        }
        text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        outcome.write(done, target, text)
        history = done.history["test_accuracy"].to_numpy()
        networks = len(done.weights["fold"])
        size = sum(path.stat().st_size for path in target.iterdir())
        bench.keep(
            step="runs",
            name=entry["name"],
            networks=networks,
            seconds=round(time.monotonic() - start, 1),
            last_accuracy=round(float(history.reshape(networks, -1)[:, -1].mean()), 4),
            mb=round(size / 1e6, 1),
        )
        pack(target, bench.given.out)


def pack(folder: Path, out: Path) -> None:
    """Add a folder to one tar archive, which is cut into files: `cat runs-* | tar xi` unpacks."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, folder.name)
    given = memoryview(archive.getvalue())
    number = max(1, len(list(out.glob("runs-*"))))
    while given:
        with (out / f"runs-{number:02}").open("ab") as file:
            taken = file.write(given[: PIECE_BYTES - file.tell()])
        given, number = given[taken:], number + 1


STEPS = {each.__name__: each for each in (tests, speed, profile, stacks, screen, runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="+", choices=STEPS)
    parser.add_argument("--features", type=Path, default=Path("build/features"))
    parser.add_argument("--plan", type=Path, default=Path("build/gpu/plan.json"))
    parser.add_argument("--out", type=Path, default=Path("build/gpu/out"))
    parser.add_argument("--epochs", type=int, default=500, help="of the step speed")
    parser.add_argument("--seconds", type=float, default=480, help="for all steps together")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of speed, profile"
    )
    parser.add_argument("--rehearse", action="store_true", help="runs: with --epochs epochs")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu: torch finds no GPU here. `--device cpu --epochs 2 --rehearse` rehearses.")
    bench = Bench(given)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    bench.keep(step="machine", name=name, torch=torch.__version__, python=sys.version.split()[0])
    torch.use_deterministic_algorithms(True)
    failed = []
    with worker_environment():
        for step in given.steps:
            try:
                STEPS[step](bench)
            except Exception as error:  # the other steps go on
                bench.keep(step=step, error=f"{type(error).__name__}: {error}"[:800])
                failed.append(step)
    if failed:
        sys.exit(f"gpu: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
