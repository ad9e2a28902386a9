"""Models of a run, in a workspace that DVC reproduced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, edit, run

from timnet import schemas
from timnet.errors import ArtifactError, ParameterError
from timnet.models import build, model
from timnet.project import params


def trained(workspace: Path, name: str = "demo-speaker") -> build.TrainedRun:
    folder = workspace / "build/train" / name
    return build.read_run(name, folder, json.loads((folder / "run.json").read_text()))


def recordings_of(workspace: Path, of: build.TrainedRun) -> build.Recordings:
    table = schemas.read(workspace / "build/manifest/demo.parquet", schemas.MANIFEST)
    return build.read_recordings(table, workspace / "data/demo", of, 2)


def test_a_model_is_packed_from_its_run(reproduced: Path) -> None:
    made = model.load(reproduced / "build/models/demo.safetensors")
    card = made.card
    record = json.loads((reproduced / "results/runs/demo-speaker/run.json").read_text())
    metrics = json.loads((reproduced / "results/runs/demo-speaker/metrics.json").read_text())
    assert made.network.networks == 6  # speakers
    assert (card.name, card.run, card.commit) == ("demo", "demo-speaker", record["commit"])
    assert card.training == record["train"]
    assert card.features.model_dump(mode="json") == record["features"]
    (figures,) = card.figures
    assert figures.protocol == "speaker-independent"
    assert figures.uar == pytest.approx(metrics["speaker-independent"]["uar"], abs=0.006)
    assert figures.uar_interval[0] <= figures.uar <= figures.uar_interval[1]
    assert list(figures.uar_by_speaker) == [f"s{n}" for n in range(1, 7)]
    assert card.calibration.error_after < card.calibration.error_before
    assert made.reference.longest == pytest.approx(max(card.typical.seconds), abs=0.3)


def test_its_networks_say_of_a_file_what_evaluation_said(reproduced: Path) -> None:
    made, of = model.load(reproduced / "build/models/demo.safetensors"), trained(reproduced)
    rows = of.predictions.slice(0, 40).to_pylist()
    paths = {
        row["utterance"]: reproduced / "data/demo" / row["path"]
        for row in schemas.read(reproduced / "build/manifest/demo.parquet").to_pylist()
    }
    found = made.predict_files([paths[row["utterance"]] for row in rows])
    for row, (_, each) in zip(rows, found, strict=True):
        np.testing.assert_allclose(each.logits[0, row["fold"]], row["logits"], atol=1e-4)


def test_the_first_of_several_draws_is_taken(workspace: Path) -> None:
    """A run of two fold seeds is packed as if it had the first alone."""
    folder = workspace / "build/train/demo-random"
    one = trained(workspace, "demo-random")
    with np.load(folder / "weights.npz") as file:
        twice = {name: np.concatenate((file[name], file[name])) for name in file.files}
    twice["fold_seed"][len(twice["fold_seed"]) // 2 :] = 9
    (folder / "weights.npz").unlink()
    np.savez(folder / "weights.npz", allow_pickle=False, **twice)
    again = trained(workspace, "demo-random")
    assert again.networks.networks == one.networks.networks == 5
    assert {each.protocol for each in build.figures(again)} == {"best-epoch", "last-epoch"}


def test_packing_again_gives_the_same_bytes(workspace: Path) -> None:
    path = workspace / "build/models/demo.safetensors"
    before = path.read_bytes()
    said = run(workspace, "timnet", "model", "demo").stdout
    assert path.read_bytes() == before
    assert "demo: 6 networks of Synthetic demo in build/models/demo.safetensors" in said
    assert "expected calibration error" in said
    assert "whose terms bind the model too: Apache-2.0" in said


@pytest.mark.slow
def test_one_network_of_the_whole_corpus(workspace: Path) -> None:
    source = (
        "{trained_on: demo, signal_length: 44100, emotions: all, recipe: paper, "
        "network: {tabs: 2, variant: tim-net}, precision: fp32, seeds: [7]}"
    )
    edit(workspace / "params.yaml", "sources: {}", f"sources:\n  demo-source: {source}")
    entry = "{run: demo-speaker, corpus: demo, networks: demo-source}"
    edit(workspace / "params.yaml", "models:\n", f"models:\n  demo-whole: {entry}\n")
    run(workspace, "dvc", "repro", "model@demo-whole")
    path = workspace / "build/models/demo-whole.safetensors"
    said = run(workspace, "timnet", "model", "demo-whole").stdout
    assert "demo-whole: 1 network of Synthetic demo" in said
    assert "the following scores are those of run demo-speaker" in said
    assert "\ndemo-speaker: speaker-independent: UAR" in said
    made = model.load(path)
    assert (made.card.networks, made.network.networks, made.card.seeds) == ("whole", 1, [7])
    assert made.card.figures == model.load(workspace / "build/models/demo.safetensors").card.figures
    weights = trained(workspace, "demo-source").networks.kernel
    assert (made.network.kernel == weights).all()
    said = run(workspace, "timnet", "card", "demo-whole").stdout
    assert "One network, trained on the whole corpus with the settings of run demo-speaker." in said


def test_a_source_of_other_features_is_refused(reproduced: Path) -> None:
    run_, source = trained(reproduced), trained(reproduced)
    source.record["features"]["source"] = "another"
    recordings = build.Recordings(None, None, [])
    with pytest.raises(ArtifactError, match="other features than demo-speaker"):
        build.of_run("x", run_, recordings, {}, source)


def test_other_recordings_than_the_run_s_are_refused(workspace: Path) -> None:
    of = trained(workspace)
    of.record["features"]["source"] = "another"
    with pytest.raises(ArtifactError, match="demo-speaker was trained on another source of the fe"):
        recordings_of(workspace, of)


def test_damaged_weights_are_named(workspace: Path) -> None:
    path = workspace / "build/train/demo-speaker/weights.npz"
    path.unlink()
    for content in (b"", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"weights\.npz: not the weights of a run \("):
            trained(workspace)


def test_a_version_comes_from_the_registry(workspace: Path) -> None:
    path = workspace / "build/models/demo.safetensors"
    first = path.read_bytes()
    for tag in ("v1.2.0", "v1.2.10", "v1.2.9"):
        run(workspace, "git", "tag", f"demo@{tag}")
    path.unlink()
    said = run(workspace, "timnet", "card", "demo@v1.2").stdout
    assert said.startswith("# demo\n")
    fetched = workspace / "build/models/demo@v1.2.10.safetensors"
    assert fetched.read_bytes() == first
    damaged = first.replace(b'"network.gamma"', b'"network.gxmma"', 1)
    for content in (first[:1000], b"", damaged):
        fetched.write_bytes(content)
        run(workspace, "timnet", "card", "demo@v1.2")
        assert fetched.read_bytes() == first
    shutil.rmtree(workspace / ".dvc/cache")
    again = run(workspace, "timnet", "card", "demo@v1.2.0", check=False)
    assert "demo@v1.2.0: DVC cannot fetch" in again.stderr
    assert "'private' has no URL yet" in again.stderr
    fetched.write_bytes(b"")
    lost = run(workspace, "timnet", "card", "demo@v1.2", check=False)
    assert "demo@v1.2.10.safetensors: not a readable model" in lost.stderr
    for each in (again, lost):
        assert each.returncode == 1 and "Traceback" not in each.stderr
    run(workspace, "dvc", "remote", "modify", "private", "url", workspace.parent / "remote")
    unsent = run(workspace, "timnet", "card", "demo@v1.2.0", check=False)
    assert "`timnet push`" in unsent.stderr and "no URL" not in unsent.stderr
    run(workspace, "dvc", "config", "core.remote", "none")
    nowhere = run(workspace, "timnet", "card", "demo@v1.2.0", check=False)
    assert nowhere.returncode == 1 and "Traceback" not in nowhere.stderr
    run(workspace, "git", "tag", "demo@v1.2.11")
    run(workspace, "git", "tag", "demo@v1.2.11!")  # gto: taken back
    wrong = run(workspace, "timnet", "card", "demo@v2", check=False)
    assert wrong.returncode == 1
    assert "no version 'v2' of model 'demo' in the registry" in wrong.stderr
    assert "There are demo@v1.2.0, demo@v1.2.9, demo@v1.2.10" in wrong.stderr


@pytest.mark.parametrize(
    ("value", "message"),
    (
        (
            "{run: demo-speeker, corpus: demo, networks: demo-speaker}",
            "unknown run 'demo-speeker' in runs. Did",
        ),
        (
            "{run: demo-speaker, corpus: emovo, networks: demo-speaker}",
            "is trained on demo, not on emovo",
        ),
        (
            "{run: demo-speaker, corpus: demo, networks: demo-random}",
            "models.demo: networks: expected demo-speaker, whose folds' networks vote, or one of",
        ),
        ("{run: demo-speaker, corpus: demo}", "models.demo.networks: missing"),
    ),
)
def test_models_of_params_are_checked(tmp_path: Path, value: str, message: str) -> None:
    text = (ROOT / "timnet" / "demo.yaml").read_text()
    given = "{run: demo-speaker, corpus: demo, networks: demo-speaker}"
    (tmp_path / "params.yaml").write_text(text.replace(given, value))
    with pytest.raises(ParameterError) as error:
        params.read(tmp_path / "params.yaml")
    assert message in str(error.value)
