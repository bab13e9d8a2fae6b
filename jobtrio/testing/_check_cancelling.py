"""Store checks: requests to cancel, and that they win over every ending written after them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobtrio._messages import End, Restart
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio._state import JobState
from jobtrio.testing._workers import ERROR, LEASE, new_entry, new_plan, open_worker, open_workers, race, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio.abc import CancelReply, Claim
    from jobtrio.testing._workers import OpenStore, Worker


async def _cancel(worker: Worker, job_id: str, reason: str | None = "why", grace: float = 0.0) -> CancelReply:
    reply = await worker.store.request_cancel(job_id, reason, grace)
    assert reply is not None
    return reply


async def check_cancel_of_what_does_not_run(open_store: OpenStore) -> None:
    """A job that is queued, scheduled or held ends at once, with an `End`, and never runs."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entries = [new_entry(), new_entry(delay=LEASE), new_entry(None), new_entry(None, delay=LEASE)]
        await a.insert(*entries)
        for entry, reason in zip(entries, ("why", "", None, "é"), strict=True):
            reply = await _cancel(b, entry.id, reason)
            assert reply.accepted
            assert (reply.entry.state, reply.entry.outcome) == (JobState.CANCELLED, Cancelled(reason))
            record = await a.record(entry.id)
            assert (record.state, record.cancel_reason) == (JobState.CANCELLED, reason)
            assert record.cancel_requested_at is not None
            assert (await a.history(entry.id))[-1].reason == reason
            assert await a.stream(entry.id) == [End(1, Cancelled(reason))]
            assert not await a.store.start_held(entry.id, new_plan())
        assert await a.claim() == []


async def check_cancel_of_a_retrying_job(open_store: OpenStore) -> None:
    """A job that waits for its next attempt ends at once, behind what it sent, by whoever asked for it."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy()))
        await a.store.retry(claim, ERROR, 0.0, messages=tokens(1, 1))
        assert (await _cancel(b, claim.entry.id, None)).accepted
        await a.advance()
        assert await a.claim() == []
        restart = Restart(2, 1, ERROR, 0.0)
        assert await a.stream(claim.entry.id) == [*tokens(1, 1), restart, End(3, Cancelled(None))]
        last = (await a.history(claim.entry.id))[-1]
        assert (last.state, last.attempt, last.worker) == (JobState.CANCELLED, 1, b.name)


async def check_cancel_of_a_running_job(open_store: OpenStore) -> None:
    """A running job goes on until its attempt is gone; the request is kept and told with its reason and grace."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        reply = await _cancel(b, claim.entry.id, "why", 5.0)
        assert reply.accepted
        assert reply.entry.state is JobState.RUNNING
        record = await a.record(claim.entry.id)
        assert (record.state, record.cancel_reason) == (JobState.RUNNING, "why")
        for entry in (reply.entry, await a.load(claim.entry.id)):
            assert entry.cancel is not None
            assert (entry.cancel.reason, entry.cancel.grace) == ("why", 5.0)
        assert await a.store.append_messages(claim, tokens(1, 1))
        assert await a.store.finish(claim, Cancelled("why"))
        assert await b.stream(claim.entry.id) == [*tokens(1, 1), End(2, Cancelled("why"))]


ENDINGS: dict[str, Callable[[Worker, Claim], Awaitable[bool]]] = {
    "completed": lambda w, claim: w.store.finish(claim, Completed("result"), messages=tokens(1, 2)),
    "failed": lambda w, claim: w.store.finish(claim, Failed(ERROR), messages=tokens(1, 2)),
    "cancelled": lambda w, claim: w.store.finish(claim, Cancelled(None), messages=tokens(1, 2)),
    "retried": lambda w, claim: w.store.retry(claim, ERROR, 0.0, messages=tokens(1, 2)),
    "released": lambda w, claim: w.store.release(claim, "shutdown", messages=tokens(1, 2)),
}


