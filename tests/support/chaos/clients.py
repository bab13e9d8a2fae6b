"""Those who submit, watch and cancel, in this process, each through a way to the store of its own.

They note what they were answered. A store that is away is what they have to expect; any other error is not.
"""

from __future__ import annotations

import time
import traceback
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import trio

import jobtrio
from chaos.facts import Cancellation, Change, Submission, Watch, number
from chaos.jobs import executors
from chaos.plan import JobPlan
from chaos.rig import make_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chaos.facts import Facts, Wish

KEEP_ALL: Final = jobtrio.Retention(finished_jobs=1_000_000)
AGAIN_AFTER: Final = 0.2
"""Seconds from a call that was not answered to the next."""

SHORTEST_PAUSE: Final = 0.1
"""Seconds for which a queue is paused for a time at least, and by which one waits longer for the end of that."""

NAMES: Final = ("submitter", "watcher")


class Clients:
    """All clients of one run.

    Attributes:
        submitter: Submits, and cancels half of what is cancelled.
        watcher: Watches, and cancels the other half.
    """

    def __init__(self, facts: Facts, submitter: jobtrio.JobRegistry, watcher: jobtrio.JobRegistry) -> None:
        self.submitter = submitter
        self.watcher = watcher
        self._facts = facts

    async def submit_all(self, watchers: trio.Nursery) -> None:
        """Submit all jobs in their time; those who watch and cancel them go on in ``watchers``."""
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for plan in self._facts.plan.jobs:
                await trio.sleep_until(started + plan.at)
                nursery.start_soon(self._guard, self._submit, plan, watchers)

    async def _submit(self, plan: JobPlan, watchers: trio.Nursery) -> None:
        submission = self._facts.submissions[plan.job_id] = Submission(plan)
        while not await self._try_to_submit(submission) and "key" in plan.options:  # noqa: ASYNC110 - the store
            await trio.sleep(AGAIN_AFTER)
        accepted = submission.answer == "accepted"
        if plan.cancel_after is not None:
            canceller = self.watcher if len(plan.watched_after) % 2 else self.submitter
            watchers.start_soon(self._guard, self._cancel, canceller, plan, accepted)
        if accepted:
            for delay in plan.watched_after:
                watchers.start_soon(self._guard, self._watch, plan, delay)
            for n, (delay, priority) in enumerate(plan.priorities):
                registry = self.watcher if n % 2 else self.submitter
                watchers.start_soon(self._guard, self._prioritize, registry, plan, delay, priority)

    async def _guard(self, what: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Note an error that nobody has to expect, and go on."""
        try:
            await what(*args)
        except Exception:
            job_id = next((arg.job_id for arg in args if isinstance(arg, JobPlan)), None)
            self._facts.complaints.append((job_id, f"{what.__name__} raised\n{traceback.format_exc()}"))

    async def _try_to_submit(self, submission: Submission) -> bool:
        plan = submission.plan
        began = time.time()
        try:
            job = await self.submitter.submit("work", plan.payload, job_id=plan.job_id, **plan.options)
        except jobtrio.StoreUnavailableError:
            return False
        finally:
            submission.tries.append((began, time.time() - began))
        submission.answer, submission.stored_id = "accepted", job.id
        return True

    async def _cancel(self, registry: jobtrio.JobRegistry, plan: JobPlan, accepted: bool) -> None:
        """Ask to cancel until there is an answer, or once where the job may not be there."""
        assert plan.cancel_after is not None  # asked for
        await trio.sleep(plan.cancel_after)
        while not await self.try_to_cancel(registry, plan.job_id) and accepted:  # noqa: ASYNC110 - the store
            await trio.sleep(AGAIN_AFTER)

    async def try_to_cancel(self, registry: jobtrio.JobRegistry, job_id: str) -> bool:
        """Ask to cancel once; tell whether there was an answer."""
        asked, accepted, known = time.time(), None, True
        try:
            accepted = await registry.cancel(job_id, "asked")
        except jobtrio.StoreUnavailableError:
            return False
        except jobtrio.UnknownJobError:
            known = False
        finally:
            self._facts.cancellations.append(Cancellation(job_id, asked, time.time(), accepted, known))
        return True

    async def _prioritize(
        self, registry: jobtrio.JobRegistry, plan: JobPlan, delay: float, priority: jobtrio.JobPriority
    ) -> None:
        await trio.sleep(delay)
        await self._change(registry, plan.job_id, priority)

    async def pause_all(self) -> None:
        """Pause all queues that are to be, in their time, until none is paused any more."""
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for queue, times in self._facts.plan.pauses.items():
                nursery.start_soon(self._guard, self._pause, queue, [started + at for at in times])

    async def _pause(self, queue: str, times: list[float]) -> None:
        answered = True
        for n, (begin, end) in enumerate(zip(times[::2], times[1::2], strict=True)):
            await trio.sleep_until(begin)
            registry, is_for_a_time = (self.watcher, True) if n % 2 else (self.submitter, False)
            lasts = max(end - trio.current_time(), SHORTEST_PAUSE) if is_for_a_time else inf
            answered &= await self._change(registry, queue, "pause", lasts)
            await trio.sleep_until(end + SHORTEST_PAUSE if is_for_a_time else end)
            if not is_for_a_time:
                answered &= await self._change(registry, queue, "resume")
        while not (answered or await self._change(self.submitter, queue, "resume")):  # noqa: ASYNC110 - the store
            await trio.sleep(AGAIN_AFTER)

    async def _change(self, registry: jobtrio.JobRegistry, subject: str, wish: Wish, lasts: float = inf) -> bool:
        """Ask for a change once, of a pause one that lasts so many seconds; tell whether there was an answer."""
        change = getattr(registry, wish) if isinstance(wish, str) else partial(registry.set_priority, priority=wish)
        if wish == "pause":
            change = partial(change, seconds=lasts)
        asked, accepted = time.time(), None
        try:
            accepted = await change(subject) is not False
        except jobtrio.StoreUnavailableError:
            return False
        finally:
            self._facts.changes.append(Change(subject, wish, asked, time.time(), accepted, lasts))
        return True

    async def _watch(self, plan: JobPlan, delay: float) -> None:
        """Watch a job to its end, leaving and coming back once."""
        watch = Watch(plan.job_id)
        self._facts.watches.append(watch)
        await trio.sleep(delay)
        job = None
        while job is None:
            try:
                job = await self.watcher.get(plan.job_id)
            except jobtrio.StoreUnavailableError:
                await trio.sleep(AGAIN_AFTER)
        while not watch.messages:
            try:
                with job.subscribe() as messages:
                    while len(watch.messages) < plan.leaves_after and not watch.ended:
                        await _receive(watch, messages)
            except jobtrio.StoreUnavailableError:
                pass  # nothing was read yet
        if not watch.ended:
            with job.subscribe(after=number(watch.messages[-1])) as messages:
                while not watch.ended:
                    await _receive(watch, messages)


async def _receive(watch: Watch, messages: jobtrio.Subscription) -> None:
    try:
        watch.messages.append(await messages.receive())
    except trio.EndOfChannel:
        watch.ended = True


@asynccontextmanager
async def open_clients(facts: Facts, ways: dict[str, str]) -> AsyncIterator[Clients]:
    """Give the clients, each with the URL that is its way to the store."""
    async with AsyncExitStack() as stack:
        yield Clients(facts, *[await _open(stack, name, ways[name]) for name in NAMES])


async def _open(stack: AsyncExitStack, name: str, url: str) -> jobtrio.JobRegistry:
    """Open a client's registry, however long a busy machine takes for that."""
    while True:
        registry = jobtrio.open_registry(executors, store=make_store(url), queues={}, retention=KEEP_ALL, worker=name)
        try:
            return await stack.enter_async_context(registry)
        except jobtrio.StoreUnavailableError:
            await trio.sleep(AGAIN_AFTER)
