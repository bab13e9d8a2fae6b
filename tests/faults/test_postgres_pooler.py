"""Behind a pooler that gives out sessions for one transaction each, all is as ever, but for how soon news are heard."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from postgres_invariants import check_schema
from postgres_pooler import Pooler, open_pooler
from psycopg.conninfo import make_conninfo

import jobtrio
from jobtrio import Cancelled, Completed, Executors, JobContext
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._workers import new_entry, open_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio.psycopg_trio import TrioConnection
    from jobtrio.stores.postgres._connections import Link
    from jobtrio.testing import StoreCheck


@pytest.fixture
async def pooler(postgres: str) -> AsyncIterator[Pooler]:
    """A pooler with fewer sessions than it has clients."""
    async with open_pooler(postgres, sessions=3) as pooler:
        yield pooler


@pytest.fixture
def through(pooler: Pooler, postgres: str) -> str:
    """The way through the pooler."""
    return make_conninfo(postgres, host="127.0.0.1", port=pooler.port)


def left_in_sessions(conninfo: str, pooler: Pooler) -> None:
    """Check that no session was changed by its clients, and that clients did move between sessions."""
    assert pooler.moves > 10
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for _ in range(6):
            assert connection.execute("SELECT current_setting('enable_seqscan')", prepare=False).fetchone() == ("on",)
            for view in (b"pg_prepared_statements", b"pg_listening_channels()"):
                rows = connection.execute(b"SELECT * FROM " + view, prepare=False).fetchall()
                assert rows == []
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            assert connection.execute(locks, prepare=False).fetchone() == (0,)


CHECKS = [
    *("check_claims_are_exclusive", "check_repeated_claim", "check_limits_hold_at_once", "check_concurrent_inserts"),
    *("check_keys_within_one_call", "check_duplicate_ids_are_refused", "check_start_held", "check_finish"),
    *("check_retry", "check_saved_state", "check_old_claims_write_nothing", "check_lapse", "check_workers"),
    *("check_cancel_wins", "check_known_messages_are_passed_over", "check_dropped_messages_leave_a_gap"),
    *("check_find", "check_prune_by_count", "check_kept_over_a_restart", "check_calls_cut_off"),
]
"""Those of the contract's checks that take several trips, or several workers."""


@pytest.mark.parametrize("check", [check for check in STORE_CHECKS if check.__name__ in CHECKS])
async def test_checks(through: str, postgres: str, pooler: Pooler, check: StoreCheck) -> None:
    """The store keeps the contract, and leaves nothing behind in the sessions that others get."""
    await check(lambda: PostgresJobStore(through, listen=False))
    pooler.moves += 11  # most checks are too short to say
    await trio.to_thread.run_sync(left_in_sessions, through, pooler)


async def test_news_are_looked_for(through: str, pooler: Pooler) -> None:
    """Without notices, work, tokens and requests from elsewhere are found within a second or so."""
    executors = Executors()

    @executors.register("hang")
    async def hang(job: JobContext) -> None:
        await job.send("begun")
        await trio.sleep_forever()

    @executors.register("quick")
    async def quick(job: JobContext) -> str:
        return "done"

    def store() -> PostgresJobStore:
        return PostgresJobStore(through, listen=False)

    async with (
        jobtrio.open_registry(executors, store=store(), queues={}) as registry,
        jobtrio.open_registry(executors, store=store(), lease=600.0, max_running_total={"default": 2}),
    ):
        await trio.sleep(0.1)
        jobs = [await registry.submit("hang"), await registry.submit("quick", delay=0.2)]
        with trio.fail_after(60):
            async with jobs[0].subscribe() as messages:
                await messages.receive()
                await registry.cancel(jobs[0].id, "enough")
                assert await jobs[0].wait() == Cancelled("enough")
            assert await jobs[1].wait() == Completed("done")


async def test_it_is_found_out(through: str, postgres: str, pooler: Pooler, caplog: pytest.LogCaptureFixture) -> None:
    """A store that was not told of the pooler finds that no notices arrive, says so once, and looks for news."""
    with caplog.at_level(logging.WARNING, "jobtrio.stores.postgres"):
        async with open_workers(lambda: PostgresJobStore(through), "a", "b") as (a, b):
            for n in range(20):
                await a.insert(new_entry(job_id=str(n)))
                claim = await b.claim_one()
                assert await b.store.finish(claim, Completed())
            assert a.store.poll_interval == b.store.poll_interval == 0.5
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 2  # one a store
    assert "notices do not arrive" in warnings[0]
    assert set(check_schema(postgres, ()).values()) == {"COMPLETED"}
    assert pooler.moves > 10


async def test_notices_that_do_arrive(postgres: str) -> None:
    """Without a pooler notices are found to arrive as the store is opened, and then it seldom looks."""
    async with open_workers(lambda: PostgresJobStore(postgres), "a") as (a,):
        assert a.store.poll_interval == 5.0


async def test_notices_for_others(postgres: str) -> None:
    """A session that was left listening by another client brings notices, which are not kept."""
    async with open_workers(lambda: PostgresJobStore(postgres, pool_size=1), "a") as (a,):
        session = a.store._opened  # type: ignore[attr-defined]

        async def listen(link: Link) -> TrioConnection[Any]:
            await link.connection.execute("LISTEN x")
            return link.connection

        connection = await session.connections.use(listen)
        for _ in range(10):
            await session.connections.use(lambda link: link.connection.execute("NOTIFY x"))
        assert connection._inbox.unread == deque()


async def test_no_transactions(postgres: str) -> None:
    """A pooler that allows no transaction of several trips is not worked with, also where there is a schema."""
    refusal = "transaction blocks not allowed in statement pooling mode"
    async with open_workers(lambda: PostgresJobStore(postgres), "a"), open_pooler(postgres, refusal=refusal) as pooler:
        through = make_conninfo(postgres, host="127.0.0.1", port=pooler.port)
        with pytest.raises(jobtrio.StoreUnavailableError, match=refusal):
            async with open_workers(lambda: PostgresJobStore(through, listen=False, outage_limit=1.0), "b"):
                pass


async def test_the_pooler_is_one(through: str, postgres: str, pooler: Pooler) -> None:
    """What a session was given is there for other clients, and notices are lost: else the tests above say nothing."""
    clients: list[psycopg.Connection[Any]] = []

    def connect_all() -> None:
        clients.extend(psycopg.connect(through, autocommit=True) for _ in range(2))
        clients[0].execute("LISTEN x")
        for _ in range(3):
            clients[0].execute("SET application_name = 'somebody'", prepare=False)

    def ask() -> list[Any]:
        found = [clients[1].execute("SHOW application_name", prepare=False).fetchone() for _ in range(3)]
        clients[1].execute("NOTIFY x", prepare=False)
        for _ in range(6):
            clients[1].execute("SELECT 1", prepare=False)
        found += list(clients[0].notifies(timeout=0.2))
        for client in clients:
            client.close()
        return found

    await trio.to_thread.run_sync(connect_all)
    assert await trio.to_thread.run_sync(ask) == [("somebody",)] * 3
    assert pooler.swallowed == 1
