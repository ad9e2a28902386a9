"""Users' mistakes: one clear message, exit code 1, nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import edit, run

Mistake = Callable[[Path], None]


def params(old: str, new: str) -> Mistake:
    return lambda folder: edit(folder / "params.yaml", old, new)


def remove(*names: str) -> Mistake:
    def act(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def rename(old: str, new: str) -> Mistake:
    return lambda folder: (folder / old).rename(folder / new)


def replace(name: str, change: Callable[[bytes], bytes]) -> Mistake:
    def act(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        path.unlink()  # it may be a link into DVC's cache
        path.write_bytes(change(content))

    return act


def truncated_classes(folder: Path) -> None:
    for path in sorted((folder / "data/demo/s1").glob("sad-*.wav"))[:3]:
        path.unlink()
    run(folder, "timnet", "manifest", "demo")


def copied_content(folder: Path) -> None:
    source = (folder / "data/demo/s1/sad-s1-01.wav").read_bytes()
    replace("data/demo/s2/sad-s2-05.wav", lambda _: source)(folder)
    run(folder, "timnet", "manifest", "demo")


FIRST = "data/demo/s1/angry-s1-01.wav"
CASES: dict[str, tuple[Mistake, str, tuple[str, ...]]] = {
    "missing corpus": (
        remove("data/demo"),
        "manifest demo",
        ("data/demo: no such folder, so corpus demo is missing", "remove demo from params.yaml"),
    ),
    "empty corpus": (
        remove(*(f"data/demo/s{number}" for number in range(1, 7))),
        "manifest demo",
        ("data/demo: no recordings match", "Expected names: "),
    ),
    "not audio": (
        replace(FIRST, lambda _: b"this is a note, not a recording" * 20),
        "manifest demo",
        ("1 of 240 recordings cannot be read", "angry-s1-01.wav", "not sound", "Restore them"),
    ),
    "empty file": (
        replace(FIRST, lambda _: b""),
        "manifest demo",
        ("angry-s1-01.wav (0 bytes, not sound",),
    ),
    "cut off": (
        replace(FIRST, lambda content: content[: len(content) // 2]),
        "manifest demo",
        ("angry-s1-01.wav (truncated: ",),
    ),
    "name that fits no rule": (
        rename(FIRST, "data/demo/s1/furious-s1-01.wav"),
        "manifest demo",
        ("1 file name fitting no rule: s1/furious-s1-01.wav", "restore the original names"),
    ),
    "class with too few utterances": (
        truncated_classes,
        "validate demo",
        ("sad 57 (expected 60)", "237 utterances; expected 240", "Restore the original"),
    ),
    "content of another file": (
        copied_content,
        "validate demo",
        ("identical content", "sad-s1-01", "sad-s2-05"),
    ),
    "unknown corpus": (
        lambda folder: None,
        "manifest emovoo",
        ("'emovoo' in params.yaml; it has demo.",),
    ),
    "unknown run": (
        lambda folder: None,
        "train demo-randm",
        ("'demo-randm' in params.yaml", "Did you mean 'demo-random'?"),
    ),
    "unknown feature set": (
        lambda folder: None,
        "features demo-9999",
        ("'demo-9999' in params.yaml; it has demo-44100",),
    ),
    "out of range": (
        params("epochs: 1", "epochs: 0"),
        "train demo-random",
        (
            "params.yaml: correct these settings",
            "recipes.paper.epochs: ",
            "expected at least 1, got 0",
        ),
    ),
    "misspelt setting": (
        params("epochs: 1", "epoch: 1"),
        "folds demo-random",
        ("recipes.paper.epoch: unknown setting. Did you mean 'epochs'?",),
    ),
    "wrong type": (
        params("epochs: 1", "epochs: many"),
        "folds demo-random",
        ("recipes.paper.epochs: ", "expected a whole number, got 'many'"),
    ),
    "unknown resampler": (
        params("kaiser_best_0_2_2", "kaiser_fast"),
        "features demo-44100",
        ("features.resampler: ", "'kaiser_best_0_2_2'", "got 'kaiser_fast'"),
    ),
    "corpus without recipe": (
        params("  demo: demo", "  demo: demo\n  emodbb: emodbb"),
        "manifest emodbb",
        ("corpora.emodbb", "`emodbb: custom`", "Did you mean 'emodb'?"),
    ),
    "run without features": (
        params("    signal_length: 44100", "    signal_length: 55125"),
        "folds demo-random",
        ("reads features demo-55125, which are not in features.sets; add `demo-55125: {corp",),
    ),
    "folds for speakers": (
        params("{protocol: speaker}", "{protocol: speaker, seeds: [4]}"),
        "folds demo-speaker",
        ("runs.demo-speaker.folds: protocol speaker draws nothing at random, so no seeds",),
    ),
    "seed twice": (
        params("seeds: [0]", "seeds: [0, 0]"),
        "train demo-random",
        ("seeds must differ from each other",),
    ),
    "more folds than utterances": (
        params("number: 5", "number: 241"),
        "folds demo-random",
        ("241 folds need at least as many utterances; there are 240",),
    ),
    "empty params.yaml": (
        replace("params.yaml", lambda _: b""),
        "tables",
        ("params.yaml: empty; expected corpora, features, recipes, ",),
    ),
    "a list in params.yaml": (
        replace("params.yaml", lambda _: b"- a\n"),
        "tables",
        ("params.yaml: ['a'] as a whole; expected corpora, features, recipes, ",),
    ),
    "predictions without their record": (
        remove("build/train/demo-random/run.json"),
        "score demo-random",
        ("build/train/demo-random/run.json: no such file. Run `dvc repro`.",),
    ),
    "damaged record": (
        replace("results/runs/demo-random/scores.json", lambda content: content[:40]),
        "tables",
        ("results/runs/demo-random/scores.json: not valid JSON",),
    ),
    "broken YAML": (
        params("corpora:", "corpora: ["),
        "folds demo-random",
        ("params.yaml: not valid YAML",),
    ),
    "no params.yaml": (
        remove("params.yaml"),
        "tables",
        ("params.yaml: no such file. Run timnet in the root of the project",),
    ),
    "stage before its inputs": (
        remove("build/manifest"),
        "features demo-44100",
        (
            "build/manifest/demo.parquet: no such file. Run `dvc repro`, or `timnet manifest "
            "demo` alone.",
        ),
    ),
    "damaged table": (
        replace("build/features/demo-44100.parquet", lambda content: content[:5000]),
        "train demo-random",
        ("demo-44100.parquet: not a readable Parquet file", "Delete it and run `dvc repro`"),
    ),
    "table of another kind": (
        lambda folder: (
            shutil.copyfile(
                folder / "results/runs/demo-random/history.parquet", folder / "build/manifest/x"
            )
            and (folder / "build/manifest/x").replace(folder / "build/manifest/demo.parquet")
        ),
        "folds demo-random",
        ("columns differ from the declared schema: utterance: missing (expected string)",),
    ),
    "results that are not there": (
        remove("results/runs/demo-speaker/run.json"),
        "tables",
        ("results/runs/demo-speaker/run.json: no such file. Run `dvc repro`.",),
    ),
    "figures before scores": (
        remove("results/runs/demo-speaker/run.json"),
        "figures demo-speaker",
        ("results/runs/demo-speaker/run.json: no such file. Run `dvc repro`.",),
    ),
    "folder of the demo taken": (
        lambda folder: None,
        "demo timnet",
        ("timnet exists and is not a demo workspace",),
    ),
    "data changed": (
        remove(FIRST),
        "status",
        (
            "data/ differs from data.dvc",
            "demo: 1 file missing",
            "move data/demo away, then `timnet acquire demo`",
            "--allow-data-changes",
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_ends_in_one_message(workspace: Path, case: str) -> None:
    mistake, command, expected = CASES[case]
    mistake(workspace)
    before = snapshot(workspace)
    result = run(workspace, "timnet", *command.split(), check=False)
    assert result.returncode == 1, result.stdout
    for part in expected:
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("timnet: ")
    assert snapshot(workspace) == before


def snapshot(folder: Path) -> dict[str, int]:
    """Files of the workspace with their times of change; DVC's own left out."""
    skip = (".dvc", ".git", "times", "__pycache__")
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not set(skip) & set(path.relative_to(folder).parts)
    }


