"""Writes that share a commit: one that fails leaves nothing behind and harms no other; answers come afterwards."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlite_faults
import trio
from sqlite_invariants import check_file

import jobtrio
from jobtrio import Completed, DuplicateJobError, Executors, JobPriority, JobState, PayloadError, Retention, StoreError
from jobtrio.abc import JobQuery
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite import _checkpoint as checkpoint
from jobtrio.testing._workers import SHORT, Worker, ids, new_entry, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from sqlite_faults import Faults


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "jobs.db"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong with the store's connections."""
    return sqlite_faults.install(monkeypatch)


class Hold:
    """Holds the writer at a statement, so that calls gather behind it."""

    def __init__(self, faults: Faults, statement: str) -> None:
        self._statement = statement
        self._go_on = threading.Event()
        faults.slow = self._wait

    def _wait(self, statement: str) -> None:
        if statement.startswith(self._statement):
            self._go_on.wait(10)

    async def gathered(self, count: int, worker: Worker) -> None:
        """Wait until so many calls wait for the writer, and let it go on."""
        calls = worker.store._opened._writer.calls  # type: ignore[attr-defined]
        with trio.fail_after(10):
            while len(calls._open) < count:  # noqa: ASYNC110
                await trio.sleep(0.001)
        self._go_on.set()


async def test_many_share_a_commit(path: Path, faults: Faults) -> None:
    """Calls that wait together are committed together."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        hold = Hold(faults, "BEGIN")
        commits: list[str] = []
        answered: list[int] = []

        async def insert(n: int) -> None:
            await worker.insert(new_entry(job_id=f"{n:03}"))
            answered.append(n)

        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(insert, n)
            await hold.gathered(100, worker)
            faults.slow = lambda statement: commits.append(statement) if statement == "COMMIT" else None
        assert len(commits) <= 2
        assert sorted(answered) == [*range(100)]
    check_file(path, [f"{n:03}" for n in range(100)])


async def test_one_that_fails_half_way(path: Path, faults: Faults) -> None:
    """A call that fails after it has changed something leaves nothing of it, and those beside it are carried out."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry(job_id="taken"))
        hold = Hold(faults, "BEGIN")
        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(partial(worker.insert, new_entry(job_id=f"before {n}", tags={"n": "x"})))
            nursery.start_soon(_refused, worker)
            for n in range(5):
                nursery.start_soon(partial(worker.insert, new_entry(job_id=f"behind {n}")))
            await hold.gathered(11, worker)
        names = {"taken", *(f"{where} {n}" for where in ("before", "behind") for n in range(5))}
        assert set(check_file(path, names)) == names
        for name in names:
            assert worker.heard.of(name) == await worker.history(name)


async def _refused(worker: Worker) -> None:
    with pytest.raises(DuplicateJobError):
        await worker.insert(*(new_entry(tags={"t": "v"}) for _ in range(3)), new_entry(job_id="taken"))


async def test_nothing_is_answered_before_the_commit(path: Path, faults: Faults) -> None:
    """A caller has its answer when another process can see what was done, and not before."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        hold = Hold(faults, "COMMIT")
        entry = new_entry(job_id="id")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.insert, entry)
            await trio.sleep(0.1)
            assert entry.order == 0
            assert not worker.heard.changes
            assert check_file(path, []) == {}
            await hold.gathered(1, worker)
        assert entry.order > 0
        assert check_file(path, ["id"]) == {"id": JobState.QUEUED}


async def test_a_failed_commit_is_told_to_all(path: Path, faults: Faults) -> None:
    """If the commit fails, every call of the group fails, and nothing of it is told or kept."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry(job_id="before"))
        told = len(worker.heard.changes)
        faults.fail_at(4, "before")  # BEGIN, the version, INSERT and so on: somewhere in the group
        failed = 0
        async with trio.open_nursery() as nursery:

            async def insert() -> None:
                nonlocal failed
                try:
                    await worker.insert(new_entry())
                except StoreError:
                    failed += 1

            for _ in range(5):
                nursery.start_soon(insert)
        assert failed >= 1
        assert len(worker.heard.changes) == told + 5 - failed
        assert len(check_file(path, ["before"])) == 1 + 5 - failed


async def test_values_that_fail_reach_no_thread(path: Path, faults: Faults) -> None:
    """What can't be encoded is refused before anything is asked of the file."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        claim = await worker.start()
        faults.count = 0
        for call in (
            partial(worker.insert, new_entry(payload=object())),
            partial(worker.insert, new_entry(metadata={"x": object()})),
            partial(worker.store.save_state, claim, object()),
            partial(worker.store.finish, claim, Completed(object())),
            partial(worker.store.append_messages, claim, [jobtrio.Token(1, 1, object())]),
            partial(worker.store.append_messages, claim, [jobtrio.End(1, Completed())]),
        ):
            with pytest.raises(PayloadError):
                await call()
        assert faults.count == 0


async def test_lines_whose_first_has_expired(path: Path) -> None:
    """A job that can't be started any more gives its place in the comparison of lines to the one behind it."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        urgent = new_entry(queue="a", priority=JobPriority.CRITICAL, expires_in=0.01)
        late, early = new_entry(queue="a", priority=JobPriority.LOW), new_entry(queue="b")
        await worker.insert(urgent, late, early)
        await trio.sleep(0.02)
        assert ids(await worker.claim(limit=1)) == [early.id]
        assert ids(await worker.claim(limit=5)) == [late.id]


