"""Calls of one kind that are carried out together: those that wait go to the server in one go.

It owns what becomes of a call whose task is cancelled: one that was not taken yet is withdrawn; one that was taken is
waited for, since it may be carried out, but no longer than a limit. It must not know what is called.
"""

from __future__ import annotations

import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from jobtrio._errors import StoreError, StoreUnavailableError, again
from jobtrio._outage import limit_of_calls
from jobtrio.stores.postgres._arrays import LARGEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

W = TypeVar("W")
T = TypeVar("T")

GROUP: Final = 256
"""Calls carried out together at most."""

ENOUGH: Final = 32
"""Calls behind a group that go as soon as it is carried out: for fewer, it is worth waiting for more."""

WAITING: Final = 4096
"""Calls that wait or are carried out at once, beyond which tasks wait to make theirs."""

CLOSED: Final = "the store was closed"
CANCELLED: Final = "the call was cancelled, and not carried out"

log: Final = logging.getLogger("jobtrio.stores.postgres")


class Call(Generic[W]):
    """One call.

    Attributes:
        work: What to do.
        asked: When it was made, by Trio's clock.
        leave_at: When its task, which was cancelled after the call was taken, waits no longer.
        is_answered: Whether it has its answer.
        is_late: Whether it was put back, as it would have kept others waiting.
    """

    __slots__ = (
        *("_error", "_left", "_limit", "_taken", "_task", "_value", "_withdraw", "asked", "is_answered", "is_late"),
        *("leave_at", "work"),
    )

    def __init__(self, work: W) -> None:
        self.work = work
        self.asked: float = trio.current_time()
        self.leave_at: float = inf
        self.is_answered = False
        self.is_late = False
        self._taken = False
        self._left = False  # its task was cancelled after it was taken
        self._task: trio.lowlevel.Task | None = None
        self._withdraw: Callable[[Call[W]], None] | None = None
        self._limit = -inf  # until when its task waits that was cancelled after it was taken
        self._value: Any = None
        self._error: Exception | None = None

    def take(self) -> None:
        """Begin to carry it out: from now on it is not withdrawn."""
        self._taken = True

    def put_back(self) -> bool:
        """Have it wait for another turn, nothing having been done; False where nobody wants it any more."""
        if self._left:
            self.fail(StoreUnavailableError(CANCELLED))
        self._taken = False
        self.is_late = True
        return self._task is not None

    def succeed(self, value: Any) -> None:
        """Give the answer."""
        if not self.is_answered:
            self.is_answered = True
            self._value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        """Say why there is no answer."""
        if not self.is_answered:
            self.is_answered = True
            self._error = error
            self._wake()

    async def wait(self, withdraw: Callable[[Call[W]], None], *, may_leave: bool) -> Any:
        """Return the answer, or raise the error.

        Args:
            withdraw: Called if the task leaves before the call was taken.
            may_leave: Whether it may leave afterwards.
        """
        self._task, self._withdraw = trio.lowlevel.current_task(), withdraw
        if not may_leave:
            self._limit = limit_of_calls()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._left and not self._taken:
            await trio.lowlevel.checkpoint_if_cancelled()  # nothing was done
        error = self._error
        if error is not None:
            try:
                raise error
            finally:
                self._error = error = None  # no cycle by way of the traceback
        return self._value

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        """Let the task leave, unless the call is being carried out."""
        if self._taken and trio.current_time() < self._limit:
            self._left, self.leave_at = True, self._limit  # this is asked but once
            return trio.lowlevel.Abort.FAILED
        self._task = None
        if not self._taken and self._withdraw is not None:
            self._withdraw(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


async def singly(
    calls: list[Call[W]], is_carried_out: Callable[[list[Call[W]]], Awaitable[bool]], names_of: Callable[[W], set[T]]
) -> list[Call[W]]:
    """Carry out calls, one by one where together they can't be; return those that are held up, for another turn.

    To find that out takes some time for each. So new calls are tried together first, and behind one that is held up,
    those with the same names are not tried. Calls that were held up before are tried in order, until one is held up
    again: the next turn begins with the one behind it.
    """
    fresh = [call for call in calls if not call.is_late]
    if len(fresh) > 1 and await is_carried_out(fresh):
        fresh = []
    held_up: list[Call[W]] = []
    names: set[T] = set()
    for call in fresh:
        if not call.is_answered:
            its = names_of(call.work)
            if not names.isdisjoint(its) or not await is_carried_out([call]):
                names |= its
                held_up.append(call)
    late = [call for call in calls if call.is_late]
    while late and (late[0].is_answered or await is_carried_out([late[0]])):
        late.pop(0)
    return [*held_up, *late[1:], *late[:1]]


class Lane(Generic[W]):
    """The calls of one kind, and the task that carries them out.

    Args:
        carry_out: Carries out a group of calls and answers them. Those that it returns get another turn, behind those
            that wait; what it raises is the answer of those that have none.
        patience: Seconds after which a call that has no answer fails.
        size: Tells how much a call brings; a group that brings more than `LARGEST` is cut.
        changes_nothing: Whether a task may leave a call that was taken.
    """

    def __init__(
        self,
        carry_out: Callable[[list[Call[W]]], Awaitable[list[Call[W]] | None]],
        patience: float,
        *,
        size: Callable[[W], int] | None = None,
        changes_nothing: bool = False,
    ) -> None:
        self._carry_out = carry_out
        self._size = size
        self._changes_nothing = changes_nothing
        self._patience = patience
        self._waiting: deque[Call[W]] = deque()
        self._withdraw = self._waiting.remove
        self._under_way: list[Call[W]] = []
        self._parked = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()
        self._closed = False

    @trio.lowlevel.enable_ki_protection
    async def make(self, work: W) -> Any:
        """Have something done; return the answer.

        Raises:
            StoreUnavailableError: There was none in time, or the store is being closed.

        Cancellation: it was not done; or it was taken by then, and is waited for until `limit_of_calls`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_full():
            await self._wait_for_room()
        if self._closed:
            raise StoreUnavailableError(CLOSED)
        call = Call(work)
        self._waiting.append(call)
        if self._parked:
            self._parked.unpark()
        return await call.wait(self._withdraw, may_leave=self._changes_nothing)

    def _is_full(self) -> bool:
        return len(self._waiting) + len(self._under_way) >= WAITING

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self._patience):
            while self._is_full():
                await self._room.park()
            return
        raise StoreUnavailableError(f"no room for another call within {self._patience:g} s")

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carry out calls as they come, until cancelled.

        Cancellation: those under way may have been carried out, and fail; all others are refused.
        """
        try:
            await self._carry_out_all()
        finally:
            self._closed = True
            self._room.unpark_all()
            while self._waiting:
                self._waiting.popleft().fail(StoreUnavailableError(CLOSED))

    async def _carry_out_all(self) -> None:
        while True:
            while not self._waiting:  # also where the call that came has left by now
                self._idle.unpark_all()
                await self._parked.park()
            self._under_way = self._take()
            try:
                self._put_back(await self._carry_out(self._under_way) or [])
            except StoreError as exc:
                self._fail(exc)
            except Exception as exc:
                log.exception("a fault of the store's own; it goes on")
                self._fail(StoreError(f"{type(exc).__name__}: {exc}"))
            finally:
                self._fail(StoreUnavailableError(CLOSED))
                self._under_way = []
            self._room.unpark_all()
            # Those who have their answers may have more to ask, and what waits together goes together. They are in the
            # same turn of the scheduler as this task, before or behind it; after two turns all of them have had theirs.
            for _ in range(2):
                if len(self._waiting) < ENOUGH:
                    await trio.lowlevel.checkpoint()

    def _take(self) -> list[Call[W]]:
        """Take those that wait, as many as go together."""
        group: list[Call[W]] = []
        left = LARGEST
        while self._waiting and len(group) < GROUP:
            call = self._waiting[0]
            left -= 0 if self._size is None else self._size(call.work)
            if left < 0 and group:
                break
            self._waiting.popleft()
            call.take()
            group.append(call)
        return group

    def _put_back(self, calls: list[Call[W]]) -> None:
        for call in calls:
            self._under_way.remove(call)
            if call.put_back():
                self._waiting.append(call)

    def _fail(self, error: StoreError) -> None:
        for call in self._under_way:
            if not call.is_answered:
                call.fail(again(error))

    def give_up_overdue(self) -> None:
        """Wake those whose calls have waited too long, taken or not: a server may never answer."""
        now = trio.current_time()
        limit = now - self._patience
        for call in [call for call in (*self._under_way, *self._waiting) if call.asked < limit or call.leave_at <= now]:
            if call in self._waiting:
                self._waiting.remove(call)
            call.fail(StoreUnavailableError(f"no answer within {self._patience:g} s"))

    async def drain(self) -> None:
        """Refuse calls from now on, and wait until nothing waits or is under way.

        Cancellation: it goes on.
        """
        self._closed = True
        while self._waiting or self._under_way:
            await self._idle.park()
