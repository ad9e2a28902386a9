"""What DVC notes while others read it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT, edit, run
from ruamel.yaml import YAML
from small_pipeline import dvc, make, until, write_recording

from flows.reproduce import look
from timnet.cli.stages import TrainingReport
from timnet.errors import ArtifactError
from timnet.paths import Workspace, write_text
from timnet.project import estimates, params
from timnet.project.dvc import findings, locked, repository
from timnet.project.estimates import estimate, in_slow_bf16
from timnet.project.locks import WorkspaceInUse, raise_if_in_use, running_dvc
from timnet.project.machine import has_bf16
from timnet.project.status import groups, nothing_to_add, stale_stages, training_stages
from timnet.project.status import refuse_data_changes as refuse
from timnet.training.train import Progress

LOCK = (ROOT / "dvc.lock").read_bytes()
PART = LOCK[:8192]  # what DVC has written at first when it writes the file anew


@pytest.mark.parametrize("there", [b"", PART], ids=["nothing", "a whole-looking part"])
def test_a_lock_that_is_being_written_is_waited_for(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "dvc.lock"
    path.write_bytes(LOCK)
    whole = locked(tmp_path)
    last = list(whole)[-1]
    path.write_bytes(there)
    writer = threading.Timer(0.5, path.write_bytes, [LOCK])
    writer.start()
    assert locked(tmp_path, last) == whole
    writer.join()


def test_the_folder_that_holds_a_clone_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "timnet").mkdir()
    (tmp_path / "timnet" / "setup.py").touch()
    result = run(tmp_path, "timnet", "status", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("timnet: params.yaml: no such file. Run timnet in the root of")


def refuse_data_changes(root: Path) -> None:
    with repository(root) as repo:
        refuse(repo)


def test_a_run_that_never_ran_is_estimated_from_those_that_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    shutil.copy(ROOT / "timnet" / "demo.yaml", workspace.params)

    def told(*stages: str) -> str:
        return str(estimate(workspace, params.read(workspace.params), stages))

    assert told("tables") == "seconds"
    assert told("manifest@demo") == "not known yet"
    assert told("train@demo-random").endswith("on two cores")  # of another machine
    # a tenth of what demo-random has to do: 2 of 22 epochs of 5 networks
    work = 10 * 240 * 87 * 3 * 2
    done = f'{{"seconds": 60, "kind": "train fp32", "work": {work}}}'
    write_text(workspace.times("train@left-long-ago"), done)
    assert told("train@demo-random") == "about 11 min"
    assert told("train@demo-random", "tables") == "about 11 min"
    # 6 folds of speakers; another precision; half the epochs
    assert told("train@demo-speaker") == "about 13 min"
    edit(workspace.params, "epochs: 22", "epochs: 11")
    assert told("train@demo-random") == "about 6 min"
    edit(workspace.params, "precision: fp32", "precision: bf16")
    for instructions, expected in ((True, "about 3 min"), (False, "about 42 min")):
        monkeypatch.setattr(estimates, "has_bf16", lambda found=instructions: found)
        assert told("train@demo-random") == expected
    assert told("train@demo-random", "manifest@demo").endswith("; not known yet: manifest@demo")
    write_text(workspace.times("manifest@demo"), '{"seconds": 6, "work": 240}')
    assert told("manifest@demo") == "about 6 s"


def test_networks_that_train_together_count_each() -> None:
    """5 networks of 4 epochs in two parts, then in three since memory was too small for these."""
    shown = []
    report = TrainingReport(lambda _, done: shown.append(done), networks=5)
    for parts, part, epoch in ((2, 0, 1), (2, 1, 1), (3, 0, 3), (3, 0, 4), (3, 1, 1), (3, 2, 1)):
        report(Progress(part, parts, epoch, 0.5, 0.5))
    assert shown == [3, 5, 6, 8, 10, 11]
    assert report.epochs == 2 * 2 + 2 + 1  # the first part went on from epoch 2


def test_bf16_on_a_cpu_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for flags, there in (("fma avx2", False), ("fma avx2 avx512_bf16", True), ("asimd bf16", True)):
        cpuinfo.write_text(f"model name\t: X\nflags\t\t: {flags}\n")
        assert has_bf16(cpuinfo) == there
    assert has_bf16(tmp_path / "none of this system")
    shutil.copy(ROOT / "timnet" / "demo.yaml", tmp_path / "params.yaml")
    edit(tmp_path / "params.yaml", "precision: fp32", "precision: bf16")
    known = params.read(tmp_path / "params.yaml")
    stages = ["train@demo-random", "train@demo-speaker", "score@demo-random"]
    monkeypatch.setattr(estimates, "has_bf16", lambda: True)
    assert in_slow_bf16(known, stages) == []
    monkeypatch.setattr(estimates, "has_bf16", lambda: False)
    assert in_slow_bf16(known, stages) == ["demo-random", "demo-speaker"]


def test_what_a_source_costs_and_that_others_take_seconds(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    content = YAML(typ="safe").load(ROOT / "timnet" / "demo.yaml")
    run_ = content["runs"]["demo-random"]
    source = {name: value for name, value in run_.items() if name != "folds"}
    content["sources"] = {"demo-whole": {**source, "emotions": "all", "seeds": [0, 1]}}
    plain = {name: run_[name] for name in ("trained_on", "signal_length", "folds", "recipe")}
    content["runs"]["demo-svm"] = {**plain, "baseline": "svm"}
    YAML().dump(content, workspace.params)
    known = params.read(workspace.params)
    write_text(workspace.times("train@x"), '{"seconds": 60, "kind": "train fp32", "work": 1000}')
    of_run, of_source = (
        estimate(workspace, known, [stage]).seconds
        for stage in ("train@demo-random", "source@demo-whole")
    )
    assert of_source == pytest.approx(of_run * 2 / 5)  # 2 networks, not one a fold
    assert str(estimate(workspace, known, ["train@demo-svm", "transfer@any"])) == "seconds"
    every = groups(known)
    assert every["demo-whole"] == ["source@demo-whole"]
    assert training_stages(workspace) >= {"source@demo-whole", "train@demo-random"}


def test_stages_leave_what_estimates_need(reproduced: Path) -> None:
    shown = run(reproduced, "timnet", "status", "--allow-data-changes").stdout
    groups_here = len(groups(params.read(reproduced / "params.yaml")))
    assert shown.startswith(f"up to date: {groups_here} of {groups_here} ")
    workspace = Workspace(reproduced)
    known = params.read(workspace.params)
    for stage in ("manifest@demo", "features@demo-44100", "train@demo-random", "model@demo"):
        seconds = json.loads(workspace.times(stage).read_text())["seconds"]
        found = estimate(workspace, known, [stage])
        assert not found.unknown and not found.elsewhere
        assert found.seconds == pytest.approx(seconds, rel=1, abs=0.2)


def as_dvc_says(root: Path) -> set[str]:
    """The stages that `dvc status` names, and those after them."""
    found = json.loads(dvc(root, "status", "--json"))
    after = {"copy@one": ["score@one"], "copy@two": ["score@two"]}
    names = {name for name in found if name != "data.dvc"}
    names |= {each for name in list(names) for each in after.get(name, ())}
    return names | ({"tables", "report"} if names else set())


def test_what_is_stale_is_what_dvc_says(tmp_path: Path) -> None:
    root = make(tmp_path / "root")

    def stale() -> set[str]:
        with repository(root) as repo:
            return set(stale_stages(repo))

    assert len(stale()) == 6
    dvc(root, "repro")
    assert stale() == as_dvc_says(root) == set()
    changes: list[Callable[[], object]] = [
        lambda: write_recording(root, "two", "# deux\n"),
        lambda: (root / "copy" / "one.txt").unlink(),
        lambda: edit(root / "dvc.yaml", "cmd: cp results", "cmd: cp  results"),
        lambda: (root / "score" / "one.txt").chmod(0o644),
        lambda: (root / "score" / "one.txt").write_text("changed"),
        lambda: shutil.rmtree(root / ".dvc" / "cache"),
        lambda: shutil.rmtree(root / "data"),
        lambda: (root / "dvc.lock").unlink(),
    ]
    for change in changes:
        copied = Path(shutil.copytree(root, root.with_name("before"), symlinks=True))
        change()
        found = as_dvc_says(root)
        if found - {"report", "tables"}:
            assert stale() == found
        else:
            assert stale() <= {"report", "tables"}
        shutil.rmtree(root)
        copied.rename(root)


def test_a_file_and_the_folder_around_it_share_a_look_to_the_same_end(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tables depend on results/runs, what is in it comes from other stages; likewise data/."""
    from dvc.repo import Repo

    monkeypatch.chdir(workspace)  # DVC names stages from where it is asked

    def compare() -> int:
        with Repo(str(workspace)) as repo:
            expected = repo.status()
        with repository(workspace) as repo:
            assert findings(repo) == expected
        return len(expected)

    runs, figures = workspace / "results" / "runs", workspace / "results" / "figures"
    known = compare()
    (runs / "demo-random" / "scores.json").write_text("{}")
    (runs / "demo-speaker" / "run.json").unlink()
    (figures / "demo-speaker" / "new.svg").write_text("")
    (workspace / "data" / "demo" / "s1" / "angry-s1-01.wav").unlink()
    assert compare() > known
    shutil.rmtree(figures / "demo-random")
    shutil.rmtree(runs)
    assert compare() > known


