"""Store checks: what is kept of jobs, their history above all, and what is removed when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._entry import HISTORY, REASON
from jobtrio._errors import IllegalTransitionError
from jobtrio._messages import End
from jobtrio._policies import Retention, RetryPolicy
from jobtrio._records import Cancelled, Completed, JobError
from jobtrio._state import check_transition
from jobtrio.abc import JobQuery
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, refused, tokens

if TYPE_CHECKING:
    from jobtrio._records import Transition
    from jobtrio.testing._workers import OpenStore, Worker


async def check_history(open_store: OpenStore) -> None:
    """A history begins with the submission, follows the transition table, and says who, when, why and which attempt."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=RetryPolicy(), delay=0.0), lease=SHORT)
        await b.pass_time()
        claim = await b.claim_one()
        await b.store.retry(claim, ERROR, 0.0)
        await b.pass_time(0)
        claim = await a.claim_one()
        assert claim.entry.history() == await b.history(claim.entry.id)
        await b.store.request_cancel(claim.entry.id, "why", 0.0)
        await a.store.finish(claim, Completed())
        lines = await b.history(claim.entry.id)
        _check_legal(lines)
        steps = [(line.state, line.attempt) for line in lines]
        assert steps == [
            ("QUEUED", 0),
            ("RUNNING", 1),
            ("QUEUED", 1),
            ("RUNNING", 2),
            ("RETRYING", 2),
            ("QUEUED", 2),
            ("RUNNING", 3),
            ("CANCELLED", 3),
        ]
        assert {line.job_id for line in lines} == {claim.entry.id}
        assert [lines[n].worker for n in (0, 1, 3, 4, 6)] == ["submitter", a.name, b.name, b.name, a.name]
        assert lines[4].reason == str(ERROR)
        assert lines[7].reason == "why"
        assert (await b.load(claim.entry.id)).history() == lines


async def check_long_history(open_store: OpenStore) -> None:
    """Of a job with very many attempts the submission and the newest attempts are in its history, whole ones."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entry = new_entry(retry=RetryPolicy(max_attempts=10 * HISTORY), delay=SHORT)
        await a.insert(entry)
        await a.pass_time()
        for _ in range(HISTORY // 2):
            await a.store.release(await a.claim_one(), "shutdown")
        claim = await b.claim_one()
        await b.store.retry(claim, JobError("exception", "Error", "x" * 2 * REASON), 0.0)
        await b.pass_time(0)
        claim = await a.claim_one()
        known = claim.entry.progress
        first, *newest = await b.history(entry.id)
        assert HISTORY - 10 <= 1 + len(newest) <= HISTORY + 2, len(newest)
        assert (first.previous, first.state, first.attempt, first.worker) == (None, "SCHEDULED", 0, "submitter")
        assert (newest[0].previous, newest[0].state, newest[0].attempt) == ("QUEUED", "RUNNING", newest[1].attempt)
        assert {line.previous for line in newest[:-3:2]} == {"QUEUED"}
        assert [line.attempt for line in newest[-6:]] == [
            *[claim.attempt - 2] * 2,
            *[claim.attempt - 1] * 3,
            claim.attempt,
        ]
        reason = newest[-3].reason
        assert reason is not None
        assert reason.startswith("Error: xxx")
        assert len(reason) == REASON
        assert await a.store.finish(claim, Completed(1))
        assert claim.entry.progress > known
        record = await b.record(entry.id)
        assert (record.state, record.attempt, record.result) == ("COMPLETED", claim.attempt, 1)
        assert record.error is not None
        assert len(record.error.message) == 2 * REASON
        assert (await b.history(entry.id))[-1] == (await a.load(entry.id)).last_transition()
        assert (await b.stream(entry.id))[-1] == End(HISTORY // 2 + 2, Completed(1))


def _check_legal(lines: list[Transition]) -> None:
    previous = None
    for line in lines:
        assert line.previous == previous
        check_transition(previous, line.state)
        assert line.at.utcoffset() is not None
        previous = line.state
    assert [line.at for line in lines] == sorted(line.at for line in lines)


async def check_delete(open_store: OpenStore) -> None:
    """An ended job goes with its messages, history, tags and key; a living one raises and stays."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entry = new_entry(job_id="id", key="k", tags={"t": "v"}, retry=RetryPolicy(), delay=SHORT)
        await a.insert(entry, new_entry(None, job_id="held", tags={"t": "v"}))
        await _check_refused(b, "held", "QUEUED")
        await a.store.request_cancel("held", None, 0.0)
        assert await b.store.delete("held")
        assert ids(await a.store.find(JobQuery(tags={"t": "v"}))) == ["id"]
        if await a.states("id") == ["SCHEDULED"]:  # a slow machine may have passed it
            await _check_refused(b, "id", "SCHEDULED")
        await a.pass_time()
        await _check_refused(b, "id", "QUEUED")
        claim = await a.claim_one()
        await _check_refused(b, "id", "RUNNING")
        await a.store.retry(claim, ERROR, 0.0)
        await _check_refused(b, "id", "RETRYING")
        await a.pass_time(0)
        claim = await a.claim_one()
        await a.store.finish(claim, Completed(), messages=tokens(2, 5, attempt=2))
        assert await b.store.delete("id")
        assert not await b.store.delete("id")
        await _check_gone(a, "id")
        assert await a.store.find(JobQuery(tags={"t": "v"})) == []
        assert await a.store.find(JobQuery(key="k")) == []
        assert await a.store.counts() == {}
        (again,) = await b.insert(new_entry(job_id="id", key="k"))
        assert await a.stream(again.id) == []
        assert await a.states(again.id) == ["QUEUED"]


