"""The log of a worker: what is said of changes, also where they are read late."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import attrs
import pytest
import trio.testing

import jobtrio
from jobtrio._events import EVENTS_KEPT, Event
from jobtrio.cli._output import STDERR, STDOUT
from jobtrio.cli._work_log import WorkLog


async def nothing(job: jobtrio.JobContext) -> None:
    """Return at once."""


async def wait(job: jobtrio.JobContext) -> None:
    """End when told to."""
    await job.stopping.wait()


async def words(log: WorkLog) -> list[str]:
    """Return what a log says next, without the times at which it happened."""
    pieces = await log.next()
    assert {descriptor for descriptor, _ in pieces} <= {STDERR}
    return [text.split(" ", 1)[1] for _, text in pieces]


async def test_job_that_is_gone() -> None:
    """A job is named with its executor though it has ended and was removed before its changes are read."""
    async with jobtrio.open_registry() as registry:
        log, as_json = WorkLog(registry, as_json=False), WorkLog(registry, as_json=True)
        job = await registry.submit(nothing)
        await job.wait()
        await registry.remove(job.id)
        started, completed = await words(log)
        assert started == f"started {job.id} nothing\n"
        assert completed.startswith(f"completed {job.id} nothing in ")
        lines = [(descriptor, json.loads(text)) for descriptor, text in await as_json.next()]
    assert [descriptor for descriptor, _ in lines] == [STDOUT] * 3
    assert [(line["job_id"], line["executor"]) for _, line in lines] == [(job.id, "nothing")] * 3
    assert (await log.next(), await as_json.next()) == ([], [])
    assert log.summary() == as_json.summary() == "jobtrio: stopped; 1 completed"


async def test_names_that_a_terminal_would_obey() -> None:
    """What is no plain text in a job's id or its executor's name, as others may have stored it, is told by escapes."""
    change = jobtrio.Transition(
        job_id="a\x1b[2J\nb",
        at=datetime.now(UTC),
        previous=jobtrio.JobState.QUEUED,
        state=jobtrio.JobState.RUNNING,
        attempt=1,
        worker="w",
        reason=None,
    )
    async with jobtrio.open_registry() as registry:
        [(_, text)] = WorkLog(registry, as_json=False)._pieces(Event(change, "e\u202e"))
    assert text.endswith(" started a\\x1b[2J\\nb e\\u202e\n")


@pytest.mark.parametrize(("seconds", "shown"), [(2.5, "2.5 s"), (-60, "0.00 s")])
async def test_how_long_it_took(seconds: float, shown: str) -> None:
    """An attempt is said to have taken the time between its changes, and no less than none where the clock was set."""
    now = datetime.now(UTC)
    start = jobtrio.Transition("a", now, jobtrio.JobState.QUEUED, jobtrio.JobState.RUNNING, 1, "w", None)
    end = attrs.evolve(
        start, at=now + timedelta(seconds=seconds), previous=start.state, state=jobtrio.JobState.COMPLETED
    )
    async with jobtrio.open_registry() as registry:
        log = WorkLog(registry, as_json=False)
        texts = [text for change in (start, end) for _, text in log._pieces(Event(change, "e"))]
    assert texts[-1].endswith(f" completed a e in {shown}\n")


async def test_job_that_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    """Each attempt has its lines: that it failed, why, and whether another follows; jobs count once."""

    async def fail(job: jobtrio.JobContext) -> None:
        raise ValueError(f"row {job.attempt}")

    async with jobtrio.open_registry() as registry:
        log = WorkLog(registry, as_json=False)
        job = await registry.submit(fail, retry=jobtrio.RetryPolicy(max_attempts=2))
        await job.wait()
        told = [re.sub(r"after [0-9.]+ s", "after a moment", line) for line in await words(log)]
    assert await log.next() == []
    assert told == [
        f"started {job.id} fail\n",
        f"failed {job.id} fail after a moment, to be tried again: ValueError: row 1\n",
        f"started {job.id} fail, attempt 2\n",
        f"failed {job.id} fail after a moment: ValueError: row 2\n",
    ]
    assert log.summary() == "jobtrio: stopped; 1 failed"
    assert not log._started  # nothing is kept of what has ended


async def test_job_of_another_worker_that_is_gone() -> None:
    """A job that is taken from another worker is not counted as given back by this one, and its line tells of that."""
    own = jobtrio.Transition("a", datetime.now(UTC), jobtrio.JobState.QUEUED, jobtrio.JobState.RUNNING, 1, "w", None)
    given_back = attrs.evolve(own, previous=own.state, state=jobtrio.JobState.QUEUED, reason="shutdown")
    taken = attrs.evolve(given_back, job_id="b", reason="lost lease")
    async with jobtrio.open_registry() as registry:
        log = WorkLog(registry, as_json=False)
        texts = [text for change in (own, taken, given_back) for _, text in log._pieces(Event(change, "e"))]
    assert texts[1].endswith(" returned b e: its worker is gone or did not renew its lease\n")
    assert texts[2].endswith(" returned a e after 0.00 s: shutdown\n")
    assert log.summary() == "jobtrio: stopped; no job ended; 1 job returned to the queue"


async def test_held_job() -> None:
    """A job that has no executor yet is told without one."""
    async with jobtrio.open_registry() as registry:
        log, as_json = WorkLog(registry, as_json=False), WorkLog(registry, as_json=True)
        job = await registry.create_job()
        await job.cancel("no need")
        assert await words(log) == [f"cancelled {job.id}: no need\n"]
        assert [json.loads(text)["executor"] for _, text in await as_json.next()] == [None, None]


async def test_changes_that_were_missed() -> None:
    """What came too quickly is counted, at once and in the end; none is said to have taken as long as two."""
    async with jobtrio.open_registry(max_running=2) as registry:
        log = WorkLog(registry, as_json=False)
        job = await registry.submit(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert await words(log) == [f"started {job.id} wait\n"]
        for _ in range(EVENTS_KEPT // 2 + 1):
            held = await registry.create_job()
            await held.cancel()
        await job.cancel("enough")
        await job.wait()
        seen: list[str] = []
        while not (seen and job.id in seen[-1]):
            seen += await words(log)
    assert await log.next() == []
    assert seen[0] == "3 changes came too quickly to be logged\n"
    assert seen[-1] == f"cancelled {job.id} wait: enough\n"
    assert log.summary() == f"jobtrio: stopped; {EVENTS_KEPT // 2 + 1} cancelled; 3 changes not logged"


async def test_changes_that_nobody_waited_for() -> None:
    """The last line counts the jobs whose changes were not written any more, and says how many these are."""
    async with jobtrio.open_registry() as registry:
        log = WorkLog(registry, as_json=True)
        first = await registry.submit(nothing)
        await first.wait()
        assert len(await log.next()) == 3  # of which nobody knows whether they have been written
        for _ in range(5):
            await (await registry.submit(nothing)).wait()
    assert log.summary() == log.summary() == "jobtrio: stopped; 6 completed; 18 changes not logged"
    assert await log.next() == []


async def test_changes_that_were_missed_and_not_waited_for() -> None:
    """So it does where some of these came too quickly to be known."""
    async with jobtrio.open_registry() as registry:
        log = WorkLog(registry, as_json=True)
        for _ in range(EVENTS_KEPT // 2 + 1):
            held = await registry.create_job()
            await held.cancel()
    assert log.summary() == f"jobtrio: stopped; {EVENTS_KEPT // 2} cancelled; {EVENTS_KEPT + 2} changes not logged"
