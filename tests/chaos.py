"""The command of the chaos tests: ``python -m tests.chaos --store sqlite --seeds 20``.

What it does is in ``tests/support/chaos``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "support"))
    from chaos.command import main

    sys.exit(main())
