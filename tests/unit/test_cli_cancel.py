"""``cancel`` of one job, and of all that match."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from jobs_to_filter import jobs_to_filter
from one_page import OnePage

import jobtrio
from jobtrio import JobState, StoreError, StoreUnavailableError, UnknownJobError
from jobtrio._pages import PAGE
from jobtrio.cli import build_parser
from jobtrio.cli._cancel import AT_ONCE, cancel, cancel_all
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jobtrio.abc import CancelReply


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[jobtrio.JobRegistry]:
    """Return a registry on a file, which runs nothing, with 300 queued jobs, every third of them ann's."""
    executors = jobtrio.Executors()
    executors.register("work")(jobtrio.executors.run_command)
    executors.register("other")(jobtrio.executors.run_command)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db"), queues={}) as registry:
        await registry.submit_many(jobs_to_filter(300))
        yield registry


async def ids_of(registry: jobtrio.JobRegistry, **filters: Any) -> list[str]:
    """Return the ids of all jobs that match."""
    return [record.id async for record in registry.find_all(**filters)]


@pytest.mark.parametrize(
    ("args", "matches"),
    [
        (("--tag", "user=ann"), lambda n: n % 3 == 0),
        (("--queue", "q1"), lambda n: n % 5 == 1),
        (("--executor", "work"), lambda n: n % 2 == 1),
        (("--executor", "work", "--queue", "q1", "--tag", "user=ann"), lambda n: (n % 2, n % 5, n % 3) == (1, 1, 0)),
        (("--state", "scheduled,queued"), lambda _: True),
        (("--state", "running", "--state", "queued"), lambda _: True),
        (("--state", "running", "--tag", "user=ann"), lambda _: False),
        (("--tag", "user=eve"), lambda _: False),
        (("--key", "k7"), lambda n: n == 7),
        (("--key", "k7", "--tag", "user=ann"), lambda _: False),
    ],
)
async def test_all_that_match(
    registry: jobtrio.JobRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    matches: Any,
) -> None:
    """All that live and match are asked, over several pages, and no other."""
    expected = [str(n) for n in range(300) if matches(n)]
    options = build_parser().parse_args(["cancel", *args, "--reason", "no need"])
    assert await cancel_all(options, SqliteJobStore(tmp_path / "jobs.db")) == 0
    said = (
        f"asked {len(expected)} job{'s' * (len(expected) != 1)} to end\n" if expected else "no job that lives matches\n"
    )
    assert capsys.readouterr() == (said, "")
    assert await ids_of(registry, state=JobState.CANCELLED) == expected
    for job_id in expected[:1]:
        assert (await registry.get(job_id)).record.cancel_reason == "no need"

    assert await cancel_all(options, SqliteJobStore(tmp_path / "jobs.db")) == 0
    assert capsys.readouterr() == ("no job that lives matches\n", "")


