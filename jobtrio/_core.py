"""What a registry is made of, put together: store, dispatcher, runner, leases, tails, events.

It owns the order in which the parts start and stop, and the publishing of changes. It must not check user input
(`_registry` and `_submission` do), nor know one store from another.
"""

from __future__ import annotations

import secrets
import weakref
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from jobtrio._checks import check_id, check_seconds, check_text
from jobtrio._dispatcher import Dispatcher
from jobtrio._entry import JobEntry
from jobtrio._errors import StoreUnavailableError, UnknownJobError
from jobtrio._events import Events
from jobtrio._leases import Leases
from jobtrio._outage import try_for
from jobtrio._ringer import Ringer
from jobtrio._runner import HARD_EXIT, Runner
from jobtrio._settlement import CANCELLED, SHUTDOWN
from jobtrio._submission import Submissions
from jobtrio._tail import Tails
from jobtrio._token_log import TokenLog
from jobtrio.abc import Claim, JobQuery, JobStore, StoreSettings
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from jobtrio._attempt import Attempt
    from jobtrio._entry import Plan
    from jobtrio._policies import Retention
    from jobtrio._records import JobRecord, Transition
    from jobtrio._state import JobState
    from jobtrio.executors import Executors

T = TypeVar("T")

YIELD_EVERY = 32
"""Calls of a registry between two full checkpoints, where the store does not wait."""


@attrs.frozen
class RegistryStats:
    """Counts of a registry's jobs at one moment.

    Attributes:
        worker: This process's name.
        states: How many kept jobs are in each state, as far as this process knows.
        running: How many jobs run in this process.
        max_running: How many may.
        running_by_queue: How many run in this process, by queue.
    """

    worker: str
    states: dict[JobState, int]
    running: int
    max_running: int
    running_by_queue: dict[str, int]


