"""Writes that share a commit: one that fails leaves nothing behind and harms no other; answers come afterwards."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import sqlite_faults
import trio
from sqlite_invariants import check_file
from store_scenario import try_what_cannot_be_encoded

import jobtrio
from jobtrio import (
    Completed,
    DuplicateJobError,
    Executors,
    JobState,
    Retention,
    StoreError,
    StoreUnavailableError,
)
from jobtrio._known import refresh
from jobtrio.abc import JobQuery
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite import _checkpoint as checkpoint
from jobtrio.stores.sqlite._wakeup import Doorbell
from jobtrio.stores.sqlite._writer import LEAST, LOOK_AFTER, LOOKS, MOST
from jobtrio.testing._workers import LEASE, SHORT, Worker, ids, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from sqlite_faults import Faults

    from jobtrio.stores._hints import Hints


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "jobs.db"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong with the store's connections. No transaction is cut short because the machine is busy."""
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.LONGEST", 60.0)
    return sqlite_faults.install(monkeypatch)


class Hold:
    """Holds the writer at a statement, so that calls gather behind it."""

    def __init__(self, faults: Faults, statement: str) -> None:
        self._statement = statement
        self._reached = threading.Event()
        self._go_on = threading.Event()
        faults.slow = self._wait

    def _wait(self, statement: str) -> None:
        if statement.startswith(self._statement):
            self._reached.set()
            self._go_on.wait(60)

    async def reached(self) -> None:
        """Wait until the writer is held."""
        with trio.fail_after(60):
            while not self._reached.is_set():  # noqa: ASYNC110 - in the writer's thread
                await trio.sleep(0.001)

    async def gathered(self, count: int, worker: Worker) -> None:
        """Wait until so many calls wait for the writer, and let it go on."""
        calls = worker.store._opened._writer.calls  # type: ignore[attr-defined]
        with trio.fail_after(60):
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


