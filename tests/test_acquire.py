from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import server as http
from archives import ARCHIVES, laid_out, tarred, tree, zipped
from test_recipes import needs_shared, originals  # noqa: F401

from timnet.acquire.acquire import Acquired, CorpusState, acquire, state, where
from timnet.corpora import corpus
from timnet.corpora.corpus import Download
from timnet.errors import CorpusError, ParameterError

# What an archive's folders become below data/<corpus>.
STRIPPED = {
    "casia": "CASIA database/",
    "emodb": "",
    "emovo": "EMOVO/",
    "iemocap": "IEMOCAP_full_release/",
    "ravdess": "",
    "savee": "AudioData/",
}


@cache
def layout(name):
    return ARCHIVES[name]()


@cache
def expected(name):
    """What of the layout belongs in `data/<name>`."""

    def kept(path):
        if name == "iemocap":
            label = "/dialog/EmoEvaluation/Ses" in path and path.endswith(".txt")
            return label or "/sentences/wav/" in path
        return path.endswith(".wav")

    members = layout(name).items()
    return {path.removeprefix(STRIPPED[name]): body for path, body in members if kept(path)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "project" / "data"


def scratch(data: Path) -> Path:
    return data.parent / "build" / "acquire"


def leavings(data: Path) -> list[str]:
    """Files in the scratch folder, without the lock."""
    return sorted(path for path in tree(scratch(data)) if not path.endswith("/lock"))


def inode(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {path: (folder / path).stat() for path in tree(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_of_the_true_layout(tmp_path, data, name):
    pack = tarred if name == "iemocap" else zipped
    archive = pack(layout(name), tmp_path / f"{name}.archive")
    before = archive.read_bytes()
    record = corpus(name)
    got = acquire(record, data, source=archive)
    assert got == Acquired(data / name, record.utterances, found=False)
    assert tree(data / name) == expected(name)
    assert archive.read_bytes() == before
    assert leavings(data) == []
    assert [path.name for path in data.iterdir()] == [name]
    assert state(record, data).status == "complete"

    files = inode(data / name)
    assert acquire(record, data, source=archive) == dataclasses.replace(got, found=True)
    assert acquire(record, data).found
    assert inode(data / name) == files


@pytest.mark.parametrize("name", ["casia", "savee"])
def test_folder(tmp_path, data, name):
    source = laid_out(layout(name), tmp_path / "source")
    laid_out({"__MACOSX/x/._a.wav": b"x", ".DS_Store": b"x"}, source)
    files = inode(source)
    acquire(corpus(name), data, source=source)
    assert tree(data / name) == expected(name)
    assert inode(source) == files
    assert not {ino for ino, _ in files.values()} & {i for i, _ in inode(data / name).values()}


def test_flat_forms_stay_flat(tmp_path, data):
    members = ARCHIVES["savee"](top="ALL/", flat=True)
    acquire(corpus("savee"), data, source=zipped(members, tmp_path / "x.zip"))
    assert "DC_a01.wav" in tree(data / "savee")


@pytest.mark.parametrize("name", ["emodb", "emovo", "ravdess"])
def test_download(tmp_path, data, server, name):
    body = zipped(layout(name), tmp_path / "x.zip").read_bytes()
    server.files["/x.zip"] = body
    record = dataclasses.replace(
        corpus(name),
        download=Download(server.url("/x.zip"), "x.zip", len(body), hashlib.md5(body).hexdigest()),
    )
    seen = []
    acquire(record, data, progress=lambda *now: seen.append(now))
    assert tree(data / name) == expected(name)
    assert {what for what, *_ in seen} == {"download", "unpack"}
    assert leavings(data) == [f"{name}/x.zip", f"{name}/x.zip.json"]

    acquire(record, data)
    assert len(server.requests) == 1
    shutil.rmtree(data / name)
    acquire(record, data)  # from the archive that was kept
    assert tree(data / name) == expected(name)
    assert len(server.requests) == 1


def test_mirror_and_url(tmp_path, data, server):
    body = zipped(layout("savee"), tmp_path / "x.zip").read_bytes()
    server.files = {"/copies/savee/savee.zip": body, "/elsewhere": body}
    acquire(corpus("savee"), data, mirror=server.url("/copies/"))
    shutil.rmtree(data / "savee")
    acquire(corpus("savee"), data, url=server.url("/elsewhere"))
    assert [path for path, _ in server.requests] == ["/copies/savee/savee.zip", "/elsewhere"]
    assert tree(data / "savee") == expected("savee")

    name = "Audio_Speech_Actors_01-24.zip"
    server.files[f"/copies/ravdess/{name}"] = body
    with pytest.raises(CorpusError, match=r"208,468,073\. This is another file"):
        acquire(corpus("ravdess"), data, mirror=server.url("/copies"))


def test_url_takes_the_published_hash_off(tmp_path, data, server):
    server.files["/r.tar.gz"] = tarred(layout("ravdess"), tmp_path / "r").read_bytes()
    acquire(corpus("ravdess"), data, url=server.url("/r.tar.gz"))
    assert tree(data / "ravdess") == expected("ravdess")


def only(name, part):
    return {path: content for path, content in layout(name).items() if part in path}


def without(name, part):
    members = layout(name).items()
    return {path: content for path, content in members if part not in path}


MISTAKES = {
    "must be asked for: casia": (
        "casia", None, r"CASIA cannot be downloaded freely\. The Chinese Linguistic Data.*"
        r"at http://www\.chineseldc.*`timnet acquire casia --from PATH`",
    ),
    "must be asked for: iemocap": (
        "iemocap", None, r"sign its release form .*sail\.usc\.edu.*acquire iemocap --from PATH",
    ),
    "must be asked for: savee": (
        "savee", None, r"University of Surrey .*register .*AudioData\.zip.*acquire savee --from",
    ),
    "no such path": ("savee", lambda tmp: tmp / "nowhere", "no such file or folder"),
    "not an archive": (
        "savee", lambda tmp: laid_out({"x": b"x"}, tmp / "y") / "x", "not an archive. Expected zip",
    ),
    "a class is missing": (
        "savee", lambda tmp: zipped(without("savee", "/su"), tmp / "x.zip"),
        r"x\.zip .* savee:\n  - missing classes surprise\n",
    ),
    "a speaker is missing": (
        "ravdess", lambda tmp: zipped(without("ravdess", "Actor_07"), tmp / "x.zip"),
        r"  - missing speakers Actor_07\n  - 184 utterances of angry, expected 192\n",
    ),
    "a file is missing": (
        "emovo", lambda tmp: laid_out(without("emovo", "rab-f1-b1"), tmp / "x"),
        r"x .* emovo:\n  - 83 utterances of angry, expected 84\n",
    ),
    "a session is missing": (
        "iemocap", lambda tmp: laid_out(only("iemocap", "Ses01F_impro01"), tmp / "x"),
        r"missing speakers Ses02F, Ses02M, .*\d+ utterances of angry, expected 1103",
    ),
    "another corpus": (
        "emodb", lambda tmp: zipped(layout("savee"), tmp / "x.zip"),
        r"  - .*x\.zip: 480 file names fitting no rule: DC/a01\.wav",
    ),
    "converted recordings": (
        "savee", lambda tmp: laid_out({"DC_a01.flac": b"x"}, tmp / "x"),
        r"it has 1 \.flac\.",
    ),
    "the corpus twice": (
        "ravdess",
        lambda tmp: zipped(
            {top + path: b"" for top in ("", "x/") for path in only("ravdess", "Actor_01")},
            tmp / "x.zip",
        ),
        "are both utterance",
    ),
    "features": (
        "emovo", lambda tmp: laid_out({"f1/a.npy": b"x"}, tmp / "x"),
        r"\(\*\.wav\); it has 1 \.npy",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "source", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path, data, name, source, message):
    path = source and source(tmp_path)
    with pytest.raises(CorpusError, match=f"(?s){message}") as caught:
        acquire(corpus(name), data, source=path)
    assert not (data / name).exists()
    assert leavings(data) == []
    assert "unpacked" not in str(caught.value)


def test_two_sources(data):
    with pytest.raises(ParameterError, match="--from and --url"):
        acquire(corpus("savee"), data, source=Path("x"), url="http://x")


def test_what_lies_there_is_never_touched(tmp_path, data):
    laid_out(without("savee", "/su"), data / "savee")
    archive = zipped(layout("savee"), tmp_path / "x.zip")
    files = inode(data / "savee")
    with pytest.raises(CorpusError, match=r"(?s)missing classes surprise.*move it"):
        acquire(corpus("savee"), data, source=archive)
    assert inode(data / "savee") == files
    shutil.rmtree(data / "savee")
    (data / "savee").mkdir()  # an empty folder is in nobody's way
    acquire(corpus("savee"), data, source=archive)
    assert tree(data / "savee") == expected("savee")
    shutil.rmtree(data / "savee")
    (data / "savee").write_text("")
    with pytest.raises(CorpusError, match="a file is where"):
        acquire(corpus("savee"), data, source=archive)


@pytest.mark.parametrize(
    ("name", "upper"),
    [
        ("savee", True),
        ("savee", False),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ARCHIVES),
    ],
)
def test_upper_case_endings(tmp_path, data, name, upper):
    members = {}
    for number, (path, content) in enumerate(layout(name).items()):
        stem, dot, ending = path.rpartition(".")
        odd = ending in ("wav", "txt") and (upper or number % 3 == 0)
        members[f"{stem}{dot}{ending.upper()}" if odd else path] = content
    record = corpus(name)
    got = acquire(record, data, source=laid_out(members, tmp_path / "source"))
    assert got.utterances == record.utterances
    plain = laid_out(layout(name), tmp_path / "plain" / "x")
    ids = {utterance.id for utterance in record.read(data / name)}
    assert ids == {utterance.id for utterance in record.read(plain)}
    assert state(record, data).status == "complete"


def encrypted(archive: Path) -> bytes:
    """The archive with the mark of encryption on its members."""
    body = bytearray(archive.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = body.find(mark)
        while place >= 0:
            body[place + flags] |= 1
            place = body.find(mark, place + 4)
    return bytes(body)


def test_a_download_that_another_program_can_unpack_is_kept(tmp_path, data, server):
    small = zipped(only("savee", "/a0"), tmp_path / "x.zip")
    nested = zipped({"all.zip": b"x"}, tmp_path / "y.zip")
    part = zipped({**only("savee", "/a0"), "rest.rar": b"x"}, tmp_path / "z.zip")
    kinds = {
        "/rar": (b"Rar!\x1a\x07\x01\0" + bytes(600), "a RAR archive"),
        "/7z": (b"7z\xbc\xaf'\x1c" + bytes(600), "a 7z archive"),
        "/encrypted": (encrypted(small), "is encrypted"),
        "/nested": (nested.read_bytes(), r"archives: all\.zip"),
        "/part": (part.read_bytes(), r"archives: rest\.rar"),
    }
    server.files = {path: body for path, (body, _) in kinds.items()}
    for path, (body, message) in kinds.items():
        for _ in range(2):
            with pytest.raises(CorpusError, match=message) as caught:
                acquire(corpus("savee"), data, url=server.url(path))
            named = scratch(data) / "savee" / "savee.zip"
            assert str(named) in str(caught.value)
            assert named.read_bytes() == body
    assert len(server.requests) == len(kinds)


def test_a_bad_archive_is_fetched_anew(tmp_path, data, server):
    good = zipped(layout("savee"), tmp_path / "x.zip").read_bytes()
    part = zipped(without("savee", "/su"), tmp_path / "y.zip").read_bytes()
    url = server.url("/x.zip")
    for bad, message in ((part, "missing classes surprise"), (good[:-99], "damaged")):
        server.files["/x.zip"] = bad
        with pytest.raises(CorpusError, match=message) as caught:
            acquire(corpus("savee"), data, url=url.replace("//", "//anna:secret@"))
        assert "secret" not in str(caught.value)
        assert not (data / "savee").exists()
    server.files["/x.zip"] = good
    server.script = [http.promise(-99)]  # a length that is too short: the rest is not read
    with pytest.raises(CorpusError, match="damaged"):
        acquire(corpus("savee"), data, url=url)
    acquire(corpus("savee"), data, url=url)
    assert tree(data / "savee") == expected("savee")


def test_one_at_a_time(tmp_path, data):
    work = scratch(data) / "savee"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CorpusError, match="another process is acquiring savee"):
            acquire(corpus("savee"), data)


def test_trouble_of_the_disk(tmp_path, data, monkeypatch):
    archive = zipped(layout("savee"), tmp_path / "x.zip")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
        with pytest.raises(CorpusError, match=r"the disk is full: [\d,]+ bytes"):
            acquire(corpus("savee"), data, source=archive)
    laid_out({"build": b""}, tmp_path / "other")
    with pytest.raises(CorpusError, match=r"other/build.*Not a directory"):
        acquire(corpus("savee"), data, source=archive, scratch=tmp_path / "other" / "build")
    assert not (data / "savee").exists()


def test_another_disk(tmp_path, data, monkeypatch):
    real = Path.stat

    def stat(path, **options):
        found = real(path, **options)
        if path.name != "data":
            return found
        fields = list(found)
        fields[2] += 1  # st_dev
        return type(found)(fields)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(CorpusError, match=r"are on different disks"):
        acquire(corpus("savee"), data)


def test_state(tmp_path, data):
    assert state(corpus("savee"), data) == CorpusState("savee", "absent", 0, where(corpus("savee")))
    assert "free to download: `timnet acquire emodb`" in where(corpus("emodb"))
    laid_out(without("savee", "/su"), data / "savee")
    assert state(corpus("savee"), data).detail == (
        "missing classes surprise; missing 60 of 480 utterances in all"
    )
    assert state(corpus("savee"), data).utterances == 420
    laid_out({"x.wav": b"x"}, data / "savee")
    found = state(corpus("savee"), data)
    assert (found.status, found.utterances) == ("incomplete", 0)
    assert "fitting no rule: x.wav" in found.detail


KILLED = """
import sys
from pathlib import Path
from timnet.acquire.acquire import acquire
from timnet.corpora import corpus
print("ready", flush=True)
way = {sys.argv[2]: sys.argv[3] if sys.argv[2] == "url" else Path(sys.argv[3])}
acquire(corpus("emovo"), Path(sys.argv[1]), **way)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "times"), [("url", 10), ("archive", 4), ("folder", 4)])
def test_killed_at_random_moments(tmp_path, data, server, way, times):
    archive = zipped(layout("emovo"), tmp_path / "x.zip")
    server.files["/x.zip"] = archive.read_bytes()
    server.pause = 0.02
    source = {"url": server.url("/x.zip"), "archive": archive}.get(way)
    source = source or laid_out(layout("emovo"), tmp_path / "source")
    option = "url" if way == "url" else "source"
    command = [sys.executable, "-c", KILLED, data, option, source]
    kills, finished, rng = 0, 0, random.Random(way)
    whole = 0.5  # s, until it is known
    while kills < times:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            start = time.monotonic()
            try:
                process.wait(rng.uniform(0, whole) if kills + finished else None)
                finished += 1
                whole = time.monotonic() - start if finished == 1 else whole
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
        if (data / "emovo").exists():  # complete, or absent
            assert tree(data / "emovo") == expected("emovo")
            shutil.rmtree(data.parent)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert tree(data / "emovo") == expected("emovo")
    assert not (scratch(data) / "emovo" / "unpacked").exists()


@needs_shared
@pytest.mark.slow
def test_originals_whole_or_refused(data, originals):  # noqa: F811
    acquire(corpus("emovo"), data, source=originals / "emovo")
    assert tree(data / "emovo") == tree(originals / "emovo")
    acquire(corpus("emodb"), data, source=originals / "emodb")
    assert tree(data / "emodb") == tree(originals / "emodb")
    absent = ", ".join(f"Actor_{n:02}" for n in range(1, 25) if n not in (1, 5, 7, 9, 20))
    with pytest.raises(CorpusError, match=f"missing speakers {absent}\n"):
        acquire(corpus("ravdess"), data, source=originals / "ravdess")
