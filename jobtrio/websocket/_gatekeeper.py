"""Who a client is and what it may do: the hooks, and what holds without them.

It owns the order in which the hooks are asked, the bound on their time, and what their failures mean. It must not
know connections.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from jobtrio._checks import show
from jobtrio._exceptions import EXITS, holds
from jobtrio._records import JobRecord
from jobtrio._submission import JobSpec

logger = logging.getLogger("jobtrio.websocket")

TOLD: Final = 10
"""Failures of a hook that are logged in a minute: any client can cause them, as by a token that can't be read."""

Action: TypeAlias = Literal["submit", "subscribe", "get", "find", "cancel", "traceback"]
"""What a principal may be allowed to do."""


@attrs.frozen
class Handshake:
    """How a client introduced itself.

    Attributes:
        path: The path that it asked for, percent-encoded, without the query.
        query: The query, percent-encoded, or "".
        headers: Its headers, the names in lower case; the values of several with one name joined by commas.
        origin: The ``Origin`` header, or None.
        peer: Its network address, without the port.
        token: The token from the ``Authorization`` header, the bearer subprotocol or an ``auth`` message, or None.
    """

    path: str
    query: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    origin: str | None
    peer: str
    token: str | None = attrs.field(repr=False)


Authenticate: TypeAlias = Callable[[Handshake], Awaitable[Any]]
"""Returns who a client is, or None or False to refuse it."""

Authorize: TypeAlias = Callable[[Any, Action, JobSpec | JobRecord], Awaitable[bool]]
"""Returns whether a principal may do something to a job, or submit it."""


class Stranger(Exception):  # noqa: N818 - a verdict, not a fault
    """A client was not authenticated.

    Attributes:
        known: Whether it is known who it is, and it may do nothing.
    """

    def __init__(self, *, known: bool = False) -> None:
        super().__init__(known)
        self.known = known


class Gatekeeper:
    """Asks the hooks.

    Args:
        authenticate: The hook; None lets everybody in, who may then neither submit nor cancel.
        authorize: The hook; None allows everything but tracebacks.
        patience: Seconds that a hook may take.
    """

    def __init__(self, authenticate: Authenticate | None, authorize: Authorize | None, patience: float) -> None:
        self._authenticate = authenticate
        self._authorize = authorize
        self._patience = patience
        self._strangers = _Failures()  # who are many must not hide what happens to the others
        self._refusals = _Failures()

    @property
    def is_open(self) -> bool:
        """Whether everybody is let in."""
        return self._authenticate is None

    async def identify(self, handshake: Handshake) -> Any:
        """Return a client's principal; None where everybody is let in.

        Raises:
            Stranger: The hook refused it, raised, or took too long.

        Cancellation: nothing has changed.
        """
        if self._authenticate is None:
            await trio.lowlevel.checkpoint()
            return None
        try:
            principal = await self._in_time(self._authenticate(handshake))
        except PermissionError as exc:
            raise Stranger(known=True) from exc
        except BaseException as exc:
            if _must_leave(exc):
                raise
            if (more := self._strangers.tell()) is not None:
                peer = handshake.peer
                logger.warning("authenticate failed for %s: the client is refused%s", peer, more, exc_info=True)
            raise Stranger from exc
        if principal is None or principal is False:
            raise Stranger
        return principal

    async def allows(self, principal: Any, action: Action, job: JobSpec | JobRecord) -> bool:
        """Tell whether a principal may do something; a hook that fails refuses it.

        Cancellation: nothing has changed.
        """
        if self.is_open and action in ("submit", "cancel"):
            return False
        if self._authorize is None:
            return action != "traceback"
        try:
            return bool(await self._in_time(self._authorize(principal, action, job)))
        except BaseException as exc:
            if _must_leave(exc):
                raise
            if (more := self._refusals.tell()) is not None:
                logger.warning("authorize failed for the action %r: it is refused%s", action, more, exc_info=True)
            return False

    async def _in_time(self, answer: Awaitable[Any]) -> Any:
        if not isinstance(answer, Awaitable):
            raise TypeError(f"the hook must be an async function; it returned {show(answer)}")
        with trio.fail_after(self._patience):
            found = await answer
        if isinstance(found, Awaitable):  # which would pass for a principal, and for a yes
            raise TypeError(f"the hook returned {show(found)}: is an await missing in it?")
        return found


def _must_leave(exc: BaseException) -> bool:
    """Whether what a hook has raised is not about the client.

    All else is, also what code seldom catches: a token can make an extension in Rust panic, which is no `Exception`,
    and a cache may hand on the `trio.Cancelled` of the one who asked first, and left.
    """
    is_cancelled = trio.current_effective_deadline() == -inf
    return holds(exc, (*EXITS, trio.Cancelled) if is_cancelled else EXITS)


class _Failures:
    """Which failures of a hook are logged."""

    def __init__(self) -> None:
        self._told: deque[float] = deque(maxlen=TOLD)  # when that was
        self._untold = 0

    def tell(self) -> str | None:
        """Return what to say, behind a failure, of those that were not told; None where this is one of them."""
        now = trio.current_time()
        if len(self._told) == TOLD and now - self._told[0] < 60:
            self._untold += 1
            return None
        more = f" (and {self._untold} more since the last of these)" if self._untold else ""
        self._told.append(now)
        self._untold = 0
        return more
