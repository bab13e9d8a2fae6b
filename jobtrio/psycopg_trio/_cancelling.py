"""Stops what a connection is doing, on the server too, and reads the rest so that no answer is left for the next.

It owns the cancel request and the clean-up behind it. How long that may take, and what becomes of a connection
that does not come to rest, is its caller's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg import generators, pq
from psycopg.waiting import Wait

from ._driving import wait_for_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGcancelConn, PGconn

    from ._driving import Driver

FIRST_PATIENCE = 0.05
"""Seconds after which a cancel request is repeated, twice as many each time: the server ignores one that comes
before the statement, which may still be on its way, and each only stops one statement of several."""

SAFE_CANCEL_VERSION = 170_000
"""libpq's version from which a cancel request is encrypted and does not block."""

_IN_COPY = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH)


async def poll_until_done(wire: PGconn | PGcancelConn, poll: Callable[[], int]) -> None:
    """Call libpq's ``poll`` whenever the socket is ready, until it is done.

    Raises:
        psycopg.OperationalError: It failed; says why.

    *Cancellation*: leaves it half done; ``wire`` is to be finished.
    """
    while (status := poll()) != pq.PollingStatus.OK:
        if status == pq.PollingStatus.FAILED:
            raise psycopg.OperationalError(wire.get_error_message())
        # The socket may be another one each time.
        await wait_for_socket(wire.socket, Wait.R if status == pq.PollingStatus.READING else Wait.W)


async def cancel_on_server(pgconn: PGconn) -> None:
    """Ask the server to cancel what the connection is doing; return when the server has been told.

    Raises:
        psycopg.OperationalError: The server could not be told.
        psycopg.NotSupportedError: It can't be told without holding up all of this process until it has heard.

    *Cancellation*: the server may have been told.
    """
    if (version := pq.version()) < SAFE_CANCEL_VERSION:
        if pq.__impl__ != "python":  # a thread would not help: psycopg's C keeps all others waiting meanwhile
            this = f"{version // 10_000}.{version % 10_000}"
            raise psycopg.NotSupportedError(f"cancelling takes libpq 17, and this is {this}")
        await trio.to_thread.run_sync(pgconn.get_cancel().cancel, abandon_on_cancel=True)
        return
    wire = pgconn.cancel_conn()
    try:
        wire.start()
        await poll_until_done(wire, wire.poll)
    finally:
        wire.finish()


async def bring_to_rest(pgconn: PGconn, driver: Driver, generator: PQGen[Any] | None) -> None:
    """Cancel what an interrupted ``generator`` has begun, if there is one, and read up to the statement's end.

    Raises:
        psycopg.OperationalError: The server could not be told or the connection was lost.

    *Cancellation*: leaves the connection in the middle of a statement, of no more use.
    """
    if generator is not None:
        await _run_out(pgconn, driver, generator, begun=True)
    if is_busy(pgconn):
        await _run_out(pgconn, driver, _drain(pgconn), begun=False)


def is_busy(pgconn: PGconn) -> bool:
    """Return whether the connection is in the middle of a statement; a pipeline's end sees to its own."""
    # That of a lost connection is unknown, not active.
    active = pgconn.transaction_status == pq.TransactionStatus.ACTIVE
    return active and pgconn.pipeline_status == pq.PipelineStatus.OFF


async def _run_out(pgconn: PGconn, driver: Driver, generator: PQGen[Any], *, begun: bool) -> None:
    patience = FIRST_PATIENCE
    while True:
        await cancel_on_server(pgconn)
        with trio.move_on_after(patience) as scope:
            try:
                await driver.drive(generator, pgconn.socket, begun=begun)
            except psycopg.Error:
                pass  # cancelled as asked, or failed by itself: over in either case
        if not scope.cancelled_caught:
            return
        begun = True
        patience *= 2


def _drain(pgconn: PGconn) -> PQGen[None]:
    while (result := (yield from generators.fetch(pgconn))) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            yield from _skip_copy(pgconn)
        elif result.status in _IN_COPY:
            yield from _fail_copy(pgconn)


def _fail_copy(pgconn: PGconn) -> PQGen[None]:
    while pgconn.put_copy_end(b"interrupted") == 0:
        yield Wait.W
    yield from generators.send(pgconn)


def _skip_copy(pgconn: PGconn) -> PQGen[None]:
    while (size := pgconn.get_copy_data(1)[0]) >= 0:
        if size == 0:
            yield Wait.R
            pgconn.consume_input()
