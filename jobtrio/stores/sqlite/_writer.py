"""The writer: one thread with one connection, which commits all writes that wait together.

An operation that fails leaves nothing behind and harms no other: where it has changed something already, the group is
carried out again with a savepoint for each. A call is taken only when its transaction has begun: while the file is
locked or away, tasks can withdraw theirs. Answers are given after the commit. It must not know what the operations do.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jobtrio._errors import StoreError, StoreUnavailableError, again
from jobtrio.stores._hints import Hints
from jobtrio.stores._outages import OutageLog
from jobtrio.stores.sqlite._calls import Call, Calls
from jobtrio.stores.sqlite._checkpoint import Checkpoints
from jobtrio.stores.sqlite._connection import Connector, log, read_all
from jobtrio.stores.sqlite._errors import FAILURES, is_locked, is_read_only, is_undecodable
from jobtrio.stores.sqlite._transaction import LONGEST, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jobtrio.stores._announcer import Announcer
    from jobtrio.stores._settling import Identity
    from jobtrio.stores.sqlite._connection import Location
    from jobtrio.stores.sqlite._wakeup import Doorbell

GROUP: Final = 256
"""Operations in one transaction."""

PATIENCE: Final = 1.0
"""Seconds that a call waits for a file that is locked or away before its task is told so."""

LOOK_AFTER: Final = 0.25
"""Seconds after which an idle writer looks whether other processes have written: a ring may have been lost."""

LOCKED: Final = 0.5
"""Seconds that one try to begin takes at most while others hold the lock."""

LOOKS: Final = (0.0005, 0.002)
"""Seconds between two looks for the lock. SQLite's own waiting looks ever more seldom, which starves a process."""

LINGER: Final = 1 / 8
"""How long a group of several calls waits for one more, as a share of what the last commit took. It waits only if its
first call was there as the last group was answered: those callers are about to ask again, and without the wait there
would be two groups that take turns for ever."""

LEAST: Final = 0.00005
MOST: Final = 0.001
"""Seconds of such a wait: a shorter one is not worth it, and a longer one not needed."""

PAUSE: Final = 0.02
"""Seconds between two tries to begin, where the first failed at once."""

_WRITING: Final = "write"
"""What a full disk refuses."""


