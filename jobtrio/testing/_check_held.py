"""Store checks: jobs that are held until somebody starts them, and for how long they may be."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import JobPriority, Retention, RetryPolicy
from jobtrio._records import Completed
from jobtrio._state import JobState
from jobtrio.testing._workers import LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, race

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore


async def check_start_held(open_store: OpenStore) -> None:
    """A held job is started once, with the plan that came first; nothing else can be started so."""
    async with open_workers(open_store, "a", "b") as (a, b):
        held, plain = new_entry(None, "payload", priority=JobPriority.HIGH), new_entry()
        await a.insert(held)
        await a.insert(new_entry(), new_entry())
        first = new_plan("first", "q", JobPriority.HIGH, 7.0, RetryPolicy(max_attempts=5))
        assert await b.store.start_held(held.id, first)
        assert not await a.store.start_held(held.id, new_plan("second"))
        assert not await a.store.start_held("unknown", first)
        (claim,) = await a.claim(limit=1)
        assert (claim.entry.id, claim.entry.plan.executor) == (held.id, "first")
        assert len(await b.claim()) == 2
        assert (claim.entry.payload, claim.entry.plan.time_limit) == ("payload", 7.0)
        assert (claim.entry.plan.retry, claim.entry.plan.queue) == (RetryPolicy(max_attempts=5), "q")
        record = await b.record(held.id)
        assert (record.time_limit, record.retry) == (7.0, RetryPolicy(max_attempts=5))
        assert not await b.store.start_held(held.id, first)
        await a.insert(plain)
        assert not await a.store.start_held(plain.id, first)
        assert (await a.claim_one()).entry.plan.executor == "work"


async def check_held_jobs_that_have_ended(open_store: OpenStore) -> None:
    """A held job is not started once it was cancelled or its time is up, whether or not that was noticed."""
    async with open_worker(open_store, Retention(held_for=SHORT)) as worker:
        cancelled, late = new_entry(None), new_entry(None, expires_in=LEASE)
        await worker.insert(cancelled, late)
        await worker.store.request_cancel(cancelled.id, None, 0.0)
        assert not await worker.store.start_held(cancelled.id, new_plan())
        await trio.sleep(2 * SHORT)
        assert not await worker.store.start_held(late.id, new_plan())
        await worker.advance()
        assert not await worker.store.start_held(late.id, new_plan())
        assert [(await worker.record(entry.id)).state for entry in (cancelled, late)] == ["CANCELLED", "FAILED"]
        assert await worker.claim() == []


async def check_started_jobs_stand_behind(open_store: OpenStore) -> None:
    """A held job is ready from its start on: it stands behind all that was ready before, however old it is."""
    async with open_workers(open_store, "a", "b") as (a, b):
        held, plain, last = new_entry(None), new_entry(queue="other"), new_entry()
        await a.insert(held)
        await a.insert(plain)
        assert await b.store.start_held(held.id, new_plan())
        await a.insert(last)
        assert ids(await b.claim()) == [plain.id, held.id, last.id]


async def check_priority_of_started_jobs(open_store: OpenStore) -> None:
    """A held job has the priority that it was stored with, whatever its start says, also when it is ready once more."""
    async with open_worker(open_store) as worker:
        held, late = (new_entry(None, queue="held", priority=JobPriority.HIGH, delay=delay) for delay in (0.0, SHORT))
        await worker.insert(new_entry(), held, late)
        for entry in (held, late):
            assert await worker.store.start_held(entry.id, new_plan(priority=JobPriority.LOW))
        await worker.pass_time()
        for _ in range(2):
            claims = await worker.claim(limit=2)
            assert ids(claims) == ids([held, late])
            for claim in claims:
                assert await worker.store.release(claim, "shutdown")


async def check_start_held_when_scheduled(open_store: OpenStore) -> None:
    """A held job that is started before it is due becomes ready when it is; one that is started later, at once."""
    async with open_worker(open_store) as worker:
        before, after = new_entry(None, delay=SHORT), new_entry(None, delay=SHORT)
        await worker.insert(before, after)
        assert await worker.store.start_held(before.id, new_plan())
        assert await worker.claim() == []
        await worker.pass_time()
        assert ids(await worker.claim()) == [before.id]
        assert await worker.store.start_held(after.id, new_plan())
        assert ids(await worker.claim()) == [after.id]


async def check_started_in_time(open_store: OpenStore) -> None:
    """A held job that was started is not bound to the time that one may be held, nor is one that was never held."""
    async with open_worker(open_store, Retention(held_for=SHORT)) as worker:
        left, started, plain = new_entry(None), new_entry(None), new_entry(expires_in=LEASE)
        await worker.insert(left, started, plain)
        assert await worker.store.start_held(started.id, new_plan())
        await worker.pass_time()
        for entry in (started, plain):
            assert (await worker.record(entry.id)).state == JobState.QUEUED
        assert not await worker.store.start_held(left.id, new_plan())
        error = (await worker.record(left.id)).error
        assert error is not None
        assert error.kind == "expired"


async def check_held_as_its_submitter_says(open_store: OpenStore) -> None:
    """How long a job may be held is what the process says that stored it, whichever makes it fail."""
    short, long = Retention(held_for=SHORT), Retention(held_for=LEASE)
    for retentions, state in (((long, short), JobState.QUEUED), ((short, long), JobState.FAILED)):
        async with open_workers(open_store, "a", "b", retention=retentions) as (a, b):
            held = new_entry(None)
            await a.insert(held)
            await b.pass_time()
            assert (await b.record(held.id)).state == state


async def check_held_from_readiness(open_store: OpenStore) -> None:
    """How long a job may be held counts from the moment when it could start."""
    async with open_worker(open_store, Retention(held_for=4 * SHORT)) as worker:
        for _ in range(10):
            begun = trio.current_time()
            jobs = [new_entry(None, delay=4 * SHORT, expires_in=expires_in) for expires_in in (None, LEASE)]
            await worker.insert(*jobs)
            await worker.pass_time(4.5 * SHORT)
            states = [await worker.states(held.id) for held in jobs]
            for held in jobs:
                await worker.store.start_held(held.id, new_plan())
            claimed = ids(await worker.claim())
            if trio.current_time() - begun < 7 * SHORT:  # else the machine may have stood still for too long
                break
        assert states == [["SCHEDULED", "QUEUED"]] * 2
        assert claimed == ids(jobs)


async def check_held_for_ever(open_store: OpenStore) -> None:
    """A job that may be held for ever can be read, and started, like any other."""
    async with open_workers(open_store, "a", "b", retention=Retention(held_for=inf)) as (a, b):
        await a.insert(held := new_entry(None))
        assert (await b.load(held.id)).unreadable is None
        assert await b.store.start_held(held.id, new_plan())
        assert ids(await b.claim()) == [held.id]


async def check_started_elsewhere_in_time(open_store: OpenStore) -> None:
    """How long a job may wait counts from its submission, however long the process that starts it holds its own."""
    short, long = Retention(held_for=SHORT / 10), Retention(held_for=LEASE)
    early = new_entry(None, expires_in=LEASE)
    for longer in (long, Retention(held_for=inf)):
        async with open_workers(open_store, "a", "b", retention=(longer, short)) as (a, b):
            soon = new_entry(None, expires_in=LEASE / 2)
            await a.insert(soon)
            assert await b.store.start_held(soon.id, new_plan())
            claim = await b.claim_one()
            assert claim.entry.id == soon.id
            await b.end(claim)
            late = new_entry(None, expires_in=SHORT)
            await a.insert(late)
            assert await b.store.start_held(late.id, new_plan())
            await a.pass_time(1.5 * SHORT)
            assert (await a.record(late.id)).state == JobState.FAILED
            late = new_entry(None, expires_in=2 * SHORT)
            await a.insert(late)
            await trio.sleep(SHORT)
            await b.store.start_held(late.id, new_plan())
            await a.pass_time(1.5 * SHORT)
            assert (await a.record(late.id)).state == JobState.FAILED
    async with open_workers(open_store, "a", "b", retention=(Retention(held_for=SHORT), long)) as (a, b):
        await a.insert(early)
        assert await b.store.start_held(early.id, new_plan())
        await a.pass_time()
        assert (await a.record(early.id)).state == JobState.QUEUED
        assert ids(await b.claim()) == [early.id]


async def check_race_of_starts(open_store: OpenStore) -> None:
    """Of many that start a held job at once, one does, and its plan is the job's."""
    async with open_workers(open_store, *"abcd") as workers:
        plans = [new_plan(f"work{n}") for n in range(len(workers))]
        for n in range(5):
            await workers[0].insert(held := new_entry(None))
            starts = [partial(each.store.start_held, held.id, plan) for each, plan in zip(workers, plans, strict=True)]
            is_started = await race(n, *starts)
            claim = await workers[0].claim_one()
            assert [claim.entry.plan.executor == plan.executor for plan in plans] == is_started
            assert await workers[0].store.finish(claim, Completed())
