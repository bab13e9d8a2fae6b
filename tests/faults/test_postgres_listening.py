"""Notices between processes: what is heard when the connection that listens is cut, and what is not believed."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio

from jobtrio import Cancelled, Completed, Executors, JobContext, Token, open_registry
from jobtrio._errors import DuplicateJobError
from jobtrio.stores.postgres import PostgresJobStore, Submitter
from jobtrio.stores.postgres import _advancing as advancing
from jobtrio.stores.postgres import _listening as listening
from jobtrio.stores.postgres._connections import Connections
from jobtrio.stores.postgres._listening import Listener
from jobtrio.testing._workers import LEASE, ids, new_entry, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import jobtrio
    from jobtrio.psycopg_trio import TrioConnection

executors = Executors()


@executors.register("work")
async def work(job: JobContext) -> str:
    return "done"


@pytest.fixture(autouse=True)
def _look_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers that hear of news not look for them by themselves."""
    monkeypatch.setattr("jobtrio.stores.postgres._session.LOOK_AFTER", 600.0)


@pytest.fixture
async def registry(postgres: str) -> AsyncIterator[jobtrio.JobRegistry]:
    """Submits, and runs nothing."""
    async with open_registry(executors, store=PostgresJobStore(postgres), queues={}) as registry:
        yield registry


def cut_listeners(conninfo: str) -> int:
    """End all connections that listen, and wait until they have ended; return how many there were."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
        ).fetchone()
        assert row is not None
        return int(row[0])


async def test_a_listener_that_is_cut(postgres: str, registry: jobtrio.JobRegistry) -> None:
    """A worker whose connection is cut listens again by itself, and hears of work from then and from later."""
    async with open_registry(executors, store=PostgresJobStore(postgres)):
        await _both_listen(postgres)
        for _ in range(3):
            assert await trio.to_thread.run_sync(cut_listeners, postgres) == 2
            with trio.fail_after(60):
                assert await (await registry.submit("work")).wait() == Completed("done")
            await _both_listen(postgres)
            with trio.fail_after(60):
                assert await (await registry.submit("work")).wait() == Completed("done")


async def test_messages_while_nothing_is_heard(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while a watcher's listener is cut off reaches its readers as soon as it listens again."""
    for name in ("LOOK_AFTER", "LOOK_AT_LEAST"):
        monkeypatch.setattr(f"jobtrio._tail.{name}", 600.0)  # by itself it would look that late
    said, listens, connect = trio.Event(), trio.Event(), Connections.connect
    some = Executors()

    @some.register("work")
    async def say(job: JobContext) -> None:
        await job.send("first")
        await said.wait()
        await job.send("second")
        await trio.sleep_forever()

    async def connect_late(self: Connections) -> TrioConnection[Any]:
        await listens.wait()
        return await connect(self)

    async with open_registry(some, store=PostgresJobStore(postgres)) as worker:
        async with open_registry(some, store=PostgresJobStore(postgres), queues={}) as watcher:
            await _both_listen(postgres)
            job = await watcher.submit("work")
            with trio.fail_after(60):
                async with job.subscribe() as messages:
                    assert await messages.receive() == Token(1, 1, "first")
                    monkeypatch.setattr(Connections, "connect", connect_late)
                    assert await trio.to_thread.run_sync(cut_listeners, postgres) == 2
                    said.set()
                    while (await (await worker.get(job.id)).span()).last < 2:  # noqa: ASYNC110 - until it is stored
                        await trio.sleep(0.01)
                    listens.set()
                    assert await messages.receive() == Token(2, 1, "second")
            await job.cancel()


