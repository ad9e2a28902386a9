"""The program `timnet`: Ctrl-C while it loads ends it in a sentence too."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from timnet.cli import main as run
    except KeyboardInterrupt:
        print("timnet: interrupted while loading; nothing was done", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
