"""The readers of an SQLite file: what they keep between two calls, and how they end."""

from __future__ import annotations

import threading
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio import StoreUnavailableError
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._readers import THREADS, Readers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


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


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()
