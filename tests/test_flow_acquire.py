"""The flow on a real Prefect server, a real HTTP server on loopback and a real DVC."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from archives import ARCHIVES, laid_out, tree, zipped
from conftest import run
from prefect.client.orchestration import get_client
from ruamel.yaml import YAML
from server import Server, status
from small_pipeline import launch_flow

from flows.acquire import acquire


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project without recordings."""
    path = tmp_path / "project"
    path.mkdir()
    run(path, "git", "init", "--quiet")
    run(path, "dvc", "init", "--quiet")
    return path


def offer(server: Server, tmp_path: Path, name: str, file: str) -> str:
    """Put a corpus on the server; gives the address of the mirror."""
    body = zipped(ARCHIVES[name](), tmp_path / file).read_bytes()
    server.files[f"/copies/{name}/{file}"] = body
    return server.url("/copies")


def files_under_dvc(folder: Path) -> int:
    (out,) = YAML(typ="safe").load(folder / "data.dvc")["outs"]
    return out["nfiles"]


def test_a_served_flow_knows_its_types():
    assert not [a for a in acquire.fn.__annotations__.values() if isinstance(a, str)]


def test_corpora_of_a_mirror(prefect_api, server, tmp_path, folder):
    mirror = offer(server, tmp_path, "savee", "savee.zip")
    offer(server, tmp_path, "emovo", "emovo.zip")
    state = acquire(["savee", "emovo", "savee"], folder, mirror, return_state=True)
    assert state.is_completed(), state.message
    assert state.message == "savee, emovo: in data/, under DVC"
    assert len(tree(folder / "data" / "savee")) == 480
    assert files_under_dvc(folder) == 480 + 588
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=50)
    progress = {artifact.key: artifact.data for artifact in found if artifact.type == "progress"}
    shown = [f"{name}-{what}" for name in ("savee", "emovo") for what in ("download", "unpack")]
    assert set(shown) <= set(progress)
    assert {progress[key] for key in shown} == {100.0}

    requests = len(server.requests)
    assert acquire(["savee", "emovo"], folder, mirror, return_state=True).is_completed()
    assert len(server.requests) == requests == 2


def test_who_must_be_asked_and_what_fails_stops_no_other(prefect_api, folder):
    laid_out(ARCHIVES["savee"](top=""), folder / "data" / "savee")
    (folder / "data" / "savee" / "AudioData" / "Info.txt").unlink()
    laid_out({f"f1/dis-f1-b{n}.wav": b"x" for n in (1, 2)}, folder / "data" / "emovo")
    state = acquire(["casia", "emovo", "savee", "emodbb"], folder, return_state=True)
    assert state.is_failed()
    casia, emovo, *others = state.message.split("\n")
    assert casia.startswith("casia: CASIA cannot be downloaded freely. The Chinese Linguistic")
    assert "at http://www.chineseldc.org" in casia and "acquire casia --from PATH" in casia
    assert emovo.startswith("emovo: ") and "does not contain all of emovo" in emovo
    assert others[-1].startswith("emodbb: unknown corpus 'emodbb'")
    assert not any(line.startswith("savee") for line in others)
    assert files_under_dvc(folder) == 482

    (folder / "data/emovo/f1/dis-f1-b2.wav").unlink()  # what fails does not excuse its own loss
    state = acquire(["emovo", "savee"], folder, return_state=True)
    assert "data.dvc was not updated, since it would lose recordings:\n  - emovo" in state.message
    assert files_under_dvc(folder) == 482


def test_a_folder_within_a_project_gets_nothing(prefect_api, folder):
    (folder / "notes").mkdir()
    state = acquire(["demo"], folder / "notes", return_state=True)
    assert state.is_failed() and f"no DVC repository in {folder}/notes" in state.message
    assert tree(folder / "notes") == {}


def test_command_line_tries_again_and_shows_it(prefect_api, server, tmp_path, folder):
    mirror = offer(server, tmp_path, "savee", "savee.zip")
    server.script = [status(503, Retry_After=0)]
    with launch_flow("acquire", folder, "--mirror", mirror, "savee") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "503 Service Unavailable; trying again in" in said
    assert re.search(r"download: [\d.]+ MB of [\d.]+", said)
    assert "Traceback" not in said
    assert files_under_dvc(folder) == 480

    secret = mirror.replace("//", "//anna:secret@")  # Prefect would keep it
    with launch_flow("acquire", folder, "--mirror", secret, "savee") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.endswith("which Prefect would store: set TIMNET_MIRROR instead.\n")
    assert "secret" not in said

    with launch_flow("acquire", folder, "casia", "savee") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "acquire: casia: CASIA cannot be downloaded freely" in said
    assert "Traceback" not in said and "NoneType" not in said
    assert (
        said.count("CASIA cannot be downloaded freely") == 3
    )  # of the task, the flow, the command

    with launch_flow("acquire", folder, "savee", "emvo") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.startswith("acquire: unknown corpus 'emvo'; known are")  # and no server was started
    assert said.endswith("Did you mean 'emovo'?\n")


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_goes_on_from_there(prefect_api, server, tmp_path, folder, blow):
    mirror = offer(server, tmp_path, "casia", "casia.zip")
    server.pause = 2.0  # 25 s for the whole
    part = folder / "build/acquire/casia/casia.zip.part"
    with launch_flow("acquire", folder, "--mirror", mirror, "casia") as process:
        while not (part.exists() and part.stat().st_size):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(blow)
        process.communicate(timeout=20)
    assert process.returncode == 128 + blow
    assert part.exists() and not (folder / "data" / "casia").exists()
    server.pause = 0.0
    assert acquire(["casia"], folder, mirror, return_state=True).is_completed()
    assert int(server.requests[1][1]["Range"][6:-1]) > 0
    assert len(tree(folder / "data" / "casia")) == 1200