class Writer:
    """The thread that writes, and the way to it.

    Attributes:
        calls: The way to it.
        outages: Says when the file is away, and when it is back.
    """

    def __init__(
        self, location: Location, identity: Identity, doorbell: Doorbell, announcer: Announcer, *, patience: float
    ) -> None:
        self.calls: Final = Calls(patience)
        self._identity = identity
        self._doorbell = doorbell
        self._announcer = announcer
        self._location = location
        self._connector = Connector(location, busy=0.0)
        self._checkpoints = Checkpoints(location.path)
        self.outages: Final = OutageLog(log)
        self._is_full = False  # nothing was written since a write failed, though the lock can be had
        self._data_version: int | None = None
        self._told_due = 0.0  # the earliest time that the others were told of, and have not come to yet
        self._waiting: deque[Call] = deque()
        self._linger = 0.0  # seconds that a group waits for one more call
        self._is_behind = False  # whether the group's first call was there as the last group was answered
        self._stopping = False
        self._stopped = trio.Event()
        self._thread = threading.Thread(target=self._run, name="jobtrio-sqlite-writer", daemon=True)

    # -- in Trio's thread

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def aclose(self) -> None:
        """Carry out what has been asked for, and end the thread.

        Cancellation: it is waited for all the same, since a thread is not left in the middle of a transaction. That
        takes as long as the calls that wait, which fail at once where the file is away.
        """
        self._stopping = True
        self.calls.stop()
        if self._thread.ident is not None:  # else it could not be started
            with trio.CancelScope(shield=True):
                await self._stopped.wait()
            self._thread.join()
        self.calls.close()

    # -- in the writer's thread

    def _run(self) -> None:
        try:
            while not self._stopping or self._waiting or not self.calls.is_empty():
                try:
                    self._step()
                except Exception:
                    log.exception("a fault of the writer's own; it goes on")
                    self._connector.close()
                    time.sleep(PAUSE)
        finally:
            self.outages.settle(is_last=True)
            self._connector.close()
            self.calls.run_in_trio(self._stopped.set)

    def _step(self) -> None:
        call = None if self._waiting else self.calls.next_nowait()
        self._is_behind = bool(self._waiting or call)
        if not self._is_behind:
            # The sign to stop may be what was just taken for none, and does not come again.
            call = None if self._stopping else self.calls.next(LOOK_AFTER)
            if call is None:
                self._idle()
                return
        if call is not None:
            self._waiting.append(call)
        self._turn()

    def _turn(self) -> None:
        """Carry out what waits, if a transaction can be begun for it."""
        try:
            connection = self._begin()
        except (StoreError, *FAILURES) as exc:
            self._hold_up(self._connector.failed(exc))
        else:
            self._carry_out(connection)

    def _begin(self) -> sqlite3.Connection:
        connection = self._connector.connected()
        give_up_at = time.monotonic() + LOCKED
        while not _has_begun(connection):
            if time.monotonic() >= give_up_at:
                raise StoreUnavailableError(f"{self._connector.path} is locked by another process")
            time.sleep(random.uniform(*LOOKS))
        self._connector.check_version(connection)
        return connection

    def _hold_up(self, error: StoreError) -> None:
        """Fail the calls that have waited long enough; where waiting won't help, all."""
        while call := self.calls.next_nowait():
            self._waiting.append(call)
        limit = time.monotonic() - PATIENCE
        is_over = self._stopping or not isinstance(error, StoreUnavailableError)
        failed = []
        while self._waiting and (is_over or self._waiting[0].asked < limit):
            call = self._waiting.popleft()
            if call.take():  # else nobody waits for it any more
                self.outages.failed(error)
                call.fail(again(error))
                failed.append(call)
        self.calls.deliver(failed)
        if self._waiting:
            time.sleep(PAUSE)

    def _carry_out(self, connection: sqlite3.Connection) -> None:
        """Carry out all that waits, commit, and then answer."""
        taken: list[Call] = []
        full_at = time.monotonic() + LONGEST
        try:
            hints = self._commit(connection, self._take(taken, full_at), _perform)
        except _HalfDone:
            self._carry_out_again(taken)
        except Exception as exc:
            self._fail(taken, exc)
        else:
            self._answer(connection, taken, hints)
        if time.monotonic() >= full_at:
            time.sleep(LOOKS[1])  # for those who look for the lock, more seldom than this one is done with all else

    def _carry_out_again(self, calls: list[Call]) -> None:
        """Carry out anew what one of the calls has spoilt, each with a savepoint."""
        try:
            self._connector.roll_back()
            connection = self._begin()
            read_all(connection)
            hints = self._commit(connection, calls, _perform_guarded)
        except Exception as exc:
            self._fail(calls, exc)
        else:
            self._answer(connection, calls, hints)

    def _take(self, taken: list[Call], full_at: float) -> Iterator[Call]:
        """Give the calls that wait, as long as there are any, and note them. A call that is alone does not linger."""
        while not taken or (len(taken) < GROUP and time.monotonic() < full_at):
            call = self._waiting.popleft() if self._waiting else self.calls.next_nowait()
            if call is None and self._is_behind and len(taken) > 1 and self._linger >= LEAST:
                call = self.calls.next(self._linger)
            if call is None:
                return
            if call.take():
                taken.append(call)
                yield call

    def _commit(
        self, connection: sqlite3.Connection, calls: Iterable[Call], perform: Callable[[Transaction, Call], None]
    ) -> Hints:
        tx = Transaction(connection, self._identity, self._connector.path)
        changes = connection.total_changes
        for call in calls:
            perform(tx, call)
        tx.flush()
        began = time.perf_counter()
        try:
            connection.execute("COMMIT")
        except FAILURES:
            self._connector.close()  # nobody else has the lock: it may be a statement of its own that is not over
            raise
        self._linger = min(LINGER * (time.perf_counter() - began), MOST)
        self._location.check_log()  # only then others see what was committed
        if connection.total_changes != changes:
            self._is_full = False
        if not self._is_full:  # to write nothing succeeds on a full disk as well
            self.outages.answered(what=_WRITING)
        return tx.hints

    def _answer(self, connection: sqlite3.Connection, calls: list[Call], hints: Hints) -> None:
        is_one_gone = self._ring(hints)
        self.calls.deliver(calls, partial(self._announcer.heed, hints))
        if is_one_gone:
            self.calls.run_in_trio(self._announcer.look_everywhere)
        self._checkpoints.committed(connection)

    def _fail(self, calls: list[Call], exc: Exception) -> None:
        error = self._connector.failed(exc)
        if isinstance(error, StoreUnavailableError):
            self._is_full = True
            self.outages.failed(error, refused=_WRITING)
        for call in calls:
            call.fail(again(error))
        self.calls.deliver(calls)
        self.calls.run_in_trio(self._announcer.look_everywhere)  # in case that it was committed all the same
        if self._connector.connection is None:
            self._make_room()

    def _make_room(self) -> None:
        """Have the log written anew from its beginning: it may be that it can't grow, where the file has room."""
        try:
            self._checkpoints.make(self._connector.connected())
        except (StoreError, *FAILURES) as exc:
            self._connector.failed(exc)

    def _ring(self, hints: Hints) -> bool:
        """Tell the others; those who know of an earlier time look then, and find the later ones."""
        due = hints.due
        if due is not None:
            if due >= self._told_due > time.monotonic():
                hints = Hints(hints.ready, None, hints.messages, hints.cancels)
            else:
                self._told_due = due
        return self._doorbell.ring(hints)

    def _idle(self) -> None:
        """Use a pause: look for what others have written, ring again, and copy the log into the file."""
        self.outages.settle()
        if self._connector.connection is None:
            return
        try:
            connection = self._connector.connected()  # unless the log is gone: it is not to be copied then
            version = connection.execute("PRAGMA data_version").fetchone()[0]
        except (StoreError, *FAILURES) as exc:
            self._connector.failed(exc)
            return
        is_news = self._data_version != version
        self._data_version = version
        is_news |= self._doorbell.ring_again()
        if is_news:
            self.calls.run_in_trio(self._announcer.look_everywhere)
        self._checkpoints.idle(connection)


