"""What all parts of the tests use: servers, clients, a Ctrl-C that is heeded, and examples that may take their time.

Servers are started once, when the first test needs one.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import PostgresServer, open_postgres
from psycopg.conninfo import conninfo_to_dict
from store_shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["standstill"]

# On a busy machine an example may take any time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Heed Ctrl-C: a shell that runs the tests in the background has it ignored, also by what they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Return a shell with a store of its own; what it started is gone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have WebSocket clients wait no longer than tests need them to."""
    monkeypatch.setattr("jobtrio.websocket._client_times.FIRST", 0.005)
    monkeypatch.setattr("jobtrio.websocket._client_times.LONGEST", 0.05)
    monkeypatch.setattr("jobtrio.websocket._client_exchange.PAUSE", 0.01)
    monkeypatch.setattr("jobtrio.websocket._client_exchange.RATE_PAUSE", 0.01)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return the server that all tests share; none may stop it."""
    with open_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the connection string of an empty database, the test's own."""
    conninfo = postgres_server.create_database()
    yield conninfo
    postgres_server.execute("DROP DATABASE {} WITH (FORCE)", str(conninfo_to_dict(conninfo)["dbname"]))


@pytest.fixture(scope="module")
def _spare_postgres() -> Iterator[PostgresServer]:
    with open_postgres() as server:
        yield server


@pytest.fixture
def own_postgres(_spare_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Return a running server that the test may stop, kill, freeze and start again as it likes."""
    server = _spare_postgres
    if not server.running or server.changed:
        server.restart()
    yield server
    server.thaw()
