"""What a registry asks of its store on behalf of its users.

It owns how a call heeds cancellation, how long it waits for a store that is away, and what an unknown job means. It
must not know how jobs come to run.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from jobtrio._checks import check_id, check_seconds, check_text, other_run
from jobtrio._entry import CancelRequest
from jobtrio._errors import UnknownJobError
from jobtrio._known import KnownEntries
from jobtrio._outage import keep_trying, never, try_for
from jobtrio._policies import check_priority
from jobtrio._settlement import CANCELLED
from jobtrio._state import WAITING_STATES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jobtrio._attempt import Attempt
    from jobtrio._entry import JobEntry, Plan
    from jobtrio._policies import JobPriority
    from jobtrio._runner import Runner
    from jobtrio.abc import CancelReply, JobStore

T = TypeVar("T")

SKEW = 60.0
"""Seconds that the clocks of two machines may differ by."""

YIELD_EVERY = 32
"""Calls of a registry between two full checkpoints, where the store does not wait."""


class RegistryCalls:
    """The calls of one registry.

    Attributes:
        store: The store.
    """

    _runner: Runner

    def __init__(self, store: JobStore) -> None:
        self.store: JobStore = store
        self._run = trio.lowlevel.current_trio_token()
        self._thread = get_ident()
        self._known = KnownEntries()
        self._durable = store.durable  # and a call to it may take its time
        self._closed = False  # nothing more is accepted
        self._served: trio.Event = trio.Event()  # all is over, and the store is about to be closed
        self._calls = 0

    def check_run(self, call: str, instead: str, by: str = "run_sync") -> None:
        """Raise `RuntimeError` where this is not the run of Trio, and so not the thread, that the registry belongs to.

        Args:
            call: What is called.
            instead: What another thread has to give to `trio.from_thread`.
            by: By which of its functions.
        """
        is_there = trio.lowlevel.in_trio_run() if by == "run_sync" else trio.lowlevel.in_trio_task()
        if not is_there or trio.lowlevel.current_trio_token() is not self._run:
            raise other_run(f"{call} must be called", instead, by)

    def check_awaited(self, call: str, instead: str) -> None:
        """Raise `RuntimeError` where a call is awaited in another run of Trio: none can wake the tasks of another.

        Or in no task of Trio's at all, as by the host of a guest run. Once all is over, nothing is waited for.
        """
        if not self._served.is_set():
            self.check_run(call, instead, by="run")

    async def _give_way(self) -> None:
        """Heed cancellation, and let other tasks run once in a while.

        A full checkpoint at every call would put a turn of the scheduler between a job and its start, and would be most
        of a call's price. Nothing has been done yet when this raises.
        """
        if get_ident() != self._thread:  # a run of Trio stays in its thread, and has it alone
            self.check_awaited("a registry's method", "registry.submit, executor")
        self._calls += 1
        if self._calls % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def insert(self, entries: Sequence[JobEntry]) -> list[JobEntry]:
        """Store new jobs, all or none."""
        await self._give_way()
        if self._closed:
            self._runner.refuse()
            raise trio.ClosedResourceError("the registry is shut down: it accepts no more jobs")
        submission = (entries[0].submission if entries else "") or secrets.token_hex(16)
        if not self._durable:
            return await self.store.insert(entries, submission)
        kept = await self._ask(partial(self.store.insert, entries, submission))
        return [self._known.entry_of(entry) for entry in kept]

    async def load(self, job_id: str) -> JobEntry:
        """Return a job, or raise `UnknownJobError`."""
        entry = await self.ask_of(job_id, self.store.load)
        return self._known.entry_of(entry) if self._durable else entry

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the store answers to a user's call."""
        await self._give_way()
        return await self._ask(call)

    async def ask_of(self, job_id: str, call: Callable[[str], Awaitable[T | None]]) -> T:
        """Return what the store answers to a user's call for a job, or raise `UnknownJobError`."""
        job_id = check_id("job_id", job_id)
        answer = await self.ask(partial(call, job_id))
        if answer is None:
            raise UnknownJobError(job_id)
        return answer

    @trio.lowlevel.enable_ki_protection
    async def start_held(self, entry: JobEntry, plan: Plan) -> None:
        """Let a held job run, unless somebody else did."""
        self._check_open()
        plan = attrs.evolve(plan, worker=entry.plan.worker)  # who submitted it remains so
        if await self._ask(partial(self.store.start_held, entry.id, plan)):
            entry.plan = plan.with_priority(entry.plan.priority)
        elif self._durable and (kept := await self._ask(partial(self.store.load, entry.id))) is not None:
            self._known.entry_of(kept)  # somebody else did; or this call, whose first reply was lost

    @trio.lowlevel.enable_ki_protection
    async def cancel(
        self, job_id: str, reason: str | None = None, *, grace: float = 0.0, entry: JobEntry | None = None
    ) -> bool:
        """Ask to cancel a job; see `JobRegistry.cancel`.

        Where its entry is given, no other job is asked to that may have its id by now.
        """
        job_id = check_id("job_id", job_id)
        reason = check_text("reason", reason)
        grace = check_seconds("grace", grace)
        await self._give_way()
        if entry is not None and await self._is_over(entry):
            return False
        running = self._runner.running.get(job_id)
        if running is not None and not running.may_be_cancelled() and self._runs(running, entry, job_id):
            if self._durable and running.if_lost is None:
                request = CancelRequest(time.time(), reason, grace)
                running.if_lost = partial(self._cancel_lost, running.claim.entry, request)
            return False
        if self._durable:
            asked_at = time.time()
            reply, is_repeated = await self._ask_noting(partial(self.store.request_cancel, job_id, reason, grace))
            if reply is not None and is_repeated and _has_ended_so(reply.entry, reason, asked_at):
                reply.accepted = True
        else:
            self._check_may_change(job_id)
            reply = await self.store.request_cancel(job_id, reason, grace)
        if reply is None:
            raise UnknownJobError(job_id)
        self._heed(reply, grace)
        return reply.accepted

    @trio.lowlevel.enable_ki_protection
    async def set_priority(self, job_id: str, priority: JobPriority, *, entry: JobEntry | None = None) -> bool:
        """Give a job that waits another priority; see `JobRegistry.set_priority`.

        Where its entry is given, no other job is changed that may have its id by now.
        """
        job_id = check_id("job_id", job_id)
        priority = check_priority(priority)
        await self._give_way()
        if entry is not None and await self._is_over(entry):
            return False
        if not self._durable:
            self._check_may_change(job_id)
        asked_at = time.time()
        kept, is_repeated = await self._ask_noting(partial(self.store.set_priority, job_id, priority))
        if kept is None:
            raise UnknownJobError(job_id)
        if self._durable:
            self._known.entry_of(kept)
        return kept.state in WAITING_STATES or (is_repeated and _has_waited_so(kept, priority, asked_at))

    async def _is_over(self, entry: JobEntry) -> bool:
        """Whether a job has ended, as far as can be told: also where another one has its id by now."""
        if entry.outcome is not None:
            return True
        if not self._may_be_gone(entry):
            return False
        found = await self._ask(partial(self.store.look, entry.id))
        if found is None:
            raise UnknownJobError(entry.id)
        return found.order != entry.order

    def _check_may_change(self, job_id: str) -> None:
        """Raise `trio.ClosedResourceError` where a job lives in memory that is another registry's by now."""
        kept = self.store.peek(job_id) if self._served.is_set() else None
        if kept is not None and not kept.state.is_final:
            self._check_open()

    def _may_be_gone(self, entry: JobEntry) -> bool:
        """Whether a job may have ended without a word to this process, and another one have its id by now."""
        running = self._runner.running.get(entry.id)
        return self._durable and (running is None or running.claim.entry is not entry)

    def _runs(self, attempt: Attempt, entry: JobEntry | None, job_id: str) -> bool:
        """Whether an attempt is of this job, not of an earlier one of the same id whose end is still being written."""
        asked = entry or self._known.get(job_id)
        return asked is None or attempt.claim.entry is asked

    def _heed(self, reply: CancelReply, grace: float) -> None:
        """Stop what runs here of a job that its store has asked to end."""
        if reply.accepted:
            asked = self._known.entry_of(reply.entry) if self._durable else reply.entry
            running = self._runner.running.get(asked.id)  # another attempt may have begun meanwhile
            if running is not None and asked.outcome is None:
                running.stop(CANCELLED, grace)

    def _cancel_lost(self, entry: JobEntry, request: CancelRequest) -> None:
        """Cancel a job that was asked to when its ending was decided, and goes on: that was not written in time."""
        entry.cancel = entry.cancel or request  # should it come to run here before the store has answered
        if self._runner.services is not None:
            self._runner.services.start_soon(self._ask_again, entry, request)

    @trio.lowlevel.enable_ki_protection
    async def _ask_again(self, entry: JobEntry, request: CancelRequest) -> None:
        """Make a request to cancel, however long that takes. Cancellation: it may have been made."""
        ask = partial(self.cancel, entry.id, request.reason, grace=request.grace, entry=entry)
        with suppress(UnknownJobError):  # its end was written all the same
            await keep_trying(ask, never)

    async def pause(self, queue: str, seconds: float) -> None:
        """Have no more jobs of a queue started, for some seconds at least from now, however late the store answers."""
        ends_at = trio.current_time() + seconds
        await self._give_way()
        self._check_open()
        await self._ask(lambda: self.store.pause(queue, max(ends_at - trio.current_time(), 0.0)))

    async def resume(self, queue: str) -> None:
        """Have jobs of a queue started again."""
        await self._give_way()
        self._check_open()
        await self._ask(partial(self.store.resume, queue))

    async def remove(self, job_id: str) -> None:
        """Forget an ended job."""
        await self._give_way()
        deleted, is_repeated = await self._ask_noting(partial(self.store.delete, job_id))
        if not (deleted or is_repeated):
            raise UnknownJobError(job_id)

    def _ask(self, call: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        if not self._durable:
            return call()  # what it keeps can be read as long as anybody has the registry
        return try_for(self.store.outage_limit, call, in_time=self.store.in_time, check=self._check_open)

    def _check_open(self) -> None:
        """Raise `trio.ClosedResourceError` where all is over: what lives in the store by then is another registry's."""
        if self._served.is_set():
            raise trio.ClosedResourceError("the registry is closed")

    async def _ask_noting(self, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Ask as `_ask` does; also tell whether an earlier try, whose reply was lost, may have been carried out."""
        tries = 0

        async def ask() -> T:
            nonlocal tries
            tries += 1
            return await call()

        answer = await self._ask(ask)
        return answer, tries > 1


def _has_waited_so(entry: JobEntry, priority: JobPriority, asked_at: float) -> bool:
    """Whether a job that has this priority, and waits no more, still did when that was asked for."""
    return entry.plan.priority is priority and any(
        change.previous in WAITING_STATES and change.at.timestamp() >= asked_at for change in entry.history()
    )


def _has_ended_so(entry: JobEntry, reason: str | None, asked_at: float) -> bool:
    """Whether a job that has ended did so by such a request to cancel as was made about then."""
    cancel = entry.cancel
    return cancel is not None and cancel.reason == reason and cancel.at >= asked_at - SKEW
