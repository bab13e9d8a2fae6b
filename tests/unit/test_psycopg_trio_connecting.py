"""Connecting: every address is tried, within its time, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import re
import socket
import ssl
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
import trustme
from psycopg import rows
from psycopg.conninfo import conninfo_to_dict
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import TrioConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_server import PostgresServer


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found


async def answer(connection: TrioConnection[Any]) -> Any:
    row = await (await connection.execute("SELECT 42")).fetchone()
    assert row is not None
    return row[0]


async def test_connects(postgres: str) -> None:
    """A connection answers, and is psycopg's."""
    async with await connect(postgres) as connection:
        assert isinstance(connection, psycopg.AsyncConnection)
        assert await answer(connection) == 42
    assert connection.closed
    assert not connection.broken


async def test_unix_socket(postgres_server: PostgresServer) -> None:
    """A server is reached by a Unix socket as well."""
    async with await connect(postgres_server.conninfo(host=str(postgres_server.folder))) as connection:
        assert await answer(connection) == 42


async def test_options(postgres: str) -> None:
    """What psycopg's connections take is taken here."""
    source = psycopg.adapt.AdaptersMap(psycopg.adapters)
    context = await connect(postgres)
    context.adapters.register_loader("int4", psycopg.types.string.TextLoader)
    async with await TrioConnection.connect(
        postgres,
        autocommit=True,
        prepare_threshold=None,
        row_factory=rows.dict_row,
        cursor_factory=psycopg.AsyncClientCursor,
        context=context,
        application_name="by name",
    ) as connection:
        cursor = await connection.execute("SELECT %s AS a, current_setting('application_name') AS b", [7])
        assert await cursor.fetchone() == {"a": "7", "b": "by name"}
        assert isinstance(cursor, psycopg.AsyncClientCursor)
        assert connection.autocommit
        assert connection.prepare_threshold is None
    await context.close()
    assert source is not None


async def test_name(postgres_server: PostgresServer) -> None:
    """A name is looked up, and stays the connection's host."""
    async with await connect(postgres_server.conninfo(host="localhost")) as connection:
        assert connection.info.host == "localhost"
        assert await answer(connection) == 42


async def test_all_addresses_of_a_name(postgres_server: PostgresServer) -> None:
    """When one address of a name refuses, the next is tried."""

    class Two(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, *_: Any) -> Any:
            assert host in ("two.test", b"two.test")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in ("127.0.0.2", "127.0.0.1")]

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Two())
    async with await connect(postgres_server.conninfo(host="two.test")) as connection:
        assert connection.info.hostaddr == "127.0.0.1"


async def test_next_host(postgres_server: PostgresServer) -> None:
    """When one host refuses, is not known or does not answer in time, the next is tried."""
    with silent_port() as silent, closed_port() as closed:
        where = postgres_server.conninfo(
            host="127.0.0.1,unknown.invalid,127.0.0.1,127.0.0.1",
            port=f"{closed},1,{silent},{postgres_server.port}",
            connect_timeout="1",
        )
        async with await connect(where) as connection:
            assert connection.info.port == postgres_server.port


async def test_service(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hosts of a service are tried one by one, each within the time that it says."""
    given = conninfo_to_dict(postgres_server.conninfo())
    with silent_port() as silent:
        hosts = {"host": "unknown.invalid,127.0.0.1,127.0.0.1", "port": f"1,{silent},{given['port']}"}
        lines = [f"{name}={value}" for name, value in {**given, **hosts, "connect_timeout": "1"}.items()]
        (tmp_path / "services").write_text("\n".join(["[here]", *lines, ""]))
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        async with await connect("service=here") as connection:
            assert connection.info.port == postgres_server.port
    with pytest.raises(psycopg.OperationalError, match='service "nowhere" not found'):
        await connect("service=nowhere")


async def test_nothing_works() -> None:
    """When nothing works, the error says what each attempt ended with, and no socket is left."""
    before = sockets()
    with silent_port() as silent, closed_port() as closed:
        where = f"host=127.0.0.1,127.0.0.1 port={closed},{silent} connect_timeout=0.5"
        with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
            await connect(where)
    message = str(caught.value)
    assert "none of 2 attempts" in message
    assert f"port '{closed}': connection to server" in message
    assert "refused" in message
    assert f"port '{silent}': no connection within 0.5 s" in message
    assert sockets() == before


async def test_single_failure_is_itself() -> None:
    """The only attempt's error is raised as it is."""
    with closed_port() as closed, pytest.raises(psycopg.OperationalError, match=r"^connection to server .*refused"):
        await connect(f"host=127.0.0.1 port={closed}")


async def test_failure_at_once() -> None:
    """A failure that is known before anything was waited for is said as well."""
    with pytest.raises(psycopg.OperationalError, match="No such file or directory"):
        await connect("host=/nowhere")


async def test_refused_by_server(postgres_server: PostgresServer) -> None:
    """The server's reason not to let someone in is said."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await connect(postgres_server.conninfo(password="guess"))
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        await connect(postgres_server.conninfo("nowhere"))


async def test_timeout_of_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's time bound holds where the parameters have none."""
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "0.05")
    with silent_port() as silent, pytest.raises(psycopg.errors.ConnectionTimeout, match=r"0\.05 s"):
        await connect(f"host=127.0.0.1 port={silent}")


