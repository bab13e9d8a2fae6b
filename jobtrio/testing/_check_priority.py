"""Store checks: what becomes of jobs whose priority is changed while they wait."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed
from jobtrio._state import JobState
from jobtrio.abc import JobQuery
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, race

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio._records import JobRecord
    from jobtrio.testing._workers import OpenStore, Worker

LOW, NORMAL, HIGH, CRITICAL = JobPriority


async def _set(worker: Worker, job_id: str, priority: JobPriority) -> JobEntry:
    entry = await worker.store.set_priority(job_id, priority)
    assert entry is not None
    assert entry.id == job_id
    return entry


async def _is_set(worker: Worker, job_id: str, priority: JobPriority) -> bool:
    entry = await _set(worker, job_id, priority)
    return entry.state is JobState.QUEUED  # here, since it may be started a moment later


async def check_changed_priorities(open_store: OpenStore) -> None:
    """A ready job whose priority is changed, by whichever worker, stands behind all that have it already."""
    async with open_workers(open_store, "a", "b") as (a, b):
        first, second, third = jobs = [new_entry(job_id=name) for name in ("first", "second", "third")]
        high, low = new_entry(priority=HIGH), new_entry(priority=LOW)
        await a.insert(*jobs, high, low)
        assert (await _set(b, third.id, HIGH)).plan.priority is HIGH
        assert (await _set(a, first.id, LOW)).plan.priority is LOW
        later = new_entry(priority=HIGH), new_entry(priority=LOW)
        await b.insert(*later)
        claimed = [*await b.claim(limit=2), *await a.claim()]
        assert ids(claimed) == ids([high, third, later[0], second, low, first, later[1]])
        assert [claim.entry.plan.priority for claim in claimed] == [HIGH] * 3 + [NORMAL] + [LOW] * 3


async def check_same_priority_stays(open_store: OpenStore) -> None:
    """A job that has the priority already stays where it is; one that gets it back stands at the end."""
    async with open_workers(open_store, "a", "b") as (a, b):
        jobs = [new_entry() for _ in range(4)]
        await a.insert(*jobs)
        for worker in (a, b):
            entry = await _set(worker, jobs[0].id, NORMAL)
            assert (entry.state, entry.plan.priority) == (JobState.QUEUED, NORMAL)
        for priority in (CRITICAL, NORMAL, NORMAL):
            await _set(b, jobs[1].id, priority)
        assert ids(await a.claim()) == ids([jobs[0], *jobs[2:], jobs[1]])


async def check_new_priority_is_shown(open_store: OpenStore) -> None:
    """Whatever reads the job shows the new priority, and nothing else of it has changed; nobody is told of a change."""
    async with open_workers(open_store, "a", "b") as (a, b):
        held = new_entry(None, {"p": 1}, queue="q", time_limit=7.5, tags={"user": "ann"}, key="k", expires_in=LEASE)
        for job in (held, new_entry("work", ["p"], retry=RetryPolicy(jitter=0.25), metadata={"n": [1, None]})):
            await a.insert(job)
            before, told = await b.load(job.id), len(a.heard.changes + b.heard.changes)
            record = before.record()
            history = await b.history(job.id)
            answer = await _set(b, job.id, HIGH)
            expected = [(field, HIGH if field == "priority" else value) for field, value in _fields(record)]
            for shown in (answer.record(), await a.record(job.id), await b.record(job.id)):
                assert _fields(shown) == expected
            found = [each for each in await a.store.find(JobQuery(queue=record.queue)) if each.id == job.id]
            assert [_fields(each) for each in found] == [expected]
            assert await a.history(job.id) == history
            assert len(a.heard.changes + b.heard.changes) == told


def _fields(record: JobRecord) -> list[tuple[str, Any]]:
    return [*attrs.asdict(record, recurse=False).items()]


async def check_priority_in_each_state(open_store: OpenStore) -> None:
    """A job that is scheduled, held or to be tried again is changed as a ready one, and stands so when it is ready."""
    async with open_workers(open_store, "a", "b") as (a, b):
        retried = await a.start(new_entry(job_id="retried", retry=RetryPolicy()))
        assert await a.store.retry(retried, ERROR, SHORT)
        held, late = new_entry(None, job_id="held"), new_entry(None, job_id="late", delay=SHORT)
        scheduled = new_entry(job_id="scheduled", delay=SHORT)
        await a.insert(new_entry(job_id="normal"), held, late, scheduled)
        for n, (name, state) in enumerate(
            {"retried": "RETRYING", "held": "QUEUED", "late": "SCHEDULED", "scheduled": "SCHEDULED"}.items()
        ):
            for worker, priority in ((a, LOW), (b, HIGH if n % 2 else CRITICAL)):
                entry = await _set(worker, name, priority)
                assert (entry.state, entry.plan.priority) == (state, priority)
        for job_id in ("held", "late"):
            assert await b.store.start_held(job_id, new_plan(priority=LOW))
            assert (await a.record(job_id)).priority is {"held": HIGH, "late": CRITICAL}[job_id]
        await a.pass_time()
        claims = await b.claim()
        assert sorted(ids(claims[:2])) == ["late", "retried"]
        assert sorted(ids(claims[2:4])) == ["held", "scheduled"]
        assert ids(claims[4:]) == ["normal"]
        for claim in claims:
            assert await b.store.release(claim, "shutdown")
        again = await a.claim()
        assert [claim.entry.plan.priority for claim in again] == [CRITICAL, CRITICAL, HIGH, HIGH, NORMAL]
        assert {claim.entry.id for claim in again[:2]} == {"late", "retried"}


async def check_priority_behind_the_start(open_store: OpenStore) -> None:
    """A job that runs or has ended keeps its priority; there is none of an unknown job."""
    async with open_workers(open_store, "a", "b") as (a, b):
        running = (await a.start(new_entry(retry=RetryPolicy()))).entry
        ended = await a.start()
        assert await a.store.finish(ended, Completed())
        await a.insert(cancelled := new_entry())
        assert await a.store.request_cancel(cancelled.id, None, 0.0)
        states = {running.id: "RUNNING", ended.entry.id: "COMPLETED", cancelled.id: "CANCELLED"}
        for worker in (a, b):
            for job_id, state in states.items():
                entry = await _set(worker, job_id, HIGH)
                assert (entry.state, entry.plan.priority) == (state, NORMAL)
                assert (await worker.record(job_id)).priority is NORMAL
            for unknown in ("unknown", "", "\0", "\ud800", "y" * 5000):
                assert await worker.store.set_priority(unknown, HIGH) is None


async def check_priority_places_rise(open_store: OpenStore) -> None:
    """Each change gives a job a higher ticket, in whichever state it waits: that tells the newer of two answers."""
    async with open_workers(open_store, "a", "b") as (a, b):
        jobs = new_entry(), new_entry(delay=LEASE), new_entry(None), new_entry(None, delay=LEASE)
        await a.insert(*jobs)
        for job in jobs:
            tickets = [(await b.load(job.id)).ticket]
            for priority in (HIGH, LOW, NORMAL):
                tickets.append((await _set(b, job.id, priority)).ticket)
                assert (await a.load(job.id)).ticket == tickets[-1]
            assert tickets == sorted(set(tickets))


async def check_priority_in_repeated_answers(open_store: OpenStore) -> None:
    """A call that is repeated since its answer was lost brings the job's entry to the priority that it has by then."""
    async with open_workers(open_store, "a", "b") as (a, b):
        job = new_entry(retry=RetryPolicy())
        for priority in (NORMAL, HIGH):
            await a.store.insert([job], "submission")
            assert job.plan.priority is priority
            await _set(b, job.id, HIGH)
        claim = await a.claim_one()
        for priority in (HIGH, LOW):
            assert await a.store.retry(claim, ERROR, LEASE)
            assert claim.entry.plan.priority is priority
            await _set(b, job.id, LOW)
        assert claim.entry.ticket == (await b.load(job.id)).ticket


