"""Notifications arrive while nothing else is done, and while everything else is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
import trio.lowlevel
from psycopg_bridge import check_at_rest, scalar
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import TrioConnection, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postgres_server import PostgresServer


@pytest.fixture
async def listener(postgres: str) -> AsyncIterator[TrioConnection[Any]]:
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("LISTEN news")
        yield connection


@pytest.fixture
async def sender(postgres: str) -> AsyncIterator[TrioConnection[Any]]:
    async with await connect(postgres, autocommit=True) as connection:
        yield connection


async def send(connection: TrioConnection[Any], *payloads: str) -> None:
    for payload in payloads:
        await connection.execute("SELECT pg_notify('news', %s)", [payload])


async def payloads(connection: TrioConnection[Any], count: int) -> list[str]:
    return [news.payload async for news in connection.notifies(stop_after=count)]


async def test_arrives(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """A waiting loop gets what is sent, with channel and sender."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            async for news in listener.notifies():
                assert (news.channel, news.payload, news.pid) == ("news", "hello", sender.info.backend_pid)
                return
            raise AssertionError

        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        await send(sender, "hello")
    await check_at_rest(listener)


async def test_nothing_is_lost_between_loops(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """What one loop has not read is there for the next, in order, however many arrived together."""
    await send(sender, *map(str, range(10)))
    await check_at_rest(listener)  # reads them all
    assert await payloads(listener, 3) == ["0", "1", "2"]
    await send(sender, "10")
    assert await payloads(listener, 8) == [str(n) for n in range(3, 11)]


async def test_while_statements_run(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """A loop gets every notification while other tasks run statements on the same connection, and holds none up."""
    got: list[str] = []
    asked = 0

    async def read() -> None:
        async for news in listener.notifies(stop_after=200):
            got.append(news.payload)

    async def ask() -> None:
        nonlocal asked
        while True:
            assert await scalar(listener, "SELECT %s::int", asked) == asked
            asked += 1

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as reading:
            reading.start_soon(read)
            nursery.start_soon(ask)
            for n in range(200):
                await send(sender, str(n))
                with trio.fail_after(60):
                    while asked < n // 8:
                        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert got == [str(n) for n in range(200)]
    assert asked > 20
    await check_at_rest(listener)


async def test_during_a_long_statement(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """What arrives at the end of a transaction wakes a loop that could not listen meanwhile."""
    async with trio.open_nursery() as nursery:
        async with listener.transaction():
            nursery.start_soon(payloads, listener, 1)
            await send(sender, "hello")
            await listener.execute("SELECT 1")


async def test_no_time_while_a_statement_runs(listener: TrioConnection[Any]) -> None:
    """Whoever asks only for what is there by now does not wait for another task's statement."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.execute, "SELECT pg_sleep(300)")
        await wait_all_tasks_blocked(0.01)
        with trio.fail_after(60):
            assert [news async for news in listener.notifies(timeout=0)] == []
        nursery.cancel_scope.cancel()
    await check_at_rest(listener)


async def test_cancelled_where_some_are_there(listener: TrioConnection[Any]) -> None:
    """A loop that need not wait is cancelled as well, and what it would have read is there for the next."""
    await send(listener, "me")
    await check_at_rest(listener)
    with trio.CancelScope() as scope:
        scope.cancel()
        await payloads(listener, 1)
    assert scope.cancelled_caught
    assert await payloads(listener, 1) == ["me"]


async def test_own_notification(listener: TrioConnection[Any]) -> None:
    """A connection hears itself."""
    await send(listener, "me")
    assert await payloads(listener, 1) == ["me"]


async def test_read_already(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """What has been read from the socket already, whoever did it, is not waited for."""
    await send(sender, "hello")
    await trio.lowlevel.wait_readable(listener.fileno())
    listener.pgconn.consume_input()
    with trio.fail_after(60):
        assert await payloads(listener, 1) == ["hello"]


async def test_cancelled_loop(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """A cancelled loop loses nothing."""
    for number in range(20):
        with trio.move_on_after(0.002):
            async for news in listener.notifies():
                raise AssertionError(news)
        await send(sender, str(number))
        with trio.CancelScope() as scope:
            scope.cancel()
            async for news in listener.notifies():
                raise AssertionError(news)
        assert await payloads(listener, 1) == [str(number)]


async def test_two_loops(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """Two loops share what arrives, one by one or together; when one leaves, the other goes on."""
    got: list[str] = []

    async def read(count: int) -> None:
        got.extend(await payloads(listener, count))

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 1)
            nursery.start_soon(read, 3)
            await wait_all_tasks_blocked(0.001)
            await send(sender, "a", "b")
            async with sender.transaction():
                await send(sender, "c", "d")
        assert sorted(got) == ["a", "b", "c", "d"]
        got.clear()


async def test_ends_of_a_loop(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """A loop ends by itself after a time or a number, and when it is closed."""
    assert [news async for news in listener.notifies(timeout=0.01)] == []
    assert [news async for news in listener.notifies(timeout=0)] == []
    assert [news async for news in listener.notifies(stop_after=0)] == []
    await send(sender, "a", "b")
    await check_at_rest(listener)
    assert [news.payload async for news in listener.notifies(timeout=0)] == ["a", "b"]
    await send(sender, "c")
    loop = listener.notifies()
    assert (await loop.asend(None)).payload == "c"
    await loop.aclose()
    assert [news async for news in loop] == []
    with pytest.raises(ValueError, match="thrown"):
        await listener.notifies().athrow(ValueError("thrown"))


async def test_what_is_there_by_now(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """A loop without any time gets what has arrived, though nobody has read it from the socket."""
    for payload in ("a", "b"):
        await send(sender, payload)
        await trio.lowlevel.wait_readable(listener.pgconn.socket)
        assert [news.payload async for news in listener.notifies(timeout=0)] == [payload]
    await check_at_rest(listener)


async def test_time_counts_over_the_loop(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """The time bound of a loop is for all of it, not for each notification."""
    got = []
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            while True:
                await send(sender, "x")
                await trio.sleep(0.02)

        nursery.start_soon(talk)
        begun = trio.current_time()
        with trio.fail_after(60):
            async for news in listener.notifies(timeout=0.5):
                got.append(news)
        assert trio.current_time() - begun >= 0.5
        nursery.cancel_scope.cancel()
    assert len(got) > 1


async def test_callbacks(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """Callbacks get what arrives; without a loop, nothing is kept beside them."""
    called: list[str] = []

    def callback(news: psycopg.Notify) -> None:
        called.append(news.payload)

    listener.add_notify_handler(callback)
    await send(sender, "a")
    await check_at_rest(listener)
    assert called == ["a"]
    assert [news async for news in listener.notifies(timeout=0)] == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(payloads, listener, 1)
        await wait_all_tasks_blocked(0.01)
        await send(sender, "b")
    assert called == ["a", "b"]
    ended = listener.notifies(timeout=0)
    assert [news async for news in ended] == []
    await send(sender, "not kept")
    await check_at_rest(listener)
    assert called == ["a", "b", "not kept"]
    listener.remove_notify_handler(callback)
    await send(sender, "c")
    assert await payloads(listener, 1) == ["c"]
    await send(sender, "kept again")
    await check_at_rest(listener)
    assert await payloads(listener, 1) == ["kept again"]
    assert called == ["a", "b", "not kept"]


async def test_callback_that_raises(listener: TrioConnection[Any], sender: TrioConnection[Any]) -> None:
    """What a callback raises comes out of what was reading: a loop goes on, and behind a statement all is over."""

    def callback(news: psycopg.Notify) -> None:
        raise LookupError(news.payload)

    listener.add_notify_handler(callback)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, sender, "a")
        with pytest.raises(LookupError, match="a"):
            await payloads(listener, 1)
    await check_at_rest(listener)
    await send(sender, "b")
    with pytest.raises(LookupError, match="b"):
        await listener.execute("SELECT 1")
    assert listener.closed


async def test_callback_that_raises_behind_a_cancellation(
    listener: TrioConnection[Any], sender: TrioConnection[Any]
) -> None:
    """What a callback raises is told, also where a cancelled statement is read to its end, and whatever its type."""

    def callback(news: psycopg.Notify) -> None:
        raise OSError(news.payload)

    told = False

    async def work() -> None:
        nonlocal told
        with pytest.raises(OSError, match="a"):
            await listener.execute("SELECT pg_sleep(100)")
        told = True

    listener.add_notify_handler(callback)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await wait_all_tasks_blocked(0.01)
            await send(sender, "a")
            scope.cancel()
    assert told
    if not listener.closed:  # the statement's end was read with it
        await check_at_rest(listener)


async def test_connection_lost(own_postgres: PostgresServer) -> None:
    """A loop learns that the server has gone."""
    async with await connect(own_postgres.conninfo(), autocommit=True) as listener:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(psycopg.OperationalError):
                    await payloads(listener, 1)

            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.01)
            own_postgres.stop()
        assert listener.closed
        with pytest.raises(psycopg.OperationalError):
            await payloads(listener, 1)


async def test_closed_by_another_task(listener: TrioConnection[Any]) -> None:
    """All loops end with an error when the connection is closed."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(psycopg.OperationalError):
                await payloads(listener, 1)

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        await listener.close()


async def test_closed_while_a_statement_runs(listener: TrioConnection[Any]) -> None:
    """A loop that waits for its turn ends with an error when the connection is closed."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(psycopg.OperationalError):
                await payloads(listener, 1)

        async def work() -> None:
            with pytest.raises(psycopg.OperationalError):
                await listener.execute("SELECT pg_sleep(100)")

        nursery.start_soon(work)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        await listener.close()


@pytest.mark.parametrize("way", ["closed", "given up"])
async def test_over_while_another_task_holds_it(postgres_server: PostgresServer, way: str) -> None:
    """A loop ends when the connection is over, not only when the task whose turn it was is done."""
    ended = False

    async def wait() -> None:
        nonlocal ended
        with pytest.raises(psycopg.OperationalError):
            await payloads(connection, 1)
        ended = True

    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        connection.cancel_grace = 0.05
        async with trio.open_nursery() as nursery, connection.lock:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            if way == "closed":
                await connection.close()
            else:
                wire.hold()
                connection.pgconn.send_query(b"SELECT 1")
                with trio.move_on_after(0.05):
                    await connection.wait(psycopg.generators.execute(connection.pgconn))
            assert connection.closed
            await wait_all_tasks_blocked()
            assert ended
