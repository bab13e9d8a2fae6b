"""Store checks: finding jobs, counting them, their history, and what is removed when."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import attrs

from jobtrio._entry import HISTORY, REASON
from jobtrio._errors import IllegalTransitionError, UnknownJobError
from jobtrio._messages import End
from jobtrio._policies import Retention, RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError
from jobtrio._state import JobState, check_transition
from jobtrio.abc import Backlog, JobQuery
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, refused, tokens

if TYPE_CHECKING:
    from jobtrio._records import JobRecord, Transition
    from jobtrio.testing._workers import OpenStore, Worker


async def check_unknown_jobs(open_store: OpenStore) -> None:
    """Of a job that nobody stored there is nothing."""
    async with open_worker(open_store) as worker:
        assert await worker.store.load("unknown") is None
        assert await worker.store.history("unknown") is None
        assert not await worker.store.delete("unknown")
        assert await worker.store.find(JobQuery()) == []


async def check_look(open_store: OpenStore) -> None:
    """Whoever looks at a job sees it as who loads it, but for what never changes and what it saved."""
    async with open_workers(open_store, "a", "b") as (a, b):
        assert await b.store.look("unknown") is None
        entries = [
            new_entry(None),
            new_entry(delay=LEASE),
            new_entry(),
            new_entry(metadata={"m": 1}, tags={"t": "v"}, key="k"),
            new_entry(retry=RetryPolicy()),
        ]
        await a.insert(*entries)
        ended, running, retrying = sorted(await a.claim(), key=lambda claim: claim.entry.order)
        assert await a.store.retry(retrying, ERROR, LEASE)
        assert await a.store.save_state(running, "saved")
        await a.store.request_cancel(running.entry.id, "why", 0.0)
        assert await a.store.finish(ended, Completed("done"), messages=tokens(1, 2))
        await a.store.request_cancel(entries[0].id, "why", 0.0)
        for entry in entries:
            seen, whole = await b.store.look(entry.id), await b.load(entry.id)
            assert seen is not None
            assert seen.order == whole.order
            for each in (seen, whole):
                each.payload = each.metadata = each.tags = each.run_at = each.expires_in = None
                each.delay = 0.0
            assert seen.record() == whole.record()
            assert seen.history() == whole.history()


async def check_find(open_store: OpenStore) -> None:
    """Jobs are found by state, by tags that all match, by queue and by executor, and by all of these together."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(24):
            tags = {"kind": "odd" if n % 4 else "even", "n": str(n), "m": str((n + 4) % 24)}
            await a.insert(new_entry("abc"[n % 3], queue="xy"[n % 2], tags=tags, job_id=f"{n:02}"))
        for claim in await a.claim(limit=12):
            if int(claim.entry.id) >= 6:
                await a.store.finish(claim, Completed())
        records = await a.store.find(JobQuery())
        assert ids(records) == [f"{n:02}" for n in range(24)]
        states = [frozenset(map(JobState, names)) for names in (["RUNNING"], ["QUEUED", "COMPLETED"], ["FAILED"], [])]
        tag_sets = [{}, {"kind": "even"}, {"kind": "even", "n": "8"}, {"kind": "odd", "n": "8"}]
        tag_sets += [{"n": "1"}, {"kind": "EVEN"}, {"KIND": "even"}, {"n": "4", "m": "8"}, {"n": "4", "m": "4"}]
        for query in map(JobQuery, *zip(*product([None, *states], tag_sets, QUEUES, EXECUTORS), strict=True)):
            found = [record for record in records if _matches(record, query)]
            assert await b.store.find(query) == found, query
            assert await b.store.find(attrs.evolve(query, newest_first=True)) == found[::-1], query


QUEUES = (None, "x", "z")
EXECUTORS = (None, "a", "d")


def _matches(record: JobRecord, query: JobQuery) -> bool:
    return (
        (query.states is None or record.state in query.states)
        and (query.tags or {}).items() <= record.tags.items()
        and query.queue in (None, record.queue)
        and query.executor in (None, record.executor)
    )


async def check_find_what_no_job_has(open_store: OpenStore) -> None:
    """Nothing is found of names and tags that no job can have; behind an unknown job that is an error all the same."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(None), new_entry(tags={"t": "v"}))
        for text in ("", "\0", "\ud800", "line\nbreak"):
            for query in (JobQuery(queue=text), JobQuery(executor=text), JobQuery(tags={"t": "v", "u": text})):
                assert await worker.store.find(query) == []
                with refused(UnknownJobError):
                    await worker.store.find(attrs.evolve(query, after="unknown"))


async def check_found_records(open_store: OpenStore) -> None:
    """What is found are records of the jobs as they are now."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(payload=[1], tags={"t": "v"}, metadata={"m": None}, delay=0.0, key="k"))
        await a.store.request_cancel(claim.entry.id, "why", 1.0)
        assert await b.store.find(JobQuery()) == [await a.record(claim.entry.id)]
        await a.store.finish(claim, Cancelled("why"))
        assert await b.store.find(JobQuery()) == [await a.record(claim.entry.id)]