async def check_priority_in_paused_queues(open_store: OpenStore) -> None:
    """The priority of a job in a paused queue is changed as any other; it starts none."""
    async with open_workers(open_store, "a", "b") as (a, b):
        jobs = [new_entry(queue="gpu") for _ in range(3)]
        await a.insert(*jobs, other := new_entry())
        await a.store.pause("gpu")
        await _set(b, jobs[2].id, CRITICAL)
        assert ids(await a.claim()) == [other.id]
        await _set(a, jobs[1].id, HIGH)
        await a.store.resume("gpu")
        assert ids(await b.claim()) == ids(jobs[::-1])


async def check_ends_behind_a_new_priority(open_store: OpenStore) -> None:
    """A job whose priority was changed can be cancelled, and expires in its time, as any other."""
    async with open_workers(open_store, "a", "b") as (a, b):
        late, cancelled, last = new_entry(expires_in=SHORT), new_entry(), new_entry()
        await a.insert(late, cancelled, last)
        for job in (late, cancelled):
            for priority in (HIGH, NORMAL, CRITICAL):
                await _set(b, job.id, priority)
        reply = await a.store.request_cancel(cancelled.id, "enough", 0.0)
        assert reply is not None
        assert (reply.accepted, reply.entry.outcome) == (True, Cancelled("enough"))
        await b.pass_time()
        record = await a.record(late.id)
        assert record.error is not None
        assert (record.error.kind, record.priority) == ("expired", CRITICAL)
        assert ids(await b.claim()) == [last.id]


