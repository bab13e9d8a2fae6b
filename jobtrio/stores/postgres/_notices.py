"""What processes tell each other by ``NOTIFY``: which jobs to look at, and when something falls due.

It owns how hints are written, cut into payloads and read, and the server's clock as this process knows it. Nothing
rests on a notice. It must not know what the hints lead to.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from jobtrio.stores._hints import Hints
from jobtrio.stores.postgres._arrays import array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobtrio.stores.postgres._connections import Step

PAYLOAD: Final = 7900
"""Bytes of one payload at most; the server takes fewer than 8,000."""

NOTHING: Final = "{}"
"""No payloads."""

QUICK: Final = 0.005
"""Seconds within which a write is answered where commits are quick, and nobody waits to commit."""

_encode = msgspec.json.Encoder().encode


@attrs.frozen
class _Notice:
    """Hints, as they are sent: by whom, and due by the server's clock."""

    by: str
    ready: bool = False
    due: float | None = None
    messages: list[str] = attrs.field(factory=list)
    cancels: list[str] = attrs.field(factory=list)


_decoder = msgspec.json.Decoder(_Notice)


class Clock:
    """The server's clock, as seen from here.

    What it says is from between a question and its answer, which may have taken long to come. So this is kept as how
    far it is ahead of this machine's monotonic clock at the least and at the most, by all answers so far; where an
    answer says otherwise, one of the clocks was set, and that answer alone counts.
    """

    def __init__(self) -> None:
        self._least = -inf
        self._most = inf

    def note(self, now: float, asked: float) -> None:
        """Note what the server's clock says in an answer that has come just now, and when that was asked for."""
        least, most = now - time.monotonic(), now - asked
        if max(least, self._least) > min(most, self._most):
            self._least, self._most = least, most
        else:
            self._least, self._most = max(least, self._least), min(most, self._most)

    def here(self, at: float) -> float:
        """Return a time by the server's clock as one by this machine's monotonic clock, no later than it is."""
        return at - self._most

    def there(self, at: float) -> float:
        """Return a time by this machine's monotonic clock as one by the server's clock, no later than it is."""
        return max(at + self._least, 0.0)


def channel_of(schema: str) -> str:
    """Return the channel of a schema's notices."""
    return f"jobtrio:{schema}"


class Notices:
    """The notices of one opened store.

    Attributes:
        channel: Where they are sent.
        session: This store's name in them.
        clock: The server's clock.
        go_behind: Whether they are to go behind the commit of what makes them true, as a transaction of their own. The
            server has all those that send notices commit one by one, however long a commit waits for the disk and the
            standbys; meanwhile the jobs are locked, and their leases can't be renewed. A transaction that has written
            nothing waits for neither. Where commits are quick, this would cost more than it saves.
    """

    def __init__(self, schema: str, session: str, clock: Clock) -> None:
        self.channel: Final = channel_of(schema)
        self.session: Final = session
        self.clock: Final = clock
        self.go_behind: bool = False
        self._told_due = 0.0  # the earliest time that others were told of, and have not come to yet

    def steps(self, hints: Hints) -> list[Step]:
        """Return the statement that tells others; none where nothing is news."""
        channel, payloads = self.telling(hints)
        return [] if payloads == NOTHING else [("notify", channel, payloads)]

    def telling(self, hints: Hints) -> tuple[str, str]:
        """Return the channel and the payloads of what others are told.

        Those who know of an earlier time look then, and find the later ones.
        """
        due = hints.due
        if due is not None and due >= self._told_due > time.monotonic():
            due = None
        news = Hints(hints.ready, due, hints.messages, hints.cancels)
        return self.channel, array(payloads_of(news, self.session, self.clock)) if news else NOTHING

    def ways(self, hints: Hints) -> tuple[tuple[str, str], list[Step]]:
        """Return what the statement is given that makes hints true, and those that go behind its commit."""
        if self.go_behind:
            return (self.channel, NOTHING), self.steps(hints)
        return self.telling(hints), []

    def answered(self, asked: float) -> None:
        """Note that a write was answered just now, and when that was asked for."""
        self.go_behind = time.monotonic() - asked > QUICK

    def told(self, hints: Hints) -> None:
        """Note that this was sent."""
        now = time.monotonic()
        if hints.due is not None and not hints.due >= self._told_due > now:
            self._told_due = hints.due

    def read(self, payload: str) -> Hints | None:
        """Return what another process says; None for what this one said, or nobody understands."""
        try:
            notice = _decoder.decode(payload)
        except (msgspec.MsgspecError, RecursionError):  # anybody may write to the channel
            return None
        if notice.by == self.session:
            return None
        due = None if notice.due is None else self.clock.here(notice.due)
        return Hints(notice.ready, due, set(notice.messages), set(notice.cancels))


def payloads_of(hints: Hints, session: str, clock: Clock) -> list[str]:
    """Return hints as payloads, to be sent in the name of a session."""
    first = _Notice(session, hints.ready, None if hints.due is None else clock.there(hints.due))
    return [_encode(notice).decode() for notice in _cut(first, sorted(hints.messages), sorted(hints.cancels))]


def _cut(first: _Notice, messages: list[str], cancels: list[str]) -> Iterator[_Notice]:
    """Give notices that fit into a payload each; the first says what is said once."""
    notice, size = first, 100 + len(_encode(first))
    for kind, ids in (("messages", messages), ("cancels", cancels)):
        for job_id in ids:
            length = len(_encode(job_id)) + 1
            if size + length > PAYLOAD:
                yield notice
                notice, size = _Notice(first.by), 100 + len(_encode(first))
            getattr(notice, kind).append(job_id)
            size += length
    yield notice
