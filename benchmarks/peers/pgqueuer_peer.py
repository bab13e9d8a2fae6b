"""PgQueuer: ``python -m benchmarks.peers.pgqueuer_peer DSN JOBS PART``.

With asyncpg and uvloop, the fastest of what its documentation names, its tables logged as they are by default and with
the settings for autovacuum that it recommends. ``PART`` is what is timed: ``each`` or ``many`` puts jobs in, by calls
for one or for many, ``drain`` runs what is there. A job's row is deleted when it has run; a result is not kept.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks._rounds import serve_rounds
from benchmarks.peers._measuring import AT_ONCE, Countdown, each, many

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

BATCH = 50
"""Jobs that are taken at once: at most half of those that may run."""

CONNECTIONS = 20
"""Of the pool that puts jobs in one by one."""


async def main(dsn: str, jobs: int, part: str) -> None:
    """Serve rounds, each on empty tables."""
    async with _connected(dsn) as queries:
        if not await queries.schema_is_installed():
            await queries.install()
            await queries.optimize_autovacuum()

    async def side() -> Sequence[float]:
        async with _connected(dsn) as queries:
            await queries.driver.execute("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics")
        seconds = await (_drain(dsn, jobs) if part == "drain" else _enqueue(dsn, jobs, part))
        return [seconds / jobs]

    await serve_rounds(side)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    db, queries = import_module("pgqueuer.db"), import_module("pgqueuer.queries")
    connection = await import_module("asyncpg").connect(dsn)
    try:
        yield queries.Queries(db.AsyncpgDriver(connection))
    finally:
        await connection.close()


async def _put_many(queries: Any, numbers: range) -> None:
    await queries.enqueue(["nothing"] * len(numbers), [b"%d" % n for n in numbers], [0] * len(numbers))


async def _enqueue(dsn: str, jobs: int, part: str) -> float:
    if part == "many":
        async with _connected(dsn) as queries:
            seconds = await many(jobs, lambda numbers: _put_many(queries, numbers))
    else:
        db, queries = import_module("pgqueuer.db"), import_module("pgqueuer.queries")
        async with import_module("asyncpg").create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            queue = queries.Queries(db.AsyncpgPoolDriver(pool))
            seconds = await each(jobs, lambda n: queue.enqueue("nothing", b"%d" % n, 0))
    async with _connected(dsn) as queries:
        assert [each.count for each in await queries.queue_size()] == [jobs]
    return seconds


async def _drain(dsn: str, jobs: int) -> float:
    async with _connected(dsn) as queries:
        await many(jobs, lambda numbers: _put_many(queries, numbers))
    countdown = Countdown(jobs)
    async with _connected(dsn) as queries:
        pgq = import_module("pgqueuer").PgQueuer(queries.driver, queries=queries)

        @pgq.entrypoint("nothing")  # type: ignore[untyped-decorator]
        async def nothing(job: Any) -> None:
            countdown.count()

        mode = import_module("pgqueuer.types").QueueExecutionMode.drain
        await pgq.run(batch_size=BATCH, max_concurrent_tasks=AT_ONCE, mode=mode)
        seconds = countdown.seconds()
    async with _connected(dsn) as queries:
        assert await queries.queue_size() == []
    return seconds


if __name__ == "__main__":
    import_module("uvloop").run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