@pytest.mark.parametrize(
    ("name", "value", "command", "message"),
    (
        ("TIMNET_WORKERS", "two", "features demo-44100", "is 'two'; give a whole number of proce"),
        ("TIMNET_DEVICE", "gpu", "train demo-random", "is 'gpu'; give cpu or cuda."),
    ),
)
def test_a_wrong_setting_of_the_environment_is_refused(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    command: str,
    message: str,
) -> None:
    monkeypatch.setenv(name, value)
    result = run(workspace, "timnet", *command.split(), check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"timnet: {name} {message}")
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def emovo(restored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the real EMOVO, for manifest and validate."""
    folder = tmp_path_factory.mktemp("emovo")
    shutil.copytree(restored("emovo"), folder / "data" / "emovo")
    shutil.copyfile(Path(__file__).parent.parent / "params.yaml", folder / "params.yaml")
    return folder


def judge(folder: Path) -> str:
    """What manifest and validate say of a corpus; empty if it passes."""
    for stage in ("manifest", "validate"):
        result = run(folder, "timnet", stage, "emovo", check=False)
        assert "Traceback" not in result.stderr
        if result.returncode:
            return result.stderr
    return ""


@pytest.mark.slow
def test_emovo_passes_the_gate_and_four_defects_do_not(emovo: Path) -> None:
    assert judge(emovo) == ""
    data = emovo / "data" / "emovo"
    first, second = data / "f1" / "dis-f1-b1.wav", data / "m3" / "tri-m3-n5.wav"
    original = first.read_bytes()

    first.write_bytes(second.read_bytes())  # exchanged
    assert "identical content: (dis-f1-b1, tri-m3-n5)" in judge(emovo)

    first.write_bytes(original[: len(original) // 2])  # cut
    assert "f1/dis-f1-b1.wav (truncated: " in judge(emovo)

    first.unlink()
    renamed = first.with_name("disgust-f1-b1.wav")  # renamed
    renamed.write_bytes(original)
    assert "fitting no rule: f1/disgust-f1-b1.wav" in judge(emovo)

    renamed.unlink()
    (data / "f1" / "tri-f1-b1.wav").rename(data / "f1" / "kept.txt")  # its label moved
    (data / "f1" / "tri-f1-b1.wav").write_bytes(original)
    message = judge(emovo)
    assert "disgust 83 (expected 84)" in message
    assert "587 utterances; expected 588" in message
