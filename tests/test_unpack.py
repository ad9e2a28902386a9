from __future__ import annotations

import contextlib
import io
import os
import random
import re
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from archives import laid_out, tarred, tree, zipped
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from timnet.acquire.unpack import Limits, PackedError, copy, root, unpack
from timnet.corpora.corpus import LITTER as LITTER_PATTERNS
from timnet.errors import CorpusError

MEMBERS = {
    "top/a/1.wav": b"one",
    "top/a/2.WAV": b"two" * 1000,
    "top/b/1.wav": b"three",
    "top/notes.txt": b"not kept",
}
LITTER = {
    "__MACOSX/top/a/._1.wav": b"\0\5\x16\7",
    "top/a/._1.wav": b"\0\5\x16\7",
    "top/.DS_Store": b"x",
    "__MACOSX/top/2.wav": b"x",
    "top/@eaDir/1.wav": b"x",
    "top/.~lock.1.wav": b"x",
}
KEPT = {name: content for name, content in MEMBERS.items() if name.lower().endswith(".wav")}
SMALL = Limits(bytes=2_000_000, ratio=20, harmless=100_000, members=50)


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_keeps_what_is_asked_for(tmp_path, mode):
    members = {**MEMBERS, **LITTER}
    pack = zipped if mode == "zip" else lambda *args: tarred(*args, mode)
    seen = []
    archive = pack(members, tmp_path / "whatever.bin")
    paths = unpack(archive, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert tree(tmp_path / "out") == KEPT
    assert sorted(paths) == sorted(KEPT)
    assert seen[-1][0] == "unpack"


def test_keeps_by_the_end_of_the_path(tmp_path):
    archive = zipped(MEMBERS, tmp_path / "a.zip")
    unpack(archive, tmp_path / "out", keep=("A/*.wav", "notes.*"))
    assert sorted(tree(tmp_path / "out")) == ["top/a/1.wav", "top/a/2.WAV", "top/notes.txt"]


def test_backslashes_are_separators(tmp_path):
    archive = tarred({"top\\a\\1.wav": b"one"}, tmp_path / "a.tar", "w")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"top/a/1.wav": b"one"}


def test_a_folder_may_be_packed_from_within(tmp_path):
    source = laid_out(MEMBERS, tmp_path / "source")
    subprocess.run(["tar", "czf", tmp_path / "a.tgz", "-C", source, "."], check=True)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path, content in {"": b"", **MEMBERS}.items():
            file.writestr(f"./{path}", content)
    for name in ("a.tgz", "a.zip"):
        unpack(tmp_path / name, tmp_path / f"out-{name}")
        assert tree(tmp_path / f"out-{name}") == KEPT


def test_copy_takes_no_links(tmp_path):
    source = laid_out({**MEMBERS, **LITTER}, tmp_path / "source")
    (source / "elsewhere").symlink_to(laid_out({"3.wav": b"linked"}, tmp_path / "elsewhere"))
    (source / "elsewhere" / "circle").symlink_to(source)
    paths = copy(source, tmp_path / "out")
    assert tree(tmp_path / "out") == {**KEPT, "elsewhere/3.wav": b"linked"}
    assert len(paths) == 4
    for path in paths:
        info = (tmp_path / "out" / path).lstat()
        assert stat.S_ISREG(info.st_mode)
        assert info.st_nlink == 1
    (tmp_path / "out" / "top/a/1.wav").write_bytes(b"changed")
    assert (source / "top/a/1.wav").read_bytes() == b"one"


def zip_with(name, content=b"x", mode=0, flags=0):
    def build(path: Path) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("good.wav", b"good")
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
        if flags:  # in the local and the central header
            data = bytearray(path.read_bytes())
            for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
                data[data.rindex(mark) + offset] |= flags
            path.write_bytes(data)
        return path

    return build


def tar_with(name="x.wav", kind=tarfile.REGTYPE, link="", size=1, mode="w:gz"):
    def build(path: Path) -> Path:
        with tarfile.open(path, mode) as archive:
            good = tarfile.TarInfo("good.wav")
            good.size = 4
            archive.addfile(good, io.BytesIO(b"good"))
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = size if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
        return path

    return build