async def test_large_calls_share_no_commit(path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a transaction takes long it is committed, and others may write, though more calls wait."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        monkeypatch.setattr("jobtrio.stores.sqlite._writer.LONGEST", 0.0)
        hold = Hold(faults, "BEGIN")
        commits: list[str] = []
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(worker.insert, new_entry())
            await hold.gathered(10, worker)
            faults.slow = lambda statement: commits.append(statement) if statement == "COMMIT" else None
    assert len(commits) >= 10
    assert pauses.count(LOOKS[1]) >= 10


class Lingering:
    """Notes how long a writer means to wait for one more call, and has it wait until there is one."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self.go_on = threading.Event()
        self.calls = worker.store._opened._writer.calls  # type: ignore[attr-defined]
        self._next = self.calls.next
        monkeypatch.setattr(self.calls, "next", self._wait)

    def _wait(self, timeout: float) -> Any:
        if 0 < timeout < LOOK_AFTER:
            self.waits.append(timeout)
            self.go_on.wait(60)
            timeout = 0
        return self._next(timeout)


async def test_a_group_waits_for_one_more(path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a commit that took long, several calls wait a moment for one more, which shares theirs; one does not."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        lingering = Lingering(worker, monkeypatch)
        for name in ("alone", "alone too"):
            faults.slow = lambda statement: time.sleep(0.02) if statement == "COMMIT" else None
            await worker.insert(new_entry(job_id=name))
        assert not lingering.waits
        hold = Hold(faults, "COMMIT")
        statements: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.insert, new_entry(job_id="before"))
            await hold.reached()
            await trio.sleep(10 * MOST)
            for n in range(2):
                nursery.start_soon(worker.insert, new_entry(job_id=f"early {n}"))
            await hold.gathered(3, worker)
            faults.slow = statements.append
            with trio.fail_after(60):
                while not lingering.waits:  # noqa: ASYNC110 - in the writer's thread
                    await trio.sleep(0.001)
                nursery.start_soon(worker.insert, new_entry(job_id="late"))
                while lingering.calls.is_empty():  # noqa: ASYNC110
                    await trio.sleep(0.001)
            lingering.go_on.set()
        assert lingering.waits[0] == MOST
        assert statements.count("COMMIT") == 1


@pytest.mark.parametrize(("took", "waits"), [(LEAST * 7, []), (LEAST * 9, [LEAST * 9 / 8])])
async def test_how_long_a_group_waits(
    took: float, waits: list[float], path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits an eighth of what the last commit took; not at all where commits are quick."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        clock = iter((100.0, 100.0 + took, 200.0, 200.0))
        monkeypatch.setattr("time.perf_counter", lambda: next(clock))
        lingering = Lingering(worker, monkeypatch)
        lingering.go_on.set()
        hold = Hold(faults, "COMMIT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.insert, new_entry())
            await hold.reached()
            for _ in range(2):
                nursery.start_soon(worker.insert, new_entry())
            await hold.gathered(3, worker)
        monkeypatch.undo()
        assert lingering.waits == pytest.approx(waits)


async def test_a_repeated_claim_is_told_once(path: Path) -> None:
    """A claim that is made again, as after a lost answer, finds what it claimed, and nobody is told of that again."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry(job_id="id"))
        for _ in range(2):
            assert ids(await worker.store.claim("mark", limit=1, lease=60.0)) == ["id"]
        assert worker.heard.of("id") == await worker.history("id")


async def test_a_claim_that_is_renewed_by_another(path: Path) -> None:
    """A claim belongs to whoever renewed it last, whatever became of the store that made it."""
    for renews in (False, True):
        async with open_worker(lambda: SqliteJobStore(path)) as worker:
            claim = await worker.start()
        async with open_worker(lambda: SqliteJobStore(path)) as worker:
            if renews:
                (report,) = await worker.store.renew([claim], 60.0)
                assert report.held
            await worker.store.advance()
            assert (await worker.load(claim.entry.id)).state == ("RUNNING" if renews else "QUEUED")
            await worker.store.request_cancel(claim.entry.id, None, 0.0)


async def test_a_renewal_that_is_older_than_a_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to cancel that a process knows of is not forgotten for a renewal that was carried out before it."""
    async with open_workers(lambda: SqliteJobStore(path), "a", "b") as (a, b):
        claim = await a.start()
        committed, answered = trio.Event(), threading.Event()
        original = Doorbell.ring

        def ring_late(bell: Doorbell, hints: Hints) -> bool:
            trio.from_thread.run_sync(committed.set, trio_token=token)
            answered.wait(60)
            return original(bell, hints)

        async def renew() -> None:
            (report,) = await a.store.renew([claim], LEASE)
            assert report.held

        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(Doorbell, "ring", ring_late)
                nursery.start_soon(renew)
                await committed.wait()
            try:
                assert await b.store.request_cancel(claim.entry.id, "why", 0.0)
                refresh(claim.entry, await a.load(claim.entry.id))
            finally:
                answered.set()
        assert claim.entry.record().cancel_reason == "why"


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
        await try_what_cannot_be_encoded(worker, claim)
        assert faults.count == 0


# -- clocks


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_setting_the_clock_takes_no_job_away(path: Path, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Leases do not go by the wall clock: a step of it, or a machine that slept, loses no claim."""
    async with open_workers(lambda: SqliteJobStore(path), "a", "b") as (a, b):
        claim = await a.start(lease=5.0)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + step)
        for worker in (a, b):
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
        await worker.store.advance()
        assert await worker.states(claim.entry.id) == ["QUEUED", "RUNNING", "QUEUED"]


