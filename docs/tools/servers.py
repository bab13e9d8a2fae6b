"""The servers that examples need: those that the tests bring along, started when the first example needs one."""

from __future__ import annotations

import atexit
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postgres_server import PostgresServer

SUPPORT = str(Path(__file__).parents[2] / "tests" / "support")


@cache
def postgres() -> PostgresServer:
    """Return a running PostgreSQL server, which is gone when this process is."""
    if SUPPORT not in sys.path:
        sys.path.append(SUPPORT)
    from postgres_server import PostgresServer

    server = PostgresServer()
    atexit.register(server.close)
    server.start()
    return server
