"""Store checks: limits whose keys are patterns, each of whose queues has the limit for itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Completed
from jobtrio._state import JobState
from jobtrio.abc import Backlog
from jobtrio.testing._check_pausing import NAMES
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore, Worker


async def _insert(worker: Worker, queues: tuple[str, ...], times: int) -> None:
    """Store jobs, in turns, that are called by their queues and their numbers, of two executors."""
    for n in range(times):
        await worker.insert(*(new_entry(f"work{n % 2}", queue=queue, job_id=f"{queue} {n}") for queue in queues))


async def check_room_by_pattern(open_store: OpenStore) -> None:
    """A pattern's room is that of each of its queues; a queue's own key wins, also with 0, then the longest pattern."""
    async with open_worker(open_store) as worker:
        await _insert(worker, ("u:a", "u:b", "u:bc", "u:", "u", "v"), 4)
        assert await worker.claim(room={"w*": 9, "u:c*": 9}) == []
        room = {"u:*": 1, "u:b*": 2, "u:a": 0, "u:bc": 3}
        assert ids(await worker.claim(room=room)) == ["u:b 0", "u:bc 0", "u: 0", "u:b 1", "u:bc 1", "u:bc 2"]
        assert ids(await worker.claim(room={"*": 1, "u:*": 0}, executors={"work0"})) == ["u 0", "v 0"]
        assert ids(await worker.claim(4, room={"*": 2, "u": 1})) == ["u:a 0", "u:a 1", "u: 1", "u 1"]
        assert ids(await worker.claim(room={"u:a": 9, "v*": 1})) == ["v 1", "u:a 2", "u:a 3"]


async def check_room_by_pattern_and_priority(open_store: OpenStore) -> None:
    """The jobs of a pattern's queues come in one order; a queue that is full holds up none of the others."""
    async with open_worker(open_store) as worker:
        for n, level in enumerate((JobPriority.LOW, JobPriority.HIGH, JobPriority.NORMAL)):
            queues = [f"u:{m}" for m in range(12)]
            await worker.insert(*(new_entry(queue=queue, priority=level, job_id=f"{queue} {n}") for queue in queues))
        urgent = new_entry(queue="u:7", priority=JobPriority.CRITICAL, job_id="urgent")
        await worker.insert(urgent)
        first = ["urgent", *(f"u:{m} 1" for m in range(12) if m != 7)]
        assert ids(await worker.claim(room={"u:*": 1})) == first
        room = {"u:*": 2, **{f"u:{m}": 0 for m in range(10)}}
        assert ids(await worker.claim(3, room=room)) == ["u:10 2", "u:11 2", "u:10 0"]
        assert ids(await worker.claim(2, room={"u:7": 1, "u:*": 1})) == ["u:7 1", "u:0 2"]


async def check_names_that_patterns_match(open_store: OpenStore) -> None:
    """A pattern matches what begins with it, character by character, and nothing else."""
    names: tuple[str, ...] = (*NAMES, "*", "a*", "a*b", "a**", "\\", "[a]", "?")
    async with open_worker(open_store) as worker:
        await _insert(worker, names, 1)
        patterns = (
            "a*",
            "1:*",
            "é*",
            "e*",
            "%*",
            "_*",
            "'*",
            "{*",
            "\\*",
            "[a*",
            "?*",
            "a**",
            f"{'x' * 199}*",
            "default*",
        )
        for pattern in patterns:
            matching = [name for name in names if name.startswith(pattern[:-1])]
            assert await worker.store.backlog([pattern]) == Backlog(queued=len(matching)), pattern
            claims = await worker.claim(room={pattern: 9})
            assert ids(claims) == [f"{name} 0" for name in matching], pattern
            for claim in reversed(claims):
                assert await worker.store.finish(claim, Completed())
                assert await worker.store.delete(claim.entry.id)
                await worker.insert(new_entry(queue=claim.entry.plan.queue, job_id=claim.entry.id))
            names = (*(name for name in names if name not in matching), *reversed(matching))


async def check_names_that_look_like_patterns(open_store: OpenStore) -> None:
    """A key that ends in a star is a pattern, also for the queue that is called so; a longer one may stand for that."""
    async with open_worker(open_store) as worker:
        await _insert(worker, ("a*", "ab", "a*b"), 2)
        assert ids(await worker.claim(room={"a*": 2, "a**": 0, "a*b": 1})) == ["ab 0", "a*b 0", "ab 1"]
        assert ids(await worker.claim(room={"a*": 1})) == ["a* 0", "a*b 1"]
        assert ids(await worker.claim(room={"a**": 1})) == ["a* 1"]


