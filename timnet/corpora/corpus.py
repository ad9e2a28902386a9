"""The record that describes a corpus, and what recipes share."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from timnet.errors import CorpusError, counted, listing

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

EMOTIONS = (
    "angry",
    "boredom",
    "calm",
    "disgust",
    "fear",
    "happy",
    "neutral",
    "sad",
    "surprise",
)

# What file managers, backups and office programs leave in folders: patterns of names of files and
# folders. They belong to no corpus and are never unpacked; `.dvcignore` holds the same lines.
LITTER = (
    ".DS_Store",
    "._*",
    "__MACOSX",
    ".Spotlight-V100",
    ".Trash*",
    ".fseventsd",
    ".TemporaryItems",
    "[Tt]humbs.db",
    "[Ee]hthumbs.db",
    "[Dd]esktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".directory",
    "@eaDir",
    ".~lock.*",
    "*~",
)

# what networks tell apart that are tested on another corpus than they were trained on (Table 2)
SHARED_EMOTIONS = ("angry", "fear", "happy", "neutral", "sad")


@dataclass(frozen=True)
class Utterance:
    """One recording and what its name or label file says of it."""

    id: str  # canonical: the same whatever form the archive has
    path: str  # below the corpus' folder, with forward slashes
    speaker: str
    emotion: str  # one of EMOTIONS
    sentence: str | None = None


@dataclass(frozen=True)
class Download:
    """An archive that anyone may fetch, and what is published of its bytes."""

    url: str
    file: str  # its name, on disk and at a mirror
    size: int | None = None  # bytes
    md5: str | None = None


@dataclass(frozen=True)
class Corpus:
    """All that the project knows of a corpus before it has seen a file of it."""

    id: str
    title: str
    language: str
    licence: str
    citation: str
    source: str  # where a person gets it
    speakers: dict[str, str]  # speaker -> "female" or "male"
    counts: dict[str, int]  # emotion -> utterances; its keys are the labels
    read: Callable[[Path], list[Utterance]]
    sample_rates: tuple[int, ...]
    channels: tuple[int, ...]
    seconds: tuple[float, float]  # shortest and longest utterance that is accepted
    # who is tested together when speakers are left out; empty: each speaker alone
    speaker_groups: tuple[tuple[str, ...], ...] = ()
    # sentence about a known fault of the originals -> the utterances that have it
    quirks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # whether its licence lets anyone have recordings and features; see `timnet.project.remotes`
    redistributable: bool = False
    download: Download | None = None  # None: a person has to ask for it
    terms: str = ""  # how to get a corpus that cannot be downloaded, and what one agrees to
    keep: tuple[str, ...] = ("*.wav",)  # files of an archive that belong to it: ends of paths
    # first folder below data/<corpus>: what an archive wraps around it is stripped
    top: tuple[str, ...] = ()
    # sample rates and samples of all utterances -> which altered copy these are the marks of
    tampered: Callable[[Sequence[int], Sequence[int]], str | None] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions in the order of their indices: alphabetical, as in the paper's code."""
        return tuple(sorted(self.counts))

    @property
    def utterances(self) -> int:
        return sum(self.counts.values())

    @property
    def originals(self) -> dict[str, str]:
        """Utterance -> SHA-256 of its original recording; empty where none are known."""
        table = files("timnet.corpora").joinpath("originals", f"{self.id}.txt")
        if not table.is_file():
            return {}
        lines = table.read_text(encoding="utf-8").splitlines()
        pairs = (line.split() for line in lines if not line.startswith("#"))
        return {utterance: sha256 for sha256, utterance in pairs}

    @property
    def description(self) -> dict[str, Any]:
        """What results say of a corpus, `records.Description`: what no recording is needed for."""
        return {
            "id": self.id,
            "title": self.title,
            "language": self.language,
            "licence": self.licence,
            "citation": self.citation,
            "source": self.source,
            "speakers": self.speakers,
            "speaker_groups": [list(group) for group in self.speaker_groups],
            "quirks": list(self.quirks),
        }


