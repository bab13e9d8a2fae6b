"""The readers: threads with a connection each, which no writer holds up.

Each call sees one state of the file, that of its beginning. It must not know what is read.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

import trio

from jobtrio.stores.sqlite._calls import Call, Calls
from jobtrio.stores.sqlite._connection import Connector, read_all
from jobtrio.stores.sqlite._errors import FAILURES, is_undecodable

if TYPE_CHECKING:
    from jobtrio.stores.sqlite._connection import Location

THREADS: Final = 2


class Readers:
    """The threads that read, and the way to them.

    Attributes:
        calls: The way to them.
    """

    def __init__(self, location: Location, *, patience: float) -> None:
        self.calls: Final = Calls(patience)
        self._location = location
        self._running = 0
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
            while call := self.calls.next():
                if call.take():
                    _read(connector, call)
                    self.calls.deliver((call,))
                call = None  # its answer may be large, and the next call long in coming
        finally:
            connector.close()
            self.calls.run_in_trio(self._one_stopped)

    def _one_stopped(self) -> None:
        self._running -= 1
        if not self._running:
            self._stopped.set()


def _read(connector: Connector, call: Call) -> None:
    try:
        connection = connector.connected()
        try:
            value = _carry_out(connector, connection, call)
        except sqlite3.OperationalError as exc:
            if not is_undecodable(exc):
                raise
            connection.rollback()
            read_all(connection)
            value = _carry_out(connector, connection, call)
    except FAILURES as exc:
        call.fail(connector.failed(exc))
    except Exception as exc:
        connector.roll_back()
        call.fail(exc)
    else:
        call.succeed(value)


def _carry_out(connector: Connector, connection: sqlite3.Connection, call: Call) -> Any:
    connection.execute("BEGIN")
    connector.check_version(connection)
    value = call.work(connection)
    connection.execute("COMMIT")
    return value