def _has_begun(connection: sqlite3.Connection) -> bool:
    """Begin a transaction, unless another connection holds the lock."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as exc:
        if not is_locked(exc):
            raise
        connection.rollback()
        return False
    return True


class _HalfDone(Exception):  # noqa: N818 - no error, but a way back
    """An operation has failed after it had changed something, or at a text that can be read another way."""


def _perform(tx: Transaction, call: Call) -> None:
    """Carry out one operation without a savepoint, which is seldom needed: most that fail have changed nothing."""
    before = tx.connection.total_changes
    try:
        call.succeed(call.work(tx))
    except Exception as exc:
        if _is_over(tx, exc):
            raise
        if tx.connection.total_changes != before or is_undecodable(exc):
            raise _HalfDone from exc
        call.fail(tx.translated(exc))


def _perform_guarded(tx: Transaction, call: Call) -> None:
    """Carry out one operation, all of it or nothing."""
    tx.run("SAVEPOINT operation")
    try:
        call.succeed(call.work(tx))
    except Exception as exc:
        if _is_over(tx, exc):
            raise
        tx.run("ROLLBACK TO operation")
        call.fail(tx.translated(exc))
    tx.run("RELEASE operation")


def _is_over(tx: Transaction, exc: Exception) -> bool:
    """Whether the whole group has failed: SQLite has rolled it back, or takes no writes by this connection."""
    return not tx.connection.in_transaction or is_read_only(exc)
