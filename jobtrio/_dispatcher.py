"""Claims ready jobs within the free capacity and starts them, for every store.

A store in this process is asked on the spot, when a job becomes ready and when one ends. Any other is asked by
one loop, which is woken by submissions, by ends that make room, by the store, and by the next due time; a
slow poll is only the backstop. It must not know what becomes of an attempt.
"""

from __future__ import annotations

import contextvars
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._outage import keep_trying, never
from jobtrio._runner import HARD_EXIT
from jobtrio._settlement import CANCELLED, LOST, SHUTDOWN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from jobtrio._attempt import Attempt
    from jobtrio._patterns import Limits
    from jobtrio._runner import Runner
    from jobtrio.abc import Claim, JobStore

LATE = 0.75
"""The share of a lease behind which a claim that is answered only then is renewed before its job starts."""

RENEW_AFTER = 0.25
"""The share of a lease after which a claim is renewed that waits to be started, and in which that is to be answered."""

BETWEEN = 0.005
"""Seconds between two claims at least, where the second one is made since a rate limit lets jobs start again."""

UNWRITTEN = 2
"""Attempts that run or whose ends are not written yet, at most, as a multiple of those that may run."""

SPARE = 256
"""Tasks kept at most for the next attempts: to wake one costs less than to start one."""


