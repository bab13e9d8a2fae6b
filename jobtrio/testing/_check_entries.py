"""Store checks: a job's entry is whole, whichever call hands it out or brings it up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jobtrio._policies import JobPriority
from jobtrio._records import Cancelled, Completed, Failed, JobError, Outcome
from jobtrio.abc import JobEntry, JobQuery, Plan
from jobtrio.testing._workers import ERROR, LEASE, POLICY, SHORT, new_entry, open_workers

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore, Worker

OF_ONE_PROCESS: Final = frozenset({"log", "unreadable", "function"})
"""What is not kept."""

BY_ITS_CLOCK: Final = frozenset({"lease_until"})
"""When a claim lapses: only its store need know."""

BY_BEING_READY: Final = frozenset({"state", "steps", "due", "ticket"})
"""What changes in a job as its time comes."""

UNCHANGING: Final = frozenset({"payload", "metadata", "tags", "run_at", "delay", "expires_in", "saved_state"})
"""What `JobStore.look` need not hand out."""


async def check_entries_are_whole(open_store: OpenStore) -> None:
    """A job that waits, runs, is retried, released or lost has the same fields in each process and by each call."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entry = _rich_entry()
        await a.insert(new_entry(delay=LEASE), entry)
        await _check_same(b, entry)
        await a.pass_time()
        ready = await a.load(entry.id)
        await _check_same(b, ready)
        assert _fields(ready, but=BY_BEING_READY) == _fields(entry, but=BY_BEING_READY)
        changed = await a.store.set_priority(entry.id, JobPriority.LOW)
        assert changed is not None
        await _check_same(b, changed)
        claim = await a.claim_one()
        await _check_same(b, claim.entry)
        (report,) = await a.store.renew([claim], 2 * LEASE)
        await _check_same(b, report.entry)
        assert await a.store.save_state(claim, {"step": 1})
        await _check_same(b, claim.entry)
        assert await a.store.retry(claim, ERROR, SHORT)
        await _check_same(b, claim.entry)
        await a.pass_time()
        claim = await b.claim_one()
        await _check_same(a, claim.entry)
        assert await b.store.release(claim, "shutdown")
        await _check_same(a, claim.entry)
        claim = await a.claim_one(SHORT)
        await _check_same(b, claim.entry)
        await a.pass_time()
        await _check_same(b, await a.load(entry.id))
        claim = await b.claim_one()
        await _check_same(a, claim.entry)
        reply = await a.store.request_cancel(entry.id, "why", 1.0)
        assert reply is not None
        await _check_same(b, reply.entry)
        (report,) = await b.store.renew([claim], LEASE)
        await _check_same(a, report.entry)
        assert await b.store.finish(claim, Completed(1), error=ERROR)
        await _check_same(a, claim.entry)


def _rich_entry() -> JobEntry:
    return new_entry(
        "build",
        {"a": [1]},
        queue="gpu",
        priority=JobPriority.HIGH,
        time_limit=1.5,
        retry=POLICY,
        delay=SHORT,
        expires_in=LEASE,
        key="k",
        tags={"user": "ann"},
        metadata={"x": 1},
    )


async def check_ended_entries_are_whole(open_store: OpenStore) -> None:
    """So has a job that has ended, in whichever way."""
    async with open_workers(open_store, "a", "b") as (a, b):
        ends: list[tuple[Outcome, JobError | None]] = [
            (Completed({"r": [1]}), None),
            (Failed(ERROR), None),
            (Cancelled("why"), ERROR),
        ]
        for outcome, error in ends:
            claim = await a.start()
            assert await a.store.finish(claim, outcome, error=error)
            assert (claim.entry.outcome, claim.entry.error) == (outcome, error or getattr(outcome, "error", None))
            await _check_same(b, claim.entry)
        await a.insert(entry := new_entry())
        reply = await b.store.request_cancel(entry.id, "why", 0.0)
        assert reply is not None
        await _check_same(a, reply.entry)


async def _check_same(other: Worker, entry: JobEntry) -> None:
    """Compare with what another process is told."""
    loaded = await other.load(entry.id)
    assert _fields(loaded) == _fields(entry)
    looked = await other.store.look(entry.id)
    _messages, followed = await other.store.follow(entry.id, 0, 10)
    for seen in (looked, followed):
        assert seen is not None
        assert _fields(seen, but=UNCHANGING) == _fields(entry, but=UNCHANGING)
    records = {record.id: record for record in await other.store.find(JobQuery())}
    assert records[entry.id] == entry.record()


def _fields(entry: JobEntry, but: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what is kept of an entry and its plan, by name."""
    kept = {f"plan.{field.name}": getattr(entry.plan, field.name) for field in attrs.fields(Plan)}
    kept |= {field.name: getattr(entry, field.name) for field in attrs.fields(JobEntry) if field.name != "plan"}
    left_out = OF_ONE_PROCESS | BY_ITS_CLOCK | but
    return {name: value for name, value in kept.items() if name.removeprefix("plan.") not in left_out}
