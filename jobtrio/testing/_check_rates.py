"""Store checks: how many jobs of a queue start in a time, over all workers."""

from __future__ import annotations

import secrets
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import RateLimit, RetryPolicy
from jobtrio._records import Completed
from jobtrio.testing._check_pausing import NAMES
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, race

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore, Worker

LONG = RateLimit(1, per=1000)
"""A limit by which no second job starts before a check is over."""


async def wait_for_start(worker: Worker) -> None:
    """Wait for the moment at which another job may start, by what the store says."""
    assert await worker.claim() == []
    seconds = await worker.store.next_start()
    assert seconds <= 2 * SHORT, seconds
    await trio.sleep(seconds)


async def check_starts_are_limited(open_store: OpenStore) -> None:
    """Of a queue with a rate limit no more jobs start than it lets, in their order; others start as ever."""
    limits = {"a": LONG, "b": RateLimit(10, per=10_000, burst=3)}
    async with open_workers(open_store, "a", "b", rates=limits) as (a, b):
        first, *others = [new_entry(queue="a") for _ in range(3)]
        several = [new_entry(queue="b") for _ in range(5)]
        free = [new_entry(queue="c") for _ in range(4)]
        await a.insert(first, *others, *several, *free)
        assert sorted(ids(await a.claim())) == sorted(ids([first, *several[:3], *free]))
        for worker in (a, b):
            assert await worker.claim() == []
            assert await worker.claim(room={"a": 9, "b": 9}, executors={"work"}) == []
        await b.insert(new_entry(queue="b"), late := new_entry(queue="c"))
        assert ids(await b.claim()) == [late.id]


async def check_starts_go_on(open_store: OpenStore) -> None:
    """When the time has come one more starts, whichever worker claims; `next_start` says how far that is away."""
    limits = {"default": RateLimit(1, per=SHORT)}
    async with open_workers(open_store, "a", "b", rates=limits) as (a, b):
        jobs = [new_entry() for _ in range(4)]
        await a.insert(*jobs)
        assert ids(await a.claim()) == [jobs[0].id]
        for job, worker in zip(jobs[1:], (b, b, a), strict=True):
            await wait_for_start(worker)
            assert ids(await worker.claim()) == [job.id]


async def check_starts_of_long_ago(open_store: OpenStore) -> None:
    """After a time without starts there are as many at once as ``burst`` says, and not more."""
    limits = {"default": RateLimit(100, per=100 * SHORT, burst=3)}
    async with open_workers(open_store, "a", "b", rates=limits) as (a, b):
        jobs = [new_entry() for _ in range(10)]
        await a.insert(*jobs)
        assert ids(await a.claim(2)) == ids(jobs[:2])
        await trio.sleep(6 * SHORT)
        assert ids(await b.claim()) == ids(jobs[2:5])


async def check_starts_of_patterns(open_store: OpenStore) -> None:
    """A key may be a pattern, whose queues have the limit for themselves; one that is named has its own."""
    limits = {"user:*": LONG, "user:big": RateLimit(2, per=2000, burst=2), "u*": RateLimit(3, per=3000, burst=3)}
    queues = ("user:ann", "user:big", "user:bob", "other", "user", "user:")
    async with open_workers(open_store, "a", "b", rates=limits) as (a, b):
        jobs = {queue: [new_entry(queue=queue) for _ in range(4)] for queue in queues}
        for entries in jobs.values():
            await a.insert(*entries)
        most = {"user:ann": 1, "user:big": 2, "user:bob": 1, "other": 4, "user": 3, "user:": 1}
        claims = await a.claim(5) + await b.claim(room={"user:*": 9, "other": 9, "user": 9}) + await b.claim()
        assert sorted(ids(claims)) == sorted(entry.id for queue in queues for entry in jobs[queue][: most[queue]])
        assert await a.claim() == []


async def check_starts_of_one_queue(open_store: OpenStore) -> None:
    """A start counts for its queue alone, by the whole name, as a key means it."""
    async with open_workers(open_store, "a", "b", rates={"*": LONG}) as (a, b):
        names = (*NAMES, "b", "a*")
        for name in names:
            await a.insert(new_entry(queue=name), new_entry(queue=name))
        claims = [*await a.claim(5), *await b.claim()]
        assert sorted(claim.entry.plan.queue for claim in claims) == sorted(names)
        assert await a.claim() == []


async def check_starts_at_once(open_store: OpenStore) -> None:
    """Workers that claim at the same moment start no more together than one would."""
    for nth in range(10):
        names = [f"{nth}-{n}" for n in range(3)]
        limits = {names[0]: LONG, names[1]: RateLimit(2, per=2000, burst=2), names[2][:-1] + "*": LONG}
        async with open_workers(open_store, "a", "b", "c", rates=limits) as workers:
            entries = [new_entry(queue=name) for name in names for _ in range(5)]
            await workers[0].insert(*entries)
            answers = await race(nth, *(worker.claim for worker in workers))
            claims = [*chain(*answers), *await workers[1].claim()]
            queues = sorted(claim.entry.plan.queue for claim in claims)
            assert queues == sorted([names[0], names[1], names[1], names[2]])
            for entry in entries:
                await workers[0].store.request_cancel(entry.id, None, 0.0)
            for claim in claims:
                await workers[0].end(claim)