async def test_no_time_bound(autojump_clock: trio.testing.MockClock) -> None:
    """0 waits for as long as the caller's scope does; without one of its own, an address gets 10 seconds."""
    with silent_port() as silent:
        with trio.move_on_after(1000) as scope:
            await connect(f"host=127.0.0.1 port={silent} connect_timeout=0")
        assert scope.cancelled_caught
        begun = trio.current_time()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            await connect(f"host=127.0.0.1 port={silent}")
        assert trio.current_time() - begun == pytest.approx(10)


async def test_time_for_all(autojump_clock: trio.testing.MockClock) -> None:
    """Time for all attempts together is shared: what one leaves is for those behind it; none has more than its own."""

    async def limits(ports: tuple[int, ...], **options: Any) -> list[float]:
        begun = trio.current_time()
        where = f"host={','.join(['127.0.0.1'] * len(ports))} port={','.join(map(str, ports))}"
        with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
            await connect(where, **options)
        had = [float(seconds) for seconds in re.findall(r"no connection within (\S+) s", str(caught.value))]
        assert trio.current_time() - begun == pytest.approx(sum(had), abs=0.1)
        return had

    with silent_port() as silent, closed_port() as closed:
        assert await limits((silent, silent), within=8) == pytest.approx([4, 4], abs=0.1)
        assert await limits((closed, silent, silent), within=8) == pytest.approx([4, 4], abs=0.1)
        assert await limits((silent, silent), within=8, connect_timeout=3) == pytest.approx([3, 3])
        both = await limits((silent, silent), within=8, target_session_attrs="prefer-standby")
        assert both == pytest.approx([2] * 4, abs=0.1)
        assert await limits((silent,), within=0) == [0]


@pytest.mark.parametrize("hosts", ["127.0.0.1", "127.0.0.1,127.0.0.1"])
async def test_what_the_error_knows_of_the_attempt(postgres: str, hosts: str) -> None:
    """The error of an attempt can be asked, as psycopg's, whether a password is what it takes."""
    for password, lacks_one in (("", True), ("wrong", False)):
        with pytest.raises(psycopg.OperationalError, match="password") as caught:
            await connect(postgres, host=hosts, password=password)
        assert caught.value.pgconn is not None
        assert caught.value.pgconn.status == psycopg.pq.ConnStatus.BAD
        assert caught.value.pgconn.needs_password == lacks_one


async def test_bad_timeout() -> None:
    """A time bound that is no number is refused by name."""
    wrongs: list[Any] = ["1", True, -1, float("nan"), 10**400]
    for wrong in wrongs:
        with pytest.raises((TypeError, ValueError), match="within must be a number of seconds, 0 or more"):
            await connect("host=127.0.0.1", within=wrong)
    with pytest.raises(psycopg.ProgrammingError, match="connect_timeout must be a number of seconds; got 'soon'"):
        await connect("host=127.0.0.1 connect_timeout=soon")


@pytest.mark.parametrize("value", [None, 3, b"host=127.0.0.1"])
async def test_no_connection_string(value: Any) -> None:
    """What is no text, as of a variable that is not set, is refused by name."""
    with pytest.raises(TypeError, match=rf"^conninfo must be text; got {type(value)}$"):
        await connect(value)


async def test_slow_lookup(autojump_clock: trio.testing.MockClock) -> None:
    """A name that is not looked up in time counts as an attempt that failed."""

    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any) -> Any:
            await trio.sleep_forever()

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Slow())
    with pytest.raises(psycopg.errors.ConnectionTimeout, match="no address within 10 s"):
        await connect("host=slow.test")
    with pytest.raises(psycopg.errors.ConnectionTimeout, match="no address within 1200 s"):
        await connect("host=slow.test", connect_timeout=1200)


