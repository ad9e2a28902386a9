"""What several test modules need: real recordings, a small workspace, a Prefect server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from server import Server

ROOT = Path(__file__).resolve().parent.parent

os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["NO_PROXY"] = "*"  # all servers are on loopback
os.environ.setdefault("TIMNET_DEVICE", "cpu")  # tests of a GPU name it
os.environ["OMP_NUM_THREADS"] = "1"  # in small products threads only wait for each other
# git tidies up in the background, while tests copy its folders
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "gc.auto", "GIT_CONFIG_VALUE_0": "0"}
# jobs in the background of a shell ignore SIGINT, and so would all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

# the same few inputs every time; `--hypothesis-profile=long` draws many, and others
settings.register_profile("lean", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=3000, deadline=None, print_blob=True)
settings.load_profile("lean")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and the authors' weights, outside the project."""
    folder = Path(os.environ.get("TIMNET_SHARED", ROOT.parent / "shared"))
    if not (folder / "corpora" / "restore.py").exists():
        pytest.skip(f"no real recordings in {folder}; TIMNET_SHARED names another place")
    return folder


@pytest.fixture(scope="session")
def restored(shared: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that restores a corpus' original WAV files and gives their folder."""
    if shutil.which("flac") is None:
        pytest.skip("the program flac is not installed: apt-get install flac")
    folders: dict[str, Path] = {}

    def restore(corpus: str) -> Path:
        if corpus not in folders:
            folders[corpus] = tmp_path_factory.mktemp("recordings") / corpus
            script = shared / "corpora" / "restore.py"
            subprocess.run([sys.executable, script, corpus, folders[corpus]], check=True)
        return folders[corpus]

    return restore


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest):
    """A function that gives the folder of a corpus' original recordings, or skips the test."""

    def find(corpus: str) -> Path:
        corpora = os.environ.get("TIMNET_CORPORA")  # holds a folder of each corpus
        if corpora and Path(corpora, corpus).is_dir():
            return Path(corpora, corpus)
        if corpus in ("emodb", "emovo"):  # which TIMNET_SHARED has whole
            return request.getfixturevalue("restored")(corpus)
        pytest.skip(f"no recordings of {corpus}: TIMNET_CORPORA names a folder that has {corpus}/")

    return find


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def run(folder: Path, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, this environment's own programs first on the path."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if check and result.returncode:
        raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stderr}")
    return result


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new))


def commit(folder: Path, message: str = "start") -> None:
    """Commit all that lies in a repository."""
    run(folder, "git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run(folder, "git", *who, "commit", "--quiet", "--message", message)


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's workspace after `dvc repro`, with training cut to one epoch of small networks.

    Shared by tests: copy it (`workspace`) before changing anything.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all processes that tests are spread over
    with FileLock(base / "reproduced.lock"):
        folder, done = base / "reproduced" / "demo", base / "reproduced.done"
        if not done.exists():
            reproduce_demo(folder)
            done.touch()
    return folder


def reproduce_demo(folder: Path) -> None:
    from timnet.project.demo import set_up

    set_up(ROOT, folder)
    edit(folder / "params.yaml", "epochs: 22", "epochs: 1")
    edit(folder / "params.yaml", "tabs: 3", "tabs: 2")
    edit(folder / "params.yaml", "batch_size: 8", "batch_size: 64")
    run(folder, "dvc", "repro")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@localhost")
    commit(folder, "Reproduce")
    run(folder, "git", "gc", "--quiet")  # one file in place of thousands, since tests copy it


@pytest.fixture
def workspace(reproduced: Path, tmp_path: Path) -> Path:
    """A copy of the reproduced workspace that a test may change."""
    return Path(shutil.copytree(reproduced, tmp_path / "workspace", symlinks=True))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """URL of a Prefect server on loopback, whose files lie in a temporary folder.

    Flows started in this process use it, and so do processes started from here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect import settings
        from prefect.testing.utilities import prefect_test_harness

        chosen = {
            settings.PREFECT_HOME: tmp_path_factory.mktemp("prefect"),
            settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
        }
        with (
            settings.temporary_settings(chosen),
            prefect_test_harness(server_startup_timeout=240),
        ):
            url = settings.PREFECT_API_URL.value()
            patch.setenv("PREFECT_HOME", str(chosen[settings.PREFECT_HOME]))
            patch.setenv("PREFECT_API_URL", url)
            yield url
