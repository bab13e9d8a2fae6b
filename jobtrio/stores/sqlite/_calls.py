"""Calls from Trio's tasks to a store's own threads, and their answers.

It owns what becomes of a call whose task is cancelled: one that no thread has taken yet is withdrawn; one that was
taken is waited for, since it may be carried out, but no longer than a limit. It must not know what is called.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._outage import limit_of_calls
from jobtrio.stores._rowstore import itself

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

WAITING: Final = 4096
"""Calls that wait or are carried out at once, beyond which tasks wait to make theirs."""


CLOSED: Final = "the store was closed"


class Call:
    """One call: what a thread is to do, and what is done with the answer in Trio's thread.

    Attributes:
        work: What to do, given what the thread works with.
        asked: When it was made, by the machine's monotonic clock.
        is_short: Whether it takes so little time that the answers of others may wait for its own.
        leave_at: Until when its task waits, if that was cancelled after the call was taken; by Trio's clock.
    """

    __slots__ = (
        *("_after", "_error", "_given_up", "_limit", "_task", "_turn", "_value", "asked", "is_short", "leave_at"),
        "work",
    )

    def __init__(self, work: Callable[[Any], Any], after: Callable[[Any], Any], *, is_short: bool = False) -> None:
        self.work = work
        self.asked = time.monotonic()
        self.is_short = is_short
        self.leave_at: float = inf
        self._after = after
        self._turn = threading.Lock()  # for whoever comes first: a thread that takes the call, or the task as it leaves
        self._task: trio.lowlevel.Task | None = None
        self._limit: float = inf  # what `leave_at` becomes then
        self._value: Any = None
        self._error: BaseException | None = None
        self._given_up: BaseException | None = None

    # -- in the thread

    def take(self) -> bool:
        """Begin to carry the call out; False if it was withdrawn."""
        return self._turn.acquire(blocking=False)

    def succeed(self, value: Any) -> None:
        """Note the answer; `conclude` hands it over. It stands for an error of a try that was undone."""
        self._value, self._error = value, None

    def fail(self, error: BaseException) -> None:
        """Note why there is no answer; `conclude` hands it over."""
        self._error = error

    # -- in Trio's thread

    def begin(self) -> None:
        """Note whose call it is: the current task's, which is about to wait."""
        self._task = trio.lowlevel.current_task()
        self._limit = limit_of_calls()

    def abort(self, _: Any) -> trio.lowlevel.Abort:
        """Let the task leave, unless the call is being carried out."""
        if not self._turn.acquire(blocking=False) and trio.current_time() < self._limit:
            self.leave_at = self._limit  # this is asked but once
            return trio.lowlevel.Abort.FAILED
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def answer(self) -> Any:
        """Return the answer, or raise the error."""
        error = self._given_up or self._error
        if error is not None:
            try:
                raise error
            finally:
                # No cycle by way of the traceback. Of a call that was given up, `conclude` looks at the error yet.
                if self._given_up is None:
                    self._error = None
                self._given_up = error = None
        return self._value

    def conclude(self) -> None:
        """Heed the answer, and wake the task unless it has left."""
        if self._error is None:
            try:
                self._value = self._after(self._value)
            except BaseException as exc:
                if self._task is None:
                    raise
                self._error = exc
        self._wake()

    def give_up(self, error: BaseException) -> None:
        """Wake the task with an error, though the call may still be carried out, and heeded then."""
        if self._task is not None:
            self._given_up = error
            self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class Calls:
    """The calls to one store's threads of one kind, in order, and their answers. Made in Trio's thread."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._bell = threading.Lock()  # released as a call comes; a thread that waits for a time acquires it
        self._trio = trio.lowlevel.current_trio_token()
        self._open: dict[Call, None] = {}  # not concluded yet, in order
        self._room = trio.lowlevel.ParkingLot()
        self._closed = False

    @trio.lowlevel.enable_ki_protection
    async def make(
        self, work: Callable[[Any], Any], after: Callable[[Any], T] = itself, *, is_short: bool = False
    ) -> T:
        """Have a thread do ``work``; return what it returns, as ``after`` makes it of that in Trio's thread.

        Raises:
            StoreUnavailableError: No thread took it, or came back with it, in time; or the threads have ended.

        Cancellation: the call was not carried out; or it was taken by then, and is waited for until `limit_of_calls`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = Call(work, after, is_short=is_short)
        if len(self._open) >= WAITING:
            await self._wait_for_room()
        if self._closed:
            raise StoreUnavailableError(CLOSED)
        self._open[call] = None
        call.begin()
        self._put(call)
        try:
            await trio.lowlevel.wait_task_rescheduled(call.abort)
        except (trio.Cancelled, KeyboardInterrupt):
            self._close(call)  # withdrawn: no thread will conclude it
            raise
        answer: T = call.answer()
        return answer

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self._patience):
            while len(self._open) >= WAITING:
                await self._room.park()
            return
        raise StoreUnavailableError(f"no room for another call within {self._patience:g} s")

    def give_up_overdue(self) -> None:
        """Wake those whose calls have waited too long, taken or not: a disk may never answer."""
        limit, now = time.monotonic() - self._patience, trio.current_time()
        for call in [call for call in self._open if call.asked < limit or call.leave_at <= now]:
            error = StoreUnavailableError(f"no answer within {self._patience:g} s")
            if call.take():
                self._close(call)  # no thread will conclude it
            call.give_up(error)

    def close(self) -> None:
        """Refuse all calls from now on, also those that wait: the threads have ended."""
        self._closed = True
        for call in list(self._open):
            self._close(call)
            call.give_up(StoreUnavailableError(CLOSED))

    def _close(self, call: Call) -> None:
        self._open.pop(call, None)
        if self._room:
            self._room.unpark()

    # -- in the threads

    def next(self, timeout: float | None = None) -> Call | None:
        """Return the next call, to be taken; None for the sign to stop, or when there was none in time.

        With a ``timeout`` no other thread may ask.
        """
        if timeout is None:
            return self._queue.get()
        # Before Python 3.13 a timed wait of the queue's own has no end where the machine or a signal holds it up.
        over_at = time.monotonic() + timeout
        while True:
            with suppress(queue.Empty):
                return self._queue.get_nowait()
            left = over_at - time.monotonic()
            if left <= 0 or not self._bell.acquire(timeout=left):
                return None

    def next_nowait(self) -> Call | None:
        """Return the next call, to be taken, or None."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def is_empty(self) -> bool:
        """Whether no call waits to be taken."""
        return self._queue.empty()

    def stop(self) -> None:
        """Give one thread the sign to stop, behind all calls so far."""
        self._put(None)

    def _put(self, call: Call | None) -> None:
        self._queue.put(call)
        if self._bell.locked():  # which nobody else opens
            self._bell.release()

    def deliver(self, calls: Sequence[Call], then: Callable[[], object] | None = None) -> None:
        """Have Trio's thread heed the answers of these calls, in order, and then call ``then``."""
        self.run_in_trio(partial(self._conclude, calls, then))

    def run_in_trio(self, function: Callable[[], object]) -> None:
        """Have Trio's thread call a function, unless Trio has ended."""
        try:
            self._trio.run_sync_soon(function)
        except trio.RunFinishedError:
            pass

    def _conclude(self, calls: Sequence[Call], then: Callable[[], object] | None) -> None:
        faults: list[BaseException] = []
        for call in calls:
            self._close(call)
            try:
                call.conclude()
            except BaseException as exc:
                faults.append(exc)  # the others are to have their answers all the same
        if then is not None:
            then()
        if faults:
            raise faults[0]