def natural_key(name: str) -> list[str | int]:
    """Key of the natural order of names: digits count as numbers, `a2` before `a10`."""
    parts = re.split(r"([0-9]{1,4000})", name)  # `int` takes no more digits than that
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def is_litter(path: PurePath) -> bool:
    """Whether a file, or a folder around it, is what a file manager left behind."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in path.parts for pattern in LITTER)


def find(folder: Path, pattern: str) -> list[Path]:
    """Paths below `folder` that fit a glob, sorted, relative to it.

    Case does not matter: recorders write `.WAV`. Litter is left out; links to folders are not
    followed, since DVC does not follow them.

    Args:
        pattern: of the end of the path, `*` within one part: `*.wav`, `wav/*.wav`.
    """
    wanted = pattern.lower().split("/")
    found = []
    for parent, folders, names in os.walk(folder):
        above = Path(parent).relative_to(folder)
        folders[:] = [name for name in folders if not is_litter(PurePath(name))]
        found += [
            above / name
            for name in (*names, *folders)
            if not is_litter(PurePath(name)) and _ends(above / name, wanted)
        ]
    return sorted(found)


def _ends(path: PurePath, wanted: list[str]) -> bool:
    parts = [part.lower() for part in path.parts[-len(wanted) :]]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def linked(folder: Path) -> list[Path]:
    """Links below `folder` that lead to folders or nowhere."""
    return [
        path
        for parent, folders, names in os.walk(folder)
        for name in (*folders, *names)
        if (path := Path(parent, name)).is_symlink() and not path.is_file()
    ]


def namesake(path: Path) -> str | None:
    """In words, why a file is not there although its name seems to be.

    It is a link that leads nowhere, or there is a name in another Unicode normal form (macOS and
    old archives take letters and accents apart) or with other capital letters.
    """
    if path.is_symlink():
        return "a link that leads nowhere"
    try:
        names = sorted(each.name for each in path.parent.iterdir())
    except OSError:
        return None
    normal = unicodedata.normalize("NFC", path.name)
    for name in names:
        if unicodedata.normalize("NFC", name) == normal:
            return (
                f"{path.parent} has this name in another Unicode normal form "
                f"({_form(name)}, here {_form(path.name)})"
            )
    for name in names:
        if unicodedata.normalize("NFC", name).casefold() == normal.casefold():
            return f"{path.parent} has {name!r}, with other capital letters"
    return None


def _form(name: str) -> str:
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)]
    return forms[0] if forms else "neither NFC nor NFD"


def read_names(
    folder: Path, pattern: str, parse: Callable[[Path], Utterance | None], grammar: str
) -> list[Utterance]:
    """Utterances of a corpus whose file names carry speaker and emotion.

    Args:
        folder: where the corpus lies.
        pattern: of the ends of its recordings' paths, as of `find`.
        parse: gives the utterance of a path relative to `folder`, None if no rule fits.
        grammar: the rule in words, for the error message.

    Raises:
        CorpusError: no recording at all; names that fit no rule; two files with one id;
            Git LFS pointers in place of recordings.
    """
    paths = find(folder, pattern)
    if not paths:
        raise CorpusError(f"{folder}: no recordings match {pattern}. Expected names: {grammar}.")
    refuse_unreadable(folder, paths)
    parsed = {path: parse(path) for path in paths}
    unknown = [path.as_posix() for path, utterance in parsed.items() if utterance is None]
    renamed = [name for name in unknown if _appended(Path(name), parse)]
    if renamed:
        raise CorpusError(
            f"{folder}: {counted(len(renamed), 'file name')} with a word appended: "
            f"{listing(renamed)}. This is a renamed copy; expected names: {grammar}. Folds follow "
            "the original names: get the original archive, or remove the word."
        )
    if unknown:
        raise CorpusError(
            f"{folder}: {counted(len(unknown), 'file name')} fitting no rule: {listing(unknown)}. "
            f"Expected names: {grammar}. Remove files that do not belong to the corpus, or restore "
            "the original names."
        )
    utterances = [utterance for utterance in parsed.values() if utterance is not None]
    seen: dict[str, str] = {}
    for utterance in utterances:
        if utterance.id in seen:
            raise CorpusError(
                f"{folder}: {seen[utterance.id]} and {utterance.path} are both utterance "
                f"{utterance.id}. Keep one copy of each recording."
            )
        seen[utterance.id] = utterance.path
    return utterances


def refuse_unreadable(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse what is no recording, going by its name and kind, before anything reads it.

    These are names that are no text, pipes and devices, which may have no end, and Git LFS pointers
    (text of about 130 bytes).

    Raises:
        CorpusError: names them.
    """
    nameless, strange, pointers = list[str](), list[str](), list[str]()
    for path in paths:
        file = folder / path
        if not is_text(str(path)):
            nameless.append(ascii(path.as_posix()))
        elif file.exists() and not (file.is_file() or file.is_dir()):
            strange.append(path.as_posix())
        elif file.is_file() and file.stat().st_size < 1024 and _is_pointer(file):
            pointers.append(path.as_posix())
    if nameless:
        raise CorpusError(
            f"{folder}: {counted(len(nameless), 'file name')} not in UTF-8: {listing(nameless)}. "
            "Unpack the original archive again, with a program that knows its encoding."
        )
    if strange:
        raise CorpusError(
            f"{folder}: pipes or devices where recordings are expected: "
            f"{listing(strange)}. Replace them by the original files."
        )
    if pointers:
        raise CorpusError(
            f"{folder}: Git LFS pointers where recordings are expected: "
            f"{listing(pointers)}. The repository was cloned without its contents: run `git lfs "
            "pull` there, or get the original archive."
        )


def _is_pointer(file: Path) -> bool:
    return file.read_bytes().startswith(LFS_POINTER)


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; Python keeps other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def same_length(
    sample_rates: Sequence[int], samples: Sequence[int], seconds: float, tolerance: float
) -> float:
    """Share of the utterances that last `seconds`, give or take `tolerance` seconds."""
    pairs = zip(sample_rates, samples, strict=True)
    same = sum(abs(n - seconds * rate) <= tolerance * rate for rate, n in pairs)
    return same / max(len(samples), 1)


def _appended(path: Path, parse: Callable[[Path], Utterance | None]) -> bool:
    """Whether `path` has a word after what would be a good name: `03a01Fa_happy.wav`."""
    stem, separator, word = path.stem.rpartition("_")
    return bool(separator and word.isalpha() and parse(path.with_name(stem + path.suffix)))
