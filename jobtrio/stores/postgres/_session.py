"""`Session`: all that runs while a store is open, from the check of the schema to the end of the connections.

It owns the order in which the parts start and stop, and what happens in the background: carrying out calls, hearing
notices or looking for news, giving up on a server that does not answer, pruning. It must not know the contract's calls.
"""

from __future__ import annotations

import secrets
import time
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jobtrio._errors import StoreError
from jobtrio._nursery import open_background_nursery
from jobtrio.stores._sessions import StoreSession
from jobtrio.stores._settling import Identity
from jobtrio.stores.postgres import _advancing as advancing
from jobtrio.stores.postgres import _pruning as pruning
from jobtrio.stores.postgres import _reading as reading
from jobtrio.stores.postgres._calls import Lane
from jobtrio.stores.postgres._connections import WAIT
from jobtrio.stores.postgres._inserting import Inserter, Insertion
from jobtrio.stores.postgres._listening import Listener
from jobtrio.stores.postgres._notices import Clock, Notices
from jobtrio.stores.postgres._writing import Write, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jobtrio.abc import StoreSettings
    from jobtrio.stores.postgres._connections import Connections
    from jobtrio.stores.postgres._reading import Reading

PAUSE: Final = 0.01
"""Seconds between two slices of pruning, for others to come in."""

LOOK_AFTER: Final = 5.0
"""Seconds after which to look for news although none were told: a notice may have been lost."""

LOOK_OFTEN: Final = 0.5
"""Seconds between two looks where no notices arrive."""

SETTLED_WITHIN: Final = 2.5
"""Seconds to wait, as the store is opened, until it is clear whether notices arrive."""

AGAIN_AFTER: Final = 0.02
"""Seconds until work is looked for again where others had locked what was to be claimed, so that they have taken it."""


