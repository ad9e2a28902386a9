"""MFCC of a corpus, exactly as the paper's code made them, cached as Parquet.

Signal and settings: `docs/explanation/features.md` says where each comes from and what it is worth.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from timnet import schemas
from timnet.dataset import resample as resampling
from timnet.dataset.resample import resample
from timnet.errors import ArtifactError, AudioError, ParameterError, listing
from timnet.processes import end_with, worker_environment

SAMPLE_RATE = 22050
COEFFICIENTS = 39
HOP = 512  # samples between frames
FFT = 2048  # samples of a frame
TOP_DECIBELS = 80  # below the loudest, nothing is told apart
REVISION = 2  # of this code: to be raised when it changes a number
EXACT_RESAMPLER = "kaiser_best_0_2_2"
SOXR_RESAMPLERS = ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq")
LIBRARIES = ("librosa", "numpy", "scipy", "soundfile", "soxr")  # those that touch the numbers
FINGERPRINT = b"timnet"  # key of the schema's metadata
SHARD = 128  # utterances that a process computes at a time
# how the values of `mfcc` are stored smallest and fastest
PARQUET = {"use_dictionary": False, "use_byte_stream_split": ["mfcc.list.element"]}


@dataclass(frozen=True)
class FeatureSettings:
    """Everything that decides what the features of a recording are."""

    signal_length: int  # samples at SAMPLE_RATE after padding or cropping
    resampler: str = EXACT_RESAMPLER
    sample_rate: int = SAMPLE_RATE
    coefficients: int = COEFFICIENTS
    hop: int = HOP

    def __post_init__(self) -> None:
        if self.resampler not in (EXACT_RESAMPLER, *SOXR_RESAMPLERS):
            raise ParameterError(
                f"resampler {self.resampler!r} is not known; "
                f"choose one of {', '.join((EXACT_RESAMPLER, *SOXR_RESAMPLERS))}."
            )

    @property
    def frames(self) -> int:
        return 1 + self.signal_length // self.hop


def mfcc(
    recording: np.ndarray, rate: int, settings: FeatureSettings, filters: np.ndarray | None = None
) -> np.ndarray:
    """MFCC of one recording: `librosa.feature.mfcc` with the defaults of 2022, five times as fast.

    Args:
        recording: (samples,) or (samples, channels) float32.
        rate: its samples per second.
        filters: `mel_filters()`, for a process that is not to import librosa.

    Returns:
        (frames, coefficients) float32, within 2e-4 of librosa's, where the values reach 1000 and
        both are rounded to 6e-5.
    """
    from scipy.fft import dct, rfft

    mono = mean_of_channels(recording)
    if settings.resampler == EXACT_RESAMPLER:
        mono = resample(mono, rate, settings.sample_rate)
    else:
        import soxr

        mono = soxr.resample(mono, rate, settings.sample_rate, quality=settings.resampler)
    padded = np.pad(centre(mono, settings.signal_length), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[:: settings.hop]
    spectrum = rfft(frames * _window(), axis=1)
    mel = (mel_filters() if filters is None else filters) @ (spectrum.real**2 + spectrum.imag**2).T
    decibels = 10 * np.log10(np.maximum(mel, np.float32(1e-10)))
    decibels = np.maximum(decibels, decibels.max() - TOP_DECIBELS)
    coefficients = dct(decibels, axis=0, norm="ortho")[: settings.coefficients]
    return np.ascontiguousarray(coefficients.T, np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """The 128 triangular filters on Slaney's mel scale, (128, 1 + FFT / 2) float32."""
    import librosa

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT)


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    """Hann, periodic, (FFT,) float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


def mean_of_channels(recording: np.ndarray) -> np.ndarray:
    """(samples,) or (samples, channels) to (samples,); numpy's mean, ten times as fast."""
    if recording.ndim == 1:
        return recording
    total = recording[:, 0].copy()
    for channel in range(1, recording.shape[1]):
        total += recording[:, channel]
    total /= recording.shape[1]
    return total


