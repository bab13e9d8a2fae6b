"""Store checks: what a store tells its listener, and calls that are cut off and made again."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._policies import Retention, RetryPolicy
from jobtrio._records import Cancelled, Completed
from jobtrio.abc import JobQuery
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio.abc import Claim
    from jobtrio.testing._workers import OpenStore, Worker


async def check_changes_are_told_once(open_store: OpenStore) -> None:
    """Each change of state that a process makes is told to it once, in order, with the entry as it then was."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()), lease=LEASE)
        other, expiring, delayed = new_entry(), new_entry(expires_in=SHORT), new_entry(delay=SHORT)
        await worker.store.retry(claim, ERROR, 0.0)
        await worker.insert(expiring, delayed)
        await worker.pass_time()
        await worker.insert(other)
        first, second, third = await worker.claim(lease=SHORT)
        assert await worker.store.save_state(first, "saved")  # which is no change of state
        await worker.store.finish(first, Completed())
        await worker.store.release(second, "shutdown")
        await worker.pass_time()
        for claim in (second, third):
            await worker.store.request_cancel(claim.entry.id, "why", 0.0)
        for job_id in (*ids([first, second, third]), expiring.id):
            assert worker.heard.of(job_id) == await worker.history(job_id)
        assert [change.job_id for change in worker.heard.changes][:3] == [first.entry.id] * 3


async def check_changes_are_told_to_who_made_them(open_store: OpenStore) -> None:
    """A change of state that another process makes is not told."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy()))
        await a.store.retry(claim, ERROR, 0.0)
        await b.store.request_cancel(claim.entry.id, None, 0.0)
        await trio.sleep(SHORT)  # for what one process tells the other to arrive
        told = a.heard.changes if a is b else a.heard.changes + b.heard.changes
        assert told == await a.history(claim.entry.id)


async def check_repeated_calls_are_told_once(open_store: OpenStore) -> None:
    """A call that is made again tells nothing again."""
    async with open_worker(open_store) as worker:
        entry = new_entry()
        for _ in range(2):
            await worker.store.insert([entry], "mark")
        claim = await worker.claim_one()
        for _ in range(2):
            await worker.store.finish(claim, Completed())
            await worker.store.request_cancel(entry.id, None, 0.0)
        assert worker.heard.of(entry.id) == await worker.history(entry.id)


async def check_work_is_announced(open_store: OpenStore) -> None:
    """Whatever makes a job ready is announced to the process that did it."""
    async with open_worker(open_store) as worker:
        held = new_entry(None)

        async def start_held() -> None:
            await worker.store.start_held(held.id, new_plan())

        async def release() -> None:
            await worker.store.release(await worker.claim_one(SHORT), "shutdown")

        async def lapse() -> None:
            await worker.claim_one(SHORT)
            worker.heard.forget()
            await worker.pass_time()

        async def become_due() -> None:
            await worker.store.finish(await worker.claim_one(), Completed())
            await worker.insert(new_entry(delay=SHORT))
            await worker.pass_time()

        async def resume() -> None:
            await worker.store.pause("default")
            worker.heard.forget()
            await worker.store.resume("default")

        await worker.insert(held)
        for make_ready in (start_held, release, lapse, become_due, lambda: worker.insert(new_entry()), resume):
            worker.heard.forget()
            await make_ready()
            await worker.heard.wait_for("work_ready")


async def check_earlier_times_are_announced(open_store: OpenStore) -> None:
    """What falls due earlier than all before is announced, and `advance` knows of it then."""
    async with open_worker(open_store, Retention(held_for=inf)) as worker:
        longest = LEASE * 10  # however slow a machine is, it is nowhere near the next
        held = new_entry(None, expires_in=longest * 9)
        worker.heard.forget()
        await worker.insert(held)
        await worker.heard.wait_for("due_changed")
        running = await worker.start(new_entry(retry=RetryPolicy()), lease=9 * longest)
        await worker.insert(new_entry())
        await trio.sleep(SHORT)  # a store that was just opened may have to look again, of its own accord

        async def insert(delay: float) -> None:
            await worker.insert(new_entry(delay=delay))

        async def claim(lease: float) -> None:
            await worker.claim_one(lease)

        async def retry(delay: float) -> None:
            await worker.store.retry(running, ERROR, delay)

        async def expire(seconds: float) -> None:
            await worker.insert(new_entry(expires_in=seconds, queue="unused"))

        async def pause(seconds: float) -> None:
            await worker.store.pause("unused", seconds)

        for part, begin in enumerate((insert, retry, claim, expire, pause)):
            seconds = longest / (part + 1)
            assert await worker.advance() > seconds
            worker.heard.forget()
            await begin(seconds)
            await worker.heard.wait_for("due_changed")
            assert longest / (part + 2) < await worker.advance() <= seconds


async def check_times_are_known_to_newcomers(open_store: OpenStore) -> None:
    """Whoever opens a store learns when something falls due, whatever it is."""
    async with open_workers(open_store, "a", "b") as (a, b):
        if a is b:
            return  # one object stands for all, and is open already
        for part in range(8):  # each kind twice, the earlier one later
            seconds = LEASE * (9 - part)
            match part % 4:
                case 0:
                    await a.insert(new_entry())
                    assert await a.claim(lease=seconds, room={"default": 1})
                case 1:
                    await a.insert(new_entry(delay=seconds))
                case 2:
                    await a.store.pause(f"unused {part}", seconds)
                case _:
                    await a.insert(new_entry(expires_in=seconds, queue="unused"))
            async with open_worker(open_store) as newcomer:
                assert seconds - LEASE < await newcomer.advance() <= seconds


CUTS: tuple[Any, ...] = (*range(9), 0.001, 0.004, 0.015, 0.04)
"""When to cut a call off: after so many steps (int), or so many seconds (float)."""


async def _cut_off(call: Callable[[], Awaitable[Any]], when: int | float) -> None:
    """Begin a call and cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        if isinstance(when, int):
            for _ in range(when):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(when)
        nursery.cancel_scope.cancel()