async def check_order_behind_many_changes(open_store: OpenStore) -> None:
    """However often a few jobs are changed among many others, each job is taken once, and all in their order."""
    draw = random.Random(5)
    async with open_workers(open_store, "a", "b") as (a, b):
        jobs = [
            new_entry(f"work{n % 2}", queue=draw.choice("ab"), priority=draw.choice([*JobPriority]), job_id=f"{n:04}")
            for n in range(1000)
        ]
        await a.insert(*jobs)
        lines = {level: [job.id for job in jobs if job.plan.priority is level] for level in reversed(JobPriority)}
        of = {job.id: job.plan.priority for job in jobs}
        wanderers = draw.sample(jobs, 6)
        for n in range(90):
            job = wanderers[n % (6 if n < 30 else 2)]
            level = draw.choice([*JobPriority])
            assert (await _set((a, b)[n % 2], job.id, level)).plan.priority is level
            if level is not of[job.id]:
                lines[of[job.id]].remove(job.id)
                lines[level].append(job.id)
                of[job.id] = level
        there = {job.id: (job.plan.queue, job.plan.executor) for job in jobs}
        named = [job_id for line in lines.values() for job_id in line if there[job_id] == ("a", "work1")][:50]
        assert ids(await b.claim(limit=50, room={"a": 100}, executors={"work1"})) == named
        left = [job_id for line in lines.values() for job_id in line if job_id not in named]
        claimed = [job_id for limit in (1, 99, 2000) for job_id in ids(await a.claim(limit=limit))]
        assert claimed == left
        assert await b.claim() == []


async def check_race_of_priority_and_claim(open_store: OpenStore) -> None:
    """A job that is changed while somebody claims is claimed with its new priority, or was and keeps its own."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(20):
            await a.insert(entry := new_entry())
            is_changed, claims = await race(n, partial(_is_set, b, entry.id, HIGH), a.claim)
            claims += await b.claim()
            assert ids(claims) == [entry.id]
            expected = HIGH if is_changed else NORMAL
            assert claims[0].entry.plan.priority is (await b.record(entry.id)).priority is expected
            assert await a.store.finish(claims[0], Completed())


async def check_priority_or_start(open_store: OpenStore) -> None:
    """A job is either started or changed first, and both callers agree on which; whatever is changed starts once."""
    async with open_workers(open_store, *"abc") as (a, b, c):
        jobs = [new_entry(job_id=f"{n:03}") for n in range(120)]
        await a.insert(*jobs)
        started: list[tuple[str, JobPriority]] = []
        answers: list[tuple[str, JobPriority]] = []
        wrong: list[str] = []  # of which it was said what was not done

        async def claim(worker: Worker) -> None:
            while len(started) < len(jobs):
                claims = await worker.claim(limit=3)
                started.extend((claim.entry.id, claim.entry.plan.priority) for claim in claims)
                await trio.lowlevel.checkpoint()

        async def change(worker: Worker, some: list[JobEntry], priority: JobPriority) -> None:
            for job in some:
                entry = await _set(worker, job.id, priority)
                is_changed = entry.state is JobState.QUEUED
                answers.append((job.id, priority if is_changed else NORMAL))
                if is_changed != (entry.plan.priority is priority):
                    wrong.append(job.id)

        async with trio.open_nursery() as nursery:
            for worker in (a, b):
                nursery.start_soon(claim, worker)
            nursery.start_soon(change, c, jobs[::-2], HIGH)
            nursery.start_soon(change, a, jobs[-2::-2], LOW)
        assert not wrong
        assert sorted(started) == sorted(answers)


async def check_one_priority_of_several(open_store: OpenStore) -> None:
    """Of several changes at one time one is the last: the job stands in one line, and is taken once."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for nth in range(6):
            jobs = [new_entry(), new_entry(), new_entry(priority=HIGH)]
            await a.insert(*jobs)
            job_id = jobs[0].id
            changes = [
                partial(_set, worker, job_id, priority) for worker in (a, b) for priority in (LOW, HIGH, CRITICAL)
            ]
            assert all(entry.state is JobState.QUEUED for entry in await race(nth, *changes))
            priority = (await b.record(job_id)).priority
            others = ids([jobs[2], jobs[1]])
            at = {CRITICAL: 0, HIGH: 1, LOW: 2}[priority]
            claims = await b.claim()
            assert ids(claims) == [*others[:at], job_id, *others[at:]]
            for claim in claims:
                assert await b.store.finish(claim, Completed())


async def check_priority_of_a_start(open_store: OpenStore) -> None:
    """A held job that is started and changed at one time has the new priority, whichever came first."""
    async with open_worker(open_store) as worker:
        for nth in range(6):
            await worker.insert(held := new_entry(None, queue="held"))
            start = partial(worker.store.start_held, held.id, new_plan(queue="held"))
            started, entry = await race(nth, start, partial(_set, worker, held.id, HIGH))
            assert (started, entry.plan.priority) == (True, HIGH)
            claim = await worker.claim_one()
            assert (claim.entry.id, claim.entry.plan.priority) == (held.id, HIGH)
            await worker.end(claim)
