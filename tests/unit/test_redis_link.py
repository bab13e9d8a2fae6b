"""A connection to a Redis: what the driver raises on one that is lost ends the link, and nothing else."""

from __future__ import annotations

import gc
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from coredis.exceptions import ConnectionError, ResponseError

from jobtrio import StoreUnavailableError
from jobtrio.stores.redis._address import Address
from jobtrio.stores.redis._errors import translate
from jobtrio.stores.redis._link import Answers, Command, Link, LinkError, Patience, open_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Lost:
    """A connection that fails in everything, as the driver's does once it is lost."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.reasons: list[str] = []

    def send_command(self, name: bytes, *arguments: str) -> None:
        raise self._error

    def create_request_batch(self, requests: list[Any]) -> Any:
        raise self._error

    @property
    def push_messages(self) -> Any:
        raise self._error

    def invalidate(self, reason: str) -> None:
        self.reasons.append(reason)


class Batch:
    """The driver's answers."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    async def get_result(self) -> list[Any]:
        return self._answers


ERRORS = [ConnectionError("not usable"), TimeoutError("PING timed out"), ConnectionResetError("reset")]

MUCH = 200_000
"""Bytes."""

GREETING = b"%3\r\n+proto\r\n:3\r\n+version\r\n+7.0\r\n+id\r\n:1\r\n"

KILLED = ResponseError("ERR Script killed by user with SCRIPT KILL. script: on @user_script:7.")
FULL = ResponseError("max number of clients + cluster connections reached")
"""What a cluster's node says; of a server of its own the driver makes a lost connection."""


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_lost_link(error: Exception) -> None:
    """Asking for hints, and for a sign of life, closes a link that is lost, and is no error of who asks."""
    connection: Any = Lost(error)
    link = Link(connection, ("host", 6379), Patience(1.0))
    link.subscribe(["a"])
    link.unsubscribe(["a"])
    await link.ping()
    assert [heard async for heard in link.published()] == []
    assert connection.reasons == ["closed"] * 4


@pytest.mark.parametrize("error", [ClosedResourceError(), BrokenResourceError()], ids=repr)
async def test_a_link_that_is_about_to_close(error: Exception) -> None:
    """Where the driver's reader has failed and the driver has not noticed it, sending fails as on one that is lost."""
    connection: Any = Lost(error)
    link = Link(connection, ("host", 6379), Patience(1.0))
    with pytest.raises(LinkError):
        link.send([Command(b"PING", ())])
    link.subscribe(["a"])
    assert connection.reasons == ["closed"]


async def test_a_reader_that_fails_oddly() -> None:
    """What the driver's reader raises where answers are cut off closes the link as well."""
    connection: Any = Lost(IndexError("tuple index out of range"))
    link = Link(connection, ("host", 6379), Patience(1.0))
    await link.ping()
    assert [heard async for heard in link.published()] == []
    assert connection.reasons == ["closed"] * 2


async def test_what_is_published() -> None:
    """Texts come with their channels, whatever is in them; before them comes, once, that a channel is heard."""

    class Publishing:
        @property
        async def push_messages(self) -> AsyncIterator[list[Any]]:
            yield [b"ssubscribe", b"a", 1]
            yield [b"smessage", b"a", b"text"]
            yield [b"smessage", b"b", b"\xff"]
            yield [b"sunsubscribe", b"a", 0]

    connection: Any = Publishing()
    link = Link(connection, ("host", 6379), Patience(1.0))
    assert [heard async for heard in link.published()] == [("a", ""), ("a", "text"), ("b", "\ufffd")]


async def test_astray() -> None:
    """A link over which the server named another one is closed, and says so."""
    connection: Any = Lost(ConnectionError(""))
    link = Link(connection, ("host", 6379), Patience(1.0))
    error = ResponseError("not here")
    link.leads_astray(error)
    assert link.astray is error
    assert connection.reasons == ["closed"]


@pytest.mark.parametrize("error", [EndOfStream(), IndexError("tuple index out of range")], ids=repr)
async def test_answers_that_are_lost_oddly(error: Exception) -> None:
    """Whatever the driver makes of answers that were lost, such as by TLS, is told as a lost connection."""
    batch: Any = Batch([b"OK", error])
    answer, lost = await Answers(batch, Patience(1.0)).wait()
    assert answer == b"OK"
    assert isinstance(lost, LinkError)
    assert lost.__cause__ is error
    unavailable = translate(lost, "host:6379")
    assert isinstance(unavailable, StoreUnavailableError)
    assert str(unavailable) == f"host:6379: {str(error) or 'connection lost'}"


async def test_cancelled_while_it_connects() -> None:
    """A cancellation in the middle of the login is one, and no error of the server's."""
    errors: list[Exception] = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = ("127.0.0.1", listener.socket.getsockname()[1])

    async def connect() -> None:
        try:
            async with open_link(Address((place,)), place, 60.0):
                raise AssertionError("nobody has answered")
        except Exception as exc:
            errors.append(exc)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        async with await listener.accept() as stream:
            await stream.receive_some(1)
            nursery.cancel_scope.cancel()
    assert errors == []


