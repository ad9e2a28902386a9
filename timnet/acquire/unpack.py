"""Take the files of a corpus out of an archive or a folder that is not trusted.

Names that leave the folder, links, devices and bombs are refused before anything of them is
written; `__MACOSX`, `._*` and the like are left behind, and so is all that a recipe does not keep.
"""

from __future__ import annotations

import bz2
import contextlib
import fnmatch
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from timnet.acquire.download import HEAD, Progress, archive_kind, refuse_space
from timnet.corpora.corpus import is_litter, is_text
from timnet.errors import CorpusError, listing
from timnet.paths import names_below

CHUNK = 1 << 18  # bytes
LONGEST = 500  # characters of a member's name, folders included
BROKEN = (  # what the readers raise at bytes that make no sense
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
)
SOUNDS = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wma")
PACKED = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")


class PackedError(CorpusError):
    """An archive that another program may well unpack: it is worth keeping."""


@dataclass(frozen=True)
class Limits:
    """Limits of a genuine archive; IEMOCAP's full release has some 10^5 members, 25 GB."""

    bytes: int = 100_000_000_000  # unpacked, kept or not
    ratio: float = 100.0  # unpacked to packed; speech gives 1.2 to 3
    harmless: int = 50_000_000  # bytes below which no ratio is suspicious
    members: int = 1_000_000


def unpack(
    archive: Path,
    folder: Path,
    keep: tuple[str, ...] = ("*.wav",),
    limits: Limits = Limits(),
    progress: Progress | None = None,
    packed: list[str] | None = None,
) -> list[str]:
    """Unpack what `keep` names from `archive` (zip or tar) into the new folder `folder`.

    Args:
        keep: globs of the ends of paths, `*` within one part; case does not matter.
        packed: is told the archives within this one, which are not unpacked.

    Returns:
        Paths written, below `folder`.

    Raises:
        PackedError: RAR, 7z, encrypted, of a compression that is not known here, or with nothing
            but archives within. `folder` may hold a part then.
        CorpusError: not an archive, damaged, unsafe, a bomb, or without anything to keep; likewise.
        OSError: no space, or another trouble of the disk.
    """
    with archive.open("rb") as file:
        kind = archive_kind(file.read(HEAD))
    if kind is None:
        raise CorpusError(f"{archive}: not an archive. Expected zip or tar, or a folder.")
    if kind in ("RAR", "7z"):
        raise PackedError(
            f"{archive}: a {kind} archive, which is not supported. Unpack it and pass the folder "
            "with --from."
        )
    folder.mkdir(parents=True)
    sieve = _Sieve(archive, keep, limits)
    try:
        if kind == "zip":
            _unzip(archive, folder, sieve, progress)
        else:
            _untar(archive, kind, folder, sieve, progress)
    except CorpusError:
        raise
    except BROKEN as error:
        raise _damaged(archive, error) from None
    except NotImplementedError as error:  # a compression that zipfile does not know
        raise PackedError(
            f"{archive}: {error}. Unpack it with another program and pass the folder with --from."
        ) from None
    except OSError as error:
        if error.errno is None:  # from gzip and bz2, not from the system
            raise _damaged(archive, error) from None
        raise
    sieve.refuse_empty()
    if packed is not None:
        packed += sieve.packed
    return sieve.kept


def copy(
    source: Path,
    folder: Path,
    keep: tuple[str, ...] = ("*.wav",),
    progress: Progress | None = None,
    packed: list[str] | None = None,
) -> list[str]:
    """Copy what `keep` names from the folder `source` into the new folder `folder`.

    Files are copied, never linked: what is later done to `folder` does not reach the originals.

    Args:
        packed: as of `unpack`.

    Raises:
        PackedError: nothing but archives.
        CorpusError: nothing to keep.
        OSError: no space, or another trouble of the disk.
    """
    folder.mkdir(parents=True)
    sieve = _Sieve(source, keep, Limits())
    for name in names_below(source):
        sieve.admit(name.relative_to(source).as_posix())
    sieve.refuse_empty()
    for path in sieve.kept:  # a device would never end
        if (source / path).exists() and not (source / path).is_file():
            raise sieve.refusal(path, "is a pipe or a device")
    sizes = {path: (source / path).stat().st_size for path in sieve.kept}
    refuse_space(folder, sum(sizes.values()))
    done = 0
    for path, size in sizes.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target)
        done += size
        if progress:
            progress("copy", done, sum(sizes.values()))
    if packed is not None:
        packed += sieve.packed
    return sieve.kept


