"""Corpora on the command line, as users meet them: from an archive to a validated manifest."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from archives import ARCHIVES, iemocap_archive, laid_out, tarred, tree, wav, zipped
from conftest import ROOT, commit, run
from ruamel.yaml import YAML

from timnet import schemas
from timnet.acquire.table import import_table
from timnet.corpora import CORPORA, corpus, custom
from timnet.paths import write_json

SLOW = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty place to work in."""
    path = tmp_path / "project"
    path.mkdir()
    return path


def name_in_params(folder: Path, name: str) -> None:
    """A params.yaml that has one corpus and nothing to run on it."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["corpora"] = {name: name if name in CORPORA else "custom"}
    content["features"]["sets"] = {}
    for section in ("tuned_on", "runs", "sources", "transfers", "models"):
        content[section] = {}
    yaml.dump(content, folder / "params.yaml")


def failing(folder: Path, *command: str | Path) -> str:
    """What a command that is to fail says of it."""
    result = run(folder, "timnet", *command, check=False)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("timnet: ")
    return result.stderr


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        pytest.param("casia", zipped, marks=SLOW),
        pytest.param("emodb", zipped, marks=SLOW),
        pytest.param("emovo", zipped, marks=SLOW),
        pytest.param("iemocap", tarred, marks=SLOW),
        pytest.param("ravdess", zipped, marks=SLOW),
        ("savee", zipped),
    ],
)
def test_from_an_archive_to_a_validated_manifest(folder, tmp_path, name, pack):
    record = corpus(name)
    archive = pack(ARCHIVES[name](), tmp_path / f"{name}.archive")
    acquired = run(folder, "timnet", "acquire", name, "--from", archive, "--no-add")
    assert acquired.stdout == f"{name}: {record.utterances} utterances in data/{name}\n"
    again = run(folder, "timnet", "acquire", name, "--from", archive, "--no-add")
    assert again.stdout == f"{name}: already there, {record.utterances} utterances in data/{name}\n"

    name_in_params(folder, name)
    told = run(folder, "timnet", "manifest", name).stdout
    assert told == f"{name}: {record.utterances} utterances, {len(record.speakers)} speakers\n"
    table = schemas.read(folder / f"build/manifest/{name}.parquet", schemas.MANIFEST)
    found = table.group_by("emotion").aggregate([("utterance", "count")]).to_pylist()
    assert {row["emotion"]: row["utterance_count"] for row in found} == record.counts
    assert set(table["speaker"].to_pylist()) == set(record.speakers)

    validated = run(folder, "timnet", "validate", name).stdout
    # what small sounds cannot have right, and it only warns
    assert f"{name}: warning: sample rates in Hz: 2000 (" in validated
    if record.originals:
        assert f"{name}: 0 of {record.utterances} recordings are the originals\n" in validated
        assert validated.endswith(" checks, 2 warnings\n")
    else:
        assert f"{name}: no hashes of its original recordings are known\n" in validated
        assert validated.endswith(" checks, 1 warnings\n")
    assert run(folder, "timnet", "corpora", name).stdout.count("complete, ") == 1


def test_acquired_recordings_are_dvc_s(folder, tmp_path):
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    source = laid_out(ARCHIVES["savee"](), tmp_path / "source")
    said = run(folder, "timnet", "acquire", "savee", "--from", source).stdout
    assert said.endswith("data.dvc is up to date: commit it with git\n")
    (out,) = YAML(typ="safe").load(folder / "data.dvc")["outs"]
    assert (out["path"], out["nfiles"]) == ("data", 480)
    assert "up to date" in run(folder, "dvc", "status").stdout
    before = (folder / "data.dvc").read_bytes()
    commit(folder)
    said = run(folder, "timnet", "acquire", "savee", "--from", source).stdout
    assert "already there" in said
    assert said.endswith("data.dvc is up to date\n")
    assert (folder / "data.dvc").read_bytes() == before


def test_a_corpus_that_fails_leaves_the_others_under_dvc(folder, tmp_path):
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    laid_out(ARCHIVES["savee"](top=""), folder / "data" / "savee")
    (folder / "data" / "savee" / "AudioData").rename(tmp_path / "not part of it")
    message = failing(folder, "acquire", "casia", "savee", "emodbb")
    assert "casia --from PATH" in message
    assert "unknown corpus 'emodbb'" in message
    (out,) = YAML(typ="safe").load(folder / "data.dvc")["outs"]
    assert out["nfiles"] == 480


def test_recordings_that_dvc_would_leave_out_are_told(folder, tmp_path):
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    import_table(own_table(tmp_path / "one"), "one", folder / "data")
    run(folder, "dvc", "add", "--quiet", "data")
    before = (folder / "data.dvc").read_bytes()
    import_table(own_table(tmp_path / "two"), "two", folder / "data")
    (folder / "data/two/.dvcignore").write_text("/anna\n")
    assert "data/two/.dvcignore: DVC allows no such file" in failing(folder, "acquire", "two")
    (folder / "data/two/.dvcignore").unlink()
    ignoring = (folder / ".dvcignore").read_text()
    (folder / ".dvcignore").write_text(f"{ignoring}\n/data/two/anna\n")
    message = failing(folder, "acquire", "two")
    assert "4 of the recordings in data/: two/anna/0.wav" in message
    assert (folder / "data.dvc").read_bytes() == before
    (folder / ".dvcignore").write_text(ignoring)
    run(folder, "timnet", "acquire", "two")
    (out,) = YAML(typ="safe").load(folder / "data.dvc")["outs"]
    assert out["nfiles"] == 20


def own_table(folder: Path) -> Path:
    """Eight recordings of two speakers and two emotions in a folder, and the table beside them."""
    sounds = [f"{who}/{n}.wav" for who in ("anna", "bert") for n in range(4)]
    rows = [f"{path},{path[:4]},{('happy', 'sad')[int(path[5]) % 2]}\n" for path in sounds]
    laid_out({path: wav(f"{folder.name}/{path}", 0.5, rate=8000) for path in sounds}, folder)
    (folder / "table.csv").write_text("path,speaker,emotion\n" + "".join(rows))
    return folder / "table.csv"


def test_a_corpus_that_fails_does_not_excuse_its_own_loss(folder, tmp_path):
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    for name in ("one", "two"):
        import_table(own_table(tmp_path / name), name, folder / "data")
    run(folder, "dvc", "add", "--quiet", "data")
    before = (folder / "data.dvc").read_bytes()
    (folder / "data/one/anna/1.wav").unlink()
    message = failing(folder, "acquire", "one", "two")
    assert "data/one/anna/1.wav" in message
    assert "data.dvc was not updated, since it would lose recordings:\n  - one: 1 file" in message
    assert (folder / "data.dvc").read_bytes() == before


def test_mistakes_on_the_command_line(folder, tmp_path, monkeypatch):
    assert f"no DVC repository in {folder}" in failing(folder, "acquire", "demo")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    assert "unknown corpus 'emodbb'; known are casia, demo" in failing(folder, "acquire", "emodbb")
    assert "one corpus at a time" in failing(folder, "acquire", "savee", "casia", "--from", "x")
    assert "--csv" in failing(
        folder, "acquire", "mine", "--csv", "x.csv", "--url", "http://127.0.0.1/x.zip"
    )
    monkeypatch.setenv("TIMNET_MIRROR", "")  # is none
    assert "CASIA cannot be downloaded freely" in failing(folder, "acquire", "casia")
    assert "demo is generated here" in failing(folder, "acquire", "demo", "--from", "x")
    assert failing(folder, "acquire", "emovo", "--url", "http://nowhere.invalid/x.zip").startswith(
        "timnet: emovo: http://nowhere.invalid/x.zip: the host cannot be found"
    )
    assert "nowhere: no such file or folder" in failing(
        folder, "acquire", "savee", "--from", "nowhere"
    )
    missing = {p: c for p, c in ARCHIVES["savee"]().items() if "/su" not in p and "/KL" not in p}
    message = failing(folder, "acquire", "savee", "--from", zipped(missing, tmp_path / "x.zip"))
    assert "savee:\n" in message
    assert "missing classes surprise\n  - missing speakers KL\n" in message
    assert not tree(folder / "data")


def test_the_table_of_corpora(folder):
    laid_out(ARCHIVES["emodb"](), folder / "data" / "emodb")
    laid_out({"f1/dis-f1-b1.wav": b"x"}, folder / "data" / "emovo")
    laid_out({"corpus.json": b"{"}, folder / "data" / "mine")
    lines = run(folder, "timnet", "corpora").stdout.splitlines()
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line[0] != " "}
    assert list(rows)[1:] == [*sorted([*ARCHIVES, "demo"]), "mine"]
    assert rows["emodb"] == "emodb German 535 complete"
    assert rows["emovo"].startswith("emovo Italian 588 incomplete missing classes angry, fear,")
    assert rows["ravdess"].startswith("ravdess English 1440 absent RAVDESS (CC BY-NC-SA 4.0)")
    assert rows["mine"].startswith("mine broken data/mine/corpus.json: not a contract")
    text = " ".join(" ".join(lines).split())
    for expected in (
        "is free to download: `timnet acquire ravdess`",
        "at http://www.chineseldc.org/resource_info.php?rid=76, then `timnet acquire casia",
        "sign its release form (research only, no redistribution)",
        "The University of Surrey gives it to those who register",
    ):
        assert expected in text


def test_names_of_recordings_are_told_as_they_are(folder, tmp_path):
    recipe = import_table(own_table(tmp_path / "mine"), "mine", folder / "data")
    name_in_params(folder, "mine")
    for name in ("[take 0].wav", "[", "x].wav"):
        (folder / "data/mine" / name).write_bytes(b"x")
    (folder / "data/mine/b[").mkdir()
    (folder / "data/mine/b[/x].wav").write_bytes(b"x")
    said = " ".join(run(folder, "timnet", "corpora").stdout.split())
    assert recipe.utterances and "[take 0].wav" in said and "b[/x].wav" in said


def test_a_corpus_in_full(folder):
    assert "no params.yaml and no data/ here. Run timnet in" in failing(folder, "corpora", "emodb")
    name_in_params(folder, "demo")
    text = run(folder, "timnet", "corpora", "emodb").stdout
    shown = {line[:12].strip(): line[12:].strip() for line in text.splitlines()}
    assert shown["corpus"] == "EMODB (German)"
    assert shown["here"] == "absent, 0 of 535 utterances"
    assert shown[""] == "EMODB (free to use) is free to download: `timnet acquire emodb`."
    assert shown["emotions"].startswith("angry 127, boredom 81, disgust 46, fear 69, happy 71")
    assert shown["speakers"] == "10 (5 female, 5 male), 10 speaker-independent folds"
    assert shown["sample rates"] == "16000 Hz"
    assert shown["source"] == "http://emodb.bilderbar.info"
    assert shown["cite"] == "Burkhardt et al., Interspeech 2005"
    assert shown["known fault"].endswith("before the data: 14a07Fd, 14a07Na, 14a07Wc")
    assert "Did you mean 'emodb'?" in failing(folder, "corpora", "emodbb")
    assert "Did you mean 'emovo' or 'emodb'?" in failing(folder, "corpora", "emodv")


def test_ones_own_corpus(folder, tmp_path):
    table = own_table(tmp_path / "recordings")
    said = run(folder, "timnet", "acquire", "mine", "--csv", table, "--no-add")
    assert said.stdout.startswith(
        "mine: 8 utterances in data/mine\nmine: language and licence unknown"
    )
    name_in_params(folder, "mine")
    assert run(folder, "timnet", "manifest", "mine").stdout == "mine: 8 utterances, 2 speakers\n"
    assert run(folder, "timnet", "validate", "mine").stdout.endswith(" checks, 0 warnings\n")
    assert "complete, 8 of 8 utterances" in run(folder, "timnet", "corpora", "mine").stdout
    # the contract stands
    (folder / "data/mine/anna/9.wav").write_bytes(wav("new", 0.5, rate=8000))
    assert "1 recording not in labels.csv: anna/9.wav" in failing(folder, "manifest", "mine")
    (folder / "data/mine/anna/9.wav").unlink()
    (folder / "data/mine/anna/0.wav").write_bytes(wav("long", 2.0, rate=8000))
    run(folder, "timnet", "manifest", "mine")
    assert "durations in s: 2.0 (anna/0.wav); expected 0.5 to 0.5" in failing(
        folder, "validate", "mine"
    )


@SLOW
def test_ones_own_corpus_is_trained_and_reported_without_its_recordings(
    folder, tmp_path, monkeypatch
):
    """On a machine of a pool, or in a clone: there is no data/, so no contract either."""
    from timnet.cli import results, stages

    monkeypatch.chdir(folder)
    monkeypatch.setenv("TIMNET_WORKERS", "1")
    import_table(own_table(tmp_path / "mine"), "mine", folder / "data")
    yaml = YAML()
    content = yaml.load(ROOT / "timnet/demo.yaml")
    settings = dict(content["runs"]["demo-random"], trained_on="mine")
    settings |= {"folds": {"protocol": "random", "number": 2, "seeds": [1]}, "signal_length": 22050}
    content["corpora"], content["models"] = {"mine": "custom"}, {}
    content["features"]["sets"] = {"mine-22050": {"corpus": "mine", "signal_length": 22050}}
    content["recipes"]["paper"]["epochs"] = 1
    content["runs"] = {"mine-random": settings}
    yaml.dump(content, folder / "params.yaml")
    stages.manifest("mine")
    stages.features("mine-22050")
    stages.folds("mine-random")
    stages.validate("mine")
    write_json(Path("results/corpora/mine.json"), custom.load(folder / "data/mine").description)
    shutil.rmtree("data")

    stages.train("mine-random")
    results.score("mine-random")
    results.tables()
    results.report()
    record = json.loads(Path("results/runs/mine-random/run.json").read_text())
    assert record["labels"] == ["happy", "sad"]
    page = Path("results/report.html").read_text()
    assert "<h3>mine</h3>" in page
    assert "Terms: unknown" in page


ABSENT_ACTORS = ", ".join(f"Actor_{n:02}" for n in range(1, 25) if n not in (1, 5, 7, 9, 20))


@SLOW
def test_real_emovo_passes_whole(folder, restored):
    source = restored("emovo")
    run(folder, "timnet", "acquire", "emovo", "--from", source, "--no-add")
    assert tree(folder / "data" / "emovo") == tree(source)
    name_in_params(folder, "emovo")
    run(folder, "timnet", "manifest", "emovo")
    told = run(folder, "timnet", "validate", "emovo").stdout
    assert told.endswith(" checks, 0 warnings\n")


@SLOW
@pytest.mark.parametrize(
    ("name", "whole", "rows", "missing"),
    [
        ("ravdess", 1440, 300, f"speakers: {ABSENT_ACTORS}; expected Actor_01, Actor_02, Actor_03"),
        ("emodb", 535, 339, "classes: boredom, disgust, fear; expected angry, boredom, disgust"),
    ],
)
def test_real_part_of_a_corpus_is_refused(folder, tmp_path, restored, name, whole, rows, missing):
    source = restored(name)
    if name == "emodb":  # in a name the sixth letter is the emotion
        absent = shutil.ignore_patterns(*(f"?????{letter}?.wav" for letter in "LEA"))
        source = shutil.copytree(source, tmp_path / "part", ignore=absent)
    message = failing(folder, "acquire", name, "--from", source, "--no-add")
    assert f"missing {missing.partition(';')[0].replace(':', '')}\n" in message
    shutil.copytree(source, folder / "data" / name)
    name_in_params(folder, name)
    run(folder, "timnet", "manifest", name)
    message = failing(folder, "validate", name)
    assert f"{rows} utterances; expected {whole}" in message
    assert f"missing {missing}" in message
    assert "durations" not in message and "channels" not in message
    assert not (folder / "build" / "validation").exists()


# A process started from here would count the memory of this one as its own until it is replaced.
MEASURED = """
import re
from pathlib import Path
from timnet.cli.common import app
app(standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def measured(folder: Path, *command: str) -> tuple[str, float, float]:
    """(standard output, seconds, peak memory in MB) of a command."""
    start = time.monotonic()
    said = run(folder, sys.executable, "-c", "import timnet.cli" + MEASURED, *command).stdout
    *lines, peak = said.splitlines(keepends=True)
    return "".join(lines), time.monotonic() - start, int(peak) / 1024


@SLOW
def test_a_corpus_as_large_as_iemocap(folder):
    """5,531 turns of 1 to 8 s at the true rate; times and memory are shown by `pytest -rP`."""
    members = iemocap_archive(top="")
    sounds = [path for path in members if path.endswith(".wav")]
    for number, path in enumerate(sounds):
        members[path] = wav(path, 1 + number % 71 / 10, rate=16000)
    laid_out(members, folder / "data" / "iemocap")
    size = sum(map(len, members.values())) / 1e6
    name_in_params(folder, "iemocap")
    told, seconds, peak = measured(folder, "manifest", "iemocap")
    assert told == "iemocap: 5531 utterances, 10 speakers\n"
    print(f"manifest of {size:.0f} MB: {seconds:.1f} s, at most {peak:.0f} MB of memory")
    told, seconds, peak = measured(folder, "validate", "iemocap")
    assert told.endswith(" checks, 0 warnings\n")
    print(f"validate: {seconds:.1f} s, at most {peak:.0f} MB of memory")