async def check_repeated_claims_start_nothing(open_store: OpenStore) -> None:
    """A call to claim that is repeated returns what it had claimed, and counts it once."""
    limits = {"default": RateLimit(3, per=3000, burst=3)}
    async with open_workers(open_store, "a", rates=limits) as (a,):
        jobs = [new_entry() for _ in range(5)]
        await a.insert(*jobs)
        claim_id = secrets.token_hex(8)
        for _ in range(3):
            assert ids(await a.store.claim(claim_id, limit=2, lease=LEASE)) == ids(jobs[:2])
        assert ids(await a.claim()) == [jobs[2].id]


async def check_each_start_counts(open_store: OpenStore) -> None:
    """What is started again counts again, and what has ended since has been started all the same."""
    limits = {"default": RateLimit(4, per=4000, burst=4)}
    async with open_workers(open_store, "a", "b", rates=limits) as (a, b):
        ended, retried, released = [new_entry(retry=RetryPolicy()) for _ in range(3)]
        await a.insert(ended, retried, released, other := new_entry(delay=SHORT))
        claims = await a.claim(3)
        assert ids(claims) == ids([ended, retried, released])
        assert await a.store.finish(claims[0], Completed())
        assert await a.store.retry(claims[1], ERROR, 0.0)
        assert await a.store.release(claims[2], "shutdown")
        await b.pass_time()
        claims = await b.claim()
        assert len(claims) == 1
        assert claims[0].entry.id in ids([retried, released, other])
        assert await a.claim() == []


async def check_next_start(open_store: OpenStore) -> None:
    """`next_start` tells when a limit will let a job start, or that it has begun to since the last claim."""
    async with open_workers(open_store, "a", "b", rates={"slow": RateLimit(1, per=100), "fast": LONG}) as (a, b):
        await a.insert(*(new_entry(queue="slow") for _ in range(2)))
        assert len(await a.claim()) == 1
        for worker in (a, b):
            assert await worker.claim() == []
            assert 90 < await worker.store.next_start() <= 100
            assert 90 < await worker.store.next_start({"slow": 1}) <= 100
    async with open_workers(open_store, "a", rates={"quick": RateLimit(1, per=SHORT)}) as (a,):
        await a.insert(*(new_entry(queue="quick") for _ in range(2)))
        assert len(await a.claim(room={"quick": 9})) == 1
        await trio.sleep(2 * SHORT)
        assert await a.store.next_start({"quick": 9}) == 0
        assert len(await a.claim(room={"quick": 9})) == 1


async def check_starts_without_limits(open_store: OpenStore) -> None:
    """Where nothing is limited, nothing is held back, whatever limits there were."""
    async with open_worker(open_store) as worker:
        assert await worker.store.next_start() == inf
    async with open_workers(open_store, "a", rates={"default": LONG}) as (a,):
        await a.insert(*(new_entry() for _ in range(3)))
        assert len(await a.claim()) == 1
    async with open_workers(open_store, "a", rates={"other": LONG}) as (a,):
        if a.store.durable:
            assert len(await a.claim()) == 2


async def check_limits_that_were_slower(open_store: OpenStore) -> None:
    """A worker goes by its own limit: what is further away than that puts it is no hindrance."""
    async with open_workers(open_store, "a", rates={"default": LONG}) as (a,):
        await a.insert(*(new_entry() for _ in range(3)))
        assert len(await a.claim()) == 1
    async with open_workers(open_store, "a", rates={"default": RateLimit(1, per=100)}) as (a,):
        if a.store.durable:
            assert len(await a.claim()) == 1
            assert await a.claim() == []


async def check_starts_outlive_their_worker(open_store: OpenStore) -> None:
    """In a durable store the limit holds also for a worker that is opened later."""
    if not open_store().durable:
        return
    limits = {"default": LONG}
    async with open_workers(open_store, "a", rates=limits) as (a,):
        await a.insert(*(new_entry() for _ in range(2)))
        assert len(await a.claim()) == 1
    async with open_workers(open_store, "b", rates=limits) as (b,):
        assert await b.claim() == []


async def check_next_start_of_very_many_queues(open_store: OpenStore) -> None:
    """`next_start` tells of a job that is held back, however many queues have started theirs."""
    async with open_workers(open_store, "a", rates={"*": LONG}) as (a,):
        await a.insert(*(new_entry(queue=f"queue {n}") for n in range(1200)))
        for _ in range(20):
            await a.claim(100)
        await a.insert(new_entry(queue="zz"), new_entry(queue="zz"))
        assert len(await a.claim()) == 1
        assert await a.claim() == []
        assert 900 < await a.store.next_start() <= 1000
