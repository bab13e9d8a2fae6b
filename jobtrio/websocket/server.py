"""`serve`: the bridge's front, and the connections as a whole.

It owns the accept loop, how many connections there may be, and the order of the end: no new ones, a word to all,
and within a bound the last one gone. What happens on a connection is `_visit`'s.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import trio

from jobtrio._checks import check_count, check_seconds, show
from jobtrio._nursery import open_background_nursery
from jobtrio._registry import JobRegistry
from jobtrio.websocket._codes import CloseCode
from jobtrio.websocket._doorway import turn_down
from jobtrio.websocket._gatekeeper import Gatekeeper
from jobtrio.websocket._head import HttpRefusal
from jobtrio.websocket._limits import Limits
from jobtrio.websocket._listening import open_place
from jobtrio.websocket._origins import Origins
from jobtrio.websocket._tally import Tally
from jobtrio.websocket._visit import House, Visit
from jobtrio.websocket.session import Terms

try:
    import resource
except ModuleNotFoundError:  # on Windows, where nothing tells how many descriptors there may be
    IS_LIMITED = False
else:
    IS_LIMITED = True

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobtrio.websocket._feed import Feed
    from jobtrio.websocket._gatekeeper import Authenticate, Authorize
    from jobtrio.websocket._listening import Place
    from jobtrio.websocket._tally import ServerStats

logger: logging.Logger = logging.getLogger("jobtrio.websocket")

LAST_PORT = 65535

LOOKS = 4
"""How often it is looked, in the time that a client has to read, whether it takes what is sent."""

KEPT_BACK: Final = 4
"""One in so many of the descriptors that this process may have is kept from clients: without any, jobs would fail."""


async def serve(
    registry: JobRegistry,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    authenticate: Authenticate | None = None,
    authorize: Authorize | None = None,
    allowed_origins: Iterable[str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    flush_interval: float = 0.0,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show a registry's jobs to WebSocket clients, until cancelled or shut down.

    Without ``authenticate`` it listens on this machine's own addresses alone, and lets clients watch, but neither
    submit nor cancel. Started by ``await nursery.start(serve, …)``, it gives a `Server` once clients can connect.

    Args:
        registry: The jobs.
        host: The name or address to listen on, on all addresses that it has; "" for all of this machine.
        port: The port, up to 65535; 0 for any that is free.
        authenticate: An async function from a `Handshake` to a principal, which is anything but None and False. These
            and an exception refuse the client; a `PermissionError` says that it is known but may do nothing here.
        authorize: An async function from a principal, an action and a `JobRecord` (for ``"submit"`` a `JobSpec`, which
            has the executor's queue if the client names none) to a bool. The actions are ``"submit"``, ``"subscribe"``,
            ``"get"``, ``"find"``, ``"cancel"`` and ``"traceback"``; a job that may not be seen is unknown to the
            client. A subscription is checked when it begins, and again when its client sends another ``auth``, not with
            each message. Without it everything is allowed except tracebacks. A hook that raises, takes longer than
            ``limits.handshake``, or returns something still to be awaited refuses.
        allowed_origins: Origins of web pages that may connect, besides those of the address listened on, such as
            ``"https://example.org"``, or ``"tauri://localhost"`` for those of an app; ``"null"`` for pages from files,
            ``"*"`` for all.
        limits: What clients may do, and how long they may take.
        flush_interval: Seconds in which a client's messages are collected, so that fewer and larger ones are sent. With
            0 they go out at once, unless sending to all takes so long that the jobs would notice.
        ssl_context: For TLS: a server context, with a certificate.
        task_status: Given the `Server`.

    Raises:
        TypeError, ValueError: A parameter is invalid; or ``host`` can be reached from elsewhere and ``authenticate`` is
            missing.
        OSError: The port is not free, or the host has no address.

    Cancellation: no new client is accepted; all are told of the ends of what they watch, if there are any yet, and then
    to come back, by close code 1012 with a reason such as ``{"retry_after": 1.2}``; after at most ``limits.closing``
    seconds all are gone.
    """
    _check(registry, host, port, authenticate, authorize, limits, ssl_context)
    flush_interval = check_seconds("flush_interval", flush_interval)
    origins = Origins(() if allowed_origins is None else allowed_origins)
    place = await open_place(host, int(port), anywhere=authenticate is not None)
    await serve_at(
        place,
        origins,
        registry,
        authenticate=authenticate,
        authorize=authorize,
        limits=limits,
        flush_interval=flush_interval,
        ssl_context=ssl_context,
        task_status=task_status,
    )


