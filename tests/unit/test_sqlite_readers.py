"""The readers of an SQLite file: what they keep between two calls, and how they end."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio import StoreError, StoreUnavailableError
from jobtrio.stores.sqlite import _readers
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._readers import THREADS, Readers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from jobtrio.stores.sqlite._calls import Call


@asynccontextmanager
async def open_readers(tmp_path: Path) -> AsyncIterator[Readers]:
    """Open the readers of a new file."""
    location = Location(str(tmp_path / "jobs.db"), "FULL")
    location.prepare()
    readers = Readers(location, patience=60.0)
    readers.start()
    try:
        yield readers
    finally:
        await readers.aclose()


class Answer:
    """An answer, which may be large."""


async def test_an_answer_is_kept_by_no_thread(tmp_path: Path) -> None:
    """What was read is gone with the last who has it, though no other call comes to the thread that has read it."""
    async with open_readers(tmp_path) as readers:
        answer: weakref.ref[Answer] = weakref.ref(await readers.calls.make(lambda _: Answer()))
        with trio.fail_after(60):
            while answer() is not None:  # noqa: ASYNC110 - the thread may be on its way to wait
                await trio.sleep(0.01)


async def test_a_short_call_beside_a_long_one(tmp_path: Path) -> None:
    """While one thread reads for long, as for a search, another one answers other calls."""
    may_end, ended_in_time = threading.Event(), list[bool]()
    async with open_readers(tmp_path) as readers, trio.open_nursery() as nursery:
        nursery.start_soon(readers.calls.make, lambda _: ended_in_time.append(may_end.wait(60)))
        await wait_all_tasks_blocked()
        await readers.calls.make(lambda _: may_end.set())
    assert ended_in_time == [True]


async def test_closing_waits_for_the_threads(tmp_path: Path) -> None:
    """What is being read when the readers are closed is read to its end, also where that is cancelled; no more is."""
    begun, may_end, answers = trio.Event(), threading.Event(), list[str]()
    token = trio.lowlevel.current_trio_token()

    def work(_: object) -> str:
        token.run_sync_soon(begun.set)
        may_end.wait(60)
        return "answer"

    async def read(readers: Readers) -> None:
        answers.append(await readers.calls.make(work))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_readers(tmp_path) as readers:
                nursery.start_soon(read, readers)
                await begun.wait()
                scope.cancel()
                threading.Timer(0.05, may_end.set).start()
        assert not any(thread.is_alive() for thread in readers._threads)
    assert answers == ["answer"]
    with trio.fail_after(60), pytest.raises(StoreUnavailableError, match="the store was closed"):
        await readers.calls.make(work)


async def test_what_is_withdrawn_is_not_read(tmp_path: Path) -> None:
    """A call whose task has left before a thread took it is passed over."""
    may_end, done = threading.Event(), list[str]()
    async with open_readers(tmp_path) as readers, trio.open_nursery() as nursery:
        for _ in range(THREADS):
            nursery.start_soon(readers.calls.make, lambda _: may_end.wait(60))
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_soon, scope)
            await readers.calls.make(lambda _: done.append("withdrawn"))
        may_end.set()
        await readers.calls.make(lambda _: done.append("kept"))
    assert done == ["kept"]


@asynccontextmanager
async def open_busy_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Readers, trio.Nursery, threading.Event]]:
    """Open a single reader with a table of notes, which reads until an event is set."""
    monkeypatch.setattr(_readers, "THREADS", 1)
    monkeypatch.setattr(_readers, "LONGEST", 60.0)
    async with open_readers(tmp_path) as readers, trio.open_nursery() as nursery:
        _write(tmp_path, "CREATE TABLE notes (note)")
        may_end = threading.Event()
        nursery.start_soon(readers.calls.make, lambda _: may_end.wait(60))
        await wait_all_tasks_blocked()
        yield readers, nursery, may_end
        may_end.set()


def _write(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as connection:
        connection.execute(statement)


class Asked:
    """Calls that were made in order, and what became of them.

    Attributes:
        answers: What each has returned or raised; ``...`` for one that has no answer yet.
    """

    def __init__(self, readers: Readers, nursery: trio.Nursery) -> None:
        self._readers = readers
        self._nursery = nursery
        self.answers: list[Any] = []

    async def ask(self, work: Callable[[sqlite3.Connection], Any], *, is_short: bool = True) -> None:
        """Make a call, and leave it waiting."""
        self.answers.append(...)
        self._nursery.start_soon(self._make, len(self.answers) - 1, work, is_short)
        await wait_all_tasks_blocked()

    async def _make(self, place: int, work: Callable[[sqlite3.Connection], Any], is_short: bool) -> None:
        try:
            self.answers[place] = await self._readers.calls.make(work, is_short=is_short)
        except (StoreError, ValueError) as exc:
            self.answers[place] = type(exc)


def _count(connection: sqlite3.Connection) -> Any:
    return connection.execute("SELECT count(*) FROM notes").fetchone()[0]


def _count_and_write(tmp_path: Path, connection: sqlite3.Connection) -> Any:
    count = _count(connection)
    _write(tmp_path, "INSERT INTO notes VALUES (1)")
    return count


async def test_short_calls_that_wait_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They see one state of the file, and have their answers together, as far as there is room for them."""
    monkeypatch.setattr(_readers, "GROUP", 3)
    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        delivered: list[int] = []
        deliver = readers.calls.deliver

        def note(calls: Sequence[Call]) -> None:
            delivered.append(len(calls))
            deliver(calls)

        monkeypatch.setattr(readers.calls, "deliver", note)
        asked = Asked(readers, nursery)
        for _ in range(7):
            await asked.ask(partial(_count_and_write, tmp_path))
        may_end.set()
    assert asked.answers == [0, 0, 0, 3, 3, 3, 6]
    assert delivered == [1, 3, 3, 1]


