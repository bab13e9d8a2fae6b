"""`Session`: all that runs while a store is open, from the first connection to the last answer.

It owns the order in which the parts start and stop, and what happens in the background: keeping a link to the server,
hearing hints, giving up on calls that wait too long, pruning. It must not know the contract's calls.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from jobtrio._errors import StoreError
from jobtrio._nursery import open_background_nursery
from jobtrio._patterns import Limits
from jobtrio._policies import RateLimits
from jobtrio.stores._claims import Recent
from jobtrio.stores._sessions import StoreSession
from jobtrio.stores._texts import plain_text
from jobtrio.stores.redis import _advancing as advancing
from jobtrio.stores.redis import _opening as opening
from jobtrio.stores.redis._calls import Calls
from jobtrio.stores.redis._connector import Connector
from jobtrio.stores.redis._rows import entry_of
from jobtrio.stores.redis._scripts import run
from jobtrio.stores.redis._subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio.abc import StoreSettings
    from jobtrio.stores.redis._address import Address
    from jobtrio.stores.redis._batch import Part

T = TypeVar("T")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries to connect: doubled from the first to the longest."""

AGAIN_AFTER: Final = 1.0
"""Seconds until what is due is looked at again where nothing came of that: others were quicker, or a job is damaged."""

PAUSE: Final = 0.01
"""Seconds between two slices of pruning, for others to come in."""


class Session(StoreSession):
    """One opened store.

    Attributes:
        calls: The calls to the server.
        subscriber: Hears of other processes.
        worker: This process's name, as JSON.
        name: Marks this opened store.
        claimed: The calls to claim that were answered last, by their ids.
        claimed_at: The server's time of the last of them, as it tells it.
        answered: The last of them whose caller has got the answer; ``""`` for none.
        doubtful: Calls that were not answered, and would not be recognised if they were made again.
        saves: Numbers the calls that save states, so that the server knows one that arrives late.
    """

    def __init__(
        self,
        address: Address,
        prefix: str,
        settings: StoreSettings,
        *,
        replicas: int,
        creates: bool,
        outage_limit: float,
        look_after: float,
    ) -> None:
        # A server that has fallen silent is found out early enough to ask another within the limit.
        patience = outage_limit / 3
        super().__init__(settings, trio.current_time)  # the server tells times as seconds from now
        self.worker: Final = plain_text(settings.worker)
        self.totals: Final = Limits.of(settings.max_running_total)
        self.rates: Final = RateLimits.of(settings.rate_limits)
        self.name: Final = secrets.token_hex(8)
        self.claimed: Final = Recent[str]()
        self.claimed_at: bytes = b"-inf"
        self.answered: str = ""
        self.doubtful: Final = Recent[tuple[str, str]]()
        self.saves: Final = count(1)
        self.calls: Final = Calls(prefix, patience, replicas)
        self.outages = self.calls.outages
        self._creates = creates
        self._patience = patience
        self._look_after = look_after
        self._connector = Connector(address, patience)
        self._connected = trio.Event()
        self.subscriber: Final = Subscriber(self._connector, prefix, self.announcer, lambda: self._connected)
        self._stop = trio.Event()

    # -- life

    async def prepare(self) -> None:
        """Check what is under the prefix, or make it this store's own.

        Cancellation: it may have been made.
        """
        async with self._connector.connect() as link:
            await opening.prepare(link, self.calls.prefix, creates=self._creates)
            await opening.warn_of_losses(link)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def running(self) -> AsyncIterator[None]:
        """Run what happens in the background, within the block."""
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._serve)
            try:
                yield
            finally:
                self._stop.set()  # and it is waited for, whatever comes meanwhile

    @trio.lowlevel.enable_ki_protection
    async def _serve(self) -> None:
        """Run all of it until told to stop: whoever cleans up behind a cancellation needs the store."""
        try:
            # Ends with the block of `running`, which is not left without saying so.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for service in (self._keep_connected, self.subscriber.run, self._fail_overdue, self.pruner.run):
                        nursery.start_soon(service)
                    await self._stop.wait()
                    with trio.move_on_after(self._patience):
                        await self._leave(partial(self.call, run("leave", self.name), bool), self._patience)
                        await self.calls.wait_idle()  # answers under way are heeded
                    self.outages.settle(is_last=True)
                    nursery.cancel_scope.cancel()
        finally:
            self.calls.close()

    # -- calls

    def call(self, part: Part, after: Callable[[Any], T]) -> Awaitable[T]:
        """Have the server carry out a command or a script; return what ``after`` makes of the answer."""
        return self.calls.make([part], lambda answers: after(answers[0]))

    async def advance(self) -> float:
        """Do what is due; return the seconds until there is more.

        Where this process knows all times and none has come, it is not worth a call.
        """
        if idle_for := self.announcer.idle_for():
            await trio.lowlevel.checkpoint_if_cancelled()
            return idle_for
        while True:
            self.announcer.asked()
            due = await self.call(advancing.look(self.worker), self._found)
            verdicts = advancing.verdicts(due, self.worker, self.settings.retention)
            if verdicts:
                if not await self.calls.make(verdicts, self._carried_out):
                    return AGAIN_AFTER
            elif due.next > 0:
                return self.announcer.idle_for()

    def _found(self, answer: list[Any]) -> advancing.Due:
        due = advancing.found(answer)
        self.announcer.changed(due.changed)
        if due.changed:
            self.announcer.listener.work_ready()
        self.announcer.looked(due.next, self._look_after)
        return due

    def _carried_out(self, rows: list[Any]) -> bool:
        entries = [entry_of(row) for row in rows if row is not None]
        self.announcer.changed(entries)
        if any(entry.outcome is None for entry in entries):
            self.announcer.listener.work_ready()
        return bool(entries)

    async def _prune(self) -> float:
        """Remove what is no longer kept; return the seconds until there may be more."""
        while True:
            more, left = await self.call(advancing.prune(self.settings.retention), advancing.pruned)
            if not more:
                return left
            await trio.sleep(PAUSE)

    # -- in the background

    @trio.lowlevel.enable_ki_protection
    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._connector.connect() as link:
                    await opening.prepare(link, self.calls.prefix)
                    self.outages.answered()
                    pause = FIRST_PAUSE
                    self._connected.set()
                    self.announcer.look_everywhere()
                    await self.calls.serve(link)
            except StoreError as exc:
                self.outages.failed(exc)
                # Whatever it is, it came after the store was open, and running jobs are not to die of it.
                self.calls.fail_waiting(str(exc))
            finally:
                if self._connected.is_set():  # else hints wait for this one
                    self._connected = trio.Event()
                self.subscriber.follow()
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @trio.lowlevel.enable_ki_protection
    async def _fail_overdue(self) -> None:
        while True:
            await trio.sleep(self._patience / 4)
            self.calls.fail_overdue()
            self.outages.settle()
