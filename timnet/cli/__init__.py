"""The command line `timnet`.

This is the edge: here params.yaml and paths are read, errors become messages, and the only calls
to git and dvc are made. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import io
import sys

from timnet.cli import (  # noqa: F401  (they register their commands)
    corpora,
    demo,
    init,
    models,
    parity,
    predict,
    push,
    results,
    review,
    runs,
    stages,
    status,
)
from timnet.cli.common import app
from timnet.errors import TimnetError
from timnet.project.machine import name_the_user, trouble


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # where the locale has no ± or ü, a ? will do
        sys.stdout.reconfigure(errors="replace")
    name_the_user()
    try:
        app()
    except TimnetError as error:
        print(f"timnet: {error}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        if not (said := trouble(error)):
            raise
        print(f"timnet: {said}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("timnet: interrupted; no incomplete file is left", file=sys.stderr)
        sys.exit(130)
