"""The store under test with all that can happen to it: its server, the ways there, or its file.

A `Rig` gives each worker and client a URL of its own, and carries out the faults that are not of processes. What one
kind of store needs is in a module of its own, which is imported when it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Final

import trio
from tcp_proxy import TcpProxy

from chaos.plan import OF_CONNECTIONS, OF_PROCESSES, Fault, FaultKind
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AsyncExitStack
    from pathlib import Path

    from jobtrio.abc import JobStore

OUTAGE_LIMIT: Final = 2.0
"""Seconds that a caller waits for a store that is away."""


STORES: Final = ("sqlite", "postgresql", "redis")
"""The stores that there is a rig for."""


def open_rig(store: str, folder: Path) -> AbstractAsyncContextManager[Rig]:
    """Return a rig for one of `STORES`, to be entered; what it needs is kept in this folder or one of its own."""
    rig: AbstractAsyncContextManager[Rig] = import_module(f"chaos.{store}_rig").open_rig(folder)
    return rig


def make_store(url: str) -> JobStore:
    """Return the store that a URL names, not opened yet."""
    return parse_store_url(url).make_store()


def for_patience(url: str, seconds: float) -> str:
    """Return a rig's URL for somebody who waits longer than the others for a store that is away."""
    return url.replace(f"outage_limit={OUTAGE_LIMIT}", f"outage_limit={seconds}")


class Rig(ABC):
    """A store, and how to trouble it.

    Attributes:
        faults: What can go wrong with it.
        url: The way there that nothing befalls.
    """

    faults: ClassVar[frozenset[FaultKind]]
    url: str

    @abstractmethod
    async def way_of(self, who: str) -> str:
        """Return the URL that a worker or client is to use."""

    @abstractmethod
    async def befall(self, fault: Fault) -> None:
        """Carry out a fault, and return when it is over."""

    async def heal(self) -> None:  # noqa: B027 - a file has nothing to heal
        """See that the store is there and all ways to it are open."""


# -- servers


class Server(ABC):
    """A real server of this test's own, on the loopback interface.

    Attributes:
        port: Where it listens, the same after each start.
    """

    port: int

    @abstractmethod
    async def kill(self) -> None:
        """End it with all its processes as a power cut would, and wait until it is gone."""

    @abstractmethod
    async def start(self) -> None:
        """Start it again on what it has kept, and wait until it answers or recovers."""

    @abstractmethod
    def freeze(self) -> None:
        """Let it stand still."""

    @abstractmethod
    def go_on(self) -> None:
        """Let it go on."""


class ServerRig(Rig):
    """A server, and a proxy before it for each who uses it."""

    faults = frozenset((*OF_PROCESSES, *OF_CONNECTIONS, "restart", "freeze"))

    def __init__(self, server: Server, url_at: Callable[[int], str], stack: AsyncExitStack) -> None:
        self.url = url_at(server.port)
        self._server = server
        self._url_at = url_at
        self._stack = stack
        self._proxies: dict[str, TcpProxy] = {}

    async def way_of(self, who: str) -> str:
        """Return the URL of a proxy for this one alone."""
        if who not in self._proxies:
            self._proxies[who] = await self._stack.enter_async_context(TcpProxy(self._server.port).open())
        return self._url_at(self._proxies[who].port)

    async def befall(self, fault: Fault) -> None:
        """Trouble the server, or the way there of one who uses it."""
        if fault.target == "server":
            await self._befall_server(fault)
        elif fault.target in self._proxies:
            proxy = self._proxies[fault.target]
            _BEGINNINGS[fault.kind](proxy, fault)
            await trio.sleep(fault.seconds)
            await proxy.heal()

    async def _befall_server(self, fault: Fault) -> None:
        if fault.kind == "restart":
            await self._server.kill()
            await trio.sleep(fault.seconds)
            await self._server.start()
            return
        self._server.freeze()
        try:
            await trio.sleep(fault.seconds)
        finally:
            self._server.go_on()

    async def heal(self) -> None:
        """Open all ways. The server is there: its faults have ended."""
        for proxy in self._proxies.values():
            await proxy.heal()


def _silence(proxy: TcpProxy) -> None:
    proxy.ignore()
    proxy.cut()


def _refuse(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.cut()


_BEGINNINGS: Final[dict[FaultKind, Callable[[TcpProxy, Fault], object]]] = {
    "cut": lambda proxy, fault: proxy.cut(),
    "cut_up": lambda proxy, fault: proxy.cut_after(fault.count, "up"),
    "cut_down": lambda proxy, fault: proxy.cut_after(fault.count, "down"),
    "lose": lambda proxy, fault: proxy.lose_answer(fault.count),
    "stall": lambda proxy, fault: proxy.stall("both"),
    "stall_up": lambda proxy, fault: proxy.stall("up"),
    "stall_down": lambda proxy, fault: proxy.stall("down"),
    "half_open": lambda proxy, fault: proxy.half_open(),
    "refuse": lambda proxy, fault: _refuse(proxy),
    "ignore": lambda proxy, fault: _silence(proxy),
}