def root(paths: list[str], top: tuple[str, ...]) -> str:
    """The folders that an archive wraps around a corpus: `x/y` in `x/y/Actor_01/z.wav`.

    Args:
        paths: of its files.
        top: globs of the first folder that belongs to the corpus.
    """
    parents = [path.rpartition("/")[0] for path in paths]
    common = os.path.commonpath(parents) if all(parents) else ""
    wrapping = []
    for part in PurePosixPath(common).parts:
        if any(fnmatch.fnmatchcase(part.lower(), pattern.lower()) for pattern in top):
            break
        wrapping.append(part)
    return "/".join(wrapping)


class _Sieve:
    """Decides which members are written, and refuses the archive for any that is unsafe."""

    def __init__(self, origin: Path, keep: tuple[str, ...], limits: Limits) -> None:
        self.origin = origin
        self.keep = [(pattern.count("/") + 1, pattern.lower()) for pattern in keep]
        self.patterns = keep
        self.limits = limits
        self.kept: list[str] = []
        self.seen: set[str] = set()
        self.left: Counter[str] = Counter()
        self.packed: list[str] = []  # archives within, which are left as they are

    def refusal(self, name: str, reason: str) -> CorpusError:
        return CorpusError(
            f"{self.origin}: member {name!r} {reason}. Archives of recordings do not contain this: "
            "get it from the corpus' own source."
        )

    def admit(self, name: str) -> str | None:
        """The path below the folder at which to write a file, None if it is not kept."""
        path = self.safe(name)
        if is_litter(path):
            return None
        text = path.as_posix()
        parts = text.lower().split("/")
        wanted = any(
            len(parts) >= n and fnmatch.fnmatchcase("/".join(parts[-n:]), pattern)
            for n, pattern in self.keep
        )
        if not wanted:
            self.left[path.suffix.lower() or "no suffix"] += 1
            if path.suffix.lower() in PACKED:
                self.packed.append(text)
            return None
        if text in self.seen:
            raise self.refusal(name, "is there twice")
        self.seen.add(text)
        self.kept.append(text)
        return text

    def pass_folder(self, name: str) -> None:
        if name.rstrip("/") != ".":  # as of `tar -C folder .`
            self.safe(name)

    def safe(self, name: str) -> PurePosixPath:
        """The name as a path; backslashes of Windows archives are separators."""
        plain = name.replace("\\", "/")
        path = PurePosixPath(plain)
        if plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
            raise self.refusal(name, "has an absolute path")
        if ".." in path.parts:
            raise self.refusal(name, "leaves the folder with `..`")
        long = len(plain) > LONGEST or any(len(os.fsencode(part)) > 255 for part in path.parts)
        if not path.parts or long or re.search(r"[\x00-\x1f]", plain) or not is_text(plain):
            raise self.refusal(name[:LONGEST], "has no proper name")
        return path

    def check(self, members: int, size: int, packed: int) -> None:
        """Refuse a bomb: `size` bytes so far, or declared, from `packed` bytes."""
        limits = self.limits
        if members > limits.members:
            raise CorpusError(
                f"{self.origin}: more than {limits.members:,} members, so it is not a corpus."
            )
        if size > limits.bytes or (size > limits.harmless and size > limits.ratio * packed):
            raise CorpusError(
                f"{self.origin}: {packed:,} bytes unpack to {size:,} or more, more than speech "
                "can: a decompression bomb. Nothing was used."
            )

    def refuse_empty(self) -> None:
        if not self.kept and self.packed:
            raise PackedError(
                f"{self.origin}: holds no recordings, but archives: {listing(self.packed)}. Unpack "
                "it and them with another program, and pass the folder with --from."
            )
        if not self.kept:
            found = ", ".join(f"{count} {suffix}" for suffix, count in self.left.most_common(5))
            needed = (
                "The recordings must be the published files, not converted: get the originals."
                if any(suffix in SOUNDS for suffix in self.left)
                else "Recordings are needed, not features."
            )
            raise CorpusError(
                f"{self.origin}: contains no file of the corpus ({', '.join(self.patterns)}); it "
                f"has {found or 'no files'}. {needed}"
            )


