"""``python -m jobtrio``: the same as the command ``jobtrio``."""

from __future__ import annotations

import sys

from jobtrio.cli import main

if __name__ == "__main__":
    sys.exit(main())
