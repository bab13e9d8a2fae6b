"""What the store checks work with: workers on a store, jobs to give them, and what the store told them.

It owns how a check opens stores, makes entries and waits for time to pass. It must not know any store.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import trio

from jobtrio._entry import JobEntry, Plan
from jobtrio._messages import Message, Token
from jobtrio._policies import JobPriority, RateLimit, Retention, RetryPolicy
from jobtrio._records import Cancelled, JobError
from jobtrio._state import JobState
from jobtrio._token_log import TokenLog
from jobtrio.abc import Claim, JobStore, StoreSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from jobtrio._records import JobRecord, Transition

E = TypeVar("E", bound=Exception)

OpenStore: TypeAlias = Callable[[], JobStore]
"""Returns another instance, not opened yet, at one and the same place, which is empty when a check begins."""

StoreCheck: TypeAlias = Callable[[OpenStore], Awaitable[None]]
"""Raises `AssertionError` if a store breaks the contract."""

LEASE = 60.0
"""Seconds of a lease, or of a delay, that is not over before a check is."""

SHORT = 0.3
"""Seconds of one that is to be over soon, though not before the next call or two, on a slow machine too."""

ERROR = JobError("exception", "ValueError", "it 'failed'\x00", "Traceback …\n  😀")
"""What an attempt failed with."""

POLICY = RetryPolicy(max_attempts=4, initial=0.5, multiplier=3, max_delay=7, jitter=0)
"""A policy in which nothing is as it is by default."""

_count = count(1)


class Heard:
    """A listener that notes what a store tells it.

    Attributes:
        changes: Each job's newest transition at each call of `changed`.
    """

    def __init__(self) -> None:
        self.changes: list[Transition] = []
        self._signals: dict[str, trio.Event] = {}

    def changed(self, entry: JobEntry) -> None:
        """Note a change."""
        self.changes.append(entry.last_transition())

    def work_ready(self) -> None:
        """Note the signal."""
        self._event("work_ready").set()

    def due_changed(self) -> None:
        """Note the signal."""
        self._event("due_changed").set()

    def messages_added(self, job_id: str | None) -> None:
        """Note nothing: it is a hint that may be lost."""

    def cancel_requested(self, job_id: str | None) -> None:
        """Note nothing: it is a hint that may be lost."""

    def forget(self) -> None:
        """Forget all signals so far."""
        self._signals.clear()

    async def wait_for(self, signal: str) -> None:
        """Wait for a signal since `forget`; raise `AssertionError` if it does not come within 5 seconds."""
        with trio.move_on_after(5):
            await self._event(signal).wait()
            return
        raise AssertionError(f"{signal} was not called")

    def of(self, job_id: str) -> list[Transition]:
        """Return what was heard of one job."""
        return [change for change in self.changes if change.job_id == job_id]

    def _event(self, signal: str) -> trio.Event:
        return self._signals.setdefault(signal, trio.Event())


@attrs.frozen(eq=False)
class Worker:
    """One process on a store, as the store sees it.

    Attributes:
        name: Its name in the history.
        store: Its instance of the store.
        heard: What the store told it.
    """

    name: str
    store: JobStore
    heard: Heard

    async def insert(self, *entries: JobEntry) -> list[JobEntry]:
        """Store jobs in a call of their own."""
        return await self.store.insert(entries, secrets.token_hex(8))

    async def claim(self, limit: int = 100, lease: float = LEASE, **options: Any) -> list[Claim]:
        """Claim in a call of its own."""
        return await self.store.claim(secrets.token_hex(8), limit=limit, lease=lease, **options)

    async def claim_one(self, lease: float = LEASE) -> Claim:
        """Claim the one job that is ready."""
        claims = await self.claim(lease=lease)
        assert len(claims) == 1, claims
        return claims[0]

    async def start(self, entry: JobEntry | None = None, *, lease: float = LEASE) -> Claim:
        """Store a job and claim it."""
        await self.insert(new_entry() if entry is None else entry)
        return await self.claim_one(lease)

    async def end(self, claim: Claim) -> None:
        """End a claimed job, whatever has become of it, so that it is not in the way."""
        await self.store.request_cancel(claim.entry.id, None, 0.0)
        await self.store.finish(claim, Cancelled())

    async def advance(self) -> float:
        """Have the store do all that has fallen due; return how long until more does.

        A store says 0 where it may not have seen all: there was much to do, or news came in between.
        """
        for _ in range(1000):
            if seconds := await self.store.advance():
                return seconds
        raise AssertionError("advance() has said 1000 times that there is more to do")

    async def pass_time(self, seconds: float = 2 * SHORT) -> float:
        """Let time pass and have the store do what has fallen due; return how long until more does."""
        await trio.sleep(seconds)
        return await self.advance()

    async def load(self, job_id: str) -> JobEntry:
        """Return a job that has to be there."""
        entry = await self.store.load(job_id)
        assert entry is not None, f"job {job_id!r} is not kept"
        return entry

    async def record(self, job_id: str) -> JobRecord:
        """Return the record of a job that has to be there."""
        return (await self.load(job_id)).record()

    async def history(self, job_id: str) -> list[Transition]:
        """Return the history of a job that has to be there."""
        history = await self.store.history(job_id)
        assert history is not None, f"job {job_id!r} is not kept"
        return history

    async def states(self, job_id: str) -> list[str]:
        """Return the states that a job went through."""
        return [str(line.state) for line in await self.history(job_id)]

    async def stream(self, job_id: str, after: int = 0, limit: int = 10_000) -> list[Message]:
        """Return the messages of a job that has to be there."""
        messages = await self.store.read_messages(job_id, after, limit)
        assert messages is not None, f"job {job_id!r} is not kept"
        return messages


@asynccontextmanager
async def open_workers(
    open_store: OpenStore,
    *names: str,
    retention: Retention | Sequence[Retention] | None = None,
    totals: Mapping[str, int] | None = None,
    max_queued: int = 100_000,
    rates: Mapping[str, RateLimit] | None = None,
) -> AsyncIterator[list[Worker]]:
    """Open one worker for each name; where the store is one object for all of them, so is the worker.

    ``retention`` is for all of them, or one for each; ``totals`` says how many jobs may run over all workers, by queue,
    ``rates`` how many may start in a time, and ``max_queued`` how many may wait for their first start.
    """
    given = retention or Retention()
    retentions = [given] * len(names) if isinstance(given, Retention) else given
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        for name, kept in zip(names, retentions, strict=True):
            store = open_store()
            known = next((worker for worker in workers if worker.store is store), None)
            if known is None:
                known = Worker(name, store, Heard())
                settings = attrs.evolve(
                    _settings(known, kept),
                    max_queued=max_queued,
                    max_running_total=totals or {},
                    rate_limits=rates or {},
                )
                await stack.enter_async_context(store.open(settings))
            workers.append(known)
        yield workers


@asynccontextmanager
async def open_worker(open_store: OpenStore, retention: Retention | None = None) -> AsyncIterator[Worker]:
    """Open a single worker."""
    async with open_workers(open_store, "worker", retention=retention) as (worker,):
        yield worker


def _settings(worker: Worker, retention: Retention) -> StoreSettings:
    return StoreSettings(worker.name, retention, 1, worker.heard, partial(TokenLog, retention.tokens_per_job))


def new_entry(
    executor: str | None = "work",
    payload: Any = None,
    *,
    job_id: str | None = None,
    queue: str = "default",
    priority: JobPriority = JobPriority.NORMAL,
    time_limit: float | None = None,
    retry: RetryPolicy | None = None,
    **fields: Any,
) -> JobEntry:
    """Return a new job; without an executor it is a held one. ``fields`` are those of `JobEntry`."""
    plan = new_plan(executor, queue, priority, time_limit, retry)
    if job_id is None:  # of no order, but it tells whoever reads a failure which of the check's jobs this is
        job_id = f"{secrets.token_hex(2)}-{next(_count)}"
    entry = JobEntry(job_id, plan, payload, time.time(), **fields)
    if entry.delay:
        entry.run_at = entry.created_at + entry.delay
        entry.state = JobState.SCHEDULED
    return entry


def new_plan(
    executor: str | None = "work",
    queue: str = "default",
    priority: JobPriority = JobPriority.NORMAL,
    time_limit: float | None = None,
    retry: RetryPolicy | None = None,
) -> Plan:
    """Return how a job is to be run."""
    return Plan(executor, None, queue, priority, time_limit, retry, "submitter")


def tokens(first: int, last: int, attempt: int = 1) -> list[Message]:
    """Return the messages ``first`` to ``last`` of a stream, as an attempt that sends its numbers would send them."""
    return [Token(seq, attempt, seq) for seq in range(first, last + 1)]


async def race(nth: int, *calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Make calls at the same time, begun in one order or the other, by turns; return their answers."""
    answers: list[Any] = [None] * len(calls)

    async def make(place: int, call: Callable[[], Awaitable[Any]]) -> None:
        answers[place] = await call()

    async with trio.open_nursery() as nursery:
        for place, call in [*enumerate(calls)][:: 1 if nth % 2 else -1]:
            nursery.start_soon(make, place, call)
    return answers


@contextmanager
def refused(kind: type[E]) -> Iterator[list[E]]:
    """Give a list of the one error that has to be raised in the block; raise `AssertionError` if it is not."""
    errors: list[E] = []
    try:
        yield errors
    except kind as exc:
        errors.append(exc)
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def ids(jobs: list[Any]) -> list[str]:
    """Return the ids of entries, records or claims."""
    return [job.entry.id if isinstance(job, Claim) else job.id for job in jobs]
