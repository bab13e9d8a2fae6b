"""Store checks: queues that are paused, what waits in them, and what goes on."""

from __future__ import annotations

import secrets
from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed
from jobtrio.abc import Backlog
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore

NAMES = ("default", "a", "a:b", "1:a", "é", "e\u0301", "A", "%", "_", "'", "{}", "x" * 200)
"""Names of queues that a store may take for one another."""


async def check_paused_queues_wait(open_store: OpenStore) -> None:
    """Behind `pause` no claim starts a job of the queue, whichever worker's and whatever it asks for; others do."""
    async with open_workers(open_store, "a", "b") as (a, b):
        waiting = [new_entry(queue="gpu", priority=priority) for priority in (JobPriority.CRITICAL, JobPriority.LOW)]
        await a.insert(*waiting, other := new_entry())
        await a.store.pause("gpu")
        for worker in (a, b):
            assert await worker.claim(room={"gpu": 5}) == []
            assert await worker.claim(room={"gpu": 5}, executors={"work"}) == []
        assert ids(await b.claim(executors={"work"})) == [other.id]
        await a.insert(another := new_entry(), late := new_entry(queue="gpu"))
        assert ids(await b.claim(room={"gpu": 5, "default": 5})) == [another.id]
        assert await a.claim() == []
        await b.store.resume("gpu")
        assert ids(await a.claim()) == ids([*waiting[:1], late, waiting[1]])


async def check_pausing_is_idempotent(open_store: OpenStore) -> None:
    """What is paused twice is resumed by one call, and what is not paused can be resumed; neither needs a job."""
    async with open_workers(open_store, "a", "b") as (a, b):
        assert await a.store.paused() == {}
        await a.store.resume("b")
        for name in ("b", "a", "b"):
            await a.store.pause(name)
        assert [*(await b.store.paused()).items()] == [("a", inf), ("b", inf)]
        for _ in range(2):
            await b.store.resume("b")
            assert await a.store.paused() == {"a": inf}
        await a.insert(entry := new_entry(queue="b"))
        assert ids(await b.claim()) == [entry.id]


async def check_pause_is_of_one_queue(open_store: OpenStore) -> None:
    """A queue is paused by its whole name, and no other one with it; a name that ends in ``*`` is no pattern here."""
    names = (*NAMES, "*", "b", "a*")
    async with open_workers(open_store, "a", "b") as (a, b):
        jobs = {name: new_entry(queue=name) for name in names}
        await a.insert(*jobs.values())
        for name in names[::2]:
            await a.store.pause(name)
        assert [*await b.store.paused()] == sorted(names[::2])
        claims = await b.claim(1, room={"*": 1}) + await b.claim()
        assert ids(claims) == [jobs[name].id for name in names[1::2]]
        for name in names[::2]:
            await b.store.resume(name)
            assert ids(await a.claim()) == [jobs[name].id]


async def check_pause_outlives_its_worker(open_store: OpenStore) -> None:
    """In a durable store a queue stays paused when the worker that has paused it is closed, and another one opened."""
    if not open_store().durable:
        return
    async with open_worker(open_store) as worker:
        await worker.insert(entry := new_entry(), other := new_entry(queue="other"))
        await worker.store.pause("default")
        await worker.store.pause("other", LEASE)
    async with open_worker(open_store) as worker:
        paused = await worker.store.paused()
        assert paused == {"default": inf, "other": paused["other"]}
        assert 0 < paused["other"] <= LEASE
        assert 0 < await worker.advance() <= LEASE
        assert await worker.claim() == []
        await worker.store.resume("default")
    async with open_worker(open_store) as worker:
        assert ids(await worker.claim()) == [entry.id]
        await worker.store.resume("other")
        assert ids(await worker.claim()) == [other.id]


async def check_pause_for_a_time(open_store: OpenStore) -> None:
    """A pause of some seconds ends by itself, wherever it was made; its end tells all listeners of work."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.insert(entry := new_entry())
        for worker, other in ((a, b), (b, a)):
            await worker.store.pause("default", 0.0)
            assert await other.store.paused() == {}
            began = trio.current_time()
            await worker.store.pause("default", SHORT)
            claims, paused = await other.claim(), await other.store.paused()
            if trio.current_time() - began < SHORT:  # else the machine is too slow to see it
                assert claims == []
                assert [*paused] == ["default"]
                assert 0 < paused["default"] <= SHORT
            for claim in claims:
                await other.store.release(claim, "shutdown")
            for each in (a, b):
                each.heard.forget()
            await worker.pass_time()
            assert await other.store.paused() == {}
            await worker.heard.wait_for("work_ready")
            await other.heard.wait_for("work_ready")
        assert ids(await b.claim()) == [entry.id]


async def check_end_of_a_pause_needs_no_worker(open_store: OpenStore) -> None:
    """What a pause held back is claimed when that is over, also where nobody has done what is due."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.insert(entry := new_entry())
        await a.store.pause("default", SHORT)
        await trio.sleep(2 * SHORT)
        assert ids(await b.claim()) == [entry.id]