async def test_what_is_asked_later_is_seen_by_no_earlier_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was made while others were carried out sees what was written before it was made."""
    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        began, may_go_on = trio.Event(), threading.Event()
        token = trio.lowlevel.current_trio_token()
        asked = Asked(readers, nursery)

        def count_and_wait(connection: sqlite3.Connection) -> Any:
            count = _count(connection)
            token.run_sync_soon(began.set)
            may_go_on.wait(60)
            return count

        await asked.ask(count_and_wait)
        may_end.set()
        await began.wait()
        _write(tmp_path, "INSERT INTO notes VALUES (1)")
        await asked.ask(_count)
        may_go_on.set()
    assert asked.answers == [0, 1]


async def test_calls_that_may_take_long_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short call before one that may take long has its answer before that is carried out; one behind it waits."""
    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        asked = Asked(readers, nursery)
        token = trio.lowlevel.current_trio_token()

        def work(_: sqlite3.Connection) -> list[Any]:
            trio.from_thread.run(wait_all_tasks_blocked, trio_token=token)
            return [answer for answer in asked.answers if answer is not ...]

        for is_short in (True, False, True):
            await asked.ask(work, is_short=is_short)
        may_end.set()
    assert asked.answers == [[], [[]], [[], [[]]]]


async def test_answers_wait_for_others_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that has taken long takes no more calls."""
    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        monkeypatch.setattr(_readers, "LONGEST", 0.0)
        asked = Asked(readers, nursery)
        for _ in range(2):
            await asked.ask(partial(_count_and_write, tmp_path))
        may_end.set()
    assert asked.answers == [0, 1]


async def test_a_call_that_fails_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that share a transaction each has its own answer, whatever becomes of the others."""
    undecodable = "SELECT CAST(x'66ff' AS TEXT)"

    def raise_error(_: sqlite3.Connection) -> Any:
        raise ValueError

    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        asked = Asked(readers, nursery)
        for work in (
            *(_count, raise_error, _count),
            *(lambda connection: connection.execute("SELECT nothing"), _count),
            *(lambda connection: connection.execute(undecodable).fetchone()[0], _count),
            *(lambda connection: connection.close(), _count, _count),
        ):
            await asked.ask(work)
        may_end.set()
    assert asked.answers == [0, ValueError, 0, StoreError, 0, "f\\xff", 0, None, StoreError, 0]


async def test_closing_behind_calls_that_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that comes to the sign to stop while it looks for more calls ends as well."""
    async with open_busy_reader(tmp_path, monkeypatch) as (readers, nursery, may_end):
        asked = Asked(readers, nursery)
        for _ in range(3):
            await asked.ask(_count)
        nursery.start_soon(readers.aclose)
        await wait_all_tasks_blocked()
        may_end.set()
    assert asked.answers == [0, 0, 0]


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()
