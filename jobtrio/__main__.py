"""The command ``jobtrio``, also as ``python -m jobtrio``."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command, where there is what it needs: signals, terminals and sessions of processes."""
    if os.name != "posix":
        sys.exit("jobtrio: the command needs a POSIX system, such as Linux or macOS; the library does without")
    from jobtrio.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
