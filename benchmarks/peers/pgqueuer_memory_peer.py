"""PgQueuer in memory: ``python -m benchmarks.peers.pgqueuer_memory_peer JOBS AT_ONCE``.

With uvloop, as its own command runs. A job is gone when it has run; a result is not kept.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks._rounds import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


async def main(jobs: int, at_once: int) -> None:
    """Serve rounds: put every job in by a call of its own, then run until none is left."""
    pgqueuer = import_module("pgqueuer")
    drain = import_module("pgqueuer.types").QueueExecutionMode.drain

    async def side() -> Sequence[float]:
        pgq = pgqueuer.PgQueuer.in_memory()
        ran = []

        @pgq.entrypoint("nothing")  # type: ignore[untyped-decorator]
        async def nothing(job: Any) -> None:
            ran.append(job.payload)

        started = time.thread_time()
        for n in range(jobs):
            await pgq.queries.enqueue("nothing", b"%d" % n, 0)
        await pgq.run(batch_size=at_once // 2, max_concurrent_tasks=at_once, mode=drain)
        seconds = time.thread_time() - started
        assert sorted(map(int, ran)) == list(range(jobs))
        return [seconds / jobs]

    await serve_rounds(side)


if __name__ == "__main__":
    import_module("uvloop").run(main(int(sys.argv[1]), int(sys.argv[2])))