# -- clocks


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_setting_the_clock_takes_no_job_away(path: Path, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Leases do not go by the wall clock: a step of it, or a machine that slept, loses no claim."""
    async with open_workers(lambda: SqliteJobStore(path), "a", "b") as (a, b):
        claim = await a.start(lease=5.0)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + step)
        for worker in (a, b):
            worker.store._opened.announcer.look_at = 0.0  # type: ignore[attr-defined]
            await worker.store.advance()
        assert await a.store.finish(claim, Completed())
        record = await a.record(claim.entry.id)
        assert record.duration is not None
        assert record.duration >= 0


async def test_leases_of_another_time(path: Path) -> None:
    """The machine's clock begins anew with it: a lease that seems to last longer than it was given is over."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        claim = await worker.start(lease=60.0)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE jobs SET lease_until = lease_until + 1000000")
        worker.store._opened.announcer.look_at = 0.0  # type: ignore[attr-defined]
        await worker.store.advance()
        assert await worker.states(claim.entry.id) == ["QUEUED", "RUNNING", "QUEUED"]


async def test_a_start_time_goes_by_the_wall_clock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is to start at a certain time starts when the clock says so."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        (entry,) = await worker.insert(new_entry(delay=3600.0))
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3601)
        worker.store._opened.announcer.look_at = 0.0  # type: ignore[attr-defined]
        await worker.store.advance()
        assert ids(await worker.claim()) == [entry.id]


# -- keeping what is kept


async def test_ended_jobs_are_pruned_as_they_come(path: Path) -> None:
    """Many jobs that end one after another are not all kept until somebody prunes."""
    executors = Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        pass

    keep = Retention(finished_jobs=20)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), retention=keep) as registry:
        await registry.submit_many([jobtrio.JobSpec("work") for _ in range(500)])
        await registry.drain()
        with trio.fail_after(10):
            while len(await registry.find(limit=1000)) > 150:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_streams_are_bounded(path: Path) -> None:
    """The file keeps no more of a stream than `Retention` says, and a chunk."""
    async with open_worker(lambda: SqliteJobStore(path), Retention(tokens_per_job=10)) as worker:
        claim = await worker.start()
        for n in range(1, 500):
            await worker.store.append_messages(claim, tokens(n, n))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*), min(first) FROM messages").fetchone() == (10, 490)


async def test_the_log_does_not_grow(path: Path) -> None:
    """The write-ahead log is copied into the file now and then, and written anew."""
    async with open_worker(lambda: SqliteJobStore(path, synchronous="NORMAL")) as worker:
        for n in range(200):
            await worker.insert(*(new_entry(payload="x" * 1900) for _ in range(100)))
            if n % 50 == 0:
                assert len(await worker.store.find(JobQuery(limit=10))) == 10
        log_size, size = (os.stat(name).st_size for name in (f"{path}-wal", path))
        assert log_size < 0.7 * size


@pytest.mark.parametrize(
    ("version", "has_error"),
    [
        ((3, 37, 2), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 46, 1), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_with_the_reset_error(version: tuple[int, ...], has_error: bool) -> None:
    """It is in all versions but those that say they mended it."""
    assert checkpoint.has_reset_error(version) is has_error


async def test_several_processes_are_warned(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who opens a file that another has open is told, once, if this SQLite is not safe for that."""
    monkeypatch.setattr(checkpoint, "_has_warned", False)
    monkeypatch.setattr(checkpoint, "has_reset_error", lambda: True)
    caplog.set_level(logging.WARNING, "jobtrio")
    async with open_worker(lambda: SqliteJobStore(path)):
        assert not caplog.records
        for _ in range(2):
            async with open_worker(lambda: SqliteJobStore(path)):
                pass
    assert len(caplog.records) == 1
    assert "WAL-reset" in caplog.text


async def test_a_lapse_of_many(path: Path) -> None:
    """However many leases are over at once, all are seen to."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(*(new_entry() for _ in range(1200)))
        claims = await worker.claim(limit=1200, lease=SHORT)
        assert len(claims) == 1200
        await worker.pass_time()
        assert (await worker.store.counts())[JobState.QUEUED] == 1200


async def test_nothing_else_is_open(path: Path) -> None:
    """A store that is closed leaves no thread and no descriptor behind."""

    def left() -> tuple[list[str], int]:
        threads = sorted(thread.name for thread in threading.enumerate() if "jobtrio" in thread.name)
        return threads, len(os.listdir("/proc/self/fd"))

    async with open_worker(lambda: SqliteJobStore(path)):
        pass
    before = left()
    for _ in range(5):
        async with open_worker(lambda: SqliteJobStore(path)) as worker:
            await worker.insert(new_entry())
            await worker.store.find(JobQuery())
    assert left() == before
