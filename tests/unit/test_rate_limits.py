"""Limits on how many jobs of a queue start in a time: when they start, whoever starts them, and what makes no sense."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections import Counter
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
import trio
from other_clocks import run_by_other_clocks
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Executors, JobContext, JobPriority, JobSpec, RateLimit, RetryPolicy
from jobtrio._policies import RateLimits
from jobtrio.stores._pace import first_wait
from jobtrio.stores._starts import Starts
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from jobtrio.abc import JobStore

STORES: list[Callable[[], JobStore]] = [MemoryJobStore, lambda: RemoteStore(Server(), latency=0.001)]

stores = pytest.mark.parametrize("make_store", STORES, ids=["memory", "remote"])


class Starter:
    """Notes when jobs start.

    Attributes:
        starts: The queue and the moment of each start.
    """

    def __init__(self) -> None:
        self.starts: list[tuple[str, float]] = []
        self.executors = Executors()
        self.executors.register("work")(self._work)
        self.executors.register("fail", retry=RetryPolicy(max_attempts=4, initial=0, jitter=0))(self._fail)

    async def _work(self, job: JobContext) -> None:
        self.starts.append((job.queue, trio.current_time()))
        await trio.sleep(job.payload or 0)

    async def _fail(self, job: JobContext) -> None:
        self.starts.append((job.queue, trio.current_time()))
        raise ValueError("no")

    def times(self, queue: str = "default") -> list[Any]:
        """Return when jobs of a queue started, as seconds behind the first start of all."""
        first = self.starts[0][1]
        return [pytest.approx(at - first, abs=0.05) for name, at in self.starts if name == queue]


@stores
async def test_even_intervals(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """Jobs of a limited queue start one interval apart; those of others, and all that is done with them, go on."""
    starter = Starter()
    limits = {"slow": RateLimit(6, per=60)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        await registry.submit_many([JobSpec("work", 100, queue="slow")] * 4 + [JobSpec("work")] * 3)
        await registry.drain()
    assert starter.times("slow") == [0, 10, 20, 30]
    assert starter.times() == [0, 0, 0]


@stores
async def test_a_burst(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """Behind a pause as many start at once as ``burst`` says, and then one at each interval."""
    starter = Starter()
    limits = {"default": RateLimit(6, per=60, burst=3)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        await registry.submit_many([JobSpec("work")] * 5)
        await registry.drain()
        await trio.sleep(15)
        await registry.submit_many([JobSpec("work")] * 3)
        await registry.drain()
        await trio.sleep(1000)
        await registry.submit_many([JobSpec("work")] * 4)
        await registry.drain()
    assert starter.times() == [0, 0, 0, 10, 20, 35, 40, 50, 1050, 1050, 1050, 1060]


@stores
async def test_each_start_counts(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A retry is a start as any other."""
    starter = Starter()
    limits = {"default": RateLimit(1, per=7)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        await registry.submit("fail")
        await registry.submit("work")
        await registry.drain()
    assert starter.times() == [0, 7, 14, 21, 28]


@stores
async def test_a_pattern(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """Each queue of a pattern has the limit for itself; one that is named has its own."""
    starter = Starter()
    limits = {"user:*": RateLimit(1, per=10), "user:big": RateLimit(1, per=1), "*": RateLimit(1, per=100)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        names = ("user:ann", "user:bob", "user:big", "other")
        await registry.submit_many([JobSpec("work", queue=name) for name in names * 3])
        await registry.drain()
    assert starter.times("user:ann") == starter.times("user:bob") == [0, 10, 20]
    assert starter.times("user:big") == [0, 1, 2]
    assert starter.times("other") == [0, 100, 200]


@stores
async def test_beside_other_limits(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """What else limits a queue does so too; a start that finds no room is not lost."""
    starter = Starter()
    async with jobtrio.open_registry(
        starter.executors,
        store=make_store(),
        queues={"a": 1, "b": 9},
        max_running_total={"b": 1},
        rate_limits={"a": RateLimit(1, per=10), "b": RateLimit(1, per=10), "c": RateLimit(1, per=10)},
    ) as registry:
        await registry.submit_many([JobSpec("work", 15, queue=queue) for queue in "ab" * 3])
        await registry.drain()
    assert starter.times("a") == starter.times("b") == [0, 15, 30]


@stores
async def test_priorities(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A job of a higher priority that comes meanwhile has the next start; one that is cancelled leaves it to others."""
    starter = Starter()
    limits = {"default": RateLimit(1, per=10)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        jobs = await registry.submit_many([JobSpec("work")] * 3)
        await trio.sleep(5)
        await jobs[1].cancel()
        urgent = await registry.submit("work", priority=JobPriority.HIGH)
        late = await registry.submit("work", expires_in=3)
        await trio.sleep(8)
        assert [job.state for job in [await registry.get(job.id) for job in (*jobs, urgent, late)]] == [
            *("COMPLETED", "CANCELLED", "QUEUED", "COMPLETED", "FAILED")
        ]
        await registry.drain()
    assert starter.times() == [0, 10, 20]


@stores
async def test_a_paused_queue(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """While a queue is paused none starts; when it is resumed, the limit holds as before."""
    starter = Starter()
    limits = {"default": RateLimit(1, per=10)}
    async with jobtrio.open_registry(starter.executors, store=make_store(), rate_limits=limits) as registry:
        await registry.submit_many([JobSpec("work")] * 3)
        await trio.sleep(5)
        await registry.pause("default")
        await trio.sleep(20)
        await registry.resume("default")
        await registry.drain()
    assert starter.times() == [0, 25, 35]


async def test_several_workers(autojump_clock: MockClock) -> None:
    """The limit is over all workers, whichever of them has room; where one is full, another one starts jobs in time."""
    starter, server = Starter(), Server()
    limits = {"default": RateLimit(10, per=10), "none": RateLimit(1, per=1000)}
    stores = [RemoteStore(server, latency=latency) for latency in (0.001, 0.01, 0.02)]

    def open_registry(store: JobStore, room: int) -> Any:
        return jobtrio.open_registry(starter.executors, store=store, rate_limits=limits, max_running=room)

    async with open_registry(stores[0], 1), open_registry(stores[1], 1), open_registry(stores[2], 100) as registry:
        await registry.submit_many([JobSpec("work", seconds) for seconds in [7, 0, 7, 0] * 10])
        await registry.drain()
    times = [at for _, at in starter.starts]
    assert len(times) == 40
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 0.9
    assert times[-1] - times[0] < 39 * 1.1


async def test_lost_answers(autojump_clock: MockClock) -> None:
    """A call whose answer is lost is made again, and starts no job twice; the limit holds, and all jobs come to run."""
    starter, server = Starter(), Server()
    store = RemoteStore(server)
    for method in ("claim", "next_start", "advance"):
        store.network.lose_every_other(method)
    limits = {"default": RateLimit(1, per=10)}
    async with jobtrio.open_registry(starter.executors, store=store, rate_limits=limits) as registry:
        jobs = await registry.submit_many([JobSpec("work")] * 5)
        for job in jobs:
            assert await job.wait() == jobtrio.Completed(None)
    times = [at for _, at in starter.starts]
    assert len(times) == 5
    assert times[-1] - times[0] > 30


async def test_a_moment_that_comes_between_two_calls(autojump_clock: MockClock) -> None:
    """A start that became possible behind a claim is not missed, however long the question behind it takes."""
    starter, store = Starter(), RemoteStore(Server(), latency=0.01)
    store.poll_interval = inf
    ask = store.next_start

    async def slowly(*args: Any) -> float:
        await trio.sleep(0.7)
        return await ask(*args)

    async def nothing_due() -> float:
        await trio.lowlevel.checkpoint()
        return inf

    store.next_start = slowly  # type: ignore[method-assign, assignment]
    store.advance = nothing_due  # type: ignore[method-assign]  # a store in memory knows the moment here as well
    limits = {"default": RateLimit(1, per=10)}
    async with jobtrio.open_registry(starter.executors, store=store, rate_limits=limits) as registry:
        jobs = await registry.submit_many([JobSpec("work")] * 2)
        await jobs[0].wait()
        await trio.sleep(9.5)
        await registry.resume("default")
        with trio.fail_after(10):
            await jobs[1].wait()


def test_queues_without_room() -> None:
    """A worker does not wait for queues from which it may take nothing, nor for moments that hold nothing back."""
    limits = RateLimits({"a": RateLimit(1, per=9), "user:*": RateLimit(1, per=5)})
    starts = [("a", 3.0), ("user:ann", 2.0), ("user:bob", 1.0), ("free", 0.1), ("user:cid", 6.0)]
    assert first_wait(limits, None, starts) == 1.0
    assert first_wait(limits, {"a": 1, "free": 1}, starts) == 3.0
    assert first_wait(limits, {"user:*": 1, "user:bob": 0, "a": 1}, starts) == 2.0
    assert first_wait(limits, {"a": 0, "free": 1}, starts) == inf
    assert first_wait(limits, {"user:cid": 1}, starts) == inf
    assert first_wait(limits, None, [("a", -1.0)]) == 0.0


async def test_a_store_that_is_opened_again(autojump_clock: MockClock) -> None:
    """What is kept in memory has started what it has started, whichever registry has it open."""
    starter, store = Starter(), MemoryJobStore()
    limits = {"default": RateLimit(1, per=10)}
    for _ in range(3):
        async with jobtrio.open_registry(starter.executors, store=store, rate_limits=limits) as registry:
            await registry.submit("work")
        await trio.sleep(2)
    assert starter.times() == [0, 10, 20]


def test_a_store_that_is_opened_in_another_run() -> None:
    """The clock of another run of Trio begins elsewhere."""
    starter, store = Starter(), MemoryJobStore()
    waits = []

    async def run() -> None:
        limits = {"default": RateLimit(1, per=10)}
        async with jobtrio.open_registry(starter.executors, store=store, rate_limits=limits) as registry:
            began = trio.current_time()
            await (await registry.submit("work")).wait()
            waits.append(trio.current_time() - began)
            await trio.sleep(3)

    run_by_other_clocks(run)
    assert waits == pytest.approx([0, 7, 7], abs=0.1)


async def test_what_is_kept_of_queues(autojump_clock: MockClock) -> None:
    """A queue whose last starts hold back no more is forgotten."""
    starts = Starts()
    starts.limits = RateLimits({"*": RateLimit(10, per=10, burst=5)})
    for n in range(10_000):
        starts.note([f"queue {n}"] * (1 + n % 5))
        await trio.sleep(0.1)
        starts.fall_due()
        assert len(starts._next_at) < 300
        assert len(starts._heap) < 300
    for n in range(300):
        starts.note([f"other {n}"] * 5)
    await trio.sleep(0.5)
    assert starts.pace().allowed("other 0") == 0
    await trio.sleep(0.5)
    assert starts.pace().allowed("other 0") == 1


@pytest.mark.parametrize("seed", range(30))
def test_any_starts(seed: int) -> None:
    """In no time are there more starts than the limit and the burst make, and none is held back without need."""
    rng = random.Random(seed)
    starts, per = rng.choice([1, 2, 3, 7, 60, 1000]), rng.choice([1.0, 0.1 * 30, 60.0, 3600.0])
    limit = RateLimit(starts, per, rng.randint(1, starts))
    now, next_at = rng.choice([0.0, 1.7e9]), None
    made: list[float] = []
    for _ in range(500):
        allowed = limit.allowed(next_at, now)
        assert 0 <= allowed <= limit.burst
        for start in range(rng.randint(0, allowed) if rng.random() < 0.3 else allowed):
            assert limit.allowed(next_at, now) == allowed - start
            next_at = limit.after(next_at, now, 1)
            made.append(now)
        if limit.allowed(next_at, now) == 0:
            assert next_at is not None
            assert now < next_at <= now + limit.interval * 1.001 + 1e-5
            assert limit.allowed(next_at, next_at) == 1
        now += rng.choice([0.0, limit.interval, limit.interval / 3, rng.uniform(0, 2 * per)])
    assert made
    for first, at in enumerate(made):
        for window in (limit.interval / 2, per, 2.5 * per):
            count = bisect_left(made, at + window - 1e-4) - first
            assert count <= limit.burst + window / limit.interval + 1e-3


def test_a_clock_that_is_set_back() -> None:
    """A moment that lies further ahead than the limit can have put it holds nothing back."""
    limit = RateLimit(6, per=60, burst=2)
    for next_at in (1e6, 10.1, inf):
        assert limit.allowed(next_at, 0.0) == 1
        assert limit.after(next_at, 0.0, 1) == 10
        assert limit.wait(next_at) == inf
    assert limit.allowed(10.0, 0.0) == 0
    assert limit.wait(9.5) == 9.5
    assert limit.wait(-1.0) == 0
    assert limit.wait(nan) == inf
    assert limit.allowed(-inf, 0.0) == 2
    assert limit.allowed(nan, 0.0) == 2


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ((0, 60), ValueError, "starts must be a whole number, 1 or more; got 0"),
        ((1.5, 60), TypeError, "starts must be a whole number, 1 or more; got 1.5"),
        (("6", 60), TypeError, "starts must be a whole number, 1 or more; got '6'"),
        ((True, 60), TypeError, "starts must be a whole number, 1 or more; got True"),
        ((6, 0), ValueError, "per must be a number of seconds, above 0, finite; got 0"),
        ((6, -1), ValueError, "per must be a number of seconds, above 0, finite; got -1"),
        ((6, inf), ValueError, "per must be a number of seconds, above 0, finite; got inf"),
        ((6, nan), ValueError, "per must be a number of seconds, above 0, finite; got nan"),
        ((6, "60"), TypeError, "per must be a number of seconds, above 0, finite; got '60'"),
        ((6, 86_401), ValueError, "per must be at most 86400 seconds; got 86401"),
        ((1001, 1), ValueError, "starts must be at most 1000 for each second of per; got 1001"),
        ((6, 60, 0), ValueError, "burst must be a whole number, 1 or more; got 0"),
        ((6, 60, 7), ValueError, "burst must be at most starts, 6; got 7"),
    ],
)
def test_limits_that_make_no_sense(values: tuple[Any, ...], error: type[Exception], says: str) -> None:
    """An error names the field, the value and what is allowed."""
    with pytest.raises(error) as caught:
        RateLimit(*values)
    assert str(caught.value) == says


def test_limits_that_make_sense() -> None:
    """The largest and the smallest are taken."""
    assert RateLimit(86_400_000, 86_400, 86_400_000).interval == 0.001
    assert RateLimit(1, 86_400).interval == 86_400
    assert RateLimit(1, 0.001).interval == 0.001


async def test_a_queue_that_has_no_jobs(autojump_clock: MockClock) -> None:
    """Limits on queues that nobody uses cost no turn of the loop that claims."""
    starter, store = Starter(), RemoteStore(Server())
    limits = {"a": RateLimit(1, per=1), "default": RateLimit(1, per=5)}
    calls: Counter[str] = Counter()
    ask = store._ask

    def counted(name: str, call: Any) -> Any:
        calls[name] += 1
        return ask(name, call)

    store._ask = counted  # type: ignore[method-assign]
    store.poll_interval = inf
    async with jobtrio.open_registry(starter.executors, store=store, rate_limits=limits) as registry:
        await registry.submit("work")
        await registry.drain()
        before = calls["claim"]
        await trio.sleep(1000)
        assert calls["claim"] - before <= 2