def test_who_is_at_work_and_how_far(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    shutil.copy(ROOT / "timnet" / "demo.yaml", root / "params.yaml")
    write_recording(root, "one", "slow\n")
    dvc(root, "add", "--quiet", "data")
    command = [sys.executable, "-m", "dvc", "repro", "copy@one"]
    with subprocess.Popen(command, cwd=root, start_new_session=True) as repro:
        try:
            until((root / "running").exists)
            told = '{"done": 17, "total": 20, "unit": "fold-epochs"}'
            write_text(Workspace(root).progress("copy@one"), told)
            said = run(root, "timnet", "status").stdout
            for part in ("`dvc repro copy@one`", str(repro.pid), "copy@one, 17 of 20 fold-epochs"):
                assert part in said
        finally:
            os.killpg(repro.pid, signal.SIGKILL)
    assert running_dvc(root) is None  # though DVC's lock is left


def test_who_holds_the_whole_repository(tmp_path: Path) -> None:
    write_text(tmp_path / ".dvc" / "tmp" / "lock", " 7\n")
    with pytest.raises(WorkspaceInUse, match=r"another `dvc` \(process 7\)"):
        raise_if_in_use(tmp_path, "ERROR: Unable to acquire lock. Most likely another DVC process")


def test_recordings_that_are_not_here_are_acquired_or_pulled(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    (root / "data" / "one").rename(root / "data" / "savee")
    (root / "data" / "two").rename(root / "data" / "emovo")
    dvc(root, "add", "--quiet", "data")
    shutil.rmtree(root / "data")
    says = "- emovo: 1 file missing\n  - savee: 1 file missing\nRestore the committed recordings"
    ways = (
        "`timnet acquire emovo` and `timnet acquire savee --from ARCHIVE`, or `dvc checkout data`"
    )
    with pytest.raises(ArtifactError, match=rf"{says}: {ways}\."):
        refuse_data_changes(root)
    dvc(root, "remote", "add", "private", "/dev/null/no-address-yet")
    with pytest.raises(ArtifactError, match=rf"{ways}\."):
        refuse_data_changes(root)
    dvc(root, "remote", "modify", "private", "url", str(tmp_path / "remote"))
    with pytest.raises(ArtifactError, match=rf"{ways}, or `dvc pull`\. If"):
        refuse_data_changes(root)


@pytest.mark.parametrize("cached", [True, False])
def test_one_corpus_of_several_may_be_here_alone(tmp_path: Path, cached: bool) -> None:
    root = make(tmp_path / "root")
    dvc(root, "repro")
    if not cached:  # as in a fresh clone
        shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data" / "two")
    with repository(root) as repo:
        assert refuse(repo, ()) == refuse(repo, ("one",)) == ["two"]
        for needed in (None, ("one", "two")):
            with pytest.raises(ArtifactError, match=r"two: 1 file missing\n.*--corpus one`"):
                refuse(repo, needed)
        assert "one as committed, not here: two" in nothing_to_add(repo, ["one"])
    write_recording(root, "one", "# other\n")
    with repository(root) as repo:
        with pytest.raises(ArtifactError, match=r"- one: "):
            refuse(repo, ())
        with pytest.raises(ArtifactError, match=r"would lose recordings:\n  - two: 1 file"):
            nothing_to_add(repo, ["one"])
    shutil.rmtree(root / "data")
    with repository(root) as repo, pytest.raises(ArtifactError, match=r"- one: .*\n  - two: "):
        refuse(repo, ())


def test_corpora_that_were_never_acquired_are_named_with_how_to(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    edit(root / "dvc.yaml", "foreach: [one, two]", "foreach: [one, two, emovo, savee, mine]")
    with repository(root) as repo:
        assert refuse(repo, ()) == refuse(repo, ("one", "two")) == ["emovo", "mine", "savee"]
        for needed in (None, ("one", "emovo", "savee", "mine")):
            with pytest.raises(ArtifactError) as error:
                refuse(repo, needed)
            for call in ("emovo", "savee --from ARCHIVE", "mine --csv TABLE"):
                assert f"`timnet acquire {call}`" in str(error.value)
        with pytest.raises(
            ArtifactError, match=r"recordings of savee in .*--corpus one --corpus tw"
        ):
            refuse(repo, ["savee"])


def test_runs_of_a_corpus_that_is_not_here_are_left_out(workspace: Path) -> None:
    run(workspace, "timnet", "runs", "--add", "speaker", "emovo")
    shown = run(workspace, "timnet", "status").stdout
    assert shown.startswith("not here, and left out with all that needs them: emovo\n")
    assert "emovo" not in shown.partition("\n")[2]
    for chosen in ({}, {"protocols": ["speaker-independent"]}, {"corpora": ["emovo"]}):
        with pytest.raises(ArtifactError, match=r"recordings of emovo in data/\. .*acquire emovo`"):
            look(workspace, **chosen)
    assert look(workspace, corpora=["demo"]).stale == {}


def test_a_new_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    dvc(root, "repro")
    (root / "data" / "one" / "notes.txt").touch()
    with pytest.raises(ArtifactError, match=r"one: 1 file new \(data/one/notes.txt\)") as error:
        refuse_data_changes(root)
    assert "move data/one/notes.txt away." in str(error.value)
    assert "`dvc add data`" in str(error.value) and "dvc checkout" not in str(error.value)
    (root / "data" / "two" / "take.txt").unlink()
    (root / "data" / "notes.txt").touch()
    with pytest.raises(ArtifactError, match=r"move .* away; then `dvc checkout data`\.") as error:
        refuse_data_changes(root)
    for name in ("notes.txt", "one/notes.txt", "two/take.txt"):
        assert f"data/{name}" in str(error.value)
    shutil.rmtree(root / ".dvc" / "cache")  # which knows the names
    with pytest.raises(ArtifactError, match=r"one: 1 file new\n.*two: 1 file missing") as error:
        refuse_data_changes(root)
    assert "move the new files away; then" in str(error.value)


def test_a_missing_recording_is_named_with_the_way_back(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    dvc(root, "repro")
    (root / "data" / "one" / "take.txt").unlink()
    with pytest.raises(ArtifactError, match=r"one: 1 file missing \(data/one/take.txt\)") as error:
        refuse_data_changes(root)
    assert "`dvc checkout data`" in str(error.value)


def test_what_dvc_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    (root / ".dvcignore").write_text("/data\n")
    table = ["path,speaker,emotion"]
    generator = np.random.default_rng(0)
    for name, emotion in (("a.wav", "happy"), ("b.wav", "sad")):
        signal = 0.1 * generator.standard_normal(16000).astype("f4")
        sf.write(tmp_path / name, signal, 16000)
        table.append(f"{name},anna,{emotion}")
    (tmp_path / "t.csv").write_text("\n".join(table) + "\n")
    result = run(root, "timnet", "acquire", "mine", "--csv", tmp_path / "t.csv", check=False)
    assert result.returncode == 1
    assert "ignored" in result.stderr and "see above" not in result.stderr


def test_the_stages_of_a_new_project_are_none_of_this_one(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "timnet/project/new", tmp_path / "timnet/project/new")
    run(tmp_path, "git", "init", "--quiet")
    dvc(tmp_path, "init", "--quiet", "--force")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    with repository(tmp_path) as repo:
        assert {stage.path_in_repo for stage in repo.index.stages} == {"dvc.yaml"}


LOOKS = """
import sys
opened = []
sys.addaudithook(lambda event, of: opened.append(str(of[0])) if event == "open" else None)
from timnet.cli import main
try:
    main()
finally:
    print(sum(path.endswith("dvc.lock") for path in opened), file=sys.stderr)
    print(*{"torch", "librosa", "sklearn", "matplotlib"} & set(sys.modules), file=sys.stderr)
"""


def test_it_parses_the_lock_once_and_imports_nothing_heavy(reproduced: Path) -> None:
    """What makes it quick; how quick is in benchmarks/README.md."""
    command = [sys.executable, "-c", LOOKS, "status", "--allow-data-changes"]
    done = subprocess.run(command, cwd=reproduced, check=True, capture_output=True, text=True)
    looks, heavy = done.stderr.splitlines()[-2:]
    assert int(looks) <= 2  # for marks of a conflict, and by DVC
    assert heavy == ""
