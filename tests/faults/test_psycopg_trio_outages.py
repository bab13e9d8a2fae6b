"""The PostgreSQL bridge while the server or the way to it is in trouble: nothing that was acknowledged is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from patience import until
from psycopg_bridge import check_at_rest, scalar, wait_for_sessions
from wire import open_wire

from jobtrio.psycopg_trio import OutcomeUnknownError, Pool, TrioConnection, connect, open_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from postgres_server import PostgresServer

TASKS = 6


class Writers:
    """Tasks that write numbered rows through a pool, and try again until each is acknowledged."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._numbers = iter(range(10**9))
        self.acknowledged: set[int] = set()
        self.failures = 0
        self.unknown: set[int] = set()
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            number = next(self._numbers)
            while not await self._write(number):
                self.failures += 1
                await trio.sleep(0.02)
            self.acknowledged.add(number)

    async def _write(self, number: int) -> bool:
        try:
            with trio.fail_after(1):
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (%s) ON CONFLICT DO NOTHING", [number])
        except OutcomeUnknownError:
            self.unknown.add(number)
            return False
        except (psycopg.OperationalError, trio.TooSlowError):
            return False
        return True

    async def more(self, count: int = 20) -> None:
        """Wait until so many more rows were acknowledged."""
        enough = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= enough)


def stop(server: PostgresServer) -> None:
    server.stop()
    server.start()


def kill(server: PostgresServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("restart", [stop, kill])
async def test_server_restarted(own_postgres: PostgresServer, restart: Callable[[PostgresServer], None]) -> None:
    """Every acknowledged row is there after the server was restarted in the middle, again and again."""
    conninfo = own_postgres.create_database()
    async with open_pool(conninfo, size=3, autocommit=True) as pool, trio.open_nursery() as nursery:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE t (number int PRIMARY KEY)")
        writers = Writers(pool)
        for _ in range(TASKS):
            nursery.start_soon(writers.run)
        for _ in range(3):
            await writers.more()
            await trio.to_thread.run_sync(restart, own_postgres)
        await writers.more()
        writers.stopping = True
    assert writers.failures >= 3
    async with await connect(conninfo) as observer:
        rows = await (await observer.execute("SELECT number FROM t")).fetchall()
    assert writers.acknowledged <= {number for (number,) in rows}
    await wait_for_sessions(conninfo, 0)


@pytest.mark.parametrize("trouble", ["hold", "cut", "freeze"])
async def test_way_in_trouble(own_postgres: PostgresServer, trouble: str) -> None:
    """Work goes on by itself when a stalled, cut or frozen way is well again, and leaves no session behind."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        options: dict[str, Any] = {"port": wire.port, "connect_timeout": "1"}

        async def impatient(connection: TrioConnection[Any]) -> None:
            connection.cancel_grace = 0.1

        async with (
            open_pool(conninfo, size=3, autocommit=True, check_limit=0.2, configure=impatient, **options) as pool,
            trio.open_nursery() as nursery,
        ):
            async with await connect(conninfo, autocommit=True) as connection:
                await connection.execute("CREATE TABLE t (number int PRIMARY KEY)")
            writers = Writers(pool)
            for _ in range(TASKS):
                nursery.start_soon(writers.run)
            for _ in range(2):
                await writers.more()
                if trouble == "freeze":
                    own_postgres.freeze()
                else:
                    getattr(wire, trouble)()
                await trio.sleep(0 if trouble == "cut" else 1.5)
                own_postgres.thaw()
                wire.release()
            await writers.more()
            writers.stopping = True
        assert writers.failures
        async with await connect(conninfo) as observer:
            rows = await (await observer.execute("SELECT number FROM t")).fetchall()
        assert writers.acknowledged <= {number for (number,) in rows}
    await wait_for_sessions(conninfo, 0)


async def test_listener_comes_back(own_postgres: PostgresServer) -> None:
    """A listener learns of a restart at once, and hears again when it has connected anew."""
    conninfo = own_postgres.create_database()
    heard = trio.Event()
    first, second = trio.Event(), trio.Event()

    async def listen() -> None:
        while True:
            try:
                async with await connect(conninfo, autocommit=True) as connection:
                    await connection.execute("LISTEN news")
                    (second if first.is_set() else first).set()
                    async for _ in connection.notifies():
                        heard.set()
                        return
            except psycopg.OperationalError:
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await first.wait()
        await trio.to_thread.run_sync(own_postgres.restart)
        await second.wait()
        own_postgres.execute("NOTIFY news", database=conninfo_database(conninfo))
        await heard.wait()


def conninfo_database(conninfo: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"])


async def test_failover(own_postgres: PostgresServer, postgres_server: PostgresServer) -> None:
    """When the first of two servers goes, connections are to the second; when it is back, to the first again."""
    password = "shared"
    for server in (own_postgres, postgres_server):
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            admin.execute("DROP ROLE IF EXISTS shared")
            admin.execute("CREATE ROLE shared LOGIN PASSWORD 'shared'")
    where = f"host=127.0.0.1,127.0.0.1 port={own_postgres.port},{postgres_server.port} user=shared dbname=postgres"
    async with open_pool(where, size=1, autocommit=True, password=password, max_age=0) as pool:

        async def port() -> int:
            async with pool.connection() as connection:
                await check_at_rest(connection)
                return int(await scalar(connection, "SHOW port"))

        assert await port() == own_postgres.port
        own_postgres.stop()
        assert await port() == postgres_server.port
        own_postgres.start()
        assert await port() == own_postgres.port


async def test_too_many_connections(own_postgres: PostgresServer) -> None:
    """A server that has no place left says so, and a pool's place is not lost by it."""
    own_postgres.restart(max_connections="7", **own_postgres.unreserved)
    others = [await connect(own_postgres.conninfo()) for _ in range(4)]
    async with open_pool(own_postgres.conninfo(), size=2) as pool:
        while True:
            try:
                others.append(await connect(own_postgres.conninfo()))
            except psycopg.OperationalError:
                break
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                await pool.connection().__aenter__()
        for other in others:
            await other.close()
        with trio.fail_after(60):
            while True:
                try:
                    async with pool.connection() as connection:
                        await check_at_rest(connection)
                    break
                except psycopg.OperationalError:
                    await trio.sleep(0.01)
    own_postgres.restart()


async def test_terminated_by_an_administrator(postgres_server: PostgresServer) -> None:
    """A session that an administrator ends fails with the server's reason, and its transaction is not committed."""
    connection = await connect(postgres_server.conninfo(), autocommit=True)
    pid = connection.info.backend_pid
    with pytest.raises(psycopg.OperationalError) as caught:  # noqa: PT012
        async with connection.transaction():
            with psycopg.connect(postgres_server.conninfo(), autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            await connection.execute("SELECT 1")
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert connection.closed