def _unzip(archive: Path, folder: Path, sieve: _Sieve, progress: Progress | None) -> None:
    with zipfile.ZipFile(archive) as file:
        infos = file.infolist()
        declared = sum(info.file_size for info in infos)
        sieve.check(len(infos), declared, archive.stat().st_size)
        wanted = {}
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise sieve.refusal(info.filename, "is a link or a device")
            if info.flag_bits & 1:
                raise PackedError(
                    f"{archive}: {info.filename} is encrypted. Unpack it with its password and "
                    "pass the folder with --from."
                )
            if info.filename.endswith("/"):
                sieve.pass_folder(info.filename)
            elif path := sieve.admit(info.filename):
                wanted[path] = info
        total = sum(info.file_size for info in wanted.values())
        refuse_space(folder, total)
        done = 0
        for path, info in wanted.items():
            with file.open(info) as member:
                done += _write(member, folder / path, sieve)
            if progress:
                progress("unpack", done, total)


def _untar(
    archive: Path, kind: str, folder: Path, sieve: _Sieve, progress: Progress | None
) -> None:
    packed = archive.stat().st_size
    with contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(archive.open("rb"))
        if kind != "tar":
            openers: dict[str, Any] = {"gzip": gzip, "bzip2": bz2, "xz": lzma}
            raw = stack.enter_context(openers[kind].open(raw))
        metered = _Metered(raw, sieve, packed)
        file = stack.enter_context(tarfile.open(fileobj=metered, mode="r:"))  # type: ignore[call-overload]
        for members, info in enumerate(file, 1):
            sieve.check(members, info.offset_data + info.size, packed)
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise sieve.refusal(info.name, "is a link or a device, or has holes")
            if info.isdir():
                sieve.pass_folder(info.name)
            elif path := sieve.admit(info.name):
                refuse_space(folder, info.size)
                member = file.extractfile(info)
                assert member is not None  # of a regular file
                _write(member, folder / path, sieve)
            file.members.clear()  # of 10^5 members, none is needed again
            if progress:
                progress("unpack", metered.tell(), None)
        while metered.read(CHUNK):  # to the end, where the checksum stands
            pass


class _Metered:
    """A decompressed stream that ends a bomb while it is read, before memory or disk fill up."""

    def __init__(self, stream: Any, sieve: _Sieve, packed: int) -> None:
        self.stream, self.sieve, self.packed = stream, sieve, packed

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 64 * CHUNK:  # a header that claims to be huge
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self.stream.read(size)
        self.sieve.check(0, self.stream.tell(), self.packed)
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self.sieve.check(0, position, self.packed)
        return self.stream.seek(position, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _write(member: IO[bytes], target: Path, sieve: _Sieve) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(member, file, CHUNK)
            return file.tell()
    except (FileExistsError, NotADirectoryError):
        raise sieve.refusal(target.name, "has the name of another member") from None


def _damaged(archive: Path, error: Exception) -> CorpusError:
    return CorpusError(
        f"{archive}: damaged or truncated ({error or type(error).__name__}). Get it again."
    )
