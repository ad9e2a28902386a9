"""MFCC of a corpus, exactly as the paper's code made them, cached as Parquet.

Signal and settings: `docs/features.md` says where each comes from and what it is worth.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from timnet import schemas
from timnet.errors import ArtifactError, AudioError, ParameterError, listing
from timnet.resample import resample

SAMPLE_RATE = 22050
COEFFICIENTS = 39
HOP = 512  # samples between frames
EXACT_RESAMPLER = "kaiser_best_0_2_2"
SOXR_RESAMPLERS = ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq")
LIBRARIES = ("librosa", "numpy", "scipy", "soundfile", "soxr")  # those that touch the numbers
FINGERPRINT = b"timnet"  # key of the schema's metadata


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


def mfcc(signal: np.ndarray, rate: int, settings: FeatureSettings) -> np.ndarray:
    """MFCC of one recording.

    Args:
        signal: (samples,) or (samples, channels) float32.
        rate: its samples a second.

    Returns:
        (frames, coefficients) float32, `librosa.feature.mfcc` with the defaults of 2022.
    """
    import librosa

    mono = signal if signal.ndim == 1 else signal.mean(axis=1)
    if settings.resampler == EXACT_RESAMPLER:
        mono = resample(mono, rate, settings.sample_rate)
    else:
        mono = librosa.resample(
            mono, orig_sr=rate, target_sr=settings.sample_rate, res_type=settings.resampler
        )
    mono = centre(mono, settings.signal_length)
    mel = librosa.feature.melspectrogram(
        y=mono, sr=settings.sample_rate, hop_length=settings.hop, pad_mode="reflect"
    )
    coefficients = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=settings.coefficients)
    return np.ascontiguousarray(coefficients.T, np.float32)


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
        "settings": asdict(settings),
        "frames": settings.frames,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "source": content.hexdigest(),
    }


def extract(
    manifest: pa.Table,
    folder: Path,
    settings: FeatureSettings,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> pa.Table:
    """Features of all utterances of a manifest.

    Args:
        manifest: table of `schemas.MANIFEST`.
        folder: the corpus' recordings.
        workers: processes.
        progress: called with the number of utterances done since the last call.

    Returns:
        Table of `schemas.features`, its rows in the manifest's order, the fingerprint in the
        schema's metadata.

    Raises:
        AudioError: recordings that cannot be read or hold no usable signal; all are named.
    """
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    paths = [folder / path for path in manifest["path"].to_pylist()]
    rows: list[np.ndarray | str] = []
    with ProcessPoolExecutor(workers, get_context("spawn"), _single_threaded) as pool:
        for row in pool.map(partial(_of_file, settings=settings), paths, chunksize=8):
            rows.append(row)
            if progress:
                progress(1)
    broken = [
        f"{path.relative_to(folder).as_posix()} ({row})"
        for path, row in zip(paths, rows, strict=True)
        if isinstance(row, str)
    ]
    if broken:
        raise AudioError(
            f"{folder}: {len(broken)} of {len(rows)} recordings give no features: "
            f"{listing(broken, 20)}. Restore them from the original archive."
        )
    size = settings.frames * settings.coefficients
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(rows).ravel()), size)
    metadata = {FINGERPRINT: json.dumps(fingerprint(manifest, settings), sort_keys=True)}
    return pa.table(
        [
            manifest["utterance"],
            manifest["speaker"],
            manifest["emotion"],
            pa.array(np.full(len(paths), settings.frames, np.int32)),
            values,
        ],
        schema=schemas.features(size).with_metadata(metadata),
    )


def _single_threaded() -> None:
    """Set up a worker: one core a process, and Ctrl-C is the parent's business."""
    import signal

    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _of_file(path: Path, settings: FeatureSettings) -> np.ndarray | str:
    """Features of a recording, (frames, coefficients), or in words why there are none."""
    import soundfile

    try:
        signal, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        return str(error)
    if not len(signal):
        return "no samples"
    if not np.isfinite(signal).all():
        return "samples that are not finite numbers"
    return mfcc(signal, rate, settings)


def write(table: pa.Table, path: Path) -> None:
    schemas.write(
        table,
        path,
        schemas.features(table["mfcc"].type.list_size),
        use_dictionary=False,
        use_byte_stream_split=["mfcc.list.element"],
    )


def read(path: Path) -> tuple[pa.Table, dict]:
    """Features and their fingerprint.

    Raises:
        ArtifactError: not a features file.
    """
    table = schemas.read(path)
    stored = (table.schema.metadata or {}).get(FINGERPRINT)
    if stored is None:
        raise ArtifactError(f"{path}: no fingerprint, so not a features file of this project.")
    record = json.loads(stored)
    expected = schemas.features(record["frames"] * record["settings"]["coefficients"])
    schemas.check(table.schema, expected, path)
    return table, record


def array(table: pa.Table) -> np.ndarray:
    """The MFCC of a features table, (utterances, frames, coefficients) float32, writable."""
    flat = table["mfcc"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), table["frames"][0].as_py(), -1).copy()
