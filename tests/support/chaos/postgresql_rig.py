"""The rig of PostgreSQL: a server of its own, which keeps what it has answered for."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio
from postgres_server import PostgresServer, open_postgres
from psycopg.conninfo import conninfo_to_dict

from chaos.rig import OUTAGE_LIMIT, Rig, Server, ServerRig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class Postgres(Server):
    """A PostgreSQL server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.port = server.port

    async def kill(self) -> None:
        """End it with ``kill -9``, all of its processes."""
        await trio.to_thread.run_sync(self._server.kill)

    async def start(self) -> None:
        """Start it again, and wait until it has recovered."""
        await trio.to_thread.run_sync(self._server.start)

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self._server.freeze()

    def go_on(self) -> None:
        """Let it go on."""
        self._server.thaw()


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    """Give a rig with a server of its own. ``kill -9`` takes nothing of what the system has, so it need not sync."""
    with open_postgres() as server:
        async with AsyncExitStack() as stack:
            yield ServerRig(Postgres(server), _url_at(server), stack)


def _url_at(server: PostgresServer) -> Callable[[int], str]:
    parts = conninfo_to_dict(server.conninfo())
    login = f"{parts['user']}:{quote(str(parts['password']))}"
    return lambda port: f"postgresql://{login}@127.0.0.1:{port}/{parts['dbname']}?outage_limit={OUTAGE_LIMIT}"
