"""`Link`: one connection to a server, and all that this package knows of the driver.

Three things can be done with it: send commands in one go and wait for their answers, send a single one, and receive
what the server publishes. It owns how long nothing may pass while an answer is waited for. It must not know scripts,
keys or jobs.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio
from anyio import BrokenResourceError, ClosedResourceError
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.commands.request import CommandRequest
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import ConnectionError as LinkError
from coredis.exceptions import RedisError, WrongTypeError

from jobtrio._nursery import open_background_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence

    from coredis.connection._request import RequestBatch

    from jobtrio.stores.redis._address import Address

_is_ours: ContextVar[bool] = ContextVar("_is_ours", default=False)
"""Whether a task works for one of these links."""

# The driver logs each failure to connect, with a traceback: during an outage, again and again. The store says so once.
logging.getLogger("coredis").addFilter(lambda record: not _is_ours.get())

_CLOSING: Final = (BrokenResourceError, ClosedResourceError)
"""What the driver lets through while it closes a connection whose answers it could not read."""

_DROPPING: Final = struct.pack("ii", 1, 0)
"""That a socket which is closed has nothing more to deliver, for ``SO_LINGER``."""

PIECE: Final = 64 * 1024
"""Bytes that are given to the system at once, and of those that the network has still to carry: a slow one is told from
one that is lost by whether it takes more."""

Argument: TypeAlias = "bytes | str | int | float"
"""What a command is given."""


@attrs.frozen
class Command:
    """A command.

    Attributes:
        name: Its name.
        arguments: What it is given.
        brings: About how many bytes the answer may have, where that may be many.
    """

    name: bytes
    arguments: tuple[Argument, ...]
    brings: int = 0


class Answers:
    """The answers to come to commands that were sent in one go."""

    def __init__(self, batch: RequestBatch, patience: Patience) -> None:
        self._batch = batch
        self._patience = patience

    async def wait(self) -> list[Any]:
        """Return them in order, an exception for each that failed.

        Cancellation: the link is closed, since nobody would take the answers.
        """
        with trio.move_on_after(self._patience.seconds) as scope, self._patience.renewing(scope):
            return [_told(answer) for answer in await self._batch.get_result()]
        # That has closed the link, by which what was not answered has failed.
        late = TimeoutError(f"no answer within {self._patience.seconds:g} s")
        return [late if isinstance(answer, LinkError) else _told(answer) for answer in await self._batch.get_result()]


def _told(answer: Any) -> Any:
    """Return an answer; one that was lost, as the error of a lost connection, whatever the driver makes of it."""
    if not isinstance(answer, BaseException) or isinstance(answer, (RedisError, OSError)):
        return answer
    lost = LinkError("connection lost")
    lost.__cause__ = answer
    return lost


class Patience:
    """How long is waited for an answer while nothing passes, either way.

    Attributes:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self._scopes: set[trio.CancelScope] = set()

    @contextmanager
    def renewing(self, scope: trio.CancelScope) -> Iterator[None]:
        """Within the block put off the end of a scope whenever something passes."""
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)

    def passed(self) -> None:
        """Note that something has passed."""
        for scope in self._scopes:
            scope.deadline = trio.current_time() + self.seconds


