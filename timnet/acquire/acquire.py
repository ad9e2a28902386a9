"""Bring a corpus to its place below `data/`: complete, checked, in one rename, or not at all.

Everything on the way lies in a scratch folder outside `data/`, which belongs to DVC:

    build/acquire/emodb/download.zip        the archive, kept for the next time
    build/acquire/emodb/download.zip.json   its address, size and hashes
    build/acquire/emodb/unpacked            gone when `data/emodb` is there
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timnet.acquire import synthesis
from timnet.acquire.download import Progress, fetch
from timnet.acquire.unpack import PackedError, copy, root, unpack
from timnet.corpora import demo
from timnet.corpora.corpus import Corpus, Utterance, linked, namesake
from timnet.errors import CorpusError, ParameterError, listing


@dataclass(frozen=True)
class CorpusState:
    """What is in the folder of a corpus: see `state`."""

    corpus: str
    status: str  # "complete", "incomplete" or "absent"
    utterances: int  # that are there; 0 if their names cannot be read
    detail: str  # what is wrong with it, or where it comes from; empty if complete


@dataclass(frozen=True)
class Acquired:
    """What `acquire` brought, or found."""

    folder: Path
    utterances: int
    found: bool  # it was there already, and nothing was done


def acquire(
    corpus: Corpus,
    data: Path,
    source: Path | None = None,
    url: str | None = None,
    mirror: str | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Acquired:
    """Bring `corpus` to `data/<id>`; the synthetic one is made there.

    Killed at any moment and run again, it ends in the same bytes. Names, classes, speakers and
    counts are checked here, sounds by the stages manifest and validate.

    Args:
        source: an archive or a folder that the user has. Nothing in it is changed or linked.
        url: of an archive, in place of the recipe's; no published hash is expected of it.
        mirror: address of an institute's own copies, `<mirror>/<id>/<archive>`.
        scratch: folder for what is on the way, on the disk of `data`; by default
            `build/acquire` beside `data`.
        progress: called with what is done ("download", "unpack", "copy"), bytes done, and bytes
            in all if they are known.

    Raises:
        CorpusError: it cannot be had, is not what the recipe describes, or something else
            already lies in its place.
        ParameterError: both `source` and `url`, or one of them for the synthetic corpus.
    """
    made = corpus is demo.CORPUS
    if made and (source is not None or url is not None):
        raise ParameterError(f"{corpus.id} is generated here: omit --from and --url.")
    if source is not None and url is not None:
        raise ParameterError("--from and --url cannot be combined: give one source.")
    folder = data / corpus.id
    with workplace(corpus.id, data, scratch) as work:
        if _holds_files(folder):
            faults = problems(corpus, folder)
            if faults:
                raise CorpusError(
                    f"{folder} exists, but does not contain all of "
                    f"{corpus.id}:\n{_bullets(faults)}Raw data is never overwritten: move it away, "
                    "then run again."
                )
            return Acquired(folder, corpus.utterances, found=True)
        if made:
            synthesis.generate(work / "unpacked")
            os.replace(work / "unpacked", folder)
        elif source is not None:
            _bring(corpus, source, str(source), work / "unpacked", folder, progress)
        else:
            archive, origin = _download(corpus, url, mirror, work, progress)
            try:
                _bring(corpus, archive, origin, work / "unpacked", folder, progress)
            except PackedError:
                raise  # names it: someone is to unpack it
            except CorpusError:
                archive.unlink()  # no use keeping it: the next run asks for a better one
                raise
    return Acquired(folder, corpus.utterances, found=False)


def state(corpus: Corpus, data: Path) -> CorpusState:
    """Whether `data/<id>` holds the whole corpus, going by names, and what to do if not."""
    folder = data / corpus.id
    if not _holds_files(folder):
        return CorpusState(corpus.id, "absent", 0, where(corpus))
    try:
        utterances = corpus.read(folder)
    except CorpusError as error:
        return CorpusState(corpus.id, "incomplete", 0, str(error))
    faults = _incomplete(corpus, utterances)
    status = "incomplete" if faults else "complete"
    return CorpusState(corpus.id, status, len(utterances), "; ".join(faults))


def where(corpus: Corpus) -> str:
    """In words: where a corpus comes from, under which terms, and which command takes it in."""
    if corpus.download:
        return (
            f"{corpus.title} ({corpus.licence}) is free to download: `timnet acquire {corpus.id}`."
        )
    if corpus.terms:
        return (
            f"{corpus.title} cannot be downloaded freely. {corpus.terms} Apply at {corpus.source}, "
            f"then `timnet acquire {corpus.id} --from PATH`, where PATH is the archive or folder "
            "that you received."
        )
    return f"{corpus.title}: {corpus.source}."


def problems(corpus: Corpus, folder: Path) -> list[str]:
    """What keeps `folder` from being the whole corpus, going by names; empty if nothing does."""
    try:
        return _incomplete(corpus, corpus.read(folder))
    except CorpusError as error:
        return [str(error)]


def _incomplete(corpus: Corpus, utterances: list[Utterance]) -> list[str]:
    found = Counter(utterance.emotion for utterance in utterances)
    speakers = {utterance.speaker for utterance in utterances}
    absent_speakers = [speaker for speaker in corpus.speakers if speaker not in speakers]
    absent = [label for label in corpus.labels if not found[label]]
    faults = [f"missing classes {listing(absent, 10)}"] if absent else []
    if absent_speakers:
        faults.append(f"missing speakers {listing(absent_speakers, 24)}")
    faults += [
        f"{found[label]} utterances of {label}, expected {corpus.counts[label]}"
        for label in corpus.labels
        if found[label] not in (0, corpus.counts[label])
    ]
    if len(utterances) < corpus.utterances:
        missing = corpus.utterances - len(utterances)
        faults.append(f"missing {missing} of {corpus.utterances} utterances in all")
    return faults


def _holds_files(folder: Path) -> bool:
    if folder.exists() and not folder.is_dir():
        raise CorpusError(
            f"{folder}: a file is where the folder of a corpus is expected. Move it away."
        )
    return folder.is_dir() and any(folder.iterdir())


def refuse_links(data: Path, corpus: str) -> None:
    """Stop where `data/<corpus>` is not in `data`, but behind a link.

    DVC follows no link to a folder: it would have none of the recordings. Links to files it
    replaces by what they lead to.

    Raises:
        CorpusError: with each link.
    """
    links = [path for path in (data, data / corpus) if path.is_symlink()] or linked(data / corpus)
    told = [f"{path} (leads {'to a folder' if path.exists() else 'nowhere'})" for path in links]
    if links:
        raise CorpusError(
            f"{listing(told)}: DVC follows no link to a folder, so it would keep none of the "
            "recordings behind it. Put the recordings themselves there, or take them in from where "
            "they are, with --from or --csv. If data/ is to be on another disk, have the whole "
            "project there."
        )


@contextlib.contextmanager
def workplace(corpus: str, data: Path, scratch: Path | None) -> Iterator[Path]:
    """The scratch folder of one corpus, for one process at a time, without earlier leavings."""
    scratch = scratch or data.resolve().parent / "build" / "acquire"
    work = scratch / corpus
    refuse_links(data, corpus)
    try:
        data.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        if work.stat().st_dev != data.stat().st_dev:
            raise CorpusError(
                f"{work} and {data} are on different disks, so files cannot be moved atomically. "
                "Choose a scratch folder on the same disk as the data."
            )
        with (work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process lets go
            except BlockingIOError:
                raise CorpusError(
                    f"{work}: another process is acquiring {corpus}. Wait until it ends."
                ) from None
            shutil.rmtree(work / "unpacked", ignore_errors=True)
            yield work
    except OSError as error:
        raise CorpusError(
            f"{error.filename or work}: {error.strerror or error}. Fix this and rerun."
        ) from error


def _download(
    corpus: Corpus, url: str | None, mirror: str | None, work: Path, progress: Progress | None
) -> tuple[Path, str]:
    """The archive in `work`, and the address that it came from."""
    published = corpus.download
    name = published.file if published else f"{corpus.id}.zip"
    if url is not None:
        return work / name, fetch(url, work / name, progress=progress)["url"]
    if mirror:  # an empty one is none
        url = f"{mirror.rstrip('/')}/{corpus.id}/{name}"
    elif published is not None:
        url = published.url
    else:
        raise CorpusError(where(corpus))
    size, md5 = (published.size, published.md5) if published else (None, None)
    record = fetch(url, work / name, size=size, md5=md5, progress=progress)
    return work / name, record["url"]


def _bring(
    corpus: Corpus,
    source: Path,
    origin: str,
    partial: Path,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Unpack or copy `source` to `partial`, check it, and move it to `folder`."""
    packed: list[str] = []
    try:
        if source.is_dir():
            paths = copy(source, partial, corpus.keep, progress, packed)
        elif source.is_file():
            paths = unpack(source, partial, corpus.keep, progress=progress, packed=packed)
        else:
            near = f" ({found})" if (found := namesake(source)) else ""
            raise CorpusError(
                f"{source}: no such file or folder{near}. Expected an archive or a folder."
            )
        ready = partial / root(paths, corpus.top)
        faults = [fault.replace(str(ready), origin) for fault in problems(corpus, ready)]
        if faults and packed:
            raise PackedError(
                f"{source} is not the whole of {corpus.id}:\n{_bullets(faults)}It holds archives: "
                f"{listing(packed)}. Unpack it and them with another program, and pass the folder "
                "with --from."
            )
        if faults:
            raise CorpusError(
                f"{origin} does not contain all of {corpus.id}:\n{_bullets(faults)}Nothing was "
                f"installed. Get the original: {corpus.source}."
            )
        os.replace(ready, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _bullets(faults: list[str]) -> str:
    return "".join(f"  - {fault}\n" for fault in faults)