async def test_for_scripts(registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the ids of those that will end."""
    await registry.cancel("0")
    options = build_parser().parse_args(["cancel", "--tag", "user=ann", "--json"])
    assert await cancel_all(options, SqliteJobStore(tmp_path / "jobs.db")) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: sorted(ids, key=int) for name, ids in document.items()} == {
        "cancelled": [str(n) for n in range(3, 300, 3)]
    }
    assert await cancel_all(options, SqliteJobStore(tmp_path / "jobs.db")) == 0
    assert json.loads(capsys.readouterr().out) == {"cancelled": []}


class Fails(SqliteJobStore):
    """A store that fails at one job's turn."""

    at = ""
    failure: jobtrio.JobtrioError

    async def request_cancel(self, job_id: str, *args: Any, **kwargs: Any) -> CancelReply | None:
        """Ask a job to end, or fail."""
        if job_id == self.at:
            raise self.failure
        return await super().request_cancel(job_id, *args, **kwargs)


@pytest.mark.parametrize("failure", [StoreUnavailableError("away"), UnknownJobError("0")])
async def test_a_job_that_can_not_be_looked_up(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: jobtrio.JobtrioError
) -> None:
    """A request that was made is told, also where the store is away, or the job removed, before its record is read."""

    async def fail(*args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise failure

    store = SqliteJobStore(tmp_path / "jobs.db", outage_limit=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "load", fail)
        assert await cancel(build_parser().parse_args(["cancel", "0"]), store) == 0
        assert capsys.readouterr() == ("asked to stop\n", "")
        assert await cancel(build_parser().parse_args(["cancel", "0", "--json"]), store) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"cancelled": False, "job": None}
    assert err == "jobtrio cancel: job '0' has ended already\n"
    assert await ids_of(registry, state=JobState.CANCELLED) == ["0"]


@pytest.mark.parametrize("json_too", [False, True])
async def test_a_store_that_fails_on_the_way(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], json_too: bool
) -> None:
    """It is told how many were asked before, and the failure comes bare."""
    store = Fails(tmp_path / "jobs.db")
    store.at, store.failure = "150", StoreError("damaged")
    options = build_parser().parse_args(["cancel", "--state", "queued", *["--json"] * json_too])
    with pytest.raises(StoreError, match="damaged"):
        await cancel_all(options, store)
    asked = await ids_of(registry, state=JobState.CANCELLED)
    sure, possible = range(151, 300), {*range(150 - 2 * AT_ONCE, 300)} - {150}
    assert {str(n) for n in sure} <= set(asked) <= {str(n) for n in possible}
    out = capsys.readouterr().out
    if json_too:
        assert sorted(json.loads(out)["cancelled"]) == sorted(asked)
    else:
        assert out == f"asked {len(asked)} jobs to end\n"


async def test_a_look_that_fails(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the next page can't be read, those of the pages before have been asked."""
    options = build_parser().parse_args(["cancel", "--state", "queued"])
    with pytest.raises(StoreError, match="damaged"):
        await cancel_all(options, OnePage(tmp_path / "jobs.db"))
    assert capsys.readouterr().out == f"asked {PAGE - 1} jobs to end\n"
    assert await ids_of(registry, state=JobState.CANCELLED) == [str(n) for n in range(300 - PAGE + 1, 300)]


async def test_a_store_that_fails_at_once(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where none was asked nothing is said of the jobs: it is not known whether any matches."""
    store = Fails(tmp_path / "jobs.db")
    store.at, store.failure = "270", StoreError("damaged")
    options = build_parser().parse_args(["cancel", "--tag", "user=ann", "--queue", "q0", "--executor", "other"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobtrio.cli._cancel.AT_ONCE", 1)
        with pytest.raises(StoreError, match="damaged"):
            await cancel_all(options, store)
    assert capsys.readouterr().out == ""
    assert await ids_of(registry, state=JobState.CANCELLED) == []


async def test_a_job_that_goes_meanwhile(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that has ended and been removed before it is asked is none that will end so."""
    store = Fails(tmp_path / "jobs.db")
    store.at, store.failure = "0", UnknownJobError("0")
    options = build_parser().parse_args(["cancel", "--tag", "user=ann"])
    assert await cancel_all(options, store) == 0
    assert capsys.readouterr().out == "asked 99 jobs to end\n"


class Refilled(SqliteJobStore):
    """A store in which a job that is asked to end is followed by another one like it."""

    registry: jobtrio.JobRegistry

    async def request_cancel(self, job_id: str, *args: Any, **kwargs: Any) -> CancelReply | None:
        """Ask a job to end, and submit another."""
        await self.registry.submit("work", job_id=f"{job_id}-again")
        return await super().request_cancel(job_id, *args, **kwargs)


async def test_jobs_that_come_as_quickly(
    registry: jobtrio.JobRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends: those that are submitted meanwhile are not asked."""
    store = Refilled(tmp_path / "jobs.db")
    store.registry = registry
    options = build_parser().parse_args(["cancel", "--state", "queued"])
    with trio.fail_after(60):
        assert await cancel_all(options, store) == 0
    assert capsys.readouterr().out == "asked 300 jobs to end\n"
    assert set(await ids_of(registry, state=JobState.QUEUED)) == {f"{n}-again" for n in range(300)}