class Link:
    """One connection.

    Attributes:
        place: The host and the port.
        closed: Set once the connection is lost or closed.
        astray: The answer by which the server said that another one has to be asked, if it did.
    """

    def __init__(self, connection: TCPConnection, place: tuple[str, int], patience: Patience) -> None:
        self.place: Final = place
        self.closed: Final = trio.Event()
        self.astray: BaseException | None = None
        self._connection = connection
        self._patience = patience

    def send(self, commands: Sequence[Command]) -> Answers:
        """Send commands in one go; once nothing passes for as long as the patience lasts, the link is closed.

        Raises:
            RedisError: The link is closed.
        """
        requests = [CommandRequest[Any](each.name, *each.arguments, execution_parameters={}) for each in commands]
        try:
            return Answers(self._connection.create_request_batch(requests), self._patience)
        except _CLOSING as exc:
            raise LinkError("connection lost") from exc

    async def command(self, command: Command) -> Any:
        """Send one command; return its answer, or raise it.

        Cancellation: the link is closed.
        """
        (answer,) = await self.send([command]).wait()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def ping(self) -> None:
        """Close the link unless the server answers.

        Cancellation: the link is closed.
        """
        try:
            await self.command(Command(b"PING", ()))
        except Exception:  # whatever the driver makes of a connection that does not answer
            self.close()

    def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for what is published on sharded channels; `published` gives it. A link that is lost is closed."""
        self._ask(b"SSUBSCRIBE", channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Ask for it no more."""
        self._ask(b"SUNSUBSCRIBE", channels)

    def _ask(self, name: bytes, channels: Sequence[str]) -> None:
        try:
            self._connection.send_command(name, *channels)
        except (RedisError, OSError, *_CLOSING):
            self.close()  # it was just lost: whoever listens connects anew, and asks for all channels then

    async def published(self) -> AsyncIterator[tuple[str, str]]:
        """Iterate over channels and texts, until the link is closed; ``""`` comes first, once a channel is heard."""
        try:
            pushes: AsyncGenerator[list[Any], None] = self._connection.push_messages
            async with aclosing(pushes):
                async for kind, channel, *rest in pushes:
                    if kind == b"smessage":
                        yield channel.decode(), rest[0].decode(errors="replace")
                    elif kind == b"ssubscribe":
                        yield channel.decode(), ""
        except (RedisError, OSError, IndexError):
            self.close()

    @property
    def version(self) -> str:
        """The server's version, or that of Redis which it stands for."""
        return self._connection.server_version or "0"

    def leads_astray(self, error: BaseException) -> None:
        """Note that another server has to be asked, and close."""
        self.astray = error
        self.close()

    def close(self) -> None:
        """Close the connection at once; what was not answered has failed."""
        self._connection.invalidate("closed")


class _Stream(ByteStream):
    """A stream that tells whenever something has passed."""

    def __init__(self, stream: ByteStream, passed: Callable[[], None]) -> None:
        self._stream = stream
        self._passed = passed

    async def receive(self, max_bytes: int = PIECE) -> bytes:
        data = await self._stream.receive(max_bytes)
        self._passed()
        return data

    async def send(self, item: bytes) -> None:
        for at in range(0, len(item), PIECE):
            await self._stream.send(item[at : at + PIECE])
            if at:  # the first the system takes by itself, also where the network carries nothing
                self._passed()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes


class _Connection(TCPConnection):
    """A connection whose tasks Ctrl-C does not end, which is for the program's own, and that is over once given up.

    What it was given and the network has not carried, the system would go on delivering for a minute or two behind an
    outage: jobs that nobody waits for any more, and claims of those that have been given up.
    """

    def __init__(self, location: TCPLocation, patience: Patience, **options: Any) -> None:
        super().__init__(location, connect_timeout=patience.seconds, **options)
        self._patience = patience

    async def _connect(self) -> ByteStream:
        stream = await super()._connect()
        with suppress(AttributeError, OSError):  # not every system has it
            raw = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PIECE)
        return _Stream(stream, self._patience.passed)

    def invalidate(self, reason: str | None = None) -> None:
        if self.stream is not None:
            with suppress(OSError):  # it is closed already
                self.stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROPPING)
        super().invalidate(reason)

    @trio.lowlevel.enable_ki_protection
    async def _reader_task(self) -> None:
        await super()._reader_task()

    @trio.lowlevel.enable_ki_protection
    async def _writer_task(self) -> None:
        await super()._writer_task()


@asynccontextmanager
async def open_link(address: Address, place: tuple[str, int], patience: float) -> AsyncIterator[Link]:
    """Connect to one of an address's places for the duration of the block.

    Raises:
        RedisError, OSError, TimeoutError: It could not be reached within ``patience`` seconds, or has refused.
    """
    its_patience = Patience(patience)
    connection = _Connection(
        TCPLocation(*place),
        its_patience,
        username=address.user,
        password=address.password,
        db=address.database,
        ssl_context=ssl.create_default_context() if address.tls else None,
        socket_keepalive=True,
    )
    link = Link(connection, place, its_patience)

    @trio.lowlevel.enable_ki_protection
    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        _is_ours.set(True)
        try:
            await connection.run(task_status=task_status)
        except RedisError:
            await trio.lowlevel.checkpoint_if_cancelled()  # the driver makes an error of a cancellation
            raise
        finally:
            link.closed.set()
            # The driver does so only for a connection that came about, and Python warns of the others.
            for stream in vars(connection).values():
                if isinstance(stream, (MemoryObjectReceiveStream, MemoryObjectSendStream)):
                    stream.close()

    async with open_background_nursery() as nursery:
        with trio.move_on_after(patience) as connecting:
            await nursery.start(run)
        if connecting.cancelled_caught:
            raise TimeoutError(f"no connection within {patience:.4g} s")
        yield link


__all__ = ["Answers", "Command", "Link", "LinkError", "RedisError", "WrongTypeError", "open_link"]