class Dispatcher:
    """Starts jobs while there is room for them.

    Attributes:
        closing: Set to claim nothing more.
        has_looked: Whether all that was due and ready at the start has been seen to.
        answers: How often what was claimed, or nothing, came to be known here.
        asked_early: Jobs that others may have asked to cancel while a claim was under way; None for any.
        jobs: The nursery that attempts run in; None while there is none.
    """

    def __init__(
        self,
        store: JobStore,
        runner: Runner,
        *,
        max_running: int,
        executors: Collection[str] | None,
        lease: float,
        is_paced: bool,
        adopt: Callable[[Claim, float], Attempt] | None,
    ) -> None:
        self.closing = False
        self.has_looked: bool = False
        self.answers: int = 0
        self.asked_early: set[str | None] = set()
        self.jobs: trio.Nursery | None = None
        self._store = store
        self._runner = runner
        self._max_running = max_running
        self._most_kept = UNWRITTEN * max_running
        self._most_claimed = (max_running + 1) // 2 if store.is_elsewhere else max_running
        self._executors = executors
        self._lease = lease
        self._is_paced = is_paced
        self._adopt = adopt
        self._unanswered: tuple[str, float, int, Limits | None] | None = None
        self._context = contextvars.copy_context()  # each attempt starts in a copy of it
        self._starting = 0  # tasks that have not come to claim a job yet
        self._spare: list[trio.lowlevel.Task] = []  # tasks that wait for another attempt
        self._given: dict[trio.lowlevel.Task, Attempt] = {}  # what those were woken for that have not come to run yet
        self._behind = 0  # claims that wait for an earlier run of their job to go
        self._rung = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._prefix = secrets.token_hex(8)
        self._claims = 0
        if not store.claims_at_once:
            runner.on_room = self.ring
        runner.on_grace = self._spawn
        runner.on_fall = self.stop

    # -- waking

    @trio.lowlevel.enable_ki_protection
    def ring(self) -> None:
        """Have the loop look again. Returns at once; ringing twice is ringing once."""
        self._rung = True
        if self._waiting:
            self._waiting.unpark()

    @trio.lowlevel.enable_ki_protection
    def work_ready(self) -> None:
        """See that what is ready is claimed: by new tasks where the store answers at once, else by the loop.

        A job is claimed when its task comes to run, not before: until then it is queued, and may be cancelled or
        overtaken as such.
        """
        if not self._store.claims_at_once:
            self.ring()
            return
        free = self._free()
        if free <= 0:
            return
        room = self._runner.room if free > 1 else None  # a single task sees by itself whether there is room for its job
        for _ in range(min(free, self._store.ready_nowait(room, free + self._starting) - self._starting)):
            self._starting += 1
            self._spawn(self._work, None)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Start attempts until cancelled.

        Cancellation: what was claimed is started or, where a claim's answer was lost, lapses with its lease.
        """
        while True:
            self._rung = False
            # Whoever rings while the store is away is not heeded: it may be that the failure did.
            due = await keep_trying(self._turn, never)
            assert due is not None
            if not self.has_looked:
                self.has_looked = True
                self._runner.look_again()
            if not self._rung:
                with trio.move_on_after(min(due, self._store.poll_interval)):
                    await self._waiting.park()

    async def _turn(self) -> float:
        """Do what is due, claim and start what there is room for; return the seconds until more is due."""
        due = await self._store.advance()
        if self._store.claims_at_once:
            self.work_ready()
            return due
        free, room = self._free(), self._runner.room
        if self._unanswered is not None or (free > 0 and room != {}):
            await self._claim(min(free, self._most_claimed), None if room is None else room.copy())
            if self._is_paced and not self._rung:
                due = min(due, max(await self._store.next_start(self._runner.room), BETWEEN))
        return due

    @property
    def is_claiming(self) -> bool:
        """Whether jobs may be held that are not known to run here.

        A call to claim some has not been answered yet, or one waits for an earlier run to go.
        """
        return self._unanswered is not None or self._behind > 0

    async def _claim(self, limit: int, room: Limits | None) -> None:
        """Claim and start; a call whose answer was lost is repeated as it was, so that what it claimed is found."""
        if self._unanswered is None:
            self._unanswered = (self._claim_id(), trio.current_time(), limit, room)
        claim_id, asked, limit, room = self._unanswered
        claims = await self._store.claim(claim_id, limit=limit, lease=self._lease, room=room, executors=self._executors)
        while claims and trio.current_time() > asked + LATE * self._lease:
            # These leases may be nearly over, or have just begun where only the last of several tries was carried out.
            # A renewal may be answered as late.
            asked = trio.current_time()
            claims = await self._renewed(claims)
        self._unanswered = None
        self.answers += 1
        if self.closing or not claims:
            self._runner.look_again()  # whoever closes or drains waits for this answer
        for claim in claims:
            before = self._runner.running.get(claim.entry.id)
            if before is None:
                self._start(self._prepare(claim, asked))
            else:
                before.stop(LOST, 0.0)  # the lease of an attempt that still runs here has lapsed unnoticed
                self._behind += 1
                self._runner.keep_room(before, claim.entry.plan.queue)
                self._spawn(self._start_after, claim, asked)
        self.asked_early.clear()
        if len(claims) == limit and self._free() > 0:
            self._rung = True  # there may be more

    async def _renewed(self, claims: Sequence[Claim]) -> list[Claim]:
        """Renew new claims before they are started; return those that hold their jobs."""
        held = []
        for claim, report in zip(claims, await self._store.renew(claims, self._lease), strict=True):
            if report.held:
                claim.entry.cancel = claim.entry.cancel or report.entry.cancel
                held.append(claim)
        return held

    @trio.lowlevel.enable_ki_protection
    async def _start_after(self, claim: Claim, asked: float) -> None:
        """Start a claimed job once an earlier run of it has gone; the claim is kept until then, however long."""
        try:
            # One behind the other: a run that takes long to go may have lost its job more than once.
            while (before := self._runner.running.get(claim.entry.id)) is not None:
                with trio.move_on_after(RENEW_AFTER * self._lease):
                    while self._runner.running.get(claim.entry.id) is before:
                        await self._runner.changes.park()
                now = trio.current_time()
                with suppress(StoreUnavailableError), trio.move_on_after(RENEW_AFTER * self._lease):
                    if not await self._renewed((claim,)):
                        return
                    asked = now
        except trio.Cancelled:  # all is torn down before it has begun
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HARD_EXIT):
                with suppress(StoreUnavailableError):
                    await self._store.release(claim, SHUTDOWN)
            raise
        finally:
            self._behind -= 1
            self._runner.free_room(claim.entry.plan.queue)
            self.answers += 1
            self._runner.look_again()  # whoever closes or drains waits for this as well
        await self._work(self._prepare(claim, asked))

    # -- claiming and starting

    def _free(self) -> int:
        if self.closing or self.jobs is None:
            return 0
        room = min(self._max_running - self._runner.occupied, self._most_kept - len(self._runner.running))
        return room - self._starting

    def _claim_id(self) -> str:
        self._claims += 1
        return f"{self._prefix}-{self._claims}"

    def _claim_one(self) -> Attempt | None:
        """Claim one job at once and return its attempt, if there is one and room for it."""
        if not self._store.ready_nowait(None, 1) or self._free() <= 0:
            return None
        claims = self._store.claim_nowait(self._claim_id(), limit=1, lease=self._lease, room=self._runner.room)
        return self._prepare(claims[0]) if claims else None

    def _prepare(self, claim: Claim, asked: float = 0.0) -> Attempt:
        attempt = self._runner.prepare(claim) if self._adopt is None else self._adopt(claim, asked)
        cancel = attempt.claim.entry.cancel
        if cancel is not None:  # accepted while the claim was under way
            attempt.stop(CANCELLED, cancel.grace)
        if self.closing:
            attempt.stop(SHUTDOWN, 0.0)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        """Have a task run an attempt: one that is there, or a new one."""
        if self._spare:
            task = self._spare.pop()
            self._given[task] = attempt
            trio.lowlevel.reschedule(task)
        else:
            self._spawn(self._work, attempt)

    def _spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        assert self.jobs is not None  # _free said so
        self._context.run(self.jobs.start_soon, function, *args)

    @trio.lowlevel.enable_ki_protection
    async def _work(self, attempt: Attempt | None) -> None:
        """Run one attempt after another: a task that ends starts the next, or waits to be given one.

        Without an attempt to begin with, it claims one. A task serves on only if nothing of its attempt can have stayed
        with it: see `_may_serve`.
        """
        references = 0  # to this task, while it was new
        if attempt is None:
            self._starting -= 1
            attempt = self._claim_one()
        while attempt is not None:
            try:
                await self._runner.run(attempt)
            except BaseException:
                self.stop()  # all is torn down
                raise
            references = references or attempt.references
            if not self._store.claims_at_once:
                if len(self._runner.running) + 1 >= self._most_kept:
                    self.ring()  # there was room to run, but too much to write
                if not self._may_serve(attempt, references):
                    return
                attempt = None  # it holds its job, and the wait may be long
                attempt = await self._next()
            elif self._may_serve(attempt, references):
                attempt = self._claim_one()
            else:
                self.work_ready()
                return

    @trio.lowlevel.enable_ki_protection
    def stop(self, grace: float = 0.0) -> None:
        """Start nothing any more, and stop all that runs, by a shutdown."""
        self.closing = True
        for attempt in tuple(self._runner.running.values()):
            attempt.stop(SHUTDOWN, grace)

    async def _next(self) -> Attempt | None:
        """Wait to be given another attempt; None where none will come."""
        if self.closing or len(self._spare) >= SPARE:
            return None
        task = trio.lowlevel.current_task()
        self._spare.append(task)

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._spare.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return self._given.pop(task, None)

    def dismiss(self) -> None:
        """Let the tasks go that wait for another attempt. None does any more once `closing` is set."""
        while self._spare:
            trio.lowlevel.reschedule(self._spare.pop())

    def _may_serve(self, attempt: Attempt, references: int) -> bool:
        """Whether the current task may run another attempt behind this one.

        It may not where the executor has let other tasks run, or somebody has noted the task: locks and limiters know
        their holders by it, and what an executor forgot to give back would be the next one's. Nor where there were more
        ``references`` to the task already than to a new one, as by an earlier attempt's context that somebody kept: to
        let go of it may have made up for what was noted. Nor where the context variables don't hold the very objects
        that they began with.
        """
        if attempt.has_used_task or attempt.references not in (0, references):
            return False
        now = contextvars.copy_context()  # it has all those: none can be unset that was set outside
        return not now or all(self._context.get(variable, now) is value for variable, value in now.items())
