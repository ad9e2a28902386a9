"""The command line `timnet`.

This is the edge: here params.yaml and paths are read, errors become messages, and the only calls
to git and dvc are made. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import errno
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
from timnet.project.machine import name_the_user

# the machine's trouble, not a fault of the program
MACHINE_TROUBLE = {
    errno.ENOSPC: "Free disk space and run it again.",
    errno.EDQUOT: "Free disk space and run it again.",
    errno.EFBIG: "The file size is limited here: see `ulimit -f`.",
    errno.EACCES: "Change its permissions, or use another folder.",
    errno.EPERM: "Change its permissions, or use another folder.",
    errno.EROFS: "Use a folder on a file system that is not read-only.",
    errno.EMFILE: "Raise the limit of open files, for example `ulimit -n 1024`.",
    errno.ENFILE: "Raise the limit of open files, or end other programs.",
    errno.ENOMEM: "Free memory, or use fewer processes: TIMNET_WORKERS=1.",
    errno.EAGAIN: "Too many processes: end some, or use fewer: TIMNET_WORKERS=1.",
    errno.EIO: "The disk may be failing: check it, then run again.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOTDIR: "A file is where a folder is expected: move it away.",
    errno.EISDIR: "A folder is where a file is expected: move it away.",
    errno.ELOOP: "A link leads to itself: remove it.",
}


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
    except OSError as error:
        if error.errno not in MACHINE_TROUBLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror}; no incomplete file is left."
        print(f"timnet: {said} {MACHINE_TROUBLE[error.errno]}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's
            raise
        advice = MACHINE_TROUBLE[errno.ENOMEM]
        print(f"timnet: out of memory; no incomplete file is left. {advice}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("timnet: interrupted; no incomplete file is left", file=sys.stderr)
        sys.exit(130)
