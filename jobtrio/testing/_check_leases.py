"""Store checks: leases that are renewed, that lapse, and that report what was asked for meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trio

from jobtrio._messages import End, Restart
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio._state import JobState
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, race, tokens

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore

LONG = 1.0
"""Seconds of a lease that is renewed in time, also on a slow machine."""


async def check_renewed_leases_last(open_store: OpenStore) -> None:
    """A claim lasts from its last renewal, not from its beginning; unrenewed ones lapse beside it."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.insert(new_entry(), new_entry())
        renewed, left = await a.claim(lease=LONG)
        await trio.sleep(0.3 * LONG)
        for _ in range(2):
            (report,) = await a.store.renew([renewed], 5 * LONG)
            assert report.held
        await b.pass_time(LONG)
        assert (await b.record(renewed.entry.id)).state == JobState.RUNNING
        assert (await b.record(left.entry.id)).state == JobState.QUEUED
        assert LONG < await b.advance() <= 5 * LONG
        assert await a.store.finish(renewed, Completed())


async def check_renewals_that_shorten(open_store: OpenStore) -> None:
    """A renewal counts from its own moment, also where the lease would have lasted longer without it."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        (report,) = await a.store.renew([claim], SHORT)
        assert report.held
        await b.pass_time()
        assert (await b.record(claim.entry.id)).state == JobState.QUEUED


async def check_order_of_lapses(open_store: OpenStore) -> None:
    """Jobs whose leases have lapsed return to their queue in the order in which those ended, else as they came."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entries = [new_entry(job_id=f"{n * 7 % 12:02}") for n in range(12)]
        await a.insert(*entries)
        await a.claim(lease=SHORT)
        await b.pass_time()
        claims = await b.claim()
        assert ids(claims) == ids(entries)
        await b.store.renew(claims[8:], SHORT)
        await b.store.renew(claims[:8], 1.1 * SHORT)
        await a.pass_time()
        assert ids(await a.claim()) == ids([*entries[8:], *entries[:8]])


async def check_lapse(open_store: OpenStore) -> None:
    """A lapsed lease returns its job to the queue, behind a `Restart` of kind "lost"; any process sees to it."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(lease=SHORT)
        job_id = claim.entry.id
        await a.store.append_messages(claim, tokens(1, 2))
        await b.pass_time()
        *sent, restart = await b.stream(job_id)
        assert sent == tokens(1, 2)
        assert isinstance(restart, Restart)
        assert (restart.seq, restart.attempt, restart.error.kind, restart.delay) == (3, 1, "lost", 0.0)
        assert await b.states(job_id) == ["QUEUED", "RUNNING", "QUEUED"]
        lapsed = await a.load(job_id)
        assert (lapsed.claim, lapsed.error) == (None, restart.error)
        again = await b.claim_one()
        assert (again.attempt, again.entry.failures) == (2, 0)
        assert await b.store.append_messages(again, tokens(4, 4, attempt=2))
        assert await b.store.finish(again, Completed())
        assert await a.stream(job_id) == [*sent, restart, *tokens(4, 4, attempt=2), End(5, Completed())]


async def check_three_losses_in_a_row(open_store: OpenStore) -> None:
    """A job whose third worker in a row is lost fails as lost, unless somebody has asked to cancel it."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(), new_entry())
        for _ in range(3):
            claim, asked = sorted(await worker.claim(lease=SHORT), key=lambda claim: claim.entry.order)
            if claim.attempt == 3:
                await worker.store.request_cancel(asked.entry.id, "why", 0.0)
            await worker.pass_time()
        assert await worker.claim() == []
        record = await worker.record(claim.entry.id)
        assert record.error is not None
        assert (record.state, record.error.kind, record.attempt) == (JobState.FAILED, "lost", 3)
        assert (await worker.stream(record.id))[-1] == End(3, Failed(record.error))
        assert not await worker.store.finish(claim, Completed())
        assert (await worker.load(asked.entry.id)).outcome == Cancelled("why")


async def check_losses_not_in_a_row(open_store: OpenStore) -> None:
    """An attempt that came to its end in between, by a failure or a release, begins the count anew."""
    async with open_worker(open_store) as worker:
        for between in ("retry", "release"):
            claim = await worker.start(new_entry(retry=RetryPolicy(max_attempts=100)), lease=SHORT)
            for _ in range(2):
                await worker.pass_time()
                claim = await worker.claim_one(SHORT)
            if between == "retry":
                assert await worker.store.retry(claim, ERROR, 0.0)
            else:
                assert await worker.store.release(claim, "shutdown")
            for _ in range(2):
                await worker.pass_time()
                claim = await worker.claim_one(SHORT)
            await worker.pass_time()
            assert (await worker.record(claim.entry.id)).state == JobState.QUEUED
            await worker.end(claim)


