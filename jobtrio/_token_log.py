"""The log of one job's messages: one producer appends, any number of consumers read at their own pace.

It owns the numbering, the bound on what is kept, and the waking of consumers that wait. Whoever is
behind takes a slice and costs the producer nothing; only those that have read everything are woken.
It must not know about jobs, stores or attempts: all of it is synchronous and runs in Trio's thread.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._messages import End, Gap, Message, Progress, Restart, Token

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobtrio._records import JobError, Outcome
    from jobtrio._ringer import Ringer
    from jobtrio._subscription import Subscription

CUT_OFF: Final = (trio.BrokenResourceError, StoreUnavailableError)
"""As what readers are told that a log was cut off."""

OVERHANG = 2
"""How many times its limit a log may grow for the sake of a lossless consumer that does not read."""


FEW = 8
"""Waiting consumers that are woken on the spot; more of them are woken together, two turns later."""


class TokenLog:
    """The kept messages of one job, numbered from 1, and who waits for more.

    Appending returns at once. What exceeds the limit is dropped from the front, in pieces, so that an
    append stays cheap; `first` is where reading can start.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_idle",
        "_idle_ended",
        "_idle_stored",
        "_is_ringing",
        "_items",
        "_limit",
        "_lossless",
        "_progressed",
        "_restarted",
        "_ringer",
        "_room",
        "_trim_at",
        "cut",
        "cut_by",
        "end",
        "is_read",
        "may_lag",
        "stored",
    )

    def __init__(self, limit: int, *, ringer: Ringer | None = None) -> None:
        self._items: list[Message] = []
        self._base = 0  # how many messages came before _items[0]
        self._limit = limit
        self._trim_at = limit + max(limit // 8, 16)  # in pieces: one move a slack, not one an append
        self._progressed = 0  # the number of the newest Progress
        self._restarted = 0  # the last attempt whose Restart is in the log
        self._idle: dict[trio.lowlevel.Task, None] = {}  # who waits, in order
        self._idle_stored: dict[trio.lowlevel.Task, None] = {}  # those that no token wakes, but its being stored
        self._idle_ended: dict[trio.lowlevel.Task, None] = {}  # those that wait for the end alone
        self._ringer = ringer
        self._is_ringing = False
        self._lossless: weakref.WeakSet[Subscription] | None = None
        self._room: trio.lowlevel.ParkingLot | None = None
        self.end: End | None = None
        self.is_read: bool = False  # whether there is, or was, a subscription
        self.may_lag: bool = False  # whether it is a copy that may be behind the store's
        self.cut: str | None = None  # why nothing more comes although there is no End
        self.cut_by: type[Exception] = trio.BrokenResourceError  # as what that is told
        self.stored: int | None = None  # the last message that is stored, while an attempt here is ahead of its store

    # -- where things are

    @property
    def last(self) -> int:
        """The number of the last message so far, `End` included; 0 before the first."""
        return self._base + len(self._items) + (self.end is not None)

    @property
    def first(self) -> int:
        """The number of the oldest message that can still be read."""
        return self._base + max(0, len(self._items) - self._limit) + 1

    def reach(self, *, stored: bool) -> int:
        """The number of the last message that a reader may have: of all, or of those that are stored."""
        return self.last if not stored or self.stored is None or self.end is not None else self.stored

    def newest_progress(self, last: int) -> Progress | None:
        """Return the newest `Progress` up to number ``last``, if one is kept."""
        for seq in range(min(self._progressed, last), self.first - 1, -1):
            message = self._items[seq - self._base - 1]
            if isinstance(message, Progress):
                return message
        return None

    # -- appending

    @trio.lowlevel.enable_ki_protection
    def send(self, attempt: int, value: Any) -> int:
        """Append a `Token` and return its number."""
        items = self._items
        seq = self._base + len(items) + 1
        items.append(Token(seq, attempt, value))
        if len(items) >= self._trim_at:
            self.trim()
        if self._idle:
            self._wake_soon()
        return seq

    def progress(self, attempt: int, done: float, total: float | None, note: str | None) -> int:
        """Append a `Progress` and return its number."""
        seq = self._base + len(self._items) + 1
        self.extend((Progress(seq, attempt, done, total, note),))
        return seq

    def restart(self, attempt: int, error: JobError, delay: float) -> None:
        """Append the `Restart` that follows ``attempt``; once only, however often it is told."""
        if attempt > self._restarted and self.end is None:
            self.extend((Restart(self.last + 1, attempt, error, delay),))

    @trio.lowlevel.enable_ki_protection
    def finish(self, outcome: Outcome) -> None:
        """Append the `End` and wake everybody, in one step; once only, however often it is told."""
        if self.end is None:
            self.end = End(self.last + 1, outcome)
            self.may_lag = False
            self.wake()

    @trio.lowlevel.enable_ki_protection
    def extend(self, messages: tuple[Message, ...] | list[Message]) -> None:
        """Append messages that have their numbers already; those that are known are passed over."""
        for message in messages:
            if self.end is not None or isinstance(message, Gap) or message.seq <= self.last:
                continue
            if message.seq > self.last + 1:
                self._items.clear()  # what comes before a hole is no longer kept: numbers stay dense
            if not self._items:
                self._base = message.seq - 1  # a log taken over in its middle begins there
            if isinstance(message, End):
                self.end = message
                self.may_lag = False
                continue
            if isinstance(message, Progress):
                self._progressed = message.seq
            elif isinstance(message, Restart):
                self._restarted = message.attempt
            self._items.append(message)
            if len(self._items) >= self._trim_at:
                self.trim()
        self.wake()

    @trio.lowlevel.enable_ki_protection
    def pass_over(self, last: int) -> None:
        """Note that the messages up to number ``last`` are there no more, although their numbers are taken."""
        if last > self.last and self.end is None:
            self._items.clear()
            self._base = last
            self.wake()

    @trio.lowlevel.enable_ki_protection
    def cut_off(self, why: str, by: type[Exception] = trio.BrokenResourceError) -> None:
        """Tell all readers that nothing more comes here although the job has not ended."""
        if self.end is None:
            self.cut, self.cut_by = why, by
            self.wake()

    def set_stored(self, last: int | None) -> None:
        """Note the number of the last message that is stored; None: whatever is here is."""
        self.stored = last
        self._wake(self._idle_stored)

    # -- reading: for Subscription and for writers that follow

    def slice(self, after: int, most: int) -> list[Message]:
        """Return up to ``most`` kept messages behind number ``after``, `End` included as the last."""
        start = after - self._base
        part = self._items[start : start + most]
        end = self.end
        if end is not None and len(part) < most and after < end.seq:
            part.append(end)
        return part

    def lost_before(self, after: int, *, lossless: bool) -> int:
        """Return the number of the last message that a reader behind ``after`` has missed, or 0."""
        gone = self._base
        if not lossless and len(self._items) > self._limit:
            gone += len(self._items) - self._limit
        return gone if after < gone else 0

    @trio.lowlevel.enable_ki_protection
    async def wait_beyond(self, after: int, *, stored: bool = False) -> None:
        """Wait until there is a (stored) message behind number ``after``, or until woken for another reason.

        Cancellation: nothing has changed.
        """
        if self.reach(stored=stored) > after:
            await trio.lowlevel.checkpoint()
            return
        self.check_receiving()
        await self._wait(self._idle if not stored or self.stored is None else self._idle_stored)

    async def wait_end(self) -> Outcome:
        """Wait for the `End` and return its outcome.

        Raises:
            trio.BrokenResourceError: The log was cut off before its `End`.
            StoreUnavailableError: So it was, since its store was away.

        Cancellation: nothing has changed.
        """
        if self.end is not None:
            await trio.lowlevel.checkpoint()
        while self.end is None:
            if self.cut is not None:
                raise self.cut_by(self.cut)
            await self._wait(self._idle_ended)
        return self.end.outcome

    @trio.lowlevel.enable_ki_protection
    async def _wait(self, idle: dict[trio.lowlevel.Task, None]) -> None:
        """Wait among those in ``idle`` until woken. Cancellation: the task is none of them any more."""
        task = trio.lowlevel.current_task()
        idle[task] = None
        await trio.lowlevel.wait_task_rescheduled(partial(_leave, idle, task))
        if self.cut is not None:
            # A registry that fails cancels its block in the same step, whose failure the cut is no part of.
            await trio.lowlevel.checkpoint_if_cancelled()

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Wake all who wait in `wait_beyond`, which look again, and once nothing more comes those in `wait_end`."""
        self._is_ringing = False
        if self._idle:
            self._wake(self._idle)
        if self._idle_stored:
            self._wake(self._idle_stored)
        if self._idle_ended and (self.end is not None or self.cut is not None):
            self._wake(self._idle_ended)

    @trio.lowlevel.enable_ki_protection
    def wake_only(self, tasks: Collection[trio.lowlevel.Task]) -> None:
        """Wake these tasks, of those who wait in `wait_beyond`, and none of the others."""
        for idle in (self._idle, self._idle_stored):
            for task in tasks:
                if task in idle:
                    trio.lowlevel.reschedule(task)
                    del idle[task]

    @staticmethod
    @trio.lowlevel.enable_ki_protection
    def _wake(idle: dict[trio.lowlevel.Task, None]) -> None:
        while idle:
            trio.lowlevel.reschedule(next(reversed(idle)))  # it raises in other threads: they wait on
            idle.popitem()

    def _wake_soon(self) -> None:
        """Wake a few consumers now, many two turns later: what is sent meanwhile costs no waking of its own."""
        if len(self._idle) <= FEW or self._ringer is None or not self._ringer.is_running:
            self.wake()
        elif not self._is_ringing:
            self._is_ringing = True
            self._ringer.ring(self)

    # -- who may wait, and wake others

    def check_receiving(self) -> None:
        """Raise `RuntimeError` where whoever receives can't be woken, nor wake a job that waits for it."""
        if self._ringer is not None:
            self._ringer.check_run("received from", "messages.receive", "run")

    def check_closing(self) -> None:
        """Raise `RuntimeError` where a subscription can't wake those who wait, as it has to when it is closed."""
        if self._ringer is not None:
            self._ringer.check_run("closed", "messages.close", "run_sync")

    # -- lossless consumers

    @trio.lowlevel.enable_ki_protection
    def add_lossless(self, subscription: Subscription) -> None:
        """Let `send` wait for ``subscription`` from now on. A forgotten one frees the job by itself."""
        if self._lossless is None:
            self._lossless = weakref.WeakSet()
            self._room = trio.lowlevel.ParkingLot()
        self._lossless.add(subscription)

    @trio.lowlevel.enable_ki_protection
    def remove_lossless(self, subscription: Subscription) -> None:
        """Stop waiting for ``subscription``."""
        assert self._lossless is not None  # it was added
        self._lossless.discard(subscription)
        self.room_made()

    def room_made(self) -> None:
        """Let a waiting `send` look again: a lossless consumer has read on or left, or the attempt is over."""
        if self._room is not None:
            self._room.unpark_all()

    @property
    def is_full(self) -> bool:
        """Whether one more token would drop what a lossless consumer has not read."""
        if not self._lossless or len(self._items) < self._limit:
            return False
        return any(s.position < self.first for s in self._lossless)

    async def wait_room(self) -> None:
        """Wait until a lossless consumer has read on or left. Cancellation: nothing has changed."""
        assert self._room is not None  # is_full was true
        await self._room.park()

    def trim(self) -> None:
        """Drop what exceeds the limit, but for what lossless consumers have not read, up to twice the limit."""
        excess = len(self._items) - self._limit
        if self._lossless:
            # The default: the collector may empty the set between the two looks.
            read = min((s.position for s in self._lossless), default=self.last) - self._base
            excess = min(excess, max(read, len(self._items) - OVERHANG * self._limit))
        self.let_go(self._base + excess)

    def let_go(self, last: int) -> None:
        """Drop what is kept up to number ``last``, of a message so far."""
        excess = last - self._base
        if excess > 0:
            del self._items[:excess]
            self._base += excess


def _leave(idle: dict[trio.lowlevel.Task, None], task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
    del idle[task]
    return trio.lowlevel.Abort.SUCCEEDED