def centre(signal: np.ndarray, length: int) -> np.ndarray:
    """Zeros on both sides, or the middle, so that `length` samples remain.

    The odd sample goes to the right when padding.
    """
    missing = length - len(signal)
    if missing >= 0:
        return np.pad(signal, (missing // 2, missing - missing // 2))
    return signal[-missing // 2 :][:length]


def fingerprint(manifest: pa.Table, settings: FeatureSettings) -> dict:
    """What the features depend on: settings, library versions, content of the recordings."""
    content = hashlib.sha256()
    for utterance, sha256 in zip(
        manifest["utterance"].to_pylist(), manifest["sha256"].to_pylist(), strict=True
    ):
        content.update(f"{utterance} {sha256}\n".encode())
    return {
        "revision": REVISION,
        "settings": asdict(settings),
        "frames": settings.frames,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "source": content.hexdigest(),
    }


def extract(
    manifest: pa.Table,
    folder: Path,
    settings: FeatureSettings,
    target: Path,
    shards: Path,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the features of all utterances of a manifest, in its order, to `target`.

    A process computes SHARD utterances at a time and leaves them in a file of their own, so memory
    does not grow with the corpus. A run that was stopped goes on after the shards that are there;
    `target` appears at the end, whole, with the same bytes as after an undisturbed run.

    Args:
        manifest: table of `schemas.MANIFEST`.
        folder: the corpus' recordings.
        target: Parquet of `schemas.features`, the fingerprint in the schema's metadata.
        shards: folder for what is under way; removed at the end.
        workers: processes.
        progress: called with the number of utterances done since the last call.

    Raises:
        AudioError: recordings that cannot be read or hold no usable signal; all are named.
    """
    metadata = {FINGERPRINT: json.dumps(fingerprint(manifest, settings), sort_keys=True)}
    schema = schemas.features(settings.frames * settings.coefficients).with_metadata(metadata)
    identity = hashlib.sha256(metadata[FINGERPRINT].encode())
    for source in (__file__, resampling.__file__):  # while this code is being worked on
        identity.update(Path(source).read_bytes())
    shards = shards / identity.hexdigest()[:16]
    work = [
        (manifest.slice(first, SHARD), shards / f"{first:08}.parquet")
        for first in range(0, len(manifest), SHARD)
    ]
    compute = partial(_write_shard, folder, settings, schema, mel_filters())
    broken = _spread(compute, work, workers, folder, progress)
    if broken:
        raise AudioError(
            f"{folder}: {len(broken)} of {len(manifest)} recordings cannot be used: "
            f"{listing(sorted(broken), 20)}. Restore them from the original archive."
        )
    with schemas.writing(target, schema, **PARQUET) as writer:
        for _, shard in work:
            writer.write_table(pq.read_table(shard))
    shutil.rmtree(shards.parent)


def _spread(
    compute: Callable[[pa.Table, Path], list[str]],
    work: list[tuple[pa.Table, Path]],
    workers: int,
    folder: Path,
    progress: Callable[[int], None] | None,
) -> list[str]:
    """Compute the shards that are not there yet, in processes; what is wrong with recordings."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    broken: list[str] = []
    workers = min(workers, len(work))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), end_with, (os.getpid(),))
    try:
        futures = {}
        with worker_environment():
            for rows, shard in work:
                if not shard.exists():
                    futures[pool.submit(compute, rows, shard)] = rows
                elif progress:
                    progress(len(rows))
        for future in as_completed(futures):
            broken += future.result()
            if progress:
                progress(len(futures[future]))
    except BrokenProcessPool:
        raise AudioError(
            f"{folder}: a process that computes features died, possibly for lack of memory. "
            "Complete parts are kept: run the command again to continue, if necessary with fewer "
            "TIMNET_WORKERS."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return broken


def _write_shard(
    folder: Path,
    settings: FeatureSettings,
    schema: pa.Schema,
    filters: np.ndarray,
    rows: pa.Table,
    shard: Path,
) -> list[str]:
    """Features of some utterances to a file; no file if any of them is bad, but its reason."""
    paths = rows["path"].to_pylist()
    found: list[np.ndarray] = []
    broken: list[str] = []
    for path in paths:
        result = of_file(folder / path, settings, filters)
        if isinstance(result, str):
            broken.append(f"{path} ({result})")
        else:
            found.append(result.ravel())
    if broken:
        return broken
    values = pa.array(np.concatenate(found))
    columns = [rows[name].combine_chunks() for name in ("utterance", "speaker", "emotion")]
    columns.append(pa.array(np.full(len(rows), settings.frames, np.int32)))
    columns.append(pa.FixedSizeListArray.from_arrays(values, schema.field("mfcc").type.list_size))
    with schemas.writing(shard, schema, **PARQUET) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    return []


def of_file(path: Path, settings: FeatureSettings, filters: np.ndarray) -> np.ndarray | str:
    """Features of a recording, (frames, coefficients), or in words why there are none."""
    from timnet.dataset import audio

    try:
        with audio.opened(path) as recording:
            samples = recording.whole()
        audio.check_samples(samples)
    except AudioError as error:
        return str(error)
    return mfcc(samples, recording.sample_rate, settings, filters)


def read(path: Path, settings: FeatureSettings | None = None) -> tuple[pa.Table, dict]:
    """Features and their fingerprint.

    Raises:
        ArtifactError: not a features file, or one that was made with other settings than those
            given.
    """
    table = schemas.read(path)
    stored = (table.schema.metadata or {}).get(FINGERPRINT)
    if stored is None:
        raise ArtifactError(f"{path}: no fingerprint, so this is no features file of this project.")
    try:
        record = json.loads(stored)
        size = record["frames"] * record["settings"]["coefficients"]
        expected = schemas.features(size)
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        raise ArtifactError(
            f"{path}: invalid fingerprint. Delete the file and run `dvc repro`."
        ) from None
    schemas.check(table.schema, expected, path)
    if settings is not None and record["settings"] != asdict(settings):
        differ = [
            f"{name} is {record['settings'].get(name)!r}, wanted {value!r}"
            for name, value in asdict(settings).items()
            if record["settings"].get(name) != value
        ]
        raise ArtifactError(
            f"{path}: made with other settings: {'; '.join(differ)}. Run `dvc repro`."
        )
    return table, record