async def test_a_listener_that_the_server_has_forgotten(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that lives, and does not listen any more, listens again after a while: workers hear of work then."""
    monkeypatch.setattr(listening, "ALIVE_AFTER", 0.05)
    sessions: list[TrioConnection[Any]] = []
    hear = Listener._hear

    async def noted(self: Listener, connection: TrioConnection[Any]) -> None:
        sessions.append(connection)
        await hear(self, connection)

    monkeypatch.setattr(Listener, "_hear", noted)
    async with open_registry(executors, store=PostgresJobStore(postgres)) as registry:
        assert await (await registry.submit("work")).wait() == Completed("done")
        (session,) = sessions
        with trio.fail_after(60):
            await session.execute("UNLISTEN *")
            while not await (await session.execute("SELECT pg_listening_channels()")).fetchall():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert sessions == [session]


async def _both_listen(conninfo: str) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    with psycopg.connect(conninfo, autocommit=True) as connection, trio.fail_after(60):
        statement = f"{count} AND pid <> pg_backend_pid()".encode()
        while connection.execute(statement).fetchone() != (2,):  # noqa: ASYNC110 - others see to it
            await trio.sleep(0.02)


async def test_cancelled_before_notices_are_heard(
    postgres: str, registry: jobtrio.JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request made while a worker did not listen yet, or not for a moment, is found when it does."""
    monkeypatch.setattr("jobtrio.stores.postgres._session.LOOK_OFTEN", 600.0)
    monkeypatch.setattr("jobtrio.stores.postgres._session.SETTLED_WITHIN", 0.1)
    listens, run = trio.Event(), Listener.run
    begun = trio.Event()
    some = Executors()

    async def run_late(listener: Listener) -> None:
        await listens.wait()
        await run(listener)

    @some.register("work")
    async def hang(job: JobContext) -> None:
        begun.set()
        await trio.sleep_forever()

    monkeypatch.setattr(Listener, "run", run_late)
    job = await registry.submit("work")
    async with open_registry(some, store=PostgresJobStore(postgres), lease=600.0):
        with trio.fail_after(60):
            await begun.wait()
            assert await registry.cancel(job.id, "enough")
            listens.set()
            assert await job.wait() == Cancelled("enough")


async def test_nonsense_on_the_channel(postgres: str, registry: jobtrio.JobRegistry) -> None:
    """Anybody may send notices; none of them can do harm."""
    async with open_registry(executors, store=PostgresJobStore(postgres)):
        with psycopg.connect(postgres, autocommit=True) as connection:
            nonsense = ["", "x", "{}", "null", '{"by": 1}', '{"by": "x", "due": "y"}', "a" * 7999]
            nonsense.append(f'{{"by": "x", "deep": {"[" * 3900}{"]" * 3900}}}')
            for payload in nonsense:
                connection.execute("SELECT pg_notify('jobtrio:jobtrio', %s)", [payload])
            connection.execute(
                """SELECT pg_notify('jobtrio:jobtrio', '{"by": "x", "ready": true, "due": 0, "messages": ["?"]}')"""
            )
        with trio.fail_after(60):
            assert await (await registry.submit("work")).wait() == Completed("done")


@pytest.mark.parametrize("quick", [0.0, inf], ids=["behind the commit", "with it"])
async def test_what_others_are_told_of(postgres: str, monkeypatch: pytest.MonkeyPatch, quick: float) -> None:
    """Others are told of what is written, whether commits are quick, so that it goes with the write, or not."""
    monkeypatch.setattr("jobtrio.stores.postgres._notices.QUICK", quick)
    async with open_workers(lambda: PostgresJobStore(postgres), "a", "b") as (a, b):
        told = partial(b.heard._event, "messages_added")
        monkeypatch.setattr(b.heard, "messages_added", lambda job_id: job_id is not None and told().set())
        await _both_listen(postgres)
        claim = await a.start()
        changes: tuple[tuple[str, Callable[[], Awaitable[object]]], ...] = (
            ("work_ready", lambda: a.insert(new_entry())),
            ("work_ready", lambda: a.insert(new_entry(), new_entry())),
            ("due_changed", lambda: a.claim(lease=LEASE / 2)),
            ("messages_added", lambda: a.store.append_messages(claim, tokens(1, 1))),
            ("messages_added", lambda: a.store.finish(claim, Completed())),
        )
        for signal, change in changes:
            await b.stream(claim.entry.id)
            await b.advance()
            b.heard.forget()
            await change()
            await b.heard.wait_for(signal)


async def test_schemas_do_not_hear_each_other(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice is for those who have that schema open."""
    monkeypatch.setattr("jobtrio.stores.postgres._session.LOOK_OFTEN", inf)
    stores = [PostgresJobStore(postgres, schema=name) for name in ("other", "one")]
    async with open_workers([*stores].pop, "a", "b") as (a, b):
        with trio.fail_after(60):
            while not all(store._opened._hears for store in stores):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        b.heard.forget()
        await a.insert(new_entry())
        with psycopg.connect(postgres, autocommit=True) as connection:  # notices arrive in the order of their commits
            connection.execute("""SELECT pg_notify('jobtrio:other', '{"by": "x", "due": 1}')""")
        await b.heard.wait_for("due_changed")
        assert not b.heard._event("work_ready").is_set()


async def test_a_deadlock(postgres: str) -> None:
    """Where two put in the same keys in opposite order, the server ends one of them, and the store tries again."""
    submitter = Submitter(executors)
    async with open_workers(lambda: PostgresJobStore(postgres), "a") as (a,):
        first = trio.Event()

        def put_in_both(token: Any) -> list[str]:
            with psycopg.connect(postgres) as connection:
                found = [submitter.submit_in(connection, "work", key="x").id]
                trio.from_thread.run_sync(first.set)
                trio.from_thread.run(trio.sleep, 0.3)
                found.append(submitter.submit_in(connection, "work", key="y").id)
            return found

        outcomes: list[Any] = []

        async def other() -> None:
            try:
                outcomes.append(await trio.to_thread.run_sync(put_in_both, None))
            except psycopg.errors.DeadlockDetected:
                outcomes.append([])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await first.wait()
            stored = await a.insert(new_entry(key="y"), new_entry(key="x"))
        again = await a.insert(new_entry(key="x"), new_entry(key="y"))
        assert ids(stored) == ids(again)[::-1]
        if outcomes[0]:
            assert ids(again) == outcomes[0]
        with pytest.raises(DuplicateJobError):
            await a.insert(new_entry(job_id=ids(again)[0]))


async def test_told_of_while_it_is_asked_what_is_due(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What falls due later is not forgotten where it was stored between a question what is due and its answer."""
    later: list[jobtrio.Job] = []
    advance = advancing.advance

    async def slow(*args: Any) -> advancing.Progress:
        progress = await advance(*args)
        if progress.changed and not later:
            later.append(await here.submit("work", delay=0.1))
        return progress

    monkeypatch.setattr(advancing, "advance", slow)
    async with open_registry(executors, store=PostgresJobStore(postgres), lease=600) as here:
        first = await here.submit("work", delay=0.1)
        with trio.fail_after(60):
            await first.wait()
            assert await later[0].wait() == Completed("done")