def twice(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("a.wav")
            info.size = 3
            archive.addfile(info, io.BytesIO(content))
    return path


def written(content):
    def build(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return build


def shortened(build, share=0.5):
    def cut(path: Path) -> Path:
        data = build(path).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return cut


def altered(path: Path) -> Path:
    """A zip of which one byte of a recording is wrong: its checksum tells."""
    zipped({"a.wav": b"recording"}, path)
    data = path.read_bytes().replace(b"recording", b"recordimg", 1)
    path.write_bytes(data)
    return path


def huge_header(path: Path) -> Path:
    """A tar whose extended header says that it is a gigabyte long."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 1 << 30
        archive.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))
        archive.fileobj.write(b"\0" * 4096)
    return path


def deflate64(path: Path) -> Path:
    zip_with("x.wav")(path)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.rindex(mark) + offset, 9)
    path.write_bytes(data)
    return path


def extended(**headers):
    """A tar whose extended header says other things of its member than the header."""

    def build(path: Path) -> Path:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("good.wav")
            info.pax_headers = {name.replace("_", "."): value for name, value in headers.items()}
            info.size = 512
            archive.addfile(info, io.BytesIO(b"1\n0\n1\n".ljust(512, b"\0")))
        return path

    return build


def two_names(path: Path) -> Path:
    """A zip whose directory calls a member otherwise than the member does itself."""
    data = zip_with("x.wav")(path).read_bytes()
    path.write_bytes(data.replace(b"x.wav", b"/.wav", 1))
    return path


NOISE = random.Random(0).randbytes(200_000)
MANY = {f"{number}.wav": b"" for number in range(60)}
FEATURES = {"x/1.npy": b"", "x/2.npy": b"", "x/y": b""}
DAMAGED = "damaged"
LINK = "link or a device"
UNSAFE = {
    "zip: up": (zip_with("../x.wav"), r"'\.\./x\.wav' leaves the folder"),
    "zip: up, inside": (zip_with("a/../../x.wav"), "leaves the folder"),
    "zip: up, Windows": (zip_with("..\\..\\x.wav"), "leaves the folder"),
    "zip: up, a folder": (zip_with("../"), "leaves the folder"),
    "zip: absolute": (zip_with("/etc/x.wav"), "absolute path"),
    "zip: drive": (zip_with("C:\\x.wav"), "absolute path"),
    "zip: line feed": (zip_with("a\nb.wav"), "no proper name"),
    "zip: escape": (zip_with("\x1b[2J.wav"), "no proper name"),
    "zip: 300 letters": (zip_with("x" * 300 + ".wav"), "no proper name"),
    "zip: 400 folders deep": (zip_with("d/" * 400 + "x.wav"), "no proper name"),
    "zip: two names": (two_names, DAMAGED),
    "zip: link": (zip_with("x.wav", b"/etc", 0o120777), LINK),
    "zip: pipe": (zip_with("x.wav", b"", 0o010644), LINK),
    "zip: device": (zip_with("x.wav", b"", 0o020644), LINK),
    "zip: twice": (zip_with("good.wav"), "'good.wav' is there twice"),
    "zip: file and folder": (zip_with("good.wav/x.wav"), "has the name of another member"),
    "zip: encrypted": (zip_with("x.wav", flags=1), r"x\.wav is encrypted\. .*pass the folder"),
    "zip: bomb": (zip_with("x.wav", b"\0" * 1_000_000), "unpack to 1,000,004 or more.*bomb"),
    "zip: too large": (zip_with("x.wav", NOISE * 11), r"unpack to 2,200,004.*bomb"),
    "zip: too many": (lambda path: zipped(MANY, path), "more than 50 members"),
    "zip: deflate64": (deflate64, r"compression.*another program and pass the folder"),
    "zip: checksum": (altered, DAMAGED),
    "zip: cut": (shortened(zip_with("x.wav", NOISE)), DAMAGED),
    "tar: up": (tar_with("../x.wav"), "leaves the folder"),
    "tar: up, a folder": (tar_with("../d", tarfile.DIRTYPE), "leaves the folder"),
    "tar: absolute": (tar_with("/x.wav"), "absolute path"),
    "tar: not UTF-8": (tar_with(os.fsdecode(b"\xff.wav")), "no proper name"),
    "tar: up, in the extended header": (extended(path="../x.wav"), "leaves the folder"),
    "tar: a petabyte": (extended(size=str(10**15)), r"unpack to.*bomb"),
    "tar: a terabyte of holes": (
        extended(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize=str(10**12)),
        r"has holes|unpack to|damaged",
    ),
    "tar: link": (tar_with(kind=tarfile.SYMTYPE, link="/etc/passwd"), LINK),
    "tar: hard link": (tar_with(kind=tarfile.LNKTYPE, link="good.wav"), LINK),
    "tar: device": (tar_with(kind=tarfile.CHRTYPE), LINK),
    "tar: block device": (tar_with(kind=tarfile.BLKTYPE), LINK),
    "tar: pipe": (tar_with(kind=tarfile.FIFOTYPE), LINK),
    "tar: twice": (twice, "'a.wav' is there twice"),
    "tar.gz: bomb": (tar_with(size=1_000_000), r"unpack to.*bomb"),
    "tar.xz: bomb, not kept": (tar_with("x.npy", size=1_000_000, mode="w:xz"), r"unpack to.*bomb"),
    "tar: header": (huge_header, r"damaged .*a header of 1,073,741,824 bytes"),
    "tar: too many": (lambda path: tarred(MANY, path), "more than 50 members"),
    "tar: cut": (shortened(tar_with(size=50_000, mode="w")), DAMAGED),
    "tar.gz: cut": (shortened(tar_with(size=50_000)), DAMAGED),
    "tar.gz: cut at the end": (shortened(tar_with(size=50_000), 0.99), DAMAGED),
    "tar.xz: cut": (shortened(tar_with(size=50_000, mode="w:xz")), DAMAGED),
    "tar.bz2: cut": (shortened(tar_with(size=50_000, mode="w:bz2")), DAMAGED),
    "gzip of noise": (written(b"\x1f\x8b" + NOISE), DAMAGED),
    "no archive": (written(zlib.compress(b"x")), "not an archive"),
    "nothing": (written(b""), "not an archive"),
    "rar": (written(b"Rar!\x1a\x07\x01\x00"), "a RAR archive"),
    "7z": (written(b"7z\xbc\xaf'\x1c"), "a 7z archive"),
    "features": (
        lambda path: zipped(FEATURES, path),
        r"\(\*\.wav\); it has 2 \.npy, 1 no suffix\.",
    ),
    "zip of nothing": (lambda path: zipped({}, path), "it has no files"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("build", "message"), UNSAFE.values(), ids=UNSAFE)
def test_refused(tmp_path, build, message):
    archive = build(tmp_path / "archive")
    with pytest.raises(CorpusError, match=message) as caught:
        unpack(archive, tmp_path / "deep" / "out", limits=SMALL)
    assert str(archive) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"archive", "deep"}
    assert {path.name for path in (tmp_path / "deep").glob("*")} <= {"out"}


@given(st.text(st.sampled_from("a.\\/: \x00~"), max_size=12), st.booleans())
def test_no_name_leaves_the_folder(tmp_path_factory, name, packed_as_tar):
    work = tmp_path_factory.mktemp("names")
    member = {f"{name}.wav": b"x"}
    try:
        archive = (tarred if packed_as_tar else zipped)(member, work / "archive")
    except ValueError:  # what the writer refuses, no archive holds
        return
    with contextlib.suppress(CorpusError):
        unpack(archive, work / "out")
    assert {path.name for path in work.iterdir()} <= {"archive", "out"}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz"])
def test_damage_is_named_or_harmless(tmp_path, mode):
    """Bytes changed at random: either the recordings are right, or the archive is refused."""
    members = {name: content * 20 for name, content in KEPT.items()}
    pack = zipped if mode == "zip" else lambda *args: tarred(*args, mode)
    whole = pack(members, tmp_path / "archive").read_bytes()
    rng = random.Random(mode)
    refused = 0
    for trial in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "archive").write_bytes(data)
        try:
            unpack(tmp_path / "archive", tmp_path / str(trial), limits=SMALL)
        except CorpusError:
            refused += 1
        else:
            found = tree(tmp_path / str(trial)).values()
            assert mode == "w" or set(found) <= set(members.values())  # tar has no checksum
        assert {path.name for path in tmp_path.iterdir()} <= {"archive", *map(str, range(150))}
    assert refused > (0 if mode == "w" else 15)


def test_a_compressed_tar_is_read_once(tmp_path, monkeypatch):
    """Sizes that are multiples of a block make tarfile step back: that must not rewind."""
    rewound = []
    monkeypatch.setattr("_compression.DecompressReader._rewind", lambda self: rewound.append(self))
    content = NOISE[:65536]
    unpack(
        tarred({f"{i}.wav": content for i in range(40)}, tmp_path / "a.tar.gz"), tmp_path / "out"
    )
    assert len(list((tmp_path / "out").iterdir())) == 40
    assert not rewound


def test_no_space(tmp_path, monkeypatch):
    archive = zipped(MEMBERS, tmp_path / "a.zip")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match="the disk is full: 3,008 bytes are still needed, 10 are"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(OSError, match="the disk is full"):
        copy(laid_out(MEMBERS, tmp_path / "source"), tmp_path / "copy")


@pytest.mark.parametrize(
    ("paths", "wrapped"),
    [
        (["wav/a.wav", "wav/b.wav"], ""),
        (["x/y/wav/a.wav", "x/y/wav/b.wav"], "x/y"),
        (["x/a.wav", "x/b.wav"], "x"),
        (["a.wav", "x/b.wav"], ""),
        (["x/DC/a.wav", "x/JE/a.wav"], "x"),
        (["x/dc/a.wav"], "x"),
        (["a.wav"], ""),
    ],
)
def test_root(paths, wrapped):
    assert root(paths, ("wav", "DC", "JE")) == wrapped


def test_unreadable(tmp_path):
    source = laid_out({"a.wav": b"x"}, tmp_path / "source")
    (source / "a.wav").unlink()
    os.mkfifo(source / "a.wav")
    with pytest.raises(CorpusError, match=r"member 'a\.wav' is a pipe or a device"):
        copy(source, tmp_path / "out")


@pytest.mark.parametrize("inner", ["Actor_01.zip", "x/casia.RAR", "part.tar.gz"])
def test_an_archive_in_an_archive_is_to_be_unpacked(tmp_path, inner):
    source = laid_out({inner: b"x", "readme.txt": b""}, tmp_path / "source")
    for take in (
        lambda: copy(source, tmp_path / "a"),
        lambda: unpack(zipped({inner: b"x"}, tmp_path / "x.zip"), tmp_path / "b"),
    ):
        with pytest.raises(PackedError, match=rf"archives: {re.escape(inner)}\. Unpack it"):
            take()


def test_dvc_leaves_out_what_is_never_unpacked():
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "LITTER" in line) + 1
    assert tuple(lines[start:]) == LITTER_PATTERNS
