"""Store checks: what follows a running attempt, and that nobody without its claim can write it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from jobtrio._messages import End, Restart, Token
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, Outcome
from jobtrio._state import JobState
from jobtrio.testing._check_inserting import RICH
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, race, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio.abc import Claim
    from jobtrio.testing._workers import OpenStore, Worker


async def check_finish(open_store: OpenStore) -> None:
    """Each outcome ends the job in its state, once and for all, and the entry and every process know it."""
    outcomes: list[tuple[Outcome, JobState]] = [
        (Completed(RICH), JobState.COMPLETED),
        (Failed(ERROR), JobState.FAILED),
        (Cancelled("why"), JobState.CANCELLED),
        (Cancelled(None), JobState.CANCELLED),
    ]
    async with open_workers(open_store, "a", "b") as (a, b):
        for outcome, state in outcomes:
            claim = await a.start()
            assert await a.store.finish(claim, outcome)
            assert (claim.entry.state, claim.entry.outcome) == (state, outcome)
            found = await b.load(claim.entry.id)
            record = found.record()
            assert (record.state, found.outcome) == (state, outcome)
            assert record == claim.entry.record()
            assert record.result == (RICH if state is JobState.COMPLETED else None)
            assert record.error == (ERROR if state is JobState.FAILED else None)
            assert record.started_at is not None
            assert record.finished_at is not None
            assert record.finished_at >= record.started_at
            assert await b.states(record.id) == ["QUEUED", "RUNNING", state]
            assert await b.claim() == []


async def check_error_of_clean_up(open_store: OpenStore) -> None:
    """What the clean-up of a cancelled attempt raised is kept as the record's error."""
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        await worker.store.finish(claim, Cancelled("why"), error=ERROR)
        assert (await worker.record(claim.entry.id)).error == ERROR


async def check_result_beside_an_error(open_store: OpenStore) -> None:
    """An error that comes with a result is kept beside it."""
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        assert await worker.store.finish(claim, Completed("result"), error=ERROR)
        record = await worker.record(claim.entry.id)
        assert (record.result, record.error) == ("result", ERROR)
        assert await worker.stream(record.id) == [End(1, Completed("result"))]


async def check_retry(open_store: OpenStore) -> None:
    """A failed attempt is followed by a `Restart` and, when its delay is over, by the next number."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy()))
        assert await a.store.retry(claim, ERROR, SHORT, messages=tokens(1, 2))
        job_id = claim.entry.id
        assert claim.entry.state is JobState.RETRYING
        assert (await b.record(job_id)).error == ERROR
        assert await b.stream(job_id) == [*tokens(1, 2), Restart(3, 1, ERROR, SHORT)]
        await b.pass_time()
        second = await b.claim_one()
        assert (second.attempt, second.entry.attempt, second.entry.failures) == (2, 2, 1)
        assert await b.store.retry(second, ERROR, LEASE)
        await b.advance()
        assert await b.claim() == []
        assert await b.states(job_id) == ["QUEUED", "RUNNING", "RETRYING", "QUEUED", "RUNNING", "RETRYING"]
        assert (await b.stream(job_id))[-1] == Restart(4, 2, ERROR, LEASE)


async def check_retry_that_does_not_count(open_store: OpenStore) -> None:
    """A failure that does not count leaves the number of failures as it was; all else is as with any other."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy()))
        for counts, failures in ((False, 0), (True, 1), (False, 1), (True, 2)):
            attempt = claim.attempt
            assert await a.store.retry(claim, ERROR, 0.0, counts=counts)
            assert await a.store.retry(claim, ERROR, 0.0, counts=counts)  # the first answer was lost
            assert (claim.entry.state, claim.entry.failures) == ("RETRYING", failures)
            assert (await b.load(claim.entry.id)).failures == failures
            assert (await b.stream(claim.entry.id))[-1] == Restart(attempt, attempt, ERROR, 0.0)
            await a.pass_time(0)
            claim = await a.claim_one()
            assert (claim.attempt, claim.entry.failures, claim.entry.error) == (attempt + 1, failures, ERROR)


