"""What may reach which remote, on real DVC remotes in folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, commit, edit, run
from ruamel.yaml import YAML
from small_pipeline import dvc

from timnet.corpora import CORPORA
from timnet.errors import LicenceError, ParameterError, TimnetError
from timnet.project.remotes import refuse_outputs, refuse_unlicensed

STAGES = """\
stages:
  features:
    foreach: [demo, emovo]
    do:
      cmd: mkdir -p build/features && cat data/${item}/* > build/features/${item}
      deps:
        - data/${item}
      outs:
        - build/features/${item}:
            remote: private
  train:
    cmd: mkdir -p build/train && rev build/features/emovo > build/train/emovo
    deps:
      - build/features/emovo
    outs:
      - build/train/emovo:
          remote: private
  model:
    cmd: mkdir -p build/models && wc -c < build/train/emovo > build/models/emovo
    deps:
      - build/train/emovo
    outs:
      - build/models/emovo
"""
TAKES = {"demo": "free sound", "emovo": "restricted sound", "mine": "private sound"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of three corpora, reproduced, with two remotes that are folders."""
    root = tmp_path_factory.mktemp("licences") / "project"
    for corpus, take in TAKES.items():
        (root / "data" / corpus).mkdir(parents=True)
        (root / "data" / corpus / "take.txt").write_text(take)
    (root / "dvc.yaml").write_text(STAGES)
    run(root, "git", "init", "--quiet")
    dvc(root, "init", "--quiet")
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    dvc(root, "add", "--quiet", "data")
    edit(root / "data.dvc", "  path: data", "  remote: private\n  path: data")
    dvc(root, "repro", "--quiet")
    return root


@pytest.fixture
def project(made, tmp_path):
    root = Path(shutil.copytree(made, tmp_path / "project", symlinks=True))
    edit(
        root / ".dvc" / "config",
        "url = /dev/null/no-address-yet--give-it-one--dvc-remote-modify-private-url-URL\n",
        "url = ../../private\n['remote \"public\"']\n    url = ../../public\n",
    )
    commit(root)
    return root


def texts(remote: Path) -> set[str]:
    """What anyone finds in a remote, run cache apart."""
    return {path.read_text().strip() for path in remote.glob("files/md5/*/*")}


def test_which_corpora_anyone_may_have():
    assert {name for name, each in CORPORA.items() if each.redistributable} == {"demo", "emodb"}


def test_refused_by_corpus_with_the_reason():
    outputs = {
        "data": {"emovo": CORPORA["emovo"], "demo": CORPORA["demo"], "mine": None},
        "build/features/emovo-96000.parquet": {"emovo": CORPORA["emovo"]},
    }
    refuse_outputs("private", outputs)
    refuse_outputs("public", {"build/features/demo-44100.parquet": {"demo": CORPORA["demo"]}})
    with pytest.raises(LicenceError) as caught:
        refuse_outputs("public", outputs)
    first, emovo, mine, advice = str(caught.value).split("\n")
    assert first == "the remote 'public' may not receive data derived from"
    assert emovo == (
        "  - emovo: licence CC BY-NC-SA 4.0, which does not allow redistribution; "
        "data, build/features/emovo-96000.parquet"
    )
    assert mine == "  - mine: no recipe and no corpus.json, so its licence is unknown; data"
    assert "only go to the remote 'private'" in advice and "`timnet push`" in advice


def test_the_project_keeps_all_but_models_for_the_private_remote():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    outs = [out for stage in stages.values() for out in stage.get("do", stage).get("outs", [])]
    unmarked = [out for out in outs if isinstance(out, str)]
    assert unmarked == ["build/models/${key}.safetensors"]
    for out in outs:
        if not isinstance(out, str):
            (options,) = out.values()
            assert options == {"remote": "private"} or options.get("cache") is False, out
    (data,) = YAML(typ="safe").load(ROOT / "data.dvc")["outs"]
    assert data["remote"] == "private"
    assert "remote = private" in (ROOT / ".dvc" / "config").read_text()


def test_a_remote_without_an_address_is_refused(made):
    with pytest.raises(ParameterError, match=r"'private' has no URL yet.*dvc remote modify"):
        refuse_unlicensed(made, "private")
    failed = run(made, "dvc", "push", check=False)
    said = "no-address-yet--give-it-one--dvc-remote-modify-private-url-URL"
    assert failed.returncode and said in failed.stderr
    with pytest.raises(ParameterError, match=r"no remote 'public' in \.dvc/config; it has private"):
        refuse_unlicensed(made, "public")


def test_what_dvc_cannot_read_is_said_in_a_line(project, tmp_path):
    (project / "dvc.yaml").write_text("stages: [")
    for folder in (project, tmp_path / "none"):
        folder.mkdir(exist_ok=True)
        with pytest.raises(TimnetError, match=r"^DVC: "):
            refuse_unlicensed(folder, "private")


def test_plain_dvc_push_sends_nothing_restricted_elsewhere(project, tmp_path):
    dvc(project, "push", "--run-cache", "--remote", "public")
    assert texts(tmp_path / "public") == {"16"}  # the model
    run(project, "dvc", "config", "core.remote", "public")
    dvc(project, "push", "--run-cache")
    assert texts(tmp_path / "public") == {"16"}
    assert set(TAKES.values()) < texts(tmp_path / "private")
    written = [path.read_text() for path in (tmp_path / "public").rglob("*") if path.is_file()]
    assert not any(take in text for take in TAKES.values() for text in written)
    dvc(project, "add", "data")  # keeps the mark
    assert "remote: private" in (project / "data.dvc").read_text()


def test_timnet_push(project, tmp_path):
    refused = run(project, "timnet", "push", "--remote", "public", check=False)
    assert refused.returncode == 1
    head, emovo, mine, *_ = refused.stderr.splitlines()
    assert head == "timnet: the remote 'public' may not receive data derived from"
    assert emovo.startswith("  - emovo: licence CC BY-NC-SA 4.0,")
    assert emovo.endswith("; data, build/features/emovo, build/train/emovo")
    assert mine.startswith("  - mine: no recipe")
    assert not (tmp_path / "public").exists()

    run(project, "timnet", "push", "--remote", "public", "model")
    assert texts(tmp_path / "public") == {"16"}

    run(project, "timnet", "push")
    assert set(TAKES.values()) < texts(tmp_path / "private")
    run(tmp_path, "git", "clone", "--quiet", project, "clone")
    dvc(tmp_path / "clone", "pull", "--quiet")
    assert (tmp_path / "clone/data/emovo/take.txt").read_text() == TAKES["emovo"]


def test_what_anyone_may_have_goes_where_it_is_not_kept_back(project):
    with pytest.raises(LicenceError, match=r"keep build/features/demo for another remote.*lines"):
        refuse_unlicensed(project, "public", ["features@demo"])
    edit(
        project / "dvc.yaml",
        "        - build/features/${item}:\n            remote: private\n",
        "        - build/features/${item}\n",
    )
    refuse_unlicensed(project, "public", ["features@demo", "build/models/emovo"])
    with pytest.raises(LicenceError, match=r"- emovo: .*; build/features/emovo\n"):
        refuse_unlicensed(project, "public", ["features"])
    with pytest.raises(ParameterError, match="no output or stage data/emovo"):
        refuse_unlicensed(project, "public", ["data/emovo"])
