"""`timnet push`: what DVC keeps goes to a remote, within the corpora's licences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from timnet.cli.common import app
from timnet.errors import TimnetError
from timnet.project.remotes import PRIVATE, refuse_unlicensed


@app.command()
def push(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET...]", help=("Outputs or stages; by default all.")),
    ] = None,
    remote: Annotated[
        str,
        typer.Option(
            help=("Name of the remote; all except `private` get only what may be given to anyone.")
        ),
    ] = PRIVATE,
) -> None:
    """Send what DVC keeps, and its run cache, to a remote that may have it."""
    refuse_unlicensed(Path(), remote, targets or ())
    command = ["push", "--run-cache", "--remote", remote, *(targets or ())]
    if subprocess.run([sys.executable, "-m", "dvc", *command]).returncode:
        raise TimnetError(f"`dvc {' '.join(command)}` failed; see above.")