async def check_release(open_store: OpenStore) -> None:
    """A released job is ready at once, behind a `Restart` of kind "lost", and no failure was counted."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        assert await a.store.release(claim, "shutdown", messages=tokens(1, 1))
        job_id = claim.entry.id
        assert claim.entry.state is JobState.QUEUED
        again = await b.claim_one()
        assert (again.entry.id, again.attempt, again.entry.failures) == (job_id, 2, 0)
        assert again.entry.error is None
        token, restart = await b.stream(job_id)
        assert token == tokens(1, 1)[0]
        assert isinstance(restart, Restart)
        assert (restart.seq, restart.attempt, restart.error.kind, restart.delay) == (2, 1, "lost", 0.0)
        released = (await b.history(job_id))[2]
        assert (released.state, released.attempt, released.reason) == (JobState.QUEUED, 1, "shutdown")
        assert await b.store.retry(again, ERROR, 0.0)
        await b.pass_time(0)
        assert await b.store.release(await b.claim_one(), "shutdown")  # which hides no earlier failure
        last = await a.claim_one()
        assert last.entry.record() == await b.record(job_id)
        assert (last.entry.error, last.entry.failures) == (ERROR, 1)


async def check_saved_state(open_store: OpenStore) -> None:
    """What an attempt saves last is carried by the next claim, whatever ended the attempt."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy()))
        assert not claim.entry.saved_state
        assert await a.store.save_state(claim, "first")
        assert await a.store.save_state(claim, RICH)
        assert claim.entry.saved_state == RICH
        await a.store.retry(claim, ERROR, 0.0)
        await a.pass_time(0)  # who has said so knows it at once
        second = await b.claim_one()
        assert second.entry.saved_state == RICH
        await b.store.save_state(second, [2])
        await b.store.release(second, "shutdown")
        third = await a.claim_one(SHORT)
        assert third.entry.saved_state == [2]
        await b.pass_time()
        assert (await b.claim_one()).entry.saved_state == [2]


async def check_values_are_kept_as_json(open_store: OpenStore) -> None:
    """A durable store keeps whatever msgspec can encode as JSON, which is more than JSON has, as what it becomes."""
    if not open_store().durable:
        return
    given = {"when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "pair": (1, 2), "bytes": b"b"}
    kept = {"when": "2026-01-02T03:04:05Z", "pair": [1, 2], "bytes": "Yg=="}
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(payload=given, metadata=given))
        job_id = claim.entry.id
        record = await b.record(job_id)
        assert (record.payload, record.metadata) == (kept, kept)
        assert await a.store.append_messages(claim, [Token(1, 1, given)])
        assert await a.store.save_state(claim, given)
        assert (await b.load(job_id)).saved_state == kept
        assert await a.store.finish(claim, Completed(given), messages=[Token(2, 1, given)])
        assert (await b.record(job_id)).result == kept
        assert await b.stream(job_id) == [Token(1, 1, kept), Token(2, 1, kept), End(3, Completed(kept))]


async def check_expiry(open_store: OpenStore) -> None:
    """A job that is not started in time fails as expired and never runs; one that was started has no more to fear."""
    async with open_worker(open_store) as worker:
        started = await worker.start(new_entry(expires_in=SHORT))
        late, early = new_entry(expires_in=SHORT), new_entry(expires_in=LEASE)
        delayed = new_entry(delay=SHORT, expires_in=1.5 * SHORT)
        await worker.store.release(started, "shutdown")
        await worker.insert(late, early, delayed)
        assert await worker.pass_time() > LEASE / 2  # nothing of those that have no more to fear is waited for
        assert ids(await worker.claim()) == [started.entry.id, early.id]
        assert await worker.advance() > LEASE / 2
        assert await worker.states(delayed.id) == ["SCHEDULED", "QUEUED", "FAILED"]
        assert worker.heard.of(delayed.id) == await worker.history(delayed.id)
        record = await worker.record(late.id)
        assert record.error is not None
        assert (record.state, record.error.kind) == (JobState.FAILED, "expired")
        assert await worker.states(late.id) == ["QUEUED", "FAILED"]
        assert await worker.stream(late.id) == [End(1, Failed(record.error))]


WRITES: dict[str, Callable[[Worker, Claim], Awaitable[bool]]] = {
    "finish": lambda w, claim: w.store.finish(claim, Completed("forged"), messages=tokens(2, 3)),
    "retry": lambda w, claim: w.store.retry(claim, ERROR, 0.0, messages=tokens(2, 3)),
    "release": lambda w, claim: w.store.release(claim, "forged", messages=tokens(2, 3)),
    "save_state": lambda w, claim: w.store.save_state(claim, "forged"),
    "append_messages": lambda w, claim: w.store.append_messages(claim, tokens(2, 3)),
}
"""All that a claim allows, each in a form that shows if it was done."""


