"""The servers that the benchmarks run on: those of the tests, from wheels, with the settings of servers that keep.

A server ends with the block that it was opened for, and its files with it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import PostgresServer
    from valkey_server import ValkeyServer

SUPPORT: Final = str(Path(__file__).parent.parent / "tests" / "support")
"""Where the tests have what starts servers."""

POSTGRES_SETTINGS: Final = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "128MB"}
"""As PostgreSQL is by default: a commit waits for the disk."""

VALKEY_SETTINGS: Final = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
"""A log that is synced once a second, as is advised for data that shall be kept."""


def _find_support() -> None:
    if SUPPORT not in sys.path:
        sys.path.append(SUPPORT)


@contextmanager
def open_postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server."""
    _find_support()
    import postgres_server

    with postgres_server.open_postgres(**POSTGRES_SETTINGS) as server:
        yield server


@contextmanager
def open_valkey() -> Iterator[ValkeyServer]:
    """Give a Valkey server."""
    _find_support()
    import valkey_server

    with valkey_server.ValkeyServer(*VALKEY_SETTINGS) as server:
        yield server


def pid_of_valkey(server: ValkeyServer) -> int:
    """Return the number of the server's process."""
    for line in str(server.ask("INFO", "server")).splitlines():
        name, _, value = line.partition(":")
        if name == "process_id":
            return int(value)
    raise AssertionError("the server does not say who it is")


def new_database(server: PostgresServer) -> str:
    """Make an empty database, and return its URL."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(server.create_database())
    login = f"{parts['user']}:{quote(str(parts['password']))}"
    return f"postgresql://{login}@{parts['host']}:{parts['port']}/{parts['dbname']}"
