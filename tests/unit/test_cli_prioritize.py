"""``prioritize`` of all that match, and what it says where its store fails, or jobs move on, meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from jobs_to_filter import jobs_to_filter

import jobtrio
from jobtrio import JobPriority, JobSpec, JobState, StoreError
from jobtrio.cli import build_parser
from jobtrio.cli._prioritize import prioritize
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jobtrio.abc import JobEntry


class Failing(SqliteJobStore):
    """A store that fails from the second job on, or whose job is gone when it is looked for."""

    removes = False

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        if not self.removes and job_id != "a":
            raise StoreError("damaged")
        return await super().set_priority(job_id, priority)

    async def load(self, job_id: str) -> JobEntry | None:
        return None if self.removes else await super().load(job_id)


def asked(*args: str) -> argparse.Namespace:
    """Return the command's options."""
    return build_parser().parse_args(["prioritize", *args, "--priority", "high"])


async def fill(path: Path) -> None:
    """Put in two jobs."""
    executors = jobtrio.Executors()
    executors.register("work")(jobtrio.executors.run_command)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        for name in "ab":
            await registry.submit("work", job_id=name)


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_store_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """What was done before is told."""
    await fill(tmp_path / "jobs.db")
    store = Failing(tmp_path / "jobs.db")
    with pytest.raises(StoreError):
        await prioritize(asked("a", "b", "c", *["--json"] * as_json), store)
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said) == {"prioritized": ["a"], "refused": {}}
    else:
        assert said == "a has priority high\n"


async def test_nothing_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the store fails at once there is nothing to tell."""
    await fill(tmp_path / "jobs.db")
    with pytest.raises(StoreError):
        await prioritize(asked("b", "--json"), Failing(tmp_path / "jobs.db"))
    assert capsys.readouterr().out == ""


async def test_a_job_that_can_not_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that was refused is told of, though it is gone when its state is looked for."""
    path, started = tmp_path / "jobs.db", trio.Event()
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
        job = await registry.submit("work", job_id="job")
        await started.wait()
        store = Failing(path)
        store.removes = True
        assert await prioritize(asked("job", "--json"), store) == 1
        out, err = capsys.readouterr()
        assert json.loads(out) == {"prioritized": [], "refused": {"job": None}}
        assert err == "jobtrio prioritize: job 'job' runs, or has ended\n"
        await job.cancel()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[jobtrio.JobRegistry]:
    """Return a registry on a file, which runs one of 200 jobs; every third is ann's, and the last ones are not due."""
    started, executors = trio.Event(), jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    executors.register("other")(work)
    store = SqliteJobStore(tmp_path / "jobs.db")
    async with jobtrio.open_registry(executors, store=store, queues={"served": 1}) as registry:
        running = await registry.submit("work", job_id="running", queue="served", tags={"user": "ann"})
        await started.wait()
        jobs = jobs_to_filter(200)
        await registry.submit_many([*jobs[:150], *(attrs.evolve(job, delay=3600.0) for job in jobs[150:])])
        await registry.cancel("0")
        yield registry
        await running.cancel()


@pytest.mark.parametrize(
    ("args", "matches"),
    [
        (("--tag", "user=ann"), lambda n: n % 3 == 0),
        (("--queue", "q1"), lambda n: n % 5 == 1),
        (("--executor", "work", "--queue", "q1", "--tag", "user=ann"), lambda n: (n % 2, n % 5, n % 3) == (1, 1, 0)),
        (("--state", "scheduled"), lambda n: n >= 150),
        (("--state", "scheduled", "--state", "queued,retrying"), lambda _: True),
        (("--key", "k7"), lambda n: n == 7),
        (("--tag", "user=eve"), lambda _: False),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
async def test_all_that_match(
    registry: jobtrio.JobRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    matches: Any,
    as_json: bool,
) -> None:
    """All that wait and match have the priority, over several pages, and no other has; one that runs is no fault."""
    expected = [str(n) for n in range(1, 200) if matches(n)]
    assert await prioritize(asked(*args, *["--json"] * as_json), SqliteJobStore(tmp_path / "jobs.db")) == 0
    out, err = capsys.readouterr()
    if as_json:
        assert json.loads(out) == {"prioritized": expected, "refused": {}}
    else:
        jobs = f"{len(expected)} job{' has' if len(expected) == 1 else 's have'} priority high\n"
        assert out == (jobs if expected else "no job that waits matches\n")
    assert err == ""
    records = [record async for record in registry.find_all()]
    assert [record.id for record in records if record.priority is JobPriority.HIGH] == expected


async def test_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that match stay in the order of their submission."""
    ran: list[str] = []
    executors, all_ran = jobtrio.Executors(), trio.Event()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        ran.append(job.id)
        if len(ran) == 100:
            all_ran.set()

    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db"), queues={}) as registry:
        await registry.submit_many([JobSpec("work", job_id=str(n), tags={"odd": str(n % 2)}) for n in range(100)])
    assert await prioritize(asked("--tag", "odd=1"), SqliteJobStore(tmp_path / "jobs.db")) == 0
    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db"), max_running=1):
        await all_ran.wait()
    assert ran == [str(n) for n in (*range(1, 100, 2), *range(0, 100, 2))]


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_store_that_fails_before_all_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """Of all that match, those are told that have it."""
    await fill(tmp_path / "jobs.db")
    store = Failing(tmp_path / "jobs.db")
    with pytest.raises(StoreError):
        await prioritize(asked("--executor", "work", *["--json"] * as_json), store)
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said) == {"prioritized": ["a"], "refused": {}}
    else:
        assert said == "1 job has priority high\n"


async def test_a_job_that_waits_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that match, nothing is said of one that begins, or is removed, since it was found."""

    class Late(SqliteJobStore):
        async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
            entry = await self.load(job_id)
            assert entry is not None
            entry.state = JobState.RUNNING
            return entry if job_id == "a" else None

    await fill(tmp_path / "jobs.db")
    assert await prioritize(asked("--executor", "work", "--json"), Late(tmp_path / "jobs.db")) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"prioritized": [], "refused": {}}, "")
