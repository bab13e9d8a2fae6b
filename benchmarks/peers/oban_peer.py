"""Oban for Python: ``python -m benchmarks.peers.oban_peer DSN JOBS PART``; needs Python 3.12.

With uvloop and a queue whose limit is as many jobs at once. ``PART`` is what is timed: ``each`` or ``many`` puts jobs
in, ``drain`` runs what is there. An ended job's row is kept, without a result.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks._rounds import serve_rounds
from benchmarks.peers._measuring import AT_ONCE, Countdown, each, many

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 20
PAUSE = 0.002
"""Seconds between two looks whether all that ran is written."""


async def main(dsn: str, jobs: int, part: str) -> None:
    """Serve rounds, each on empty tables."""
    oban = import_module("oban")
    pool = await oban.Oban.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)
    if not await _count(pool, "SELECT count(*) FROM pg_class WHERE relname = 'oban_jobs'"):
        await import_module("oban.schema").install(pool)
    countdown: Countdown | None = None

    @oban.worker()
    class Nothing:
        async def process(self, job: Any) -> None:
            assert countdown is not None
            countdown.count()

    async def side() -> Sequence[float]:
        nonlocal countdown
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE oban_jobs")
        put = oban.Oban(pool=pool)
        if part != "drain":
            seconds = await _enqueue(put, Nothing, jobs, part)
            assert await _count(pool, "SELECT count(*) FROM oban_jobs WHERE state = 'available'") == jobs
            return [seconds / jobs]
        await _enqueue(put, Nothing, jobs, "many")
        countdown = Countdown(jobs)
        async with oban.Oban(pool=pool, queues={"default": AT_ONCE}):
            await countdown.over.wait()
            await _all_completed(pool, jobs)
            return [countdown.seconds() / jobs]

    await serve_rounds(side)
    await pool.close()


async def _enqueue(put: Any, kind: Any, jobs: int, part: str) -> float:
    if part == "many":
        return await many(jobs, lambda numbers: put.enqueue_many(*(kind.new({"n": n}) for n in numbers)))
    return await each(jobs, lambda n: put.enqueue(kind.new({"n": n})))


async def _all_completed(pool: Any, jobs: int) -> None:
    while await _count(pool, "SELECT count(*) FROM oban_jobs WHERE state = 'completed'") < jobs:  # noqa: ASYNC110
        await asyncio.sleep(PAUSE)


async def _count(pool: Any, query: str) -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(query)
        (count,) = await cursor.fetchone()
    return int(count)


if __name__ == "__main__":
    import_module("uvloop").run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