class Session(StoreSession):
    """One opened store.

    Attributes:
        connections: The way to the server.
        identity: Who writes.
        notices: What other processes are told.
        clock: The server's clock.
        inserts: The way to put jobs in that nobody else can have put in: no other transaction makes them wait.
        named_inserts: The way to put in the others, whose ids were given or which have keys.
        writes: The way to change them.
        reads: The way to read them.
        claimed_at: The server's time of the last claim, where starts are limited in time.
        missed: Set where there may be more to be claimed: others had locked it, or it was too large to come at once.
    """

    def __init__(
        self,
        connections: Connections,
        schema: str,
        settings: StoreSettings,
        *,
        create: bool,
        listen: bool,
        on_pace: Callable[[float], None],
    ) -> None:
        """Put the parts together.

        Args:
            connections: The way to the server.
            schema: The schema's name.
            settings: What the store was told.
            create: Whether to make the schema where it is missing.
            listen: Whether to listen for notices.
            on_pace: Called with the seconds after which to look for news although none were told.
        """
        super().__init__(settings, time.monotonic)
        self.clock: Final = Clock()
        session = secrets.token_hex(8)
        self.identity: Final = Identity(
            settings.worker, session, settings.retention, settings.max_running_total, settings.rate_limits
        )
        self.notices: Final = Notices(schema, session, self.clock)
        self.connections: Final = connections
        self.outages = connections.outages
        inserter = Inserter(connections, self.notices, self.announcer.heed)
        patient = Inserter(connections, self.notices, self.announcer.heed, WAIT)
        writer = Writer(connections, self.identity, self.announcer, self.notices)
        patience = connections.patience
        self.inserts: Final[Lane[Insertion]] = Lane(inserter.carry_out, patience, size=Insertion.size)
        self.named_inserts: Final[Lane[Insertion]] = Lane(patient.carry_out, patience, size=Insertion.size)
        self.writes: Final[Lane[Write]] = Lane(writer.carry_out, patience, size=lambda work: work.size())
        read = partial(reading.carry_out, connections)
        self.reads: Final[Lane[Reading]] = Lane(read, patience, changes_nothing=True)
        self._lanes = (self.inserts, self.named_inserts, self.writes, self.reads)
        self._listener = Listener(connections, self.notices, self._heed, self._hearing_changed) if listen else None
        self._create = create
        self._on_pace = on_pace
        self._look_after = LOOK_OFTEN
        self.claimed_at: float = -inf
        self.missed = trio.Event()
        self._ready, self._stop = trio.Event(), trio.Event()

    # -- life

    async def prepare(self) -> None:
        """Check the schema, or make it.

        Cancellation: it may have been made.
        """
        await self.connections.prepare(create=self._create)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def running(self) -> AsyncIterator[None]:
        """Run what happens in the background, within the block."""
        self._on_pace(self._look_after)
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._serve)
            try:
                await self._ready.wait()
                if self._listener is not None:
                    with trio.move_on_after(SETTLED_WITHIN):
                        await self._listener.settled.wait()
                yield
            finally:
                self._stop.set()  # the rest is done by the task that serves, which Ctrl-C does not end

    @trio.lowlevel.enable_ki_protection
    async def _serve(self) -> None:
        """Carry out calls until told to stop: whoever cleans up behind a cancellation needs the store."""
        # Ends with the block of `running`, which is not left without saying so.
        with trio.CancelScope(shield=True):
            async with self.connections.opened(), trio.open_nursery() as nursery:
                for lane in self._lanes:
                    nursery.start_soon(lane.run)
                for service in (self._give_up_overdue, self.pruner.run, self._look_for_news, self._look_again):
                    nursery.start_soon(service)
                if self._listener is not None:
                    nursery.start_soon(self._listener.run)
                self._ready.set()
                await self._stop.wait()
                # Bounded by the calls that wait, which fail after their patience, and by the farewell's limit.
                await self.inserts.drain()
                await self.named_inserts.drain()
                await self.writes.drain()
                await self._leave(partial(self.connections.fetch, "leave", self.identity.session))
                self.outages.settle(is_last=True)
                nursery.cancel_scope.cancel()

    # -- calls

    async def advance(self) -> float:
        """Do what is due; return the seconds until there is more.

        Where this process knows all times and none has come, it is not worth a question.

        Cancellation: it may have been done.
        """
        if self._hears and (idle_for := self.announcer.idle_for()):
            await trio.lowlevel.checkpoint_if_cancelled()
            return idle_for
        is_cut = True
        while is_cut:
            asked = time.monotonic()
            self.announcer.asked()
            progress = await self.connections.use(lambda link: advancing.advance(link, self.identity, self.notices))
            self.clock.note(progress.now, asked)
            self.notices.told(progress.hints)
            self.announcer.changed(progress.changed)
            self.announcer.looked(progress.next, self._look_after)
            self.announcer.heed(progress.hints)
            is_cut = progress.is_cut
        return self.announcer.idle_for()

    async def _prune(self) -> float:
        """Remove what is no longer kept; return the seconds until there may be more.

        Cancellation: some of it is removed.
        """
        retention = self.settings.retention
        # Each by its own name: that one can be done says nothing of another which is refused.
        until = await self.connections.use(partial(pruning.limit, retention=retention))
        # A pause for others, not a wait for them.
        while await self.connections.use(partial(pruning.prune, until=until)):  # noqa: ASYNC110
            await trio.sleep(PAUSE)
        return await self.connections.use(partial(pruning.left, retention=retention))

    # -- news

    @property
    def _hears(self) -> bool:
        return self._listener is not None and self._listener.hears

    def _heed(self, payload: str) -> None:
        hints = self.notices.read(payload)
        if hints is not None:
            self.announcer.heed(hints)

    def _hearing_changed(self, hears: bool) -> None:
        self.connections.is_direct = hears
        self._look_after = LOOK_AFTER if hears else LOOK_OFTEN
        self._on_pace(self._look_after)
        self.announcer.look_everywhere()
        if hears:
            self.settings.listener.cancel_requested(None)
            self.settings.listener.messages_added(None)

    @trio.lowlevel.enable_ki_protection
    async def _look_for_news(self) -> None:
        """Where no notices arrive, look for what they would tell of."""
        while True:
            await trio.sleep(LOOK_OFTEN)
            if self._hears:
                continue
            try:
                asked = await self.connections.fetch("asked_to_stop", self.identity.session)
            except StoreError:
                continue
            for (job_id,) in asked:
                self.settings.listener.cancel_requested(job_id)
            self.announcer.look_everywhere()

    @trio.lowlevel.enable_ki_protection
    async def _look_again(self) -> None:
        """Have work looked for again where some was missed: those who claim at once choose the same."""
        while True:
            await self.missed.wait()
            await trio.sleep(AGAIN_AFTER)
            self.missed = trio.Event()
            self.settings.listener.work_ready()

    # -- in the background

    @trio.lowlevel.enable_ki_protection
    async def _give_up_overdue(self) -> None:
        while True:
            await trio.sleep(self.connections.patience / 4)
            self.outages.settle()
            for lane in self._lanes:
                lane.give_up_overdue()
