"""What a client wants of its server: calls that wait for an answer, and jobs that are watched.

It outlives connections. What one of them was told and has not answered when it is lost, the next is told again: calls
can be repeated without harm, and a subscription goes on where it was. Pure: it must not know how anything travels,
nor how anybody waits.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from jobtrio.websocket._client_calls import Call, Calls
from jobtrio.websocket._client_exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.websocket._client_feed import Feed
    from jobtrio.websocket.protocol import AnyRequest, HelloLimits


class Book:
    """All that a client wants, until it has it, or nobody wants it any more.

    Attributes:
        calls: The calls that were not answered yet.
        exchange: What the current connection knows of it; None without one.
        failure: Why nothing can be had any more. Each is given a copy: an error keeps all that it was raised through.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        """Begin empty.

        Args:
            on_due: Called when there may be something to send.
        """
        self.calls: Calls = Calls()
        self.exchange: Exchange | None = None
        self.failure: Exception | None = None
        self._feeds: dict[Feed, None] = {}
        self._on_due = on_due

    def add_call(
        self, request: AnyRequest, subject: str, on_done: Callable[[], None], on_put_off: Callable[[], None]
    ) -> Call:
        """Have a request made, as often as connections are lost, until it is answered.

        Raises:
            PayloadError, ProtocolError: It can't be said.
        """
        call = self.calls.add(request, subject, on_done, on_put_off)
        if self.failure is not None:
            self.calls.finish(call, copy(self.failure))
        else:
            self._look_at(call)
        return call

    def add_feed(self, feed: Feed) -> None:
        """Have a job watched until its feed is over."""
        if self.failure is not None:
            feed.fail(copy(self.failure))
            return
        self._feeds[feed] = None
        if self.exchange is not None:
            self.exchange.refuse_excess()
        self._look_at(feed)

    def feed_changed(self, feed: Feed) -> None:
        """Look again at what a feed wants."""
        if feed.is_over:
            self._feeds.pop(feed, None)
        self._look_at(feed)

    def attach(self, limits: HelloLimits) -> Exchange:
        """Begin with a new connection: all that is wanted is to be sent."""
        self.exchange = Exchange(self.calls, self._feeds, limits, self._on_due)
        self._on_due()
        return self.exchange

    def detach(self) -> None:
        """End with the connection that was lost."""
        self.exchange = None

    def fail(self, error: Exception) -> None:
        """Fail all that is wanted, now and later."""
        self.failure = error
        for call in self.calls:
            self.calls.finish(call, copy(error))
        for feed in tuple(self._feeds):
            feed.fail(copy(error))

    def _look_at(self, thing: Call | Feed) -> None:
        if self.exchange is not None:
            self.exchange.look_at(thing)
