"""Store checks: who gets which job, when, and only once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import JobPriority, Retention, RetryPolicy
from jobtrio._records import Completed, Failed
from jobtrio._state import JobState
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore, Worker


async def check_claim_order(open_store: OpenStore) -> None:
    """Higher priorities come first, within one the older jobs, in batches as large as asked for."""
    async with open_worker(open_store) as worker:
        levels = [JobPriority.NORMAL, JobPriority.LOW, JobPriority.CRITICAL, JobPriority.HIGH]
        entries = [new_entry(priority=level, job_id=f"{level.name}{n}") for n in range(3) for level in levels]
        await worker.insert(*entries[:5])
        await worker.insert(*entries[5:])
        expected = [f"{level.name}{n}" for level in sorted(levels, reverse=True) for n in range(3)]
        claimed = [ids(await worker.claim(limit=limit)) for limit in (1, 4, 5, 100, 100)]
        assert claimed == [expected[:1], expected[1:5], expected[5:10], expected[10:], []]


async def check_order_over_many_lines(open_store: OpenStore) -> None:
    """However many queues and executors there are, the jobs of all of them come in one order."""
    async with open_worker(open_store) as worker:
        levels = [JobPriority.NORMAL, JobPriority.HIGH]
        entries = [
            new_entry(f"work{n * 5 % 3}", queue=f"queue{n * n % 7}", priority=levels[n % 11 == 10], job_id=f"{n:02}")
            for n in range(60)
        ]
        await worker.insert(*entries)
        entries.sort(key=lambda entry: (-entry.plan.priority, entry.id))
        room, executors = {"queue0": 9, "queue1": 9, "queue2": 9}, {"work1", "work2"}
        named = [entry for entry in entries if entry.plan.queue in room and entry.plan.executor in executors][:9]
        assert ids(await worker.claim(limit=9, room=room, executors=executors)) == ids(named)
        claimed = [job_id for limit in (1, 7, 20, 100) for job_id in ids(await worker.claim(limit=limit))]
        assert claimed == ids([entry for entry in entries if entry not in named])


async def check_order_over_more_lines_than_jobs(open_store: OpenStore) -> None:
    """Where there are more lines than jobs are wanted, those come that are first, as far as their queues have room."""
    async with open_worker(open_store) as worker:
        expired = [new_entry(f"work{n % 4}", queue="abc"[n % 3], expires_in=SHORT) for n in range(12)]
        await worker.insert(*expired)
        queues = ["full", *"aaabbc" * 4, *"defg" * 3]
        entries = [new_entry(f"work{n * n % 5}", queue=queue, job_id=f"{n:02}") for n, queue in enumerate(queues)]
        await worker.insert(*entries)
        await trio.sleep(2 * SHORT)
        room = {queue: n for n, queue in enumerate(("full", *"abcdefg"))}
        for limit in (3, 2, 4, 3):
            left = dict(room)
            named: list[str] = []
            for entry in entries:
                if left[entry.plan.queue] and len(named) < limit:
                    left[entry.plan.queue] -= 1
                    named.append(entry.id)
            assert ids(await worker.claim(limit=limit, room=room)) == named
            entries = [entry for entry in entries if entry.id not in named]


async def check_age_counts_from_readiness(open_store: OpenStore) -> None:
    """A job that became ready later stands behind, whenever it was stored, in its queue as beside other queues."""
    async with open_worker(open_store) as worker:
        for queues in ("aaaa", "abcd"):
            early, late, delayed = (
                new_entry(queue=queue, delay=d) for queue, d in zip(queues[:3], (0, 0, SHORT), strict=True)
            )
            retried = await worker.start(new_entry(queue=queues[3], retry=RetryPolicy()))
            await worker.insert(delayed)
            await worker.insert(early)
            await worker.store.retry(retried, ERROR, 2 * SHORT)
            await worker.pass_time()
            await worker.pass_time(SHORT)
            await worker.insert(late)
            claims = await worker.claim()
            assert ids(claims) == [early.id, delayed.id, retried.entry.id, late.id]
            last = new_entry(queue=queues[0])
            await worker.insert(last)
            for claim in reversed(claims):
                await worker.store.release(claim, "shutdown")
            assert ids(await worker.claim()) == [last.id, *reversed(ids(claims))]


async def check_room_of_queues(open_store: OpenStore) -> None:
    """Only the queues asked about are taken from, at most as many from each as there is room, of all executors."""
    async with open_worker(open_store) as worker:
        for n in range(4):
            for queue in ("a", "b", "c"):
                level = JobPriority.HIGH if n == 3 else JobPriority.NORMAL
                await worker.insert(new_entry(f"work{n % 2}", queue=queue, job_id=f"{queue}{n}", priority=level))
        assert await worker.claim(room={}) == []
        assert await worker.claim(room={"d": 3}) == []
        assert ids(await worker.claim(room={"a": 2, "b": 1})) == ["a3", "b3", "a0"]
        assert ids(await worker.claim(limit=3, room={"a": 9, "b": 9})) == ["b0", "a1", "b1"]
        assert ids(await worker.claim()) == ["c3", "c0", "c1", "a2", "b2", "c2"]


async def check_limits_over_all_workers(open_store: OpenStore) -> None:
    """Of a queue with a limit over all workers no more jobs run than it says; others are taken in their place."""
    async with open_workers(open_store, "a", "b", totals={"few": 2, "none": 0, "many": 9}) as (a, b):
        for n in range(4):
            for queue in ("few", "none", "many", "free"):
                await a.insert(new_entry(f"work{n % 2}", queue=queue, job_id=f"{queue}{n}", retry=RetryPolicy()))
        first = await a.claim(limit=2)
        assert ids(first) == ["few0", "many0"]
        second = await b.claim()
        assert ids(second) == ["free0", "few1", "many1", "free1", "many2", "free2", "many3", "free3"]
        assert await a.claim() == []
        assert await b.claim(room={"few": 3, "none": 3}) == []
        assert await a.store.finish(first[0], Completed())
        assert ids(await b.claim(room={"few": 3})) == ["few2"]
        assert await b.store.retry(second[1], ERROR, LEASE)
        assert ids(await a.claim(room={"few": 3})) == ["few3"]
        await a.insert(new_entry(queue="many", job_id="many4"), new_entry(queue="many", job_id="many5"))
        assert ids(await b.claim(room={"many": 1})) == ["many4"]


async def check_a_limit_that_was_lowered(open_store: OpenStore) -> None:
    """Where more jobs of a queue run than may by now, none is taken from it, and others are."""
    if not open_store().durable:
        return
    async with open_workers(open_store, "a", totals={"few": 3}) as (a,):
        await a.insert(*(new_entry(queue="few") for _ in range(5)))
        assert len(await a.claim()) == 3
    async with open_workers(open_store, "b", totals={"few": 1}) as (b,):
        free = new_entry(queue="free")
        await b.insert(free)
        assert await b.claim(room={"few": 5}) == []
        assert ids(await b.claim()) == [free.id]


async def check_limits_hold_at_once(open_store: OpenStore) -> None:
    """However many claim at once, in one process or several, the limit over all holds, and what leaves makes room."""
    async with open_workers(open_store, *"abcd", totals={"few": 3}) as workers:
        entries = [new_entry(queue="few") for _ in range(12)]
        await workers[0].insert(*entries)
        left, most = len(entries), 0

        async def work(worker: Worker) -> None:
            nonlocal left, most
            while left:
                claims = await worker.claim(limit=2)
                most = max(most, (await worker.store.counts())["few"][JobState.RUNNING])
                for claim in claims:
                    assert await worker.store.finish(claim, Completed())
                left -= len(claims)

        async with trio.open_nursery() as nursery:
            for worker in 2 * workers:
                nursery.start_soon(work, worker)
        assert most <= 3


async def check_room_over_all_workers_is_told(open_store: OpenStore) -> None:
    """When a job of a queue with a limit over all workers runs no more, the other workers are told to look."""
    async with open_workers(open_store, "a", "b", totals={"few": 1}) as (a, b):
        for leave, *how in (
            (a.store.finish, Completed()),
            (a.store.finish, Failed(ERROR)),
            (a.store.retry, ERROR, LEASE),
            (a.store.release, "shutdown"),
        ):
            await a.insert(new_entry(queue="few", retry=RetryPolicy()))
            (claim,) = await a.claim()
            await trio.sleep(SHORT)  # for what was told of the submission to arrive
            b.heard.forget()
            assert await leave(claim, *how)
            await b.heard.wait_for("work_ready")


async def check_only_known_executors(open_store: OpenStore) -> None:
    """Only jobs of the executors asked for are taken, wherever they stand; the others keep their places."""
    async with open_worker(open_store) as worker:
        entries = [new_entry(name, job_id=f"{name}{n}", queue="xy"[n % 2]) for n in range(3) for name in "abc"]
        await worker.insert(*entries)
        assert await worker.claim(executors=frozenset()) == []
        assert ids(await worker.claim(limit=3, executors=frozenset({"b", "c", "d"}))) == ["b0", "c0", "b1"]
        assert ids(await worker.claim()) == ["a0", "a1", "c1", "a2", "b2", "c2"]


async def check_only_ready_jobs(open_store: OpenStore) -> None:
    """Jobs that are scheduled, held, running, retrying or ended are not claimed."""
    async with open_worker(open_store) as worker:
        retrying = await worker.start()
        await worker.store.retry(retrying, ERROR, LEASE)
        ended = await worker.start()
        await worker.store.finish(ended, Completed())
        await worker.start()
        cancelled = new_entry()
        await worker.insert(new_entry(delay=LEASE), new_entry(None), cancelled)
        await worker.store.request_cancel(cancelled.id, None, 0.0)
        await worker.advance()
        assert await worker.claim() == []


async def check_what_a_claim_carries(open_store: OpenStore) -> None:
    """A claim carries the whole job, running, with its history, and other processes see it run."""
    async with open_workers(open_store, "a", "b") as (a, b):
        policy = RetryPolicy(max_attempts=2)
        entry = new_entry("work", [1], time_limit=3, retry=policy, tags={"t": "v"}, metadata={"m": 1}, queue="q")
        await a.insert(entry)
        claims = await b.store.claim("call", limit=5, lease=LEASE)
        assert [(claim.id, claim.attempt) for claim in claims] == [("call", 1)]
        claimed = claims[0].entry
        plan = claimed.plan
        assert (plan.executor, plan.queue, plan.time_limit, plan.retry) == ("work", "q", 3, policy)
        assert (claimed.payload, claimed.tags, claimed.metadata) == ([1], {"t": "v"}, {"m": 1})
        record = await a.record(entry.id)
        assert record == claimed.record()
        assert (record.state, record.attempt, record.worker) == (JobState.RUNNING, 1, b.name)
        assert record.started_at is not None
        assert claimed.history() == await a.history(entry.id)


async def check_claims_are_exclusive(open_store: OpenStore) -> None:
    """However many processes claim at once, each job goes to one of them."""
    async with open_workers(open_store, *"abcd") as workers:
        entries = [new_entry() for _ in range(40)]
        await workers[0].insert(*entries)
        claimed: list[str] = []

        async def claim(worker: Worker) -> None:
            while claims := await worker.claim(limit=3):
                claimed.extend(ids(claims))

        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(claim, worker)
        assert sorted(claimed) == sorted(ids(entries))


async def check_repeated_claim(open_store: OpenStore) -> None:
    """A repeated call gives what the first one claimed and still holds, and nothing else."""
    async with open_workers(open_store, "a", "b") as (worker, other):
        await worker.insert(*(new_entry() for _ in range(5)))
        first = await worker.store.claim("call", limit=2, lease=LEASE)
        again = await worker.store.claim("call", limit=2, lease=LEASE)
        assert [(c.entry.id, c.id, c.attempt) for c in again] == [(c.entry.id, c.id, c.attempt) for c in first]
        assert (await worker.store.backlog(None)).queued == 3
        await worker.store.finish(again[0], Completed())
        assert ids(await worker.store.claim("call", limit=2, lease=LEASE)) == ids(first[1:])
        assert (await worker.store.backlog(None)).queued == 3
        lost = await worker.store.claim("lost", limit=5, lease=SHORT)
        await worker.pass_time()
        assert sorted(ids(await other.claim())) == sorted(ids(lost))
        assert await worker.store.claim("lost", limit=5, lease=LEASE) == []


async def check_claim_nowait(open_store: OpenStore) -> None:
    """A store that claims at once gives on the spot what `claim` would, and counts it; any other gives nothing."""
    async with open_worker(open_store) as worker:
        store = worker.store
        await worker.insert(*(new_entry(queue=queue) for queue in "aab"), new_entry(None), new_entry(delay=LEASE))
        for room, many in (({}, 0), ({"a": 1, "b": 9}, 2), ({"a": 9}, 1), (None, 0)):
            expected = many if store.claims_at_once else 0
            assert store.ready_nowait(room) == expected
            claims = store.claim_nowait(secrets.token_hex(8), limit=9, lease=LEASE, room=room)
            assert len(claims) == expected


async def check_expired_jobs_do_not_start(open_store: OpenStore) -> None:
    """A job whose time to start is over is not started, although nobody has made it fail yet."""
    async with open_worker(open_store, Retention(held_for=SHORT)) as worker:
        late, held = new_entry(expires_in=SHORT), new_entry(None)
        await worker.insert(late, held)
        await trio.sleep(2 * SHORT)
        assert await worker.claim() == []
        assert not await worker.store.start_held(held.id, new_plan())
        await worker.advance()
        for entry in (late, held):
            assert await worker.states(entry.id) == ["QUEUED", "FAILED"]


async def check_expired_jobs_make_way(open_store: OpenStore) -> None:
    """A job that can't be started any more does not stand in the way of those behind it, whatever its priority is."""
    async with open_worker(open_store) as worker:
        expired = new_entry(queue="a", priority=JobPriority.CRITICAL, expires_in=SHORT)
        late, early = new_entry(queue="a", priority=JobPriority.LOW), new_entry(queue="b")
        await worker.insert(expired, late, early)
        await trio.sleep(2 * SHORT)
        assert ids(await worker.claim(limit=1)) == ids([early])
        assert ids(await worker.claim(limit=5)) == ids([late])