async def test_cancelled(postgres_server: PostgresServer) -> None:
    """A cancelled attempt leaves no socket, at whatever point it was."""
    before = sockets()
    for step in range(30):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_later(left: int = step, scope: trio.CancelScope = scope) -> None:
                    for _ in range(left):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel_later)
                connection = await connect(postgres_server.conninfo())
                await connection.close()
    assert sockets() == before


async def test_session_attributes(own_postgres: PostgresServer, postgres_server: PostgresServer) -> None:
    """Among several servers the one that is asked for is found, and a standby only preferred."""
    own_postgres.restart(default_transaction_read_only="on")
    ports = f"{own_postgres.port},{postgres_server.port}"
    both = {"host": "127.0.0.1,127.0.0.1", "port": ports}
    password = str(conninfo_to_dict(own_postgres.conninfo())["password"])
    postgres_server.execute("DROP ROLE IF EXISTS everywhere")
    for server in (own_postgres, postgres_server):
        # Password and name have to be the same on both.
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(psycopg.sql.SQL("CREATE ROLE everywhere LOGIN PASSWORD {}").format(password))
    where = psycopg.conninfo.make_conninfo(user="everywhere", password=password, dbname="postgres", **both)
    for wanted, found in (
        ("any", own_postgres.port),
        ("read-write", postgres_server.port),
        ("read-only", own_postgres.port),
        ("prefer-standby", own_postgres.port),
    ):
        async with await connect(where, target_session_attrs=wanted) as trio_connection:
            assert trio_connection.info.port == found, wanted
    with pytest.raises(psycopg.OperationalError, match="not in hot standby mode"):
        await connect(where, target_session_attrs="standby")


async def test_encrypted(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The server's certificate is checked against the name, and cancelling is encrypted as well."""
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    roots = tmp_path_factory.mktemp("roots")
    authority.cert_pem.write_to_path(str(roots / "good.pem"))
    other.cert_pem.write_to_path(str(roots / "bad.pem"))
    async with open_wire(postgres_server.port, context) as wire:

        def where(**options: object) -> str:
            good: dict[str, object] = {
                "port": wire.port,
                "sslmode": "verify-full",
                "sslrootcert": str(roots / "good.pem"),
            }
            return postgres_server.conninfo(**{**good, **options})  # type: ignore[arg-type]

        async with await connect(where(host="localhost")) as connection:
            assert connection.pgconn.ssl_in_use
            assert await answer(connection) == 42
            with trio.move_on_after(0.1) as scope:
                await connection.execute("SELECT pg_sleep(10)")
            assert scope.cancelled_caught
            await connection.rollback()
            assert await answer(connection) == 42
            assert wire.accepted == 2
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            await connect(where(host="localhost", sslrootcert=str(roots / "bad.pem")))
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            await connect(where(host="127.0.0.1"))


async def test_closed_in_use(postgres: str) -> None:
    """Whoever uses a connection that another task closes gets psycopg's error."""
    connection = await connect(postgres)
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT pg_sleep(10)")

        nursery.start_soon(use)
        nursery.start_soon(use)
        await wait_all_tasks_blocked(0.05)
        await connection.close()
    await connection.close()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await connection.execute("SELECT 1")


async def test_forgotten(postgres: str) -> None:
    """A connection that nobody closed says so as soon as nothing refers to it."""
    connection = await connect(postgres)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.disable()
        try:
            del connection
        finally:
            gc.enable()
    assert [warning.category for warning in caught] == [ResourceWarning]


async def test_leaving_commits_or_rolls_back(postgres: str) -> None:
    """The end of the connection's block commits; an exception or a cancellation rolls back; all close."""
    async with await connect(postgres) as connection:
        await connection.execute("CREATE TABLE t (a int)")
    with suppress(ValueError):
        async with await connect(postgres) as failing:
            await failing.execute("INSERT INTO t VALUES (1)")
            raise ValueError
    with trio.CancelScope() as scope:
        async with await connect(postgres) as cancelled:
            await cancelled.execute("INSERT INTO t VALUES (2)")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    with trio.CancelScope() as scope:
        async with await connect(postgres) as late:
            await late.execute("INSERT INTO t VALUES (3)")
            scope.cancel()
    assert scope.cancelled_caught
    assert failing.closed
    assert cancelled.closed
    assert late.closed
    async with await connect(postgres) as connection:
        assert await (await connection.execute("SELECT count(*) FROM t")).fetchone() == (0,)


async def test_leaving_a_lost_connection(postgres: str) -> None:
    """Behind the block of a connection that was lost comes the block's own exception."""
    async with await connect(postgres, autocommit=True) as other:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with await connect(postgres) as connection:
                await connection.execute("SELECT 1")
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
                1 / 0  # noqa: B018
    assert connection.closed