async def _check_refused(worker: Worker, job_id: str, state: str) -> None:
    with refused(IllegalTransitionError) as errors:
        await worker.store.delete(job_id)
    assert errors[0].previous == state
    assert (await worker.record(job_id)).state == state


async def _check_gone(worker: Worker, job_id: str) -> None:
    assert await worker.store.load(job_id) is None
    assert await worker.store.history(job_id) is None
    assert await worker.store.read_messages(job_id, 0, 10) is None
    assert await worker.store.request_cancel(job_id, None, 0.0) is None


async def check_prune_by_count(open_store: OpenStore) -> None:
    """Of the ended jobs the newest are kept, as many as wanted, beside all that live."""
    async with open_worker(open_store, Retention(finished_jobs=10)) as worker:
        entries = [new_entry(key=f"k{n}", tags={"t": "v"}) for n in range(13)]
        await worker.insert(*entries)
        claims = await worker.claim()
        for n in (3, 0, 4, 1, *range(12, 4, -1)):
            await worker.store.finish(claims[n], Completed(), messages=tokens(1, 2))
        await worker.store.prune()
        for query in (JobQuery(), JobQuery(tags={"t": "v"})):
            assert ids(await worker.store.find(query)) == [entries[n].id for n in (1, 2, *range(4, 13))]
        assert await worker.stream(entries[1].id) == [*tokens(1, 2), End(3, Completed())]
        for n in (3, 0):
            await _check_gone(worker, entries[n].id)
            assert await worker.store.find(JobQuery(key=f"k{n}")) == []
            assert (await worker.insert(new_entry(key=f"k{n}")))[0].key == f"k{n}"


async def check_prune_by_age(open_store: OpenStore) -> None:
    """Ended jobs are removed when their ends are too long ago, beside those that live, however old they are."""
    async with open_worker(open_store, Retention(finished_for=SHORT)) as worker:
        retrying = await worker.start(new_entry(retry=RetryPolicy()))
        await worker.store.retry(retrying, ERROR, LEASE)
        running = await worker.start()
        ended = await worker.start()
        waiting = [new_entry(), new_entry(None), new_entry(delay=LEASE)]
        await worker.insert(*waiting)
        living = ids([retrying, running, *waiting])
        await worker.pass_time()
        await worker.store.finish(ended, Completed())
        await worker.store.prune()
        assert ids(await worker.store.find(JobQuery())) == [*living[:2], ended.entry.id, *living[2:]]
        await worker.pass_time()
        await worker.store.prune()
        await _check_gone(worker, ended.entry.id)
        assert ids(await worker.store.find(JobQuery())) == living


async def check_nothing_is_pruned_too_early(open_store: OpenStore) -> None:
    """With nothing too many or too old, nothing is removed, and `prune` says when something will be."""
    async with open_worker(open_store, Retention(finished_for=LEASE)) as worker:
        for _ in range(3):
            await worker.store.finish(await worker.start(), Completed())
        assert LEASE / 2 < await worker.store.prune() <= LEASE
        assert len(await worker.store.find(JobQuery())) == 3


async def check_kept_over_a_restart(open_store: OpenStore) -> None:
    """What a durable store holds is there when it is opened anew: jobs, claims, requests, messages, states, keys."""
    if not open_store().durable:
        return
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(key="k", payload=[1], retry=RetryPolicy(), expires_in=LEASE))
        await worker.store.append_messages(claim, tokens(1, 2))
        await worker.store.save_state(claim, {"state": 1})
        await worker.store.request_cancel(claim.entry.id, "why", 3.0)
        await worker.insert(new_entry(delay=LEASE), new_entry(None))
        before = await worker.store.find(JobQuery())
        history = await worker.history(claim.entry.id)
    async with open_worker(open_store) as worker:
        assert await worker.store.find(JobQuery()) == before
        assert await worker.history(claim.entry.id) == history
        assert await worker.stream(claim.entry.id) == tokens(1, 2)
        assert (await worker.load(claim.entry.id)).saved_state == {"state": 1}
        assert ids(await worker.insert(new_entry(key="k"))) == [claim.entry.id]
        assert ids(await worker.store.find(JobQuery(key="k"))) == [claim.entry.id]
        (report,) = await worker.store.renew([claim], LEASE)
        assert report.held
        assert [(each.name, each.running) for each in await worker.store.workers()] == [(worker.name, 1)]
        assert report.entry.cancel is not None
        assert report.entry.cancel.grace == 3.0
        assert await worker.store.finish(claim, Completed())
        assert (await worker.load(claim.entry.id)).outcome == Cancelled("why")