async def check_longer_pause_counts(open_store: OpenStore) -> None:
    """Of two pauses of a queue the one that ends later counts, whichever came first; `resume` ends both."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for first, second in ((SHORT, LEASE), (LEASE, SHORT), (LEASE, inf), (inf, SHORT), (inf, LEASE)):
            await a.store.pause("default", first)
            await b.store.pause("default", second)
            if SHORT in (first, second):
                await a.pass_time()
            left = (await a.store.paused()).get("default", 0.0)
            longest = max(first, second)
            assert left == longest or (SHORT < left < longest and longest < inf), (first, second, left)
            await a.store.resume("default")
            assert await b.store.paused() == {}


async def check_running_jobs_of_paused_queues(open_store: OpenStore) -> None:
    """A running job of a paused queue is kept, renewed and ended; what becomes ready again, or for once, waits."""
    async with open_workers(open_store, "a", "b") as (a, b):
        lost = (await a.start(lease=SHORT)).entry
        jobs = [new_entry(job_id=name, retry=RetryPolicy()) for name in ("ended", "retried", "released")]
        await a.insert(*jobs)
        claim_id = secrets.token_hex(8)
        claims = await a.store.claim(claim_id, limit=3, lease=LEASE)
        await a.insert(due := new_entry(delay=SHORT), held := new_entry(None))
        await b.store.pause("default")
        again = await a.store.claim(claim_id, limit=3, lease=LEASE)
        assert sorted(ids(again)) == sorted(ids(claims)) == sorted(ids(jobs))
        assert [report.held for report in await a.store.renew(claims, LEASE)] == [True] * 3
        ended, retried, released = claims
        assert await a.store.finish(ended, Completed())
        assert await a.store.retry(retried, ERROR, 0.0)
        assert await a.store.release(released, "shutdown")
        assert await a.store.start_held(held.id, new_plan())
        await b.pass_time()
        waiting = ["retried", "released", lost.id, due.id, held.id]
        assert [(await b.record(job_id)).state for job_id in waiting] == ["QUEUED"] * 5
        assert [await a.claim(), await b.claim()] == [[], []]
        await a.store.resume("default")
        assert sorted(ids(await b.claim())) == sorted(waiting)


async def check_ends_in_paused_queues(open_store: OpenStore) -> None:
    """A job that waits in a paused queue expires in its time, and can be cancelled."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.store.pause("default")
        await a.insert(late := new_entry(expires_in=SHORT), cancelled := new_entry())
        reply = await b.store.request_cancel(cancelled.id, "enough", 0.0)
        assert reply is not None
        assert (reply.accepted, reply.entry.outcome) == (True, Cancelled("enough"))
        await b.pass_time()
        error = (await a.record(late.id)).error
        assert error is not None
        assert error.kind == "expired"
        await a.store.resume("default")
        assert await a.claim() == []


async def check_resume_wakes(open_store: OpenStore) -> None:
    """`resume` tells the listeners of all stores that there may be work."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.store.pause("default")
        await a.insert(new_entry())
        for worker, other in ((a, b), (b, a)):
            await a.store.pause("default")
            await a.claim()
            for each in (a, b):
                each.heard.forget()
            await worker.store.resume("default")
            await worker.heard.wait_for("work_ready")
            await other.heard.wait_for("work_ready")


async def check_backlog_of_paused_queues(open_store: OpenStore) -> None:
    """Of a paused queue the backlog counts only what runs: nobody starts the rest."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for queue in ("x", "y"):
            claim = await a.start(new_entry(queue=queue, retry=RetryPolicy()))
            await a.start(new_entry(queue=queue))
            assert await a.store.retry(claim, ERROR, LEASE)
            await a.insert(new_entry(queue=queue, delay=LEASE))
        await a.insert(new_entry(queue="x"), new_entry(queue="y"))
        await a.store.pause("x")
        one = Backlog(queued=1, retrying=1, scheduled=1, running=1)
        assert await b.store.backlog({"y"}) == one
        assert await b.store.backlog({"x"}) == Backlog(running=1)
        assert await b.store.backlog(None) == Backlog(1, 1, 1, 2)
        assert sum((await b.store.counts())["x"].values()) == 4
        await b.store.resume("x")
        assert await a.store.backlog({"x"}, {"work"}) == one
        await a.store.pause("x", LEASE)  # what will start by itself is waited for
        assert await b.store.backlog({"x"}) == one