@pytest.mark.parametrize("answer", [b"", b"+OK\r\n"])
async def test_not_greeted(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server hangs up, or is none, who connects is told, and the driver logs nothing of its own."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = ("127.0.0.1", listener.socket.getsockname()[1])

    async def serve() -> None:
        async with await listener.accept() as stream:
            await stream.receive_some(1000)
            if answer:
                await stream.send_all(answer)
                await stream.receive_some(1)  # which ends when the other side hangs up

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(LinkError) as caught:
            async with open_link(Address((place,)), place, 60.0):
                raise AssertionError("nobody has answered")
    assert isinstance(translate(caught.value, "host:6379"), StoreUnavailableError)
    assert caplog.records == []


async def test_refused() -> None:
    """Where nobody listens, who connects is told, and nothing is left that Python warns of."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = ("127.0.0.1", listener.socket.getsockname()[1])
    await listener.aclose()
    with pytest.raises(LinkError):
        async with open_link(Address((place,)), place, 60.0):
            raise AssertionError("nobody was there")
    gc.collect()


async def test_no_answer() -> None:
    """Who does not answer in time is given up."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = ("127.0.0.1", listener.socket.getsockname()[1])
    async with listener:
        with trio.fail_after(60), pytest.raises(TimeoutError, match=r"no connection within 0\.1 s"):
            async with open_link(Address((place,)), place, 0.1):
                raise AssertionError("nobody has answered")


def test_interrupted_while_it_connects() -> None:
    """Ctrl-C in the middle of the login is nothing else, and no error of the server's besides."""

    @trio.lowlevel.enable_ki_protection
    async def interrupt(listener: trio.SocketListener) -> None:
        async with await listener.accept() as stream:
            await stream.receive_some(1)
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    async def connect() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        place = ("127.0.0.1", listener.socket.getsockname()[1])
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(interrupt, listener)
            with pytest.raises(KeyboardInterrupt):
                async with open_link(Address((place,)), place, 60.0):
                    raise AssertionError("nobody has answered")
            nursery.cancel_scope.cancel()

    trio.run(connect)


@asynccontextmanager
async def greeted(patience: float) -> AsyncIterator[tuple[Link, trio.socket.SocketType]]:
    """Give a link, and the server's end of it, which has greeted and does nothing by itself."""
    with trio.socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # much less than the system takes from who sends
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        place = listener.getsockname()
        servers: list[trio.socket.SocketType] = []

        async def greet() -> None:
            server, _ = await listener.accept()
            servers.append(server)
            await server.recv(1000)
            await server.send(GREETING)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet)
            async with open_link(Address((place,)), place, patience) as link:
                with servers[0] as server:
                    yield link, server
                link.close()


async def test_given_up() -> None:
    """A link that is given up delivers nothing more, also where the network would carry it again."""
    async with greeted(60.0) as (link, server):
        link.send([Command(b"SET", (b"key", bytes(MUCH)))])
        await trio.testing.wait_all_tasks_blocked(0.01)
        link.close()
        await link.closed.wait()
        with trio.fail_after(60), pytest.raises(ConnectionResetError):
            await _take(server, MUCH)


async def test_slow(mock_clock: trio.testing.MockClock) -> None:
    """What goes and comes little by little is waited for, however long all of it takes."""
    async with greeted(1.0) as (link, server), trio.open_nursery() as nursery:
        got: list[list[Any]] = []

        async def ask() -> None:
            got.append(await link.send([Command(b"ECHO", (bytes(5 * MUCH),))]).wait())

        nursery.start_soon(ask)
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked(0.05)
            mock_clock.jump(0.6)
            await _take(server, MUCH)
        for byte in b"$5\r\nhello\r\n":
            await trio.testing.wait_all_tasks_blocked(0.05)
            mock_clock.jump(0.6)
            await server.send(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert got == [[b"hello"]]


async def test_silent(mock_clock: trio.testing.MockClock) -> None:
    """Once nothing more comes the link is closed: what was answered by then counts, and the rest is told as late."""
    async with greeted(1.0) as (link, server), trio.open_nursery() as nursery:
        got: list[list[Any]] = []

        async def ask() -> None:
            got.append(await link.send([Command(b"PING", ()), Command(b"PING", ())]).wait())

        nursery.start_soon(ask)
        await server.send(b"+PONG\r\n$4\r\nPO")
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.jump(0.9)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert got == []
        link.subscribe(["a"])  # that the system takes this says nothing of the server
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert link.closed.is_set()
    ((answer, late),) = got
    assert answer == b"PONG"
    assert isinstance(late, TimeoutError)
    assert str(translate(late, "host:6379")) == "host:6379: no answer within 1 s"


async def test_closed_when_it_is_lost() -> None:
    """A link may be closed while the driver is about to close it, too."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = ("127.0.0.1", listener.socket.getsockname()[1])

    async def greet() -> None:
        async with await listener.accept() as stream:
            await stream.receive_some(1000)
            await stream.send_all(GREETING)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with open_link(Address((place,)), place, 60.0) as link:
            assert link._connection.stream is not None
            await link._connection.stream.aclose()
            link.close()
            await link.closed.wait()


async def _take(server: trio.socket.SocketType, size: int) -> None:
    """Receive so many bytes, or all that come."""
    while size > 0 and (data := await server.recv(size)):
        size -= len(data)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        *((error, True) for error in (*ERRORS, IndexError("odd"))),
        (FULL, True),
        (KILLED, True),
        (ResponseError("no"), False),
    ],
    ids=repr,
)
def test_what_passes(error: Exception, passes: bool) -> None:
    """What a lost connection does to a call passes by itself; what the server refuses does not."""
    assert isinstance(translate(error, "host:6379"), StoreUnavailableError) is passes
