"""Procrastinate: ``python -m benchmarks.peers.procrastinate_peer DSN JOBS PART``.

With psycopg, a pool, and as many jobs at once. ``PART`` is what is timed: ``each`` or ``many`` puts jobs in, ``drain``
runs what is there until nothing is left. An ended job's row is kept, without a result.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks._rounds import serve_rounds
from benchmarks.peers._measuring import AT_ONCE, Countdown, each, many

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 20


async def main(dsn: str, jobs: int, part: str) -> None:
    """Serve rounds, each on empty tables."""
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # warnings would stand in the table
    procrastinate = import_module("procrastinate")
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)
    app = procrastinate.App(connector=connector)
    countdown: Countdown | None = None

    @app.task(name="nothing")  # type: ignore[untyped-decorator]
    async def nothing(n: int) -> None:
        assert countdown is not None
        countdown.count()

    async def side() -> Sequence[float]:
        nonlocal countdown
        await connector.execute_query_async("TRUNCATE procrastinate_jobs CASCADE")
        if part != "drain":
            seconds = await _enqueue(nothing, jobs, part)
            assert await _count(connector, "todo") == jobs
            return [seconds / jobs]
        await _enqueue(nothing, jobs, "many")
        countdown = Countdown(jobs)
        await app.run_worker_async(wait=False, concurrency=AT_ONCE, install_signal_handlers=False)
        seconds = countdown.seconds()
        assert await _count(connector, "succeeded") == jobs
        return [seconds / jobs]

    async with app.open_async():
        row = await connector.execute_query_one_async("SELECT to_regclass('procrastinate_jobs') IS NOT NULL AS there")
        if not row["there"]:
            await app.schema_manager.apply_schema_async()
        await serve_rounds(side)


async def _enqueue(task: Any, jobs: int, part: str) -> float:
    if part == "many":
        return await many(jobs, lambda numbers: task.batch_defer_async(*({"n": n} for n in numbers)))
    return await each(jobs, lambda n: task.defer_async(n=n))


async def _count(connector: Any, status: str) -> int:
    query = f"SELECT count(*) AS n FROM procrastinate_jobs WHERE status = '{status}'"
    row = await connector.execute_query_one_async(query)
    return int(row["n"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