class RegistryCore:
    """The inside of one registry; also the store's listener and the handles' owner."""

    def __init__(
        self,
        executors: Executors | None,
        store: JobStore | None,
        *,
        max_running: int,
        queues: Mapping[str, int] | None,
        max_queued: int,
        retention: Retention,
        lease: float,
        worker: str,
    ) -> None:
        self.store: JobStore = MemoryJobStore() if store is None else store
        durable = self.store.durable
        self.settings: StoreSettings = StoreSettings(worker, retention, max_queued, self, self._new_log)
        self._ringer = Ringer()
        self.submissions: Submissions = Submissions(
            executors,
            limiter=trio.CapacityLimiter(max_running),
            queues=queues,
            durable=durable,
            worker=worker,
        )
        self.events: Events = Events()
        self._max_running = max_running
        self._queues = queues
        self._adopted: weakref.WeakValueDictionary[str, JobEntry] = weakref.WeakValueDictionary()
        self._changes = trio.lowlevel.ParkingLot()
        self._closed = False
        self._calls = 0
        self._waits = durable  # whether a call to the store may take its time
        self._stop = trio.Event()
        self.serving: trio.Event = trio.Event()
        self._served = trio.Event()
        self._tails = Tails(self.store, self._feeds, _refresh)
        self._runner = Runner(
            self.store,
            resolve=self.submissions.function_of,
            retry_on=self.submissions.retry_on,
            open_log=self._log_of,
            catch_up=self._tails.catch_up,
            let_go=self._let_go,
        )
        self._leases = Leases(self.store, self._runner, lease)
        self._dispatcher = Dispatcher(
            self.store,
            self._runner,
            max_running=max_running,
            queues=queues,
            executors=self.submissions.executors if durable else None,
            lease=lease if durable else inf,
            adopt=self._adopt if durable else None,
            wait_gone=self._wait_gone,
            on_gone=self._look_again,
        )

    # -- life

    async def serve(self) -> None:
        """Run the parts until `close`. Jobs end before the services that they use."""
        try:
            # Bounded by close(): the jobs of a cancelled program are stopped by it, in order, not all at once.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as services:
                    self._tails.nursery = self._runner.services = services
                    services.start_soon(self._prune)
                    services.start_soon(self._ringer.run)
                    if self.store.durable:
                        services.start_soon(self._leases.run)
                    async with trio.open_nursery() as jobs:
                        self._dispatcher.jobs = jobs
                        jobs.start_soon(self._dispatch)
                        self.serving.set()
                    services.cancel_scope.cancel()
        finally:
            self._tails.nursery = self._dispatcher.jobs = None
            self._served.set()
            self._look_again()  # attempts that an exit has torn down are gone without a word

    async def _dispatch(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dispatcher.run)
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def wait_done(self) -> None:
        """Wait for what this process runs and, where nothing outlives it, for all that will run."""
        await self._wait_idle(scheduled=True, others=not self.store.durable)

    async def drain(self) -> None:
        """Wait until nothing is queued, waiting to retry, or running here."""
        if self._is_inside_job():
            raise RuntimeError("a job that waits for drain() waits for itself: call it from outside the jobs")
        await trio.lowlevel.checkpoint()
        await self._wait_idle(scheduled=False, others=True)

    def _is_inside_job(self) -> bool:
        nursery = trio.lowlevel.current_task().parent_nursery
        while nursery is not None and nursery is not self._dispatcher.jobs:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    async def _wait_idle(self, *, scheduled: bool, others: bool) -> None:
        while not self._served.is_set():
            if not self._runner.running:
                if not others or self._closed:  # once it is shut down, nothing that waits is started here
                    return
                backlog = await try_for(self.store.outage_limit, lambda: self.store.backlog(self._queues))
                waiting = backlog.queued + backlog.retrying + (backlog.scheduled if scheduled else 0)
                if not waiting and not self._runner.running:
                    return
            with trio.move_on_after(self.store.poll_interval):
                await self._changes.park()

    async def shutdown(self, grace: float) -> None:
        """Stop claiming, stop what runs, and wait until it is gone."""
        self._closed = True
        self._dispatcher.closing = True
        for attempt in list(self._runner.running.values()):
            attempt.stop(SHUTDOWN, grace)
        if self._dispatcher.is_claiming:
            with trio.move_on_after(HARD_EXIT):  # what is claimed meanwhile is given back rather than left to lapse
                while self._dispatcher.is_claiming:
                    await self._changes.park()
        while self._runner.running:
            await self._changes.park()
        await self.store.abandon(SHUTDOWN)

    async def close(self) -> None:
        """End everything, in order: the jobs, then the services, then the subscriptions."""
        await self.shutdown(0.0)
        self._stop.set()
        await self._served.wait()
        self.events.close()
        for entry in list(self._adopted.values()):
            if entry.log is not None:
                entry.log.cut_off("the registry was closed before the job ended")

    async def _prune(self) -> None:
        while True:
            try:
                pause = await self.store.prune()
            except StoreUnavailableError:
                pause = self.store.poll_interval
            if pause == inf:
                await self._changes.park()
            else:
                await trio.sleep(pause)

    # -- what the store tells

    def changed(self, entry: JobEntry) -> None:
        """Tell everybody of a job's newest change."""
        if self._waits:
            entry = self._know(entry)
        if entry.outcome is not None:
            if self._waits and not self._is_written_here(entry):
                self._tails.look(entry.id)  # the copy here may lag: it is brought up to the End that is stored
            elif entry.log is not None:
                entry.log.finish(entry.outcome)
            self._look_again()
        if self.events.log is not None:
            self.events.publish(entry.last_transition())

    def _look_again(self) -> None:
        """Let those look again who wait for something to be over."""
        if self._changes:
            self._changes.unpark_all()

    def work_ready(self) -> None:
        """Have the dispatcher start what is ready."""
        self._dispatcher.work_ready()

    def due_changed(self) -> None:
        """Have the dispatcher look when the next due time is."""
        self._dispatcher.ring()

    def messages_added(self, job_id: str) -> None:
        """Have the job's tail look."""
        self._tails.look(job_id)

    def cancel_requested(self, job_id: str) -> None:
        """Have the leases look, where another process has asked."""
        if self._waits and job_id in self._runner.running:
            self._leases.look()

    def _new_log(self) -> TokenLog:
        return TokenLog(self.settings.retention.tokens_per_job, ringer=self._ringer)

    def open_log(self, entry: JobEntry) -> TokenLog:
        """Return a job's log in this process for a reader, brought up to what is stored from now on."""
        log = self._log_of(entry)
        if self._waits and log.end is None:
            self._tails.follow(entry)
        return log

    def _log_of(self, entry: JobEntry) -> TokenLog:
        log = entry.log
        if log is None:
            log = entry.log = self._new_log()
            if entry.outcome is not None and not self._waits:
                log.finish(entry.outcome)
        return log

    def _feeds(self, job_id: str, log: TokenLog) -> bool:
        """Whether an attempt in this process writes to this log of this job."""
        attempt = self._runner.running.get(job_id)
        return attempt is not None and attempt.claim.entry.log is log

    def _is_written_here(self, entry: JobEntry) -> bool:
        """Whether the end of a job is being written by an attempt in this process."""
        attempt = self._runner.running.get(entry.id)
        return attempt is not None and attempt.over

    def _let_go(self, entry: JobEntry) -> None:
        """Part with the local stream of a job that was lost: others go on with other messages of the same numbers."""
        log, entry.log = entry.log, None
        if log is not None:
            log.cut_off("this process lost the job, whose stream goes on elsewhere: subscribe again")

    async def _wait_gone(self, attempt: Attempt) -> None:
        while self._runner.running.get(attempt.claim.entry.id) is attempt:
            await self._changes.park()

    def _adopt(self, claim: Claim, asked: float) -> Claim:
        """Note a claim asked for at ``asked``; where the job is known here, let the known entry stand for it."""
        known = self._know(claim.entry)
        if known is not claim.entry:
            claim = Claim(known, claim.id, claim.attempt)
        self._leases.started(claim, asked)
        return claim

    def _know(self, entry: JobEntry) -> JobEntry:
        """Return the entry that stands for a job in this process, brought to what ``entry`` says."""
        known = self._adopted.setdefault(entry.id, entry)
        if known is not entry:
            _refresh(known, entry)
        return known

    # -- calls

    async def _give_way(self) -> None:
        """Heed cancellation, and let other tasks run once in a while.

        A full checkpoint at every call would put a turn of the scheduler between a job and its start, and would be most
        of a call's price. Nothing has been done yet when this raises.
        """
        self._calls += 1
        if self._calls % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def insert(self, entries: Sequence[JobEntry]) -> list[JobEntry]:
        """Store new jobs, all or none."""
        await self._give_way()
        if self._closed:
            raise trio.ClosedResourceError("the registry is shut down: it accepts no more jobs")
        submission = (entries[0].submission if entries else "") or secrets.token_hex(16)
        if self._waits:
            kept = await self._ask(partial(self.store.insert, entries, submission))
            kept = [self._know(entry) for entry in kept]
        else:
            kept = await self.store.insert(entries, submission)
        return kept

    async def load(self, job_id: str) -> JobEntry:
        """Return a job, or raise `UnknownJobError`."""
        check_id("job_id", job_id)
        await self._give_way()
        entry = await self._ask(partial(self.store.load, job_id))
        if entry is None:
            raise UnknownJobError(job_id)
        return self._know(entry) if self._waits else entry

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs' records."""
        await self._give_way()
        return await self._ask(partial(self.store.find, query))

    async def history(self, job_id: str) -> list[Transition]:
        """Return a job's history, or raise `UnknownJobError`."""
        check_id("job_id", job_id)
        await self._give_way()
        history = await self._ask(partial(self.store.history, job_id))
        if history is None:
            raise UnknownJobError(job_id)
        return history

    async def start_held(self, entry: JobEntry, plan: Plan) -> None:
        """Let a held job run, unless somebody else did."""
        if await self._ask(partial(self.store.start_held, entry.id, plan)) and entry.plan is not plan:
            entry.plan = plan

    async def cancel(self, job_id: str, reason: str | None = None, *, grace: float = 0.0) -> bool:
        """Ask to cancel a job; see `JobRegistry.cancel`."""
        check_id("job_id", job_id)
        check_text("reason", reason)
        check_seconds("grace", grace)
        await self._give_way()
        running = self._runner.running.get(job_id)
        if running is not None and not running.may_be_cancelled():
            return False
        if self._waits:
            reply = await self._ask(partial(self.store.request_cancel, job_id, reason, grace))
        else:
            reply = await self.store.request_cancel(job_id, reason, grace)
        if reply is None:
            raise UnknownJobError(job_id)
        if reply.accepted:
            entry = self._know(reply.entry) if self._waits else reply.entry
            running = self._runner.running.get(job_id)  # another attempt may have begun meanwhile
            if running is not None and entry.outcome is None:
                running.stop(CANCELLED, grace)
        return reply.accepted

    async def remove(self, job_id: str) -> None:
        """Forget an ended job."""
        check_id("job_id", job_id)
        await self._give_way()
        if not await self._ask(partial(self.store.delete, job_id)):
            raise UnknownJobError(job_id)

    def peek(self, job_id: str) -> JobEntry | None:
        """Return a job that this process holds, or None."""
        return self.store.peek(job_id) or self._adopted.get(job_id)

    def __len__(self) -> int:
        return len(self.store) + len(self._adopted)

    def stats(self) -> RegistryStats:
        """Return this process's counts."""
        return RegistryStats(
            worker=self.settings.worker,
            states=self.store.tally(),
            running=len(self._runner.running),
            max_running=self._max_running,
            running_by_queue=dict(self._runner.by_queue),
        )

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        return await (try_for(self.store.outage_limit, call) if self._waits else call())


def _refresh(known: JobEntry, fresh: JobEntry) -> None:
    """Bring an entry to what another one of the same job says, unless that is older.

    Answers may overtake each other, and a request to cancel that was accepted is never taken back.
    """
    if fresh is known or len(fresh.steps or ()) < len(known.steps or ()):
        return
    plan, cancel = known.plan, known.cancel
    for name in _SHARED:
        setattr(known, name, getattr(fresh, name))
    if known.plan.function is None and plan.executor == known.plan.executor:
        known.plan = plan
    if known.cancel is None:
        known.cancel = cancel


_SHARED = tuple(field.name for field in attrs.fields(JobEntry) if field.name != "log")
