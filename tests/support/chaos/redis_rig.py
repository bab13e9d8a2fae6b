"""The rig of Redis: a Valkey server of its own, which keeps what it has answered for."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from valkey_server import ValkeyServer

from chaos.rig import OUTAGE_LIMIT, Rig, Server, ServerRig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALWAYS: Final = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
"""A server that keeps what it has answered for, whatever becomes of it."""


class Valkey(Server):
    """A Valkey server."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        self.port = server.port

    async def kill(self) -> None:
        """End it with ``kill -9``."""
        await trio.to_thread.run_sync(self._server.kill)

    async def start(self) -> None:
        """Start it again on its log; while it loads that, it refuses to work."""
        self._server.begin()

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self._server.pause()

    def go_on(self) -> None:
        """Let it go on."""
        self._server.resume()


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    """Give a rig with a Valkey server of its own."""
    with ValkeyServer(*ALWAYS) as server:
        async with AsyncExitStack() as stack:
            yield ServerRig(Valkey(server), lambda port: f"redis://127.0.0.1:{port}?outage_limit={OUTAGE_LIMIT}", stack)
