"""The child's half of a side in another interpreter: answers each line of input with one round.

Standard library only, since it runs in the peers' environment as well.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def serve_rounds(side: Callable[[], Awaitable[Sequence[float]]]) -> None:
    """Run ``side`` once for each line of standard input, until that ends.

    Reading blocks the whole event loop, deliberately: between two rounds nothing here may run.

    *Cancellation*: takes effect in the round, not while waiting for the next.
    """
    print("ready", flush=True)
    for _ in sys.stdin:
        gc.collect()
        print(json.dumps(list(await side())), flush=True)
