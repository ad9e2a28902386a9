"""The command line `timnet`.

This is the edge: here params.yaml and paths are read, errors become messages, and the only calls
to git and dvc are made. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import errno
import sys

from timnet.cli import corpora, people, push, results, review, runs, stages, status, use  # noqa: F401  (they register their commands)
from timnet.cli.common import app
from timnet.errors import TimnetError

# no space, not permitted, read-only: the machine's trouble, not a fault of the program
MACHINE_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1."""
    try:
        app()
    except TimnetError as error:
        print(f"timnet: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in MACHINE_TROUBLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"timnet: {where}{error.strerror}; nothing half-written is left", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("timnet: interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