async def check_cancel_wins(open_store: OpenStore) -> None:
    """An accepted request wins over every ending written after it, also the second time that is written."""
    why = 'why, "so", 1,'
    async with open_workers(open_store, "a", "b") as (a, b):
        for name, end in ENDINGS.items():
            claim = await a.start(new_entry(retry=RetryPolicy()))
            assert (await _cancel(b, claim.entry.id, why, LEASE)).accepted
            for _ in range(2):
                assert await end(a, claim), name
                entry = await b.load(claim.entry.id)
                assert entry.outcome == claim.entry.outcome == Cancelled(why), name
                assert await b.stream(claim.entry.id) == [*tokens(1, 2), End(3, Cancelled(why))], name
                assert await b.states(claim.entry.id) == ["QUEUED", "RUNNING", "CANCELLED"], name
            assert entry.record().result is None
            assert entry.record().error == (ERROR if name in ("failed", "retried") else None), name


async def check_first_reason_stays(open_store: OpenStore) -> None:
    """Later requests are accepted while the job lives, change neither reason nor time, and may shorten the grace."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        job_id = claim.entry.id
        await _cancel(a, job_id, None, 10.0)
        first = await b.record(job_id)
        graces = []
        for grace in (20.0, 10.0, 5.0, 7.0, 0.0, 5.0):
            reply = await _cancel(b, job_id, "another", grace)
            assert reply.accepted
            assert reply.entry.cancel is not None
            graces.append(reply.entry.cancel.grace)
        assert graces == [10.0, 10.0, 5.0, 5.0, 0.0, 0.0]
        record = await a.record(job_id)
        assert (record.cancel_reason, record.cancel_requested_at) == (None, first.cancel_requested_at)
        await a.store.finish(claim, Cancelled("another"))
        assert (await b.load(job_id)).outcome == Cancelled(None)


async def check_cancel_too_late(open_store: OpenStore) -> None:
    """A request for an ended job is not accepted and changes nothing; one for an unknown job is None."""
    async with open_worker(open_store) as worker:
        for outcome in (Completed("result"), Cancelled("before")):
            claim = await worker.start()
            await worker.store.finish(claim, outcome)
            before = await worker.record(claim.entry.id)
            reply = await _cancel(worker, claim.entry.id)
            assert not reply.accepted
            assert reply.entry.outcome == outcome
            assert await worker.record(claim.entry.id) == before
        assert await worker.store.request_cancel("unknown", "why", 0.0) is None


async def check_race_of_cancel_and_other_writes(open_store: OpenStore) -> None:
    """A request at the same time as what a running attempt writes is kept, and so is that."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(20):
            claim = await a.start()
            await race(
                n,
                partial(_cancel, b, claim.entry.id),
                partial(a.store.save_state, claim, n),
                partial(a.store.append_messages, claim, tokens(1, 2)),
                partial(a.store.renew, [claim], LEASE),
            )
            entry = await b.load(claim.entry.id)
            assert entry.cancel is not None
            assert entry.saved_state == n
            assert await b.stream(claim.entry.id) == tokens(1, 2)
            await a.end(claim)


async def check_race_of_cancel_and_ending(open_store: OpenStore) -> None:
    """Of a request and an ending at the same time one is first, and the answers say which."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(20):
            claim = await a.start()
            finish = partial(a.store.finish, claim, Completed())
            reply, _ = await race(n, partial(_cancel, b, claim.entry.id), finish)
            outcome = (await b.load(claim.entry.id)).outcome
            assert outcome == (Cancelled("why") if reply.accepted else Completed())
            assert await b.stream(claim.entry.id) == [End(1, outcome)]


async def check_race_of_cancel_and_claim(open_store: OpenStore) -> None:
    """A job that is asked to cancel while somebody claims is claimed with the request, or has ended and never runs."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(20):
            await a.insert(entry := new_entry())
            reply, claims = await race(n, partial(_cancel, b, entry.id), a.claim)
            assert reply.accepted
            if claims:
                (report,) = await a.store.renew(claims, LEASE)
                assert report.held
                assert report.entry.cancel is not None
                assert await a.store.finish(claims[0], Completed())
            assert await b.states(entry.id) == ["QUEUED", *["RUNNING"] * len(claims), "CANCELLED"]
            assert await b.stream(entry.id) == [End(1, Cancelled("why"))]
