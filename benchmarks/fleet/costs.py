"""What each call costs the server: seconds of its processors, by what the system says of its processes.

Calls are made by the store's own contract, as a registry makes them; what they cost the caller does not count, so that
both may share a machine. It must not know which store it has.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import psutil  # type: ignore[import-untyped]
import trio

from benchmarks._in_tasks import in_tasks
from benchmarks.fleet.model import LEASE, Costs
from jobtrio import Completed, JobPriority, Retention
from jobtrio._entry import JobEntry, Plan
from jobtrio._token_log import TokenLog
from jobtrio.abc import StoreSettings
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio.abc import Claim, JobStore

PLAN: Final = Plan("nothing", None, "default", JobPriority.NORMAL, None, None, "fleet")
AT_ONCE: Final = 20
"""Calls at once, as on a busy worker."""


class Deaf:
    """A listener that does nothing: hints shall cost the server alone."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@attrs.frozen
class Server:
    """The server's processes.

    Attributes:
        pid: The first one's number.
    """

    pid: int

    def seconds(self) -> float:
        """Return the seconds that all have used so far, those that have ended as well, where the system keeps that."""
        first = psutil.Process(self.pid)
        seconds = 0.0
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it ends just now
                seconds += sum(process.cpu_times()[:4])  # its own, then its children's that have ended
        return seconds


@asynccontextmanager
async def _opened(url: str, name: str) -> AsyncIterator[JobStore]:
    store = parse_store_url(url).make_store()
    listener: Any = Deaf()
    settings = StoreSettings(name, Retention(finished_jobs=10_000_000), 10_000_000, listener, lambda: TokenLog(100))
    async with store.open(settings):
        yield store


class Meter:
    """Measures one store on one server.

    Attributes:
        connections: How many a process has that makes many calls at once; known once it is measured.
    """

    def __init__(
        self, url: str, server: Server, count_connections: Callable[[], int], calls: int, listeners: int
    ) -> None:
        self.connections = 0
        self._count_connections = count_connections
        self._url = url
        self._server = server
        self._calls = calls
        self._listeners = listeners

    async def measure(self) -> Costs:
        """Return what each call costs.

        *Cancellation*: jobs stay in the store.
        """
        async with _opened(self._url, "meter") as store:
            look = await self._cost(lambda _: self._claim(store, 1))
            renew = await self._cost(lambda _: store.renew([], LEASE))
            insert = await self._cost(lambda _: self._insert(store))
            await self._claim_all(store)
            self.connections = await trio.to_thread.run_sync(self._count_connections)
            hint = await self._hint(store)
            for _ in range(self._calls):
                await self._insert(store)
            claims: list[Claim] = []

            async def claim(_: int) -> None:
                claims.extend(await self._claim(store, 1))

            claimed = await self._cost(claim)
            holding = await self._cost(lambda _: store.renew(claims[:100], LEASE), self._calls // 20)
            finish = await self._cost(lambda n: store.finish(claims[n], Completed(None)))
        hold = max(holding - renew, 0.0) / 100
        return Costs(insert, hint, look, max(claimed - look, 0.0), finish, renew, hold)

    async def _hint(self, store: JobStore) -> float:
        """Return what one listener more costs a job that comes while there is none: then all are told."""

        async def insert_and_claim(_: int) -> None:
            await self._insert(store)
            await self._claim(store, 1)

        calls = self._calls // 2
        alone = await self._cost(insert_and_claim, calls, at_once=1)
        async with AsyncExitStack() as stack:
            for n in range(self._listeners):
                await stack.enter_async_context(_opened(self._url, f"listener-{n}"))
            heard = await self._cost(insert_and_claim, calls, at_once=1)
        return max(heard - alone, 0.0) / self._listeners

    async def _claim_all(self, store: JobStore) -> None:
        while await self._claim(store, 1_000):
            pass

    async def _cost(
        self, call: Callable[[int], Awaitable[object]], calls: int | None = None, at_once: int = AT_ONCE
    ) -> float:
        calls = calls or self._calls
        before = self._server.seconds()
        await in_tasks(at_once, calls, call)
        return (self._server.seconds() - before) / calls

    async def _claim(self, store: JobStore, limit: int) -> list[Claim]:
        return await store.claim(secrets.token_hex(8), limit=limit, lease=LEASE, executors=["nothing"])

    async def _insert(self, store: JobStore) -> None:
        entry = JobEntry(secrets.token_hex(16), PLAN, None, 0.0)
        await store.insert([entry], secrets.token_hex(8))