async def serve_at(
    place: Place,
    origins: Origins,
    registry: JobRegistry,
    *,
    authenticate: Authenticate | None,
    authorize: Authorize | None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    flush_interval: float,
    ssl_context: ssl.SSLContext | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Do what `serve` does at a place that is open already, and close it in the end.

    Cancellation: as that of `serve`.
    """
    origins.add_own(place.hosts, place.port)
    gatekeeper = Gatekeeper(authenticate, authorize, limits.handshake)
    terms = Terms(registry, gatekeeper, limits, flush_interval)
    server = Server(House(terms, origins, ssl_context, Tally()), place)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(server.keep)
            try:
                await server.listen(task_status)
            finally:
                server.shut_down()  # or `keep` would never end
    finally:
        place.close()


class Server:
    """A bridge that clients can connect to. Made by `serve`.

    Attributes:
        port: The port that it listens on.
        url: Its address, ``ws://…`` or ``wss://…``, without a path.
    """

    def __init__(self, house: House, place: Place) -> None:
        self.port: int = place.port
        self.url: str = place.url("ws" if house.ssl_context is None else "wss")
        self._house = house
        self._limits = house.terms.limits
        self._place = place
        self._visits: set[Visit] = set()
        self._turned_down = 0  # clients that are being told that there is no room
        self._is_short = False  # of descriptors, which has been said
        self._nursery: trio.Nursery | None = None  # in which the clients' tasks run
        self._opened = trio.Event()  # there it is
        self._closing = trio.Event()

    def stats(self) -> ServerStats:
        """Return counts of connections, refusals and drops, at once."""
        return self._house.tally.stats(len(self._visits), len(self._open_feeds()))

    def watched(self) -> dict[str, int]:
        """Return how many subscriptions and tails of this server follow each job now, by its id, at once.

        A client whose connection broke without a word is counted until its silence has been noticed. A
        `RemoteSubscription` that pauses, since its consumer reads slowly, is not counted until it goes on.
        """
        return dict(Counter(feed.job.id for feed in self._open_feeds()))

    def _open_feeds(self) -> list[Feed]:
        sessions = [visit.session for visit in self._visits if visit.session is not None]
        return [feed for session in sessions for feed in session.feeds() if not feed.left.is_set()]

    async def listen(self, task_status: trio.TaskStatus[Server]) -> None:
        """Accept clients, whose tasks `keep` holds, until cancelled or shut down."""
        await self._opened.wait()
        try:
            async with open_background_nursery() as nursery:
                accept = partial(trio.serve_listeners, self._receive, self._place.listeners)
                nursery.start_soon(partial(accept, handler_nursery=self._nursery))
                task_status.started(self)  # the sockets take clients already
                await trio.sleep_forever()
        except* trio.ClosedResourceError:
            if not self._closing.is_set():  # else it was `shut_down` that has closed the listeners
                raise

    async def keep(self) -> None:
        """Hold the clients' tasks until `shut_down`, and then wait until the last one has ended.

        Cancellation: `serve` calls `shut_down`, and this ends within ``limits.closing`` seconds of it.
        """
        # Bounded by `_cut_off`, once `shut_down` was called.
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                async with trio.open_nursery() as self._nursery:
                    self._opened.set()
                    await self._closing.wait()
                    for visit in tuple(self._visits):
                        nursery.start_soon(self._see_off, visit)
                    nursery.start_soon(self._cut_off, scope)
                nursery.cancel_scope.cancel()

    async def _look(self) -> None:
        while True:
            await trio.sleep(self._limits.send / LOOKS)
            for visit in self._visits:
                visit.look()

    async def _see_off(self, visit: Visit) -> None:
        """Have a client told of the jobs that have ended, and then to come back; half of the time is for the latter."""
        if visit.session is not None:
            with trio.move_on_after(self._limits.closing / 2):
                await visit.session.tell_ends()
        visit.stop(CloseCode.RESTART, self._house.terms.retry_after())

    async def _cut_off(self, scope: trio.CancelScope) -> None:
        """When their time is over, cut off those who are left: closing a socket ends even what is shielded."""
        await trio.sleep(self._limits.closing)
        for visit in tuple(self._visits):
            visit.abort("shutdown")
        scope.cancel(reason="the bridge is shut down")

    def shut_down(self) -> None:
        """Accept no more clients, and tell all to come back later; `serve` returns once they are gone."""
        self._place.close()
        self._closing.set()

    async def _receive(self, stream: trio.SocketStream) -> None:
        """See a client through; `trio.serve_listeners` closes the stream behind it."""
        if self._closing.is_set():
            await self._turn_down(stream, "the server is shutting down")
            return
        if is_last := _is_one_of_the_last(stream):
            self._warn_of_shortage()
        if is_last or not self._has_room():
            await self._turn_down(stream, "as many clients are connected as may be")
            return
        visit = Visit(self._house, stream)
        self._visits.add(visit)
        try:
            await visit.run()
        finally:
            self._visits.remove(visit)

    def _has_room(self) -> bool:
        if len(self._visits) >= self._limits.connections:
            return False
        return sum(visit.session is None for visit in self._visits) < self._limits.handshakes

    def _warn_of_shortage(self) -> None:
        """Say once that there are too few descriptors: whoever is turned down for that is not told why."""
        if not self._is_short:
            self._is_short = True
            logger.warning(
                "no room for a client: this process may have %d file descriptors (ulimit -n, LimitNOFILE=), and only "
                "the quarter that is kept for its jobs is left",
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )

    async def _turn_down(self, stream: trio.SocketStream, why: str) -> None:
        """Say why it can't come in now; to a flood, nothing is said."""
        self._house.tally.refused[HTTPStatus.SERVICE_UNAVAILABLE] += 1
        is_flood = self._turned_down >= self._limits.handshakes or _is_one_of_the_last(stream)
        if self._house.ssl_context is None and not is_flood:
            self._turned_down += 1
            try:
                seconds = max(1, round(self._limits.retry_after))
                headers = (("Retry-After", str(seconds)),)
                await turn_down(stream, HttpRefusal(HTTPStatus.SERVICE_UNAVAILABLE, why, headers))
            finally:
                self._turned_down -= 1


def _is_one_of_the_last(stream: trio.SocketStream) -> bool:
    """Tell whether few descriptors are left: a connection gets the lowest number that is free."""
    if not IS_LIMITED:
        return False
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most != resource.RLIM_INFINITY and stream.socket.fileno() >= most - most // KEPT_BACK


def _check(
    registry: Any, host: Any, port: Any, authenticate: Any, authorize: Any, limits: Any, ssl_context: Any
) -> None:
    if not isinstance(registry, JobRegistry):
        raise TypeError(f"registry must be a JobRegistry; got {show(registry)}")
    if not isinstance(host, str):
        raise TypeError(f"host must be a name or an address as text; got {show(host)}")
    if check_count("port", port, low=0) > LAST_PORT:  # the system would take it for another one
        raise ValueError(f"port must be a whole number, 0 to {LAST_PORT}; got {show(port)}")
    for name, hook in (("authenticate", authenticate), ("authorize", authorize)):
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} must be an async function or None; got {show(hook)}")
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be a Limits; got {show(limits)}")
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or None; got {show(ssl_context)}")
    if ssl_context is not None and ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:  # no handshake would succeed
        made = "as ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) makes it"
        raise ValueError(f"ssl_context must be one for servers, {made}; got one for clients")
