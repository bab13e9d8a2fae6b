"""The request to cancel: made in a way that the libpq at hand allows, bounded, and gone afterwards."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
import trio
from psycopg import pq
from psycopg_bridge import check_at_rest
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import _cancelling, connect
from jobtrio.psycopg_trio._cancelling import cancel_on_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from postgres_server import PostgresServer
    from psycopg.pq.abc import PGconn


class OldRequest:
    """Stands for a connection, and for the one request that it can make: in the way of a libpq before 17."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self.cancel = cancel

    def get_cancel(self) -> OldRequest:
        return self


class FailingRequest:
    """Stands for a connection, and for a request whose server is gone."""

    def __init__(self) -> None:
        self.finished = False

    def cancel_conn(self) -> FailingRequest:
        return self

    def start(self) -> None:
        pass

    def poll(self) -> int:
        return pq.PollingStatus.FAILED

    def get_error_message(self) -> str:
        return "no such server"

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def _old_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cancelling, "SAFE_CANCEL_VERSION", pq.version() + 1)
    monkeypatch.setattr(pq, "__impl__", "python")


@pytest.mark.usefixtures("_old_libpq")
async def test_old_request() -> None:
    """With an older libpq there is the one request, whose end is waited for."""
    called = threading.Event()
    await cancel_on_server(cast("PGconn", OldRequest(called.set)))
    assert called.is_set()


@pytest.mark.usefixtures("_old_libpq")
async def test_old_request_without_answer() -> None:
    """A request that blocks a thread is left to itself when its time is up."""
    answered = threading.Event()
    try:
        with trio.move_on_after(0.05) as scope:
            await cancel_on_server(cast("PGconn", OldRequest(lambda: answered.wait(30))))
        assert scope.cancelled_caught
        assert not answered.is_set()
    finally:
        answered.set()


async def test_first_libpq_that_is_safe(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version that can make a request without blocking is used so."""
    monkeypatch.setattr(_cancelling, "SAFE_CANCEL_VERSION", pq.version())
    async with await connect(postgres, autocommit=True) as connection:
        with trio.move_on_after(0.05) as scope:
            await connection.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        await check_at_rest(connection)


async def test_request_that_fails() -> None:
    """What a request has opened is closed though it fails."""
    request: Any = FailingRequest()
    with pytest.raises(psycopg.OperationalError, match="no such server"):
        await cancel_on_server(request)
    assert request.finished


async def test_replication(postgres_server: PostgresServer) -> None:
    """Where both sides would go on sending, the end of that is waited for, too."""
    async with open_wire(postgres_server.port) as wire:
        conninfo = postgres_server.conninfo(port=wire.port, replication="true")
        async with await connect(conninfo, autocommit=True) as connection:
            wire.hold()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.execute, "START_REPLICATION PHYSICAL 0/1000000")
                    await wait_all_tasks_blocked(0.01)
                    scope.cancel()
                    wire.release()
            assert scope.cancelled_caught
            cursor = await connection.execute("IDENTIFY_SYSTEM")
            assert len(await cursor.fetchall()) == 1