async def check_reports_of_renewals(open_store: OpenStore) -> None:
    """Each claim is reported on, in order: whether it holds its job, and the request to cancel if there is one."""
    async with open_workers(open_store, "a", "b") as (a, b):
        kept, ended, asked, lost = [await a.start(lease=SHORT if n == 3 else LEASE) for n in range(4)]
        await a.store.finish(ended, Completed())
        await b.store.request_cancel(asked.entry.id, "why", 7.0)
        await b.pass_time()
        claims = [lost, asked, ended, kept]
        reports = await a.store.renew(claims, LEASE)
        assert [report.held for report in reports] == [False, True, False, True]
        assert [report.entry.id for report in reports] == [claim.entry.id for claim in claims]
        assert [report.entry.cancel is not None for report in reports] == [False, True, False, False]
        cancel = reports[1].entry.cancel
        assert cancel is not None
        assert (cancel.reason, cancel.grace) == ("why", 7.0)
        assert await a.store.renew([], LEASE) == []


async def check_report_of_a_lost_claim_beside_its_successor(open_store: OpenStore) -> None:
    """Of two claims of one job, in one call or each in its own, only the one that holds it is renewed."""
    async with open_worker(open_store) as worker:
        lost = await worker.start()
        await worker.store.release(lost, "shutdown")
        holding = await worker.claim_one()
        for claims in ([lost, holding], [holding, lost]):
            reports = await worker.store.renew(claims, LEASE)
            assert [report.held for report in reports] == [claim is holding for claim in claims]
        await worker.store.renew([holding], SHORT)
        await worker.store.renew([lost], LEASE)
        await worker.pass_time()
        assert (await worker.record(lost.entry.id)).state == JobState.QUEUED


async def check_cancel_while_the_worker_is_dead(open_store: OpenStore) -> None:
    """A request that was accepted while a job's worker was dead ends the job when the lease lapses."""
    async with open_workers(open_store, "dead", "other") as (dead, other):
        claim = await dead.start(lease=SHORT)
        await dead.store.append_messages(claim, tokens(1, 1))
        reply = await other.store.request_cancel(claim.entry.id, "why", LEASE)
        assert reply is not None
        assert reply.accepted
        await other.pass_time()
        assert await other.claim() == []
        assert (await other.load(claim.entry.id)).outcome == Cancelled("why")
        assert (await other.record(claim.entry.id)).error is None
        assert await other.stream(claim.entry.id) == [*tokens(1, 1), End(2, Cancelled("why"))]
        assert not await dead.store.finish(claim, Completed())


async def check_workers(open_store: OpenStore) -> None:
    """A worker is there from its first renewal until it is closed, or its lease is over without another."""
    async with open_workers(open_store, "a", "b", "c") as (a, b, c):
        await c.insert(new_entry())
        assert await c.store.workers() == []
        claim = await a.claim_one()
        await a.insert(new_entry())
        await a.store.retry(await a.claim_one(), ERROR, 1000.0)  # who waits for the next attempt does not run
        for worker in (b, a):
            await worker.store.renew([claim] if worker is a else [], LONG)
        reports = await c.store.workers()
        assert [(each.name, each.running) for each in reports] == [("a", 1), ("b", 0)][: 1 if a is b else 2]
        assert reports[0].started_at <= reports[0].seen_at
        assert abs(reports[0].seen_at - datetime.now(UTC)) < timedelta(seconds=LEASE)
        await a.store.renew([claim], LEASE)
        await b.pass_time(1.2 * LONG)
        assert [each.name for each in await c.store.workers()] == ["a"]
        await a.store.renew([claim], LEASE)
        (again,) = await c.store.workers()
        assert (again.name, again.started_at) == ("a", reports[0].started_at)
        assert again.seen_at > reports[0].seen_at
        if a is not b:  # else one object stands for all, and is open already
            async with open_workers(open_store, "d") as (d,):
                await d.store.renew([], LEASE)
                assert [each.name for each in await a.store.workers()] == ["a", "d"]
        assert [each.name for each in await a.store.workers()] == ["a"]


async def check_race_of_advances(open_store: OpenStore) -> None:
    """What has fallen due is done once, however many see to it at once, and told to the one that did it."""
    async with open_workers(open_store, *"abc") as workers:
        first = workers[0]
        await first.insert(*(new_entry() for _ in range(5)))
        lapsed = await first.claim(lease=SHORT)
        jobs = [*[new_entry(delay=SHORT) for _ in range(5)], *[new_entry(expires_in=SHORT) for _ in range(5)]]
        await first.insert(*jobs)
        await trio.sleep(2 * SHORT)
        await race(1, *(worker.advance for worker in workers))
        states = [
            *[["QUEUED", "RUNNING", "QUEUED"]] * 5,
            *[["SCHEDULED", "QUEUED"]] * 5,
            *[["QUEUED", "FAILED"]] * 5,
        ]
        for job_id, expected in zip([*ids(lapsed), *ids(jobs)], states, strict=True):
            assert await first.states(job_id) == expected
            heard = [change for worker in {*workers} for change in worker.heard.of(job_id)]
            assert len(heard) == len(expected)
