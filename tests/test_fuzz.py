"""Every parser against what no one would write: an error with a sentence, or a result; no other.

A hundred drawn inputs a parser or so; `pytest tests/test_fuzz.py --hypothesis-profile=long` draws
thousands, others every time. What it has found stands beside, as a case of its own.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import server as http
from archives import wav
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from models import small_model
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from timnet import records, schemas
from timnet.acquire import download
from timnet.acquire.acquire import state
from timnet.acquire.table import import_table
from timnet.corpora import casia, custom, emodb, emovo, iemocap, ravdess, savee
from timnet.corpora.corpus import natural_key
from timnet.dataset import features
from timnet.errors import ArtifactError, CorpusError, ParameterError, TimnetError
from timnet.evaluation import authors_weights
from timnet.models import model
from timnet.project import dvc, params
from timnet.reporting import render, tables
from timnet.reporting.scored import ScoredRun
from timnet.training.network import TIMNet


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


# JSON and YAML of all kinds, the values that parsers trip over among them
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\0", "../..", "x" * 300, 10**400, -1, 0, 2**63, "²", "\ud800"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@st.composite
def spoilt(draw: st.DrawFn, content: Any) -> Any:
    """`content` with something in it replaced, removed or added."""
    copy = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 2))):
        place, keys = copy, []
        while isinstance(place, (dict, list)) and place and (not keys or draw(st.booleans())):
            keys = [*keys, (place, draw(st.sampled_from(sorted(place) if isinstance(place, dict)
                                                        else range(len(place)))))]  # fmt: skip
            place = keys[-1][0][keys[-1][1]]
        if not keys:
            return draw(VALUES)
        parent, key = keys[-1]
        what = draw(st.sampled_from(("replace", "remove", "add")))
        if what == "remove":
            del parent[key]
        elif what == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=9))] = draw(VALUES)
        else:
            parent[key] = draw(VALUES)
    return copy


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, content: bytes, within: int | None = None) -> bytes:
    """Bytes changed, cut off or put in between."""
    data, end = bytearray(content), min(within or len(content), len(content))
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    place = draw(st.integers(0, end))
    kind = draw(st.sampled_from(("as is", "cut", "more")))
    if kind == "cut":
        return bytes(data[:place])
    if kind == "more":
        data[place:place] = draw(st.binary(max_size=9))
    return bytes(data)


# names of files

GOOD = {
    casia: "liuchanhg/angry/201.wav",
    emodb: "wav/03a01Fa.wav",
    emovo: "f1/dis-f1-b1.wav",
    ravdess: "Actor_07/03-01-05-02-01-01-07.wav",
    savee: "DC/sa01.wav",
    iemocap: "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
}
PARTS = (
    st.binary(min_size=1, max_size=200)
    .filter(lambda part: not {b"/"[0], 0} & set(part) and part not in (b".", b".."))
    .map(os.fsdecode)
)


@given(st.sampled_from(list(GOOD)), st.lists(PARTS, min_size=1, max_size=3), st.booleans())
@example(emovo, [os.fsdecode(b"\xff"), "f1", "dis-f1-b1"], True)
@example(casia, ["²", "1²2"], True)
def test_names_of_recordings(recipe, parts, ending):
    with TemporaryDirectory() as name:
        corpus = Path(name, "data", recipe.CORPUS.id)
        path = corpus.joinpath(*parts)
        path = path.with_name(f"{path.name[:200]}.wav") if ending else path
        with suppress(OSError):  # the file system's own limits
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
        for file in (corpus / GOOD[recipe], corpus / parts[0] / GOOD[recipe]):
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"x")
        with suppress(CorpusError):
            found = recipe.read(corpus)
            assert all((corpus / each.path).is_file() for each in found)
            "".join(each.path for each in found).encode()  # as tables want them
        assert state(recipe.CORPUS, corpus.parent).status == "incomplete"


@given(st.lists(st.text(max_size=30), max_size=8))
@example(["1²2", "1a2", "9" * 5000, "٣"])
def test_any_names_have_an_order(names):
    names.sort(key=natural_key)
    assert natural_key("a2") < natural_key("a10")


def test_pipes_and_devices_are_not_read(folder):
    file = folder / "f1" / "dis-f1-b1.wav"
    file.parent.mkdir()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(file)
        with pytest.raises(CorpusError, match=r"pipes or devices .*: f1/dis-f1-b1\.wav"):
            emovo.read(folder)
        file.unlink()


# labels of IEMOCAP

LABELS = "".join(
    f"[{n}.2901 - {n}.9357]\tSes01F_impro01_F{n:03}\t{code}\t[2.5000, 2.5000, 2.5000]\nC-E1:\tx;\n"
    for n, code in enumerate(("neu", "fru", "exc"))
).encode()


@given(damaged(b"% header\n\n" + LABELS) | st.binary(max_size=300))
def test_labels_of_iemocap(content):
    with TemporaryDirectory() as name:
        session = Path(name, "Session1")
        label = session / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
        for number in range(3):
            turn = session / "sentences/wav/Ses01F_impro01" / f"Ses01F_impro01_F{number:03}.wav"
            turn.parent.mkdir(parents=True, exist_ok=True)
            turn.write_bytes(b"x")
        label.parent.mkdir(parents=True)
        label.write_bytes(content)
        with suppress(CorpusError):
            found = iemocap.read(Path(name))
            assert {each.emotion for each in found} <= {"neutral", "happy"}


# params.yaml

TEXT = (ROOT / "timnet" / "demo.yaml").read_text()
SETTINGS = YAML(typ="safe").load(TEXT)
TOKENS = "&a |*a|!!int |!!float |!!bool |!!set |<<: |? |- |{|}|[|]|: |\t|2001-99-99|%|---\n|'"
TOKENS = [*TOKENS.split("|"), "\0", "\x85", "9" * 5000, "[" * 3000]


@st.composite
def scribbled(draw: st.DrawFn) -> bytes:
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(TOKENS)) + text[place:]
    return text.encode()


@given(spoilt(SETTINGS).map(as_json) | scribbled() | damaged(TEXT.encode()))
@example(b"corpora: !!int x")
@example(b"corpora: !!int ''")
@example(b"corpora: !!bool x")
@example(b"corpora: 2001-99-99")
@example(b"corpora: [" + b"9" * 5000 + b"]")
@example(as_json({**SETTINGS, "corpora": {"x" * 300: "custom"}}))
@example(b"".join(b"x%d: &x%d [%s]\n" % (n, n, (b"*x%d, " % (n - 1) if n else b"1, ") * 9)
                  for n in range(30)))  # fmt: skip
def test_settings(content):
    with TemporaryDirectory() as name:
        path = Path(name, "params.yaml")
        path.write_bytes(content)
        with suppress(ParameterError, CorpusError):
            assert isinstance(params.read(path), params.Params)


# weights


def layers() -> dict[str, np.ndarray]:
    """A network of three classes as Keras names and shapes its arrays."""
    arrays = {name: value.numpy() for name, value in TIMNet(1, 3, 2, 5).arrays(0).items()}
    made = {}
    for way in range(2):
        made[f"conv1d_{way}/kernel:0"] = arrays["input_kernel"][way : way + 1]
        made[f"conv1d_{way}/bias:0"] = arrays["input_bias"][way]
    places = [(block, way, step) for block in range(2) for way in range(2) for step in range(2)]
    for number, (block, way, step) in enumerate(places):
        where = (block, step, way)
        for ours, theirs in (("kernel", "kernel"), ("bias", "bias")):
            made[f"conv1d_{number + 2}/{theirs}:0"] = arrays[ours][where]
        for ours, theirs in {
            "gamma": "gamma",
            "beta": "beta",
            "running_mean": "moving_mean",
            "running_variance": "moving_variance",
        }.items():
            made[f"batch_normalization_{number}/{theirs}:0"] = arrays[ours][where]
    made["weight_layer/kernel:0"] = arrays["scale_weight"][:, None]
    made["dense/kernel:0"], made["dense/bias:0"] = arrays["dense_kernel"], arrays["dense_bias"]
    return made


def hdf5(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        for name, value in arrays.items():
            content[f"{name.partition('/')[0]}/{name}"] = value
    return file.getvalue()


def zipped(path: Path, *files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, content in enumerate(files):
            archive.writestr(f"w_{number}.hdf5", content)
    return path


@pytest.fixture(scope="module")
def weights() -> bytes:
    return hdf5(layers())


def test_weights_of_a_right_shape(folder, weights):
    network = authors_weights.read_networks(zipped(folder / "w.zip", weights, weights))
    assert (network.networks, network.classes, network.channels) == (2, 3, 5)


@given(st.data())
def test_weights(weights, data):
    if data.draw(st.booleans()):
        content = data.draw(damaged(weights))
    else:
        arrays = layers()
        name = data.draw(st.sampled_from(sorted(arrays)))
        value = arrays.pop(name)
        changed = data.draw(
            st.sampled_from(
                (None, value[..., :0], value.ravel(), value[None], value.astype(np.float64),
                 value.astype("S4"), np.array(b"text"), np.float32(1), np.repeat(value, 2, 0))
            )
        )  # fmt: skip
        if changed is not None:
            arrays[data.draw(st.sampled_from((name, f"conv1d_{'9' * 5000}/x", "x/y")))] = changed
        content = hdf5(arrays)
    with TemporaryDirectory() as place, suppress(ArtifactError):
        authors_weights.read_networks(zipped(Path(place, "w.zip"), content))


def test_weights_elsewhere_are_not_followed(folder, weights):
    (folder / "other").write_bytes(weights)
    secret = folder / "secret"
    secret.write_bytes(bytes(20))
    for number, build in enumerate((
        lambda file: file.__setitem__("dense", h5py.ExternalLink(str(folder / "other"), "dense")),
        lambda file: file.__setitem__("dense", h5py.SoftLink("/conv1d_0")),
        lambda file: file.create_group("dense").create_dataset(
            "kernel:0", (5,), "f4", external=[(str(secret), 0, 20)]
        ),
    )):  # fmt: skip
        arrays = {name: value for name, value in layers().items() if "dense" not in name}
        stream = io.BytesIO(hdf5(arrays))
        with h5py.File(stream, "a") as file:
            build(file)
        path = zipped(folder / f"{number}.zip", stream.getvalue())
        with pytest.raises(ArtifactError, match=r"is a link|is not an array of 32"):
            authors_weights.read_networks(path)


def test_weights_of_a_size_or_shape_that_cannot_be(folder, weights):
    flat = {**layers(), "dense/kernel:0": layers()["dense/kernel:0"].ravel()}
    with pytest.raises(ArtifactError, match="not the layers of a TIM-Net"):
        authors_weights.read_networks(zipped(folder / "flat.zip", hdf5(flat)))
    shape = (5).to_bytes(8, "little")  # of a bias, each as an extent and as the most that it may be
    huge = weights.replace(shape + shape, b"\xff" * 8 + shape)
    with pytest.raises(ArtifactError, match=r"not a readable HDF5|not the layers of"):
        authors_weights.read_networks(zipped(folder / "huge.zip", huge))


@pytest.mark.parametrize("name", ["9" * 300 + ".hdf5", "x.hdf5"])
def test_archives_of_weights(folder, weights, name):
    path = folder / "w.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, weights if name == "x.hdf5" else b"no weights")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= name == "x.hdf5"  # as if encrypted
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"not a ZIP archive|not a readable HDF5"):
        authors_weights.read_networks(path)


# model files


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[dict, dict]:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    made = small_model(networks=1)
    model.save(made, path)
    return made.card.model_dump(mode="json"), load_file(path)


@given(st.data())
def test_models(saved, data):
    card, arrays = saved[0], dict(saved[1])
    if data.draw(st.booleans()):
        card = data.draw(spoilt(card))
    else:
        name = data.draw(st.sampled_from(sorted(arrays)))
        value = arrays.pop(name)
        changed = (
            value[..., :0],
            value.ravel(),
            value[None],
            value.astype(np.float16),
            value * 1e30,
        )
        arrays[data.draw(st.sampled_from((name, "x")))] = data.draw(st.sampled_from(changed))
    with TemporaryDirectory() as place, suppress(ArtifactError):
        path = Path(place, "x.safetensors")
        contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        save_file(contiguous, path, {model.FORMAT: json.dumps(card)})
        model.load(path)


# tables

ROWS = [
    {"utterance": f"u{n}", "speaker": "s", "emotion": "sad", "sentence": None, "path": f"{n}.wav",
     "sample_rate": 16000, "channels": 1, "samples": 9, "sha256": "0"} for n in range(3)
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("table") / "x.parquet"
    schemas.write(pa.Table.from_pylist(ROWS, schema=schemas.MANIFEST), path, schemas.MANIFEST)
    return path.read_bytes()


@given(st.data())
def test_damaged_tables(table, data):
    with TemporaryDirectory() as place, suppress(ArtifactError):
        path = Path(place, "x.parquet")
        path.write_bytes(data.draw(damaged(table)))
        assert schemas.read(path, schemas.MANIFEST).schema.names == schemas.MANIFEST.names


TYPES = (pa.int8(), pa.float64(), pa.binary(), pa.list_(pa.int32()), pa.bool_(), pa.null())


@given(st.data())
def test_tables_of_another_schema(data):
    names = st.sampled_from([*schemas.MANIFEST.names, "x", ""])
    columns = data.draw(st.lists(st.tuples(names, st.sampled_from(TYPES)), max_size=12))
    metadata = {
        b"timnet": as_json(data.draw(spoilt({"frames": 3, "settings": {"coefficients": 2}})))
    }
    schema = pa.schema([pa.field(*each) for each in columns], metadata=metadata)
    made = pa.table([pa.nulls(2, of) for _, of in columns], schema=schema)
    with TemporaryDirectory() as place:
        path = Path(place, "x.parquet")
        pq.write_table(made, path)
        with pytest.raises(ArtifactError, match=r"columns differ"):
            schemas.read(path, schemas.MANIFEST)
        with pytest.raises(ArtifactError, match=r"columns differ|invalid fingerprint"):
            features.read(path)


def test_a_folder_is_no_table_and_adds_no_column(folder, table):
    inside = folder / "a=1" / "x.parquet"
    inside.parent.mkdir()
    inside.write_bytes(table)
    assert schemas.read(inside, schemas.MANIFEST).num_rows == 3
    with pytest.raises(ArtifactError, match="not a readable Parquet file"):
        schemas.read(inside.parent, schemas.MANIFEST)


# custom corpora

CELLS = st.one_of(
    st.sampled_from(("a.wav", "b/c.wav", "./a.wav", "b//c.wav", "b/../a.wav", "labels.csv", "")),
    st.sampled_from(("happy", "sad", "x" * 300, "../a.wav", "/a.wav", "corpus.json", "male", "b")),
    st.text(max_size=9),
)
LINES = st.lists(st.lists(CELLS, max_size=6), max_size=6)


def listed(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([["path", "speaker", "emotion", "sex"], *lines])
    return text.getvalue().encode("utf-8", "surrogatepass")


TWO = [["a.wav", "s", "sad"], ["b/c.wav", "s", "happy"]]


@given(LINES.map(listed) | LINES.map(lambda lines: listed(TWO + lines)) | damaged(listed(TWO)))
@example(listed([["./a.wav", "s", "sad"], ["b/c.wav", "s", "happy"]]))
@example(listed([*TWO, ["x" * 300, "s", "sad"]]))
def test_tables_of_ones_own(content):
    with TemporaryDirectory() as place:
        mine, data = Path(place, "mine"), Path(place, "data")
        for name in ("a.wav", "b/c.wav", "labels.csv", "corpus.json"):
            (mine / name).parent.mkdir(parents=True, exist_ok=True)
            (mine / name).write_bytes(wav(name, 0.1, rate=8000))
        (mine / "table.csv").write_bytes(content)
        try:
            taken = import_table(mine / "table.csv", "mine", data)
        except CorpusError:
            assert not (data / "mine").exists()
        else:  # then all of it can be used
            assert len(taken.read(data / "mine")) == taken.utterances


CONTRACT = {
    "id": "mine", "title": "m", "language": "x", "licence": "x", "citation": "x", "source": "x",
    "speakers": {"s": "unknown"}, "counts": {"sad": 1, "happy": 1}, "sample_rates": [8000],
    "channels": [1], "seconds": [0.1, 0.2],
}  # fmt: skip


@given(spoilt(CONTRACT).map(as_json) | damaged(as_json(CONTRACT)))
@example(b"[" * 100_000)
def test_contracts_of_ones_own(content):
    with TemporaryDirectory() as place, suppress(CorpusError):
        (Path(place) / "corpus.json").write_bytes(content)
        corpus = custom.load(Path(place))
        assert corpus.utterances > 0 and len(corpus.labels) > 1


# what stages and DVC note

RUN = {
    "commit": "0", "device": "cpu", "device_name": "CPU", "labels": ["happy", "sad"], "seeds": [0],
    "features": {"revision": 2, "source": "0", "settings": {
        "signal_length": 44100, "resampler": "soxr_hq", "coefficients": 39}},
    "folds": {"protocol": "random", "number": 5, "seeds": [1]}, "tested_on": "demo",
    "train": {"epochs": 1, "tabs": 2, "variant": "tim-net", "precision": "fp32", "compiled": False},
    "trained_on": "demo", "utterances": 9, "versions": {"torch": "2"},
}  # fmt: skip
SCORE = {"value": 50.0, "low": 40.0, "high": 60.0, "fold_mean": 50.0, "fold_sd": 1.0}
SCORES = {
    "last-epoch": {
        "uar": SCORE, "war": SCORE,
        "draws": [{"fold_seed": 1, "seed": 0, "uar": 50.0, "war": 50.0}],
        "speakers": {"s1": {"uar": 50.0, "war": 50.0, "utterances": 9}},
    }
}  # fmt: skip


def parsed(content: Any, shape: Any) -> Any:
    try:
        return records.parse(as_json(content), shape)
    except records.DamagedRecord:
        return None


def unpaired(pairs: Any, protocol: str) -> None:
    """No change is known."""


@given(spoilt(RUN), spoilt(SCORES))
@example({**RUN, "labels": 5}, SCORES)
@example(RUN, {"last-epoch": {"uar": 3}})
@example(RUN, {"last-epoch": {**SCORES["last-epoch"], "uar": {**SCORE, "value": 1e300}}})
def test_results_in_git(run, scores):
    for one, other in ((run, SCORES), (RUN, scores)):
        record, scored = parsed(one, records.RunRecord), parsed(other, records.Scores)
        if record and scored:
            runs = [ScoredRun("demo-random", record, scored)]
            for made in tables.all_tables(runs, {}, {}, unpaired):
                render.markdown(made), render.as_csv(made), render.latex(made)


NOTED = {
    "schema": "2.0",
    "stages": {
        "train@demo-random": {
            "cmd": "timnet train demo-random",
            "deps": [{"path": "data/demo", "md5": "0.dir", "size": 1, "nfiles": 2}],
            "outs": [{"path": "build/train/demo-random", "md5": "0.dir", "size": 1}],
        }
    },
}


@given(spoilt(NOTED).map(as_json) | damaged(as_json(NOTED)))
@example(b"stages:\n<<<<<<< HEAD\n  a: {}\n=======\n>>>>>>> main\n")
@example(b"")
def test_the_lock_of_dvc(content):
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dvc, "PATIENCE", 0.0)  # nobody writes there
        (Path(place) / "dvc.lock").write_bytes(content)
        try:
            for stage in dvc.locked(Path(place)).values():
                assert all(each["path"] for part in ("deps", "outs") for each in stage.get(part, [])
                           if each["path"])  # fmt: skip
        except ArtifactError as error:
            assert "git checkout -- dvc.lock" in str(error)


# what a download that was cut leaves


@pytest.fixture(scope="module")
def server() -> Iterator[http.Server]:
    with http.Server() as running:
        running.files["/a.zip"] = b"PK\x03\x04" + random.Random(1).randbytes(3000)
        yield running


@given(st.data())
def test_what_a_download_left(server, data):
    url, body = server.url("/a.zip"), server.files["/a.zip"]
    left = {"url": url, "etag": http.etag(body), "last_modified": None, "size": len(body)}
    content = data.draw(spoilt(left).map(as_json) | damaged(as_json(left)))
    with TemporaryDirectory() as place:
        target = Path(place, "a.zip")
        kept = data.draw(st.integers(0, len(body)))
        name = data.draw(st.sampled_from(("a.zip.part.json", "a.zip.json")))
        (target if name == "a.zip.json" else Path(place, "a.zip.part")).write_bytes(body[:kept])
        Path(place, name).write_bytes(content)
        with suppress(TimnetError):
            download.fetch(url, target, sleep=lambda _: None)
            # where a size that lies was believed, unpacking refuses what is too short
            assert body.startswith(target.read_bytes())