async def check_calls_cut_off(open_store: OpenStore) -> None:
    """A call that was cancelled, at any moment, can be made again: it is then done, once."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for when in CUTS:
            entry, *others = new_entry(retry=RetryPolicy()), new_entry(None), new_entry(delay=LEASE)
            insert = partial(a.store.insert, [entry, *others], f"insert {when}")
            await _cut_off(insert, when)
            assert len(await b.store.find(JobQuery())) % 3 == 0  # all of a call, or none
            assert ids(await insert()) == ids([entry, *others])
            claim_again = partial(a.store.claim, f"claim {when}", limit=9, lease=LEASE)
            await _cut_off(claim_again, when)
            (claim,) = await claim_again()
            for write, *rest in (
                (a.store.append_messages, tokens(1, 2)),
                (a.store.save_state, when),
                (a.store.retry, ERROR, 0.0),
            ):
                again = partial(write, claim, *rest)
                await _cut_off(again, when)
                assert await again()
            assert await b.states(entry.id) == ["QUEUED", "RUNNING", "RETRYING"]
            assert len(await b.stream(entry.id)) == 3
            await a.pass_time(0)  # who has said so knows it at once
            claim = await b.claim_one()
            assert (claim.entry.saved_state, claim.entry.failures) == (when, 1)
            release = partial(b.store.release, claim, "shutdown")
            await _cut_off(release, when)
            assert await release()
            claim = await a.claim_one()
            finish = partial(a.store.finish, claim, Completed(when), messages=tokens(5, 6, attempt=3))
            await _cut_off(finish, when)
            assert await finish()
            assert (await b.record(entry.id)).result == when
            assert [message.seq for message in await b.stream(entry.id) if hasattr(message, "seq")] == [*range(1, 8)]
        assert len(await b.store.find(JobQuery())) == 3 * len(CUTS)


async def check_work_is_announced_to_others(open_store: OpenStore) -> None:
    """A store that has nobody look for work without a call, its `poll_interval` being inf, calls every process."""
    async with open_workers(open_store, "a", "b") as (a, b):
        if b.store.poll_interval == inf:
            await trio.sleep(SHORT)  # for what was told of the opening to arrive
            for entry, signal in ((new_entry(), "work_ready"), (new_entry(delay=LEASE), "due_changed")):
                b.heard.forget()
                await a.insert(entry)
                await b.heard.wait_for(signal)


async def check_errors_leave_as_they_came(open_store: OpenStore) -> None:
    """What is raised while a store is open comes out of its block as it is, not within a group."""
    error, came_out = LookupError("raised in the block"), []
    try:
        async with open_worker(open_store):
            raise error
    except (Exception, BaseExceptionGroup) as exc:
        came_out.append(exc)
    assert came_out == [error]


async def check_calls_without_a_mark_cut_off(open_store: OpenStore) -> None:
    """A call that carries no mark, and was cancelled at any moment, can be made again: nothing is left undone."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for when in CUTS:
            waiting = await a.start(new_entry(retry=RetryPolicy()))
            await a.store.retry(waiting, ERROR, 0.0)
            await _cut_off(a.store.advance, when)
            claim = await _claim_in_the_end(a)
            await _cut_off_and_repeat(partial(a.store.renew, [claim], LEASE), when)
            await _cut_off_and_repeat(partial(b.store.request_cancel, claim.entry.id, "why", 0.0), when)
            assert await a.store.finish(claim, Completed())
            assert (await b.load(claim.entry.id)).outcome == Cancelled("why")
            await a.insert(held := new_entry(None))
            await _cut_off_and_repeat(partial(b.store.start_held, held.id, new_plan()), when)
            claim = await a.claim_one()
            assert await a.store.finish(claim, Completed())
            await _cut_off_and_repeat(partial(b.store.delete, held.id), when)
            assert await a.store.load(held.id) is None


async def _cut_off_and_repeat(call: Callable[[], Awaitable[Any]], when: int | float) -> None:
    await _cut_off(call, when)
    await call()


async def _claim_in_the_end(worker: Worker) -> Claim:
    """Claim the one job that is ready, or is so soon: what was cut off may go on elsewhere for a moment."""
    for _ in range(100):
        await worker.advance()
        for claim in await worker.claim():
            return claim
        await trio.sleep(0.05)
    raise AssertionError("a job that is due is not ready")