async def _check_fenced(worker: Worker, claim: Claim) -> None:
    """Check that a claim that does not hold its job changes nothing."""
    before = await _all_of(worker, claim.entry.id)
    for name, write in WRITES.items():
        assert not await write(worker, claim), f"{name} was accepted"
        (report,) = await worker.store.renew([claim], LEASE)
        assert not report.held
        assert await _all_of(worker, claim.entry.id) == before, f"{name} has changed the job"


async def _all_of(worker: Worker, job_id: str) -> list[Any]:
    kept = await worker.load(job_id)
    return [kept.record(), kept.saved_state, await worker.stream(job_id), await worker.history(job_id)]


async def check_wrong_claims_write_nothing(open_store: OpenStore) -> None:
    """Neither another claim's id nor another attempt's number can write to a running job."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        await a.store.append_messages(claim, tokens(1, 1))
        await _check_fenced(b, attrs.evolve(claim, entry=await b.load(claim.entry.id), id="another"))
        await _check_fenced(b, attrs.evolve(claim, entry=await b.load(claim.entry.id), attempt=2))
        assert await a.store.finish(claim, Completed())


async def check_old_claims_write_nothing(open_store: OpenStore) -> None:
    """A worker whose lease has lapsed can write nothing more, be the job waiting, running elsewhere, ended or gone."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(lease=SHORT)
        await a.store.append_messages(claim, tokens(1, 1))
        await b.pass_time()
        await _check_fenced(a, claim)
        second = await b.claim_one()
        await _check_fenced(a, claim)
        assert await b.store.append_messages(second, tokens(3, 4, attempt=2))
        assert await b.store.finish(second, Completed("right"))
        await _check_fenced(a, claim)
        assert (await a.record(claim.entry.id)).result == "right"
        assert await b.store.delete(claim.entry.id)
        for name, write in WRITES.items():
            assert not await write(a, claim), f"{name} was accepted of a job that is gone"
        assert [report.held for report in await a.store.renew([claim], LEASE)] == [False]


async def check_nothing_behind_the_end(open_store: OpenStore) -> None:
    """The claim that has ended its attempt can add nothing to the job; only its own ending may be repeated."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for end in ("finish", "retry", "release"):
            claim = await a.start(new_entry(retry=RetryPolicy()))
            await a.store.append_messages(claim, tokens(1, 1))
            assert await WRITES[end](a, claim)
            before = await _all_of(b, claim.entry.id)
            for name in ("append_messages", "save_state"):
                write = partial(WRITES[name], a, attrs.evolve(claim, entry=await a.load(claim.entry.id)))
                assert not await write(), f"{name} was accepted behind {end}"
                assert await _all_of(b, claim.entry.id) == before, f"{name} has changed the job behind {end}"
            (report,) = await a.store.renew([claim], LEASE)
            assert not report.held
            await a.end(claim)


async def check_repeated_writes(open_store: OpenStore) -> None:
    """A repeated write is answered like the first one, and nothing is doubled."""
    async with open_worker(open_store) as worker:
        for name, write in WRITES.items():
            claim = await worker.start()
            await worker.store.append_messages(claim, tokens(1, 1))
            assert await write(worker, claim), f"{name} was refused"
            stream, states = await worker.stream(claim.entry.id), await worker.states(claim.entry.id)
            assert await write(worker, claim), f"{name} was refused the second time"
            assert await worker.stream(claim.entry.id) == stream
            assert await worker.states(claim.entry.id) == states
            await worker.end(claim)


async def check_race_of_writes_and_release(open_store: OpenStore) -> None:
    """What a claim writes while it is given up comes before that, or is refused."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(20):
            claim = await a.start()
            is_appended, is_saved, is_released = await race(
                n,
                partial(a.store.append_messages, claim, tokens(1, 2)),
                partial(a.store.save_state, claim, "saved"),
                partial(a.store.release, claim, "shutdown"),
            )
            assert is_released
            *sent, restart = await b.stream(claim.entry.id)
            assert isinstance(restart, Restart)
            assert sent == (tokens(1, 2) if is_appended else [])
            again = await b.claim_one()
            assert again.entry.saved_state == ("saved" if is_saved else None)
            await b.end(again)


async def check_race_for_the_ending(open_store: OpenStore) -> None:
    """Of a lapse and an ending at the same time one wins, and the job has one ending."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(3):
            claim = await a.start(lease=SHORT)
            await trio.sleep(2 * SHORT)
            is_written, _ = await race(n, partial(a.store.finish, claim, Completed()), b.store.advance)
            states = await b.states(claim.entry.id)
            assert states[2:] == (["COMPLETED"] if is_written else ["QUEUED"])
            await b.end(claim)
