"""The readers: threads with a connection each, which no writer holds up.

Each call sees one state of the file, no older than its beginning: short ones that wait share a transaction, unless they
were made after that had begun. It must not know what is read.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final

import trio

from jobtrio.stores.sqlite._calls import Call, Calls
from jobtrio.stores.sqlite._connection import Connector, read_all
from jobtrio.stores.sqlite._errors import FAILURES, is_undecodable

if TYPE_CHECKING:
    from jobtrio.stores.sqlite._connection import Location

THREADS: Final = 2

GROUP: Final = 16
"""Calls in one transaction."""

LONGEST: Final = 0.005
"""Seconds after which a transaction takes no more calls: their answers are given at its end."""


class Readers:
    """The threads that read, and the way to them.

    Attributes:
        calls: The way to them.
    """

    def __init__(self, location: Location, *, patience: float) -> None:
        self.calls: Final = Calls(patience)
        self._location = location
        self._running = 0
        self._stopping = False
        self._stopped = trio.Event()
        self._threads: list[threading.Thread] = []  # those that were started

    def start(self) -> None:
        """Start the threads."""
        for n in range(THREADS):
            thread = threading.Thread(target=self._run, name=f"jobtrio-sqlite-reader-{n}", daemon=True)
            thread.start()
            self._threads.append(thread)
            self._running += 1

    async def aclose(self) -> None:
        """End the threads, behind the calls so far.

        Cancellation: they are waited for all the same: as long as those calls take.
        """
        self._stopping = True
        for _ in self._threads:
            self.calls.stop()
        if self._threads:
            with trio.CancelScope(shield=True):
                await self._stopped.wait()
        for thread in self._threads:
            thread.join()
        self.calls.close()

    def _run(self) -> None:
        connector = Connector(self._location)
        try:
            call = self.calls.next()
            while call is not None:
                call = self._read(connector, call)  # not kept: its answer may be large, and the next long in coming
                if call is None:
                    call = self.calls.next()
        finally:
            connector.close()
            self.calls.run_in_trio(self._one_stopped)

    def _read(self, connector: Connector, call: Call | None) -> Call | None:
        """Carry out a call, and those behind it that may share its transaction; return the next, if there was one."""
        began = time.monotonic()
        done: list[Call] = []
        while call is not None and (not done or self._may_share(call, done, began)):
            if call.take():
                _carry_out(connector, call)
                done.append(call)
            call = self.calls.next_nowait()
        if call is None and self._stopping:
            self.calls.stop()  # the sign may be what was just taken for none
        connector.roll_back()  # nothing was written
        self.calls.deliver(done)
        return call

    def _may_share(self, call: Call, done: list[Call], began: float) -> bool:
        is_in_time = call.asked < began and time.monotonic() < began + LONGEST
        return is_in_time and call.is_short and done[0].is_short and len(done) < GROUP

    def _one_stopped(self) -> None:
        self._running -= 1
        if not self._running:
            self._stopped.set()


def _carry_out(connector: Connector, call: Call) -> None:
    """Carry a call out, in the transaction that is under way or in a new one."""
    try:
        connection = _begun(connector)
        try:
            value = call.work(connection)
        except sqlite3.OperationalError as exc:
            if not is_undecodable(exc):
                raise
            connection.rollback()
            read_all(connection)
            value = call.work(_begun(connector))
    except FAILURES as exc:
        call.fail(connector.failed(exc))
    except Exception as exc:
        connector.roll_back()
        call.fail(exc)
    else:
        call.succeed(value)


def _begun(connector: Connector) -> sqlite3.Connection:
    connection = connector.connection
    if connection is None or not connection.in_transaction:
        connection = connector.connected()
        connection.execute("BEGIN")
        connector.check_version(connection)
    return connection