async def check_find_in_pages(open_store: OpenStore) -> None:
    """Full pages follow each other without holes or repetitions, whatever the jobs do in between, in either order."""
    async with open_worker(open_store) as worker:
        entries = [new_entry(tags={"of": "page", "half": str(n % 2)}, queue="ab"[n % 2]) for n in range(10)]
        await worker.insert(*entries[:4])
        await worker.insert(*entries[4:])
        queries = [
            (JobQuery(limit=3), entries),
            (JobQuery(limit=3, tags={"of": "page"}), entries),
            (JobQuery(limit=3, tags={"of": "page", "half": "1"}), entries[1::2]),
            (JobQuery(limit=3, queue="b"), entries[1::2]),
            (JobQuery(limit=3, executor="work"), entries),
        ]
        queries += [(attrs.evolve(query, newest_first=True), found[::-1]) for query, found in queries]
        for query, found in queries:
            expected, after = ids(found), None
            while page := ids(await worker.store.find(attrs.evolve(query, after=after))):
                assert page == expected[:3]
                expected, after = expected[3:], page[-1]
                for claim in await worker.claim(limit=1):  # which stands behind the others when it is ready again
                    await worker.store.release(claim, "shutdown")
            assert not expected, query
        for query in (JobQuery(queue="b"), JobQuery(tags={"half": "1"})):  # the last one may not match it any more
            assert ids(await worker.store.find(attrs.evolve(query, after=entries[4].id))) == ids(entries[5::2])
        (running,) = ids(await worker.claim(limit=1))
        query = JobQuery(states=frozenset({JobState.QUEUED}), after=running)
        assert ids(await worker.store.find(query)) == ids(entries)[1 + ids(entries).index(running) :]
        with refused(UnknownJobError) as errors:
            await worker.store.find(JobQuery(after="unknown"))
        assert errors[0].job_id == "unknown"


async def check_counts(open_store: OpenStore) -> None:
    """Jobs are counted by state, and those that wait or run by queue, without the held ones."""
    async with open_worker(open_store) as worker:
        for queue, more in (("x", 0), ("y", 1)):
            retrying = await worker.start(new_entry(queue=queue, retry=RetryPolicy()))
            await worker.store.retry(retrying, ERROR, LEASE)
            await worker.start(new_entry(queue=queue))
            ended = await worker.start(new_entry(queue=queue))
            await worker.store.finish(ended, Failed(ERROR))
            await worker.insert(
                *(new_entry(queue=queue, delay=LEASE) for _ in range(2 + more)), new_entry(None, queue=queue)
            )
        await worker.insert(*(new_entry(queue="x") for _ in range(3)))
        counts = await worker.store.counts()
        assert counts == {
            "x": _each(RUNNING=1, RETRYING=1, SCHEDULED=2, FAILED=1, QUEUED=4),
            "y": _each(RUNNING=1, RETRYING=1, SCHEDULED=3, FAILED=1, QUEUED=1),
        }
        assert await worker.store.backlog(None) == Backlog(queued=3, retrying=2, scheduled=5, running=2)
        assert await worker.store.backlog({"x"}) == Backlog(queued=3, retrying=1, scheduled=2, running=1)
        assert await worker.store.backlog({"y", "z"}) == Backlog(queued=0, retrying=1, scheduled=3, running=1)
        assert await worker.store.backlog(set()) == Backlog()
        assert await worker.store.backlog({"x"}, {"work", "other"}) == await worker.store.backlog({"x"})
        assert await worker.store.backlog(None, {"other"}) == Backlog()
        assert await worker.store.backlog(None, set()) == Backlog()


def _each(**counts: int) -> dict[JobState, int]:
    return {state: counts.get(state, 0) for state in JobState}


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
            assert (await worker.insert(new_entry(key=f"k{n}")))[0].key == f"k{n}"


async def check_prune_by_age(open_store: OpenStore) -> None:
    """Ended jobs are removed when their ends are too long ago, beside those that live, however old they are."""
    async with open_worker(open_store, Retention(finished_for=SHORT)) as worker:
        living = await worker.start()
        ended = await worker.start()
        await worker.pass_time()
        await worker.store.finish(ended, Completed())
        await worker.store.prune()
        assert ids(await worker.store.find(JobQuery())) == [living.entry.id, ended.entry.id]
        await worker.pass_time()
        await worker.store.prune()
        await _check_gone(worker, ended.entry.id)
        assert ids(await worker.store.find(JobQuery())) == [living.entry.id]


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
        (report,) = await worker.store.renew([claim], LEASE)
        assert report.held
        assert [(each.name, each.running) for each in await worker.store.workers()] == [(worker.name, 1)]
        assert report.entry.cancel is not None
        assert report.entry.cancel.grace == 3.0
        assert await worker.store.finish(claim, Completed())
        assert (await worker.load(claim.entry.id)).outcome == Cancelled("why")
