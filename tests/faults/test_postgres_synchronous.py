"""While a synchronous standby is away, nothing is answered for that it may not have, however often one asks."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
import trio
from until_answered import until_answered

from jobtrio import Cancelled, Completed, JobPriority, StoreUnavailableError
from jobtrio.psycopg_trio import connect
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres._submitting import put_in_async
from jobtrio.testing._workers import ERROR, new_entry, open_worker, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import psycopg
    from postgres_server import PostgresServer

    from jobtrio.abc import Claim
    from jobtrio.testing._workers import Worker

    Write = Callable[[Worker, Claim], Awaitable[Any]]

pytestmark = pytest.mark.timeout(120)

LIMIT = 2.0
"""Seconds of the outage limit, half of which one try may take."""


@asynccontextmanager
async def standby_away(server: PostgresServer) -> AsyncIterator[None]:
    """Have commits wait, within the block, for a standby that there is not."""
    server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    server.execute("SELECT pg_reload_conf()")
    warned = trio.Event()

    def warn(diagnostic: psycopg.errors.Diagnostic) -> None:
        if "synchronous replication" in (diagnostic.message_primary or ""):
            warned.set()

    try:
        async with await connect(server.conninfo(), autocommit=True) as connection:
            connection.add_notice_handler(warn)
            with trio.fail_after(60):
                while not warned.is_set():
                    with trio.move_on_after(0.1):
                        await connection.execute("SELECT pg_logical_emit_message(true, 'test', 'test')")
        yield
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("count", [1, 3])
async def test_insertions(own_postgres: PostgresServer, count: int, *, named: bool) -> None:
    """A job that is stored at the primary alone is not acknowledged to him who puts it in again."""
    conninfo = own_postgres.create_database()
    async with open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=LIMIT)) as worker:
        entries = [new_entry(key=f"key {n}" if named else None) for n in range(count)]
        submission = secrets.token_hex(8) if named or count > 1 else entries[0].id

        async def insert() -> list[str]:
            return [entry.id for entry in await worker.store.insert(entries, submission)]

        async with standby_away(own_postgres):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await insert()
            assert await worker.store.load(entries[0].id) is not None  # what is kept from being answered for
        assert await until_answered(insert) == [entry.id for entry in entries]


async def test_priorities(own_postgres: PostgresServer) -> None:
    """A priority that is changed at the primary alone is not answered for to him who changes it again."""
    conninfo = own_postgres.create_database()
    async with open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=LIMIT)) as worker:
        await worker.insert(entry := new_entry())

        async def change() -> JobPriority | None:
            changed = await worker.store.set_priority(entry.id, JobPriority.HIGH)
            return None if changed is None else changed.plan.priority

        async with standby_away(own_postgres):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await change()
            assert (await worker.record(entry.id)).priority is JobPriority.HIGH
        assert await until_answered(change) is JobPriority.HIGH


async def test_keys(own_postgres: PostgresServer) -> None:
    """Nor is it to others who ask for it by its key."""
    conninfo = own_postgres.create_database()
    async with open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=LIMIT)) as worker:
        async with standby_away(own_postgres):
            for job_id in ("one", "other"):
                with pytest.raises(StoreUnavailableError):
                    await worker.insert(new_entry(job_id=job_id, key="key"))
        (entry,) = await until_answered(lambda: worker.insert(new_entry(job_id="third", key="key")))
        assert entry.id == "one"


async def test_keys_in_a_transaction_of_the_callers(own_postgres: PostgresServer) -> None:
    """Nor does a transaction commit that has found it by its key, though there is nothing else in it."""
    conninfo = own_postgres.create_database()
    async with (
        open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=LIMIT)) as worker,
        await connect(conninfo, autocommit=True) as other,
        await connect(conninfo, application_name="the caller's") as callers,
    ):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, standby_away(own_postgres):
                with pytest.raises(StoreUnavailableError):
                    await worker.insert(new_entry(job_id="one", key="key"))
                assert (await put_in_async(callers, "jobtrio", new_entry(key="key"))).id == "one"
                nursery.start_soon(callers.commit)
                waits = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'the%'"
                await wait_for(other, waits)


WRITES: dict[str, Write] = {
    "complete": lambda worker, claim: worker.store.finish(claim, Completed(1)),
    "end": lambda worker, claim: worker.store.finish(claim, Cancelled("so"), messages=tokens(1, 1)),
    "retry": lambda worker, claim: worker.store.retry(claim, ERROR, 600.0),
    "release": lambda worker, claim: worker.store.release(claim, "so"),
    "cancel": lambda worker, claim: worker.store.request_cancel(claim.entry.id, "so", 0.0),
    "append": lambda worker, claim: worker.store.append_messages(claim, tokens(1, 2)),
    "save": lambda worker, claim: worker.store.save_state(claim, 1),
}


@pytest.mark.parametrize("name", WRITES)
async def test_writes(own_postgres: PostgresServer, name: str) -> None:
    """What is written at the primary alone is not answered for to him who writes it again."""
    conninfo = own_postgres.create_database()
    async with open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=LIMIT)) as worker:
        claim = await worker.start()
        async with standby_away(own_postgres):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await WRITES[name](worker, claim)
        assert await until_answered(lambda: WRITES[name](worker, claim))


TOLD: dict[str, tuple[Write, LiteralString]] = {
    "append": (WRITES["append"], "SELECT FROM jobtrio.messages"),
    "complete": (WRITES["complete"], "SELECT FROM jobtrio.jobs WHERE state = 'COMPLETED'"),
    "cancel": (WRITES["cancel"], "SELECT FROM jobtrio.jobs WHERE cancel IS NOT NULL"),
    "insert": (lambda worker, _: worker.insert(new_entry()), "SELECT FROM jobtrio.jobs WHERE attempt = 0"),
    "named": (lambda worker, _: worker.insert(new_entry(key="key")), "SELECT FROM jobtrio.jobs WHERE attempt = 0"),
}
"""What others are told of, and what shows that it is written."""


@pytest.mark.parametrize("name", TOLD)
async def test_commits_that_send_notices(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where commits are slow, and those that send notices follow one another, jobs are not locked while one waits."""
    monkeypatch.setattr("jobtrio.stores.postgres._notices.QUICK", 0.0)
    write, written = TOLD[name]
    conninfo = own_postgres.create_database(options="-c synchronous_commit=local")
    async with (
        open_worker(lambda: PostgresJobStore(conninfo, listen=False, outage_limit=60.0)) as worker,
        await connect(conninfo, autocommit=True) as other,
    ):
        claim = await worker.start()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, standby_away(own_postgres):
                nursery.start_soon(tell_slowly, own_postgres.conninfo())
                await wait_for(other, "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                nursery.start_soon(write, worker, claim)
                await wait_for(other, "SELECT FROM pg_locks WHERE locktype = 'object' AND NOT granted")
                await rows_of(other, "SELECT FROM jobtrio.jobs FOR UPDATE NOWAIT")
                assert len(await rows_of(other, written)) == 1


async def tell_slowly(conninfo: str) -> None:
    """Send a notice with something that a standby is to have."""
    async with await connect(conninfo, autocommit=True) as connection:
        await connection.execute("SELECT pg_notify('x', ''), pg_logical_emit_message(true, 'test', 'test')")


async def rows_of(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> list[Any]:
    """Return what is found."""
    return await (await connection.execute(query)).fetchall()


async def wait_for(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> None:
    """Return when something is found."""
    while not await rows_of(connection, query):  # noqa: ASYNC110
        await trio.sleep(0.002)
