"""A machine that runs stages for others: a worker of a Prefect work pool, in a clone of its own.

    python -m flows.worker POOL

Belongs to a clone of the project that nobody else works in, with the remote `private` set up, and
takes one stage at a time: it brings the clone to the commit in question, pulls the stage's inputs,
lets DVC reproduce it, and pushes what came out. `flows.reproduce --pool POOL` sends it.
"""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import EntrypointType
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.command import command
from flows.pool import HEARTBEAT
from flows.process_group import ProcessGroup
from flows.server import refuse_closed, running_ui
from flows.stage import CLONE, reproduce_in_clone
from timnet.project.remotes import PRIVATE, refuse_unlicensed


def register(pool: str) -> None:
    """Tell the server of the pool and of the flow that its workers run."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    kind = EntrypointType.MODULE_PATH  # the installed one, wherever a machine has it
    deployment: Any = reproduce_in_clone.to_deployment(
        pool, work_pool_name=pool, entrypoint_type=kind
    )
    deployment.apply()


def _name(text: str) -> str:
    """A name that Prefect takes."""
    if refused := [character for character in "/%&<>" if character in text]:
        raise argparse.ArgumentTypeError(f"the name of a pool cannot have {' '.join(refused)}")
    return text


def main() -> None:
    """Serve a pool until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m flows.worker")
    parser.add_argument("pool", metavar="POOL", type=_name, help="created if it is missing")
    pool = parser.parse_args().pool
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        sys.exit("worker: no dvc.yaml here: start it in the root of a clone of its own.")
    url = os.environ.get("PREFECT_API_URL") or running_ui()
    if url is None:
        sys.exit("worker: no server. Set PREFECT_API_URL to the one that sends the stages.")
    os.environ |= {
        "PREFECT_API_URL": url,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
        CLONE: str(root),
    }
    start = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    with command("worker"):
        refuse_closed(url)
        refuse_unlicensed(root, PRIVATE)
        with temporary_settings({PREFECT_API_URL: url}):
            register(pool)
        with ProcessGroup() as processes:
            sys.exit(processes.start([*start, "--pool", pool, "--limit", "1"]).wait())


if __name__ == "__main__":
    main()