async def check_totals_by_pattern(open_store: OpenStore) -> None:
    """Of each queue of a pattern no more jobs run over all workers than it says; a queue's own limit wins."""
    totals = {"u:*": 2, "u:few": 1, "u:none": 0, "u:many*": 3}
    async with open_workers(open_store, "a", "b", totals=totals) as (a, b):
        await _insert(a, ("u:a", "u:few", "u:none", "u:many", "free"), 4)
        first = await a.claim(limit=3)
        assert ids(first) == ["u:a 0", "u:few 0", "u:many 0"]
        rest = ["free 0", "u:a 1", "u:many 1", "free 1", "u:many 2", "free 2", "free 3"]
        assert ids(await b.claim()) == rest
        assert await a.claim() == []
        await _insert(a, ("u:b",), 4)
        assert ids(await b.claim(room={"u:b": 1, "u:none": 1})) == ["u:b 0"]
        assert ids(await a.claim(room={"u:*": 2})) == ["u:b 1"]
        assert await b.claim(room={"*": 9}) == []
        assert await a.store.finish(first[0], Completed())
        assert await a.store.retry(first[1], ERROR, LEASE)
        assert ids(await b.claim(room={"u:*": 9, "u:few": 0})) == ["u:a 2"]
        assert ids(await b.claim(room={"*": 9})) == ["u:few 1"]


async def check_totals_by_pattern_hold_at_once(open_store: OpenStore) -> None:
    """However many claim at once, whichever queues they name, each queue of a pattern keeps to its limit."""
    async with open_workers(open_store, *"abcd", totals={"u:*": 2}) as workers:
        queues = ("u:a", "u:b", "u:c")
        await _insert(workers[0], queues, 8)
        left, most = 8 * len(queues), Counter[str]()

        async def work(worker: Worker, room: dict[str, int] | None) -> None:
            nonlocal left
            while left:
                claims = await worker.claim(limit=3, room=room)
                for queue, states in (await worker.store.counts()).items():
                    most[queue] = max(most[queue], states[JobState.RUNNING])
                for claim in claims:
                    assert await worker.store.finish(claim, Completed())
                left -= len(claims)

        async with trio.open_nursery() as nursery:
            for n, worker in enumerate(2 * workers):
                rooms = (None, {"u:*": 9}, {"*": 9}, dict.fromkeys(queues, 9))
                nursery.start_soon(work, worker, rooms[n * 3 % 4])
        assert set(most) == set(queues)
        assert max(most.values()) <= 2


async def check_room_by_pattern_is_told(open_store: OpenStore) -> None:
    """When a job of a pattern's queue runs no more, the other workers are told to look."""
    async with open_workers(open_store, "a", "b", totals={"u:*": 1, "v": 1}) as (a, b):
        for queue in ("u:a", "u:b", "v"):
            await a.insert(new_entry(queue=queue, retry=RetryPolicy()))
            (claim,) = await a.claim()
            await trio.sleep(SHORT)  # for what was told of the submission to arrive
            b.heard.forget()
            if queue == "u:b":
                assert await a.store.retry(claim, ERROR, LEASE)
            else:
                assert await a.store.finish(claim, Completed())
            await b.heard.wait_for("work_ready")


async def check_backlog_by_pattern(open_store: OpenStore) -> None:
    """The backlog counts what a pattern's queues have, each queue once."""
    async with open_worker(open_store) as worker:
        await _insert(worker, ("u:a", "u:b", "v"), 2)
        assert await worker.store.backlog(["u:*"]) == Backlog(queued=4)
        assert await worker.store.backlog(["u:*", "u:a", "u:b*"], {"work1"}) == Backlog(queued=2)
        assert await worker.store.backlog({"u:b*": 1, "v": 1}) == Backlog(queued=4)
        assert await worker.store.backlog(["w*"]) == Backlog()
        assert len(await worker.claim(room={"u:*": 1})) == 2
        await worker.store.pause("u:a")
        assert await worker.store.backlog(["u:*"]) == Backlog(queued=1, running=2)


async def check_paused_queue_of_a_pattern(open_store: OpenStore) -> None:
    """Of a pattern's queues one may be paused; the others go on."""
    async with open_workers(open_store, "a", "b", totals={"u:*": 2}) as (a, b):
        await _insert(a, ("u:a", "u:b"), 3)
        await b.store.pause("u:a")
        assert ids(await a.claim(room={"u:*": 1})) == ["u:b 0"]
        assert ids(await b.claim()) == ["u:b 1"]
        await a.store.resume("u:a")
        assert ids(await b.claim(room={"u:*": 9})) == ["u:a 0", "u:a 1"]
