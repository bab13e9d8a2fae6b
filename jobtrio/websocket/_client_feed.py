"""One job's messages on their way to one consumer, over any number of connections.

It owns what makes a stream whole: the place where it goes on, the check that no number is left out or comes
twice, and the bound on what waits for a consumer that reads slowly. Pure: messages in, messages out. It must not
know connections, nor how anybody waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from jobtrio._messages import End, Gap, first_of, last_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobtrio._messages import Message, Progress

MOST = 2048
MOST_BYTES = 1024 * 1024
"""Messages, and bytes of them, that wait for a consumer; behind that its subscription pauses, until half is read."""

Start: TypeAlias = int | Literal["end"]


class BrokenStreamError(Exception):
    """The server sent a message that can't be the next one."""


@attrs.define
class _Chunk:
    """What one message of the server brought."""

    messages: list[Message]
    size: int
    at: int = 0  # the first that was not received


class Feed:
    """Takes one subscription's messages as they come, and gives them to its consumer.

    Attributes:
        job_id: The job.
        start: The number behind which the stream begins; ``"end"`` until the server has said which that is.
        position: The number of the last message that came, likewise.
        epoch: The incarnation of the log that the position belongs to, as far as it is known.
        progress: The newest progress before it, where it begins at the end and the server has said so.
        is_placed: Whether the server has had the subscription: to subscribe again is to resume.
        is_paused: Whether too much waits for the consumer.
        has_dropped: Whether something was passed over while it paused, so that this subscription is of no use any more.
        is_closed: Whether the consumer has left.
        error: What ends the stream instead of its `End`.
    """

    def __init__(self, job_id: str, after: Start, epoch: str | None, on_change: Callable[[Feed], None]) -> None:
        self.job_id = job_id
        self.start: Start = after
        self.position: Start = after
        self.epoch: str | None = epoch
        self.progress: Progress | None = None
        self.is_placed: bool = False
        self.is_paused: bool = False
        self.has_dropped: bool = False
        self.is_closed: bool = False
        self.error: Exception | None = None
        self._on_change = on_change
        self._chunks: deque[_Chunk] = deque()
        self._count = 0
        self._size = 0
        self._has_end = False
        self._after = after

    # -- for the connection

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self._has_end or self.is_closed or self.error is not None

    @property
    def is_wanting(self) -> bool:
        """Whether a connection is to bring more."""
        return not (self.is_over or self.is_paused)

    def place(self, last: int, epoch: str, progress: Progress | None = None) -> None:
        """Take which message is the last so far, the log's incarnation, and its progress, as the server says it."""
        if self.position == "end":
            self.start = self.position = last
            self.progress = progress
        self.epoch = epoch
        self.is_placed = True
        self.has_dropped = False

    def take(self, messages: Sequence[Message], size: int) -> None:
        """Take what one message of the server brought.

        Args:
            messages: The job's messages, in order: a `Gap`, or others.
            size: How many bytes they were.

        Raises:
            BrokenStreamError: It can't be what comes next.
        """
        if not self.is_wanting or self.has_dropped:
            self.has_dropped = True  # it was sent before the server knew
            return
        if fresh := [each for message in messages for each in self._next(message)]:
            self._chunks.append(_Chunk(fresh, size))
            self._count += len(fresh)
            self._size += size
            self.is_paused = self._count >= MOST or self._size >= MOST_BYTES
        if fresh or self._has_end:
            self._on_change(self)

    def fail(self, error: Exception) -> None:
        """End the stream with an error, behind what waits."""
        if not self.is_over:
            self.error = error
            self._on_change(self)

    def close(self) -> None:
        """Take and give nothing more: the consumer has left."""
        if not self.is_closed:
            was_over = self.is_over
            self.is_closed = True
            self._chunks.clear()
            if not was_over:
                self._on_change(self)

    def _next(self, message: Message) -> Sequence[Message]:
        """Return what a message adds to the stream: itself, or nothing where it was received before."""
        position = self.position
        if position == "end" or self._has_end:
            raise BrokenStreamError(f"a message came {'behind the end' if self._has_end else 'before its place'}")
        first, last = first_of(message), last_of(message)
        if last <= position and not isinstance(message, End):
            return ()  # once more, as some do who resume: nothing is lost by it
        if first > position + 1:
            raise BrokenStreamError(f"message {first} came where {position + 1} was due")
        self.position = last
        if isinstance(message, End):
            self._has_end = True
            if message.seq == self._after:
                return ()  # the consumer said that it has it
        return (Gap(position + 1, last) if isinstance(message, Gap) else message,)

    # -- for the consumer

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for the consumer."""
        return not self._chunks

    def pop_many(self, most: int, *, gaps_alone: bool = False) -> list[Message]:
        """Take up to ``most`` of the messages that wait; with ``gaps_alone`` either a `Gap` or others."""
        taken: list[Message] = []
        while self._chunks and len(taken) < most:
            chunk = self._chunks[0]
            if gaps_alone and taken and (isinstance(taken[0], Gap) or isinstance(chunk.messages[0], Gap)):
                break
            part = chunk.messages[chunk.at : chunk.at + most - len(taken)]
            taken += part
            chunk.at += len(part)
            if chunk.at == len(chunk.messages):
                self._chunks.popleft()
                self._size -= chunk.size
        self._count -= len(taken)
        if self.is_paused and self._count <= MOST // 2 and self._size <= MOST_BYTES // 2:
            self.is_paused = False
            self._on_change(self)
        return taken