async def test_a_clock_that_stands_still(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that begins and is looked at in one tick of the clock is not over because its end was rounded up."""
    now, lease = 1234.567, 7.7
    assert (now + lease) - now > lease
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry())
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: now)
            claim = await worker.claim_one(lease)
            await worker.store.advance()
        assert await worker.store.finish(claim, Completed())


async def test_a_start_time_goes_by_the_wall_clock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is to start at a certain time starts when the clock says so."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        (entry,) = await worker.insert(new_entry(delay=3600.0))
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3601)
        await worker.store.advance()
        assert ids(await worker.claim()) == [entry.id]


async def test_order_of_those_for_one_moment(path: Path) -> None:
    """Jobs that are stored one by one and are to start at one moment become ready in their order."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        entries = [new_entry(delay=SHORT + 1.0 - n / 20) for n in range(20)]  # as if each was submitted a while later
        for entry in entries:
            entry.run_at = entries[-1].created_at + SHORT
            await worker.insert(entry)
        await worker.pass_time()
        assert ids(await worker.claim()) == ids(entries)


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
        with trio.fail_after(60):
            while len(await registry.find(limit=1000)) > 150:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_large_values_that_become_small(path: Path) -> None:
    """A value that is small by now leaves the place for large ones, and nothing else of its job or of others does."""
    large = "x" * 4000
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        one, two = [await worker.start(new_entry(payload=large)) for _ in range(2)]
        for claim in (one, two):
            await worker.store.save_state(claim, large)
        await worker.store.save_state(one, "small")
        kept = [await worker.load(claim.entry.id) for claim in (one, two)]
        assert [(entry.payload, entry.saved_state) for entry in kept] == [(large, "small"), (large, large)]


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


async def test_a_reader_that_stays(path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stays in one transaction keeps the log from being cut, and does not hold up each write for that."""
    monkeypatch.setattr(checkpoint, "LARGEST", 0)
    made: list[float] = []

    def note(statement: str) -> None:
        if "wal_checkpoint" in statement:
            made.append(time.monotonic())

    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry())
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
            faults.slow = note
            began = time.monotonic()
            for _ in range(60):
                await worker.insert(new_entry())
            assert 0 < len(made) <= 2 + (time.monotonic() - began) / checkpoint.PAUSE
        before = len(made)
        with trio.fail_after(60):
            while len(made) == before:  # noqa: ASYNC110
                await trio.sleep(0.01)


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
    (record,) = caplog.records
    assert "WAL-reset bug: let no program but jobtrio write" in record.getMessage()
    assert len(record.getMessage()) < 110  # a terminal's line


async def test_times_that_others_are_told_of(path: Path) -> None:
    """Others are told of a time to come, unless they know of an earlier one that has not come yet."""
    bell = Doorbell(str(path))
    told = []
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        bell.open()
        try:
            for delay in (SHORT, LEASE, 2 * LEASE, SHORT):
                await worker.insert(new_entry(delay=delay))
                told.append(bell.heard().due is not None)
                await trio.sleep(2 * SHORT)
        finally:
            bell.close(keep_name=False)
    assert told == [True, True, False, True]


async def test_a_pause_in_which_nothing_is_written(path: Path) -> None:
    """While nobody writes into the file, nothing is looked for in it."""
    async with open_workers(lambda: SqliteJobStore(path), "a", "b") as (a, b):
        for worker in (b, a):
            await worker.insert(new_entry())
        for _ in range(10):  # what was written is found out first, on a slow machine not at once
            b.heard.forget()
            with trio.move_on_after(3 * LOOK_AFTER) as scope:
                await b.heard.wait_for("work_ready")
            if scope.cancelled_caught:
                return
    raise AssertionError("it is looked again and again")


async def test_a_store_that_is_closed_beside_a_claim(path: Path) -> None:
    """Of a closed store that holds no job nothing stays, though others hold some."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.start()
        doorbells = os.listdir(f"{path}-doorbells")
        async with open_worker(lambda: SqliteJobStore(path)):
            assert len(os.listdir(f"{path}-doorbells")) == len(doorbells) + 1
        assert os.listdir(f"{path}-doorbells") == doorbells


async def test_a_store_that_is_closed_with_a_claim(path: Path) -> None:
    """What a closed store has not let go of returns to its queue when another looks, however long its lease."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        claim = await worker.start(lease=LEASE)
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.advance()
        assert (await worker.record(claim.entry.id)).state is JobState.QUEUED
    assert f"{path.name}-doorbells" not in os.listdir(path.parent)


async def test_workers_that_did_not_leave(path: Path) -> None:
    """A worker that was not seen for as long as it said leaves nothing behind once another is seen."""
    async with open_workers(lambda: SqliteJobStore(path), "gone", "here") as (gone, here):
        await gone.store.renew([], SHORT)
        await trio.sleep(2 * SHORT)
        await here.store.renew([], LEASE)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT name FROM workers").fetchall() == [("here",)]


async def test_a_held_job_that_waited_to_be_stored(path: Path) -> None:
    """Of the time to start in, none is lost to a held job that was stored some while after it was made."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        held = new_entry(None, expires_in=LEASE)
        held.created_at -= 2 * LEASE
        await worker.insert(held)
        assert await worker.store.start_held(held.id, new_plan())
        assert (await worker.claim_one()).entry.id == held.id


@pytest.mark.parametrize("way", ["late", "gone"])
async def test_the_order_of_lapses(path: Path, way: str) -> None:
    """Jobs whose workers are late or gone return to their queue in the order in which their leases end."""
    gone = "0123456789abcdef"
    async with open_workers(lambda: SqliteJobStore(path), "first", "second") as (first, second):
        entries = [new_entry() for _ in range(12)]
        await first.insert(*entries)
        for n in range(12):
            await first.claim(limit=1, lease=LEASE + n)
        with closing(sqlite3.connect(path)) as connection:
            if way == "late":
                connection.execute("UPDATE jobs SET lease_until = lease / 1e6")
            else:
                connection.execute("UPDATE jobs SET session = ?", (gone,))
                (path.parent / "jobs.db-doorbells" / gone).touch()
            connection.commit()
        await second.store.advance()
        again = await second.claim(limit=12)
        assert [claim.entry.id for claim in again] == [entry.id for entry in entries]


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


async def test_readers_close_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last connection takes the log away, and has to see that it is the last: no two are closed at one moment."""
    both_read, both_close = threading.Barrier(2), threading.Barrier(2)
    met: list[str] = []

    class Connection(sqlite3.Connection):
        def close(self) -> None:
            name = threading.current_thread().name
            with suppress(threading.BrokenBarrierError):
                if name.startswith("jobtrio-sqlite-reader") and not both_close.broken:
                    both_close.wait(0.5)
                    met.append(name)
            super().close()

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*args, factory=Connection, **options)

    monkeypatch.setattr("jobtrio.stores.sqlite._connection.connect", connect)
    store = SqliteJobStore(path)
    async with open_worker(lambda: store):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(store._opened.read, lambda _: both_read.wait(60))
    assert not met
    assert os.listdir(path.parent) == [path.name]


async def test_no_thread_to_look_at_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started at all, the store is away, and is waited for as in any outage."""

    def refuse(*args: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    store = SqliteJobStore(path, outage_limit=1)
    with monkeypatch.context() as patch:
        patch.setattr("jobtrio.stores.sqlite._session.trio.to_thread.run_sync", refuse)
        with pytest.raises(StoreUnavailableError, match=r"was away for 1 s: can't start new thread"):
            async with open_worker(lambda: store):
                pass
    async with open_worker(lambda: store) as worker:
        await worker.insert(new_entry())


@pytest.mark.parametrize("count", range(3))
async def test_no_thread_to_be_had(path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Where the machine has only so many threads left, those that were started end, and nothing else is left."""
    started: list[threading.Thread] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            if len(started) == count:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    with monkeypatch.context() as patch:
        patch.setattr("jobtrio.stores.sqlite._writer.threading.Thread", Thread)
        with pytest.raises(StoreUnavailableError, match="can't start new thread"):
            async with open_worker(lambda: SqliteJobStore(path)):
                pass
    assert len(started) == count
    assert not any(thread.is_alive() for thread in started)
    assert not (path.parent / "jobs.db-doorbells").exists()
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry())
