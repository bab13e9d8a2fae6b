"""Calls to a store's threads: in order, bounded, withdrawn or waited for when their task is cancelled."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio._errors import StoreUnavailableError
from jobtrio.stores.sqlite import _calls
from jobtrio.stores.sqlite._calls import Call, Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Server:
    """A thread that carries calls out, when it is let."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.may_take = threading.Semaphore(0)
        self.may_answer = threading.Semaphore(0)
        self.done: list[Any] = []
        self.taken = trio.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """Serve to the end."""
        while call := self.calls.next():
            self.may_take.acquire()
            if not call.take():
                continue
            self.calls.run_in_trio(self.taken.set)
            self.may_answer.acquire()
            self.serve(call)

    def serve(self, call: Call) -> None:
        """Carry one call out."""
        try:
            call.succeed(call.work(self))
        except Exception as exc:
            call.fail(exc)
        self.calls.deliver((call,))

    def let(self, count: int) -> None:
        """Let it take and answer so many calls."""
        self.may_take.release(count)
        self.may_answer.release(count)


@asynccontextmanager
async def open_server(patience: float = 60.0) -> AsyncIterator[Server]:
    server = Server(Calls(patience))
    server.thread.start()
    try:
        yield server
    finally:
        server.let(10_000)
        server.calls.stop()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.thread.join)


def note(value: Any) -> Any:
    """Return work that notes a value."""

    def work(server: Server) -> Any:
        server.done.append(value)
        return value

    return work


async def test_answers() -> None:
    """The answer is what ``after`` makes of what the thread returns; errors of both come out."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with open_server() as server:
        server.let(4)
        assert await server.calls.make(note(1)) == 1
        assert await server.calls.make(note(2), lambda value: value * 10) == 20
        with pytest.raises(ZeroDivisionError):
            await server.calls.make(fail)
        with pytest.raises(ZeroDivisionError):
            await server.calls.make(note(3), fail)
        assert server.done == [1, 2, 3]


async def test_withdrawn() -> None:
    """A call that no thread has taken is withdrawn when its task is cancelled, and never carried out."""
    async with open_server() as server:
        with trio.move_on_after(0):
            await server.calls.make(note("cancelled before"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.calls.make, note("cancelled after"))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        server.let(2)
        assert await server.calls.make(note("kept")) == "kept"
        assert server.done == ["kept"]


async def test_waited_for() -> None:
    """A call that was taken is waited for by a cancelled task, which learns what came of it."""
    async with open_server() as server:
        taken = trio.Event()
        token = trio.lowlevel.current_trio_token()
        answers: list[str] = []

        def work(_: object) -> str:
            token.run_sync_soon(taken.set)
            server.may_take.acquire()
            return "carried out"

        async with trio.open_nursery() as nursery:

            async def make() -> None:
                answers.append(await server.calls.make(work))

            nursery.start_soon(make)
            server.let(1)
            await taken.wait()
            nursery.cancel_scope.cancel()
            nursery.start_soon(_release_soon, server)
        assert answers == ["carried out"]


async def _release_soon(server: Server) -> None:
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()
    server.may_take.release()


async def test_given_up() -> None:
    """A call that a thread does not come back with is given up; what it does all the same is heeded then."""
    async with open_server(patience=0.0) as server:
        heeded = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_given_up, server, lambda _: heeded.set())
            server.may_take.release()
            with trio.fail_after(10):
                await server.taken.wait()
            server.calls.give_up_overdue()
        assert not heeded.is_set()
        server.may_answer.release()
        await heeded.wait()
        assert server.done == ["late"]


async def test_given_up_before_it_was_taken() -> None:
    """A call that waits behind one that does not come back is given up as well, and never carried out."""
    async with open_server(patience=0.0) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_given_up, server, None)
            await wait_all_tasks_blocked()
            server.calls.give_up_overdue()
        server.let(2)
        assert await server.calls.make(note("kept")) == "kept"
        assert server.done == ["kept"]


async def _given_up(server: Server, after: Callable[[Any], object] | None) -> None:
    with pytest.raises(StoreUnavailableError):
        await server.calls.make(note("late"), after)


async def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many calls wait; further tasks wait to make theirs, and can leave."""
    monkeypatch.setattr(_calls, "WAITING", 3)
    async with open_server() as server:
        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(server.calls.make, note(n))
            await wait_all_tasks_blocked()
            with trio.move_on_after(0.01) as scope:
                await server.calls.make(note("seventh"))
            assert scope.cancelled_caught
            server.let(6)
        assert sorted(server.done) == [0, 1, 2, 3, 4, 5]


async def test_withdrawing_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is withdrawn makes room for one that waits."""
    monkeypatch.setattr(_calls, "WAITING", 1)
    async with open_server() as server:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.calls.make, note("withdrawn"))
                await wait_all_tasks_blocked()
                outer.start_soon(server.calls.make, note("kept"))
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            server.let(2)
        assert server.done == ["kept"]
