"""Calls to a store's threads: in order, bounded, withdrawn or waited for when their task is cancelled."""

from __future__ import annotations

import signal
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio._errors import StoreUnavailableError
from jobtrio._outage import try_for
from jobtrio.stores._rowstore import itself
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


async def answer_of(call: Call) -> Any:
    """Wait for a call's answer as its task does."""
    call.begin()
    await trio.lowlevel.wait_task_rescheduled(call.abort)
    return call.answer()


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


def test_withdrawn_by_an_interrupt() -> None:
    """A Ctrl-C withdraws a call as a cancellation does, and leaves nothing behind."""

    async def main() -> None:
        calls = Calls(60.0)

        @trio.lowlevel.enable_ki_protection
        async def interrupt() -> None:
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            with pytest.raises(KeyboardInterrupt):
                await calls.make(note("never"))
        assert not calls._open
        call = calls.next_nowait()
        assert call is not None
        assert not call.take()

    trio.run(main)


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


async def test_let_go_at_the_limit() -> None:
    """Who tries again after a failure has its answer when its time is over, although a thread has the call by then."""
    tries = 0
    async with open_server() as server:

        async def ask() -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise StoreUnavailableError("locked")
            server.may_take.release()
            return await server.calls.make(note("late"))

        with pytest.raises(StoreUnavailableError, match="locked"):
            await try_for(0.5, ask, in_time=True)
        assert server.taken.is_set()
        assert tries == 2
        server.may_answer.release()
        server.let(1)
        assert await server.calls.make(note("next")) == "next"
        assert server.done == ["late", "next"]


async def test_let_go_at_the_limit_though_cancelled_before() -> None:
    """A task that was cancelled while a thread had its call waits for the answer, but no longer than its limit."""
    scope, left = trio.CancelScope(), trio.Event()
    tries = 0
    async with open_server() as server:

        async def ask() -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise StoreUnavailableError("locked")
            server.may_take.release()
            return await server.calls.make(note("late"))

        async def call() -> None:
            with scope:
                await try_for(0.3, ask, in_time=True)
            left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await server.taken.wait()
            scope.cancel()
            await trio.sleep(0.3)
            server.calls.give_up_overdue()
            with trio.fail_after(60):
                await left.wait()


async def test_given_up() -> None:
    """A call that a thread does not come back with is given up; what it does all the same is heeded then."""
    async with open_server(patience=0.0) as server:
        heeded = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_given_up, server, lambda _: heeded.set())
            server.may_take.release()
            with trio.fail_after(60):
                await server.taken.wait()
            server.calls.give_up_overdue()
        assert not heeded.is_set()
        server.may_answer.release()
        await heeded.wait()
        assert server.done == ["late"]


async def test_given_up_before_it_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits behind one that does not come back is given up as well, never carried out, and makes room."""
    monkeypatch.setattr(_calls, "WAITING", 1)
    async with open_server(patience=0.0) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_given_up, server, itself)
            await wait_all_tasks_blocked()
            server.calls.give_up_overdue()
        server.let(2)
        assert await server.calls.make(note("kept")) == "kept"
        assert server.done == ["kept"]


async def test_not_given_up_in_time() -> None:
    """A call whose time is not over is left alone, also where a thread has taken it."""
    answers: list[Any] = []

    async def make(server: Server, value: str) -> None:
        answers.append(await server.calls.make(note(value)))

    async with trio.open_nursery() as nursery, open_server() as server:
        server.may_take.release()
        nursery.start_soon(make, server, "taken")
        await server.taken.wait()
        nursery.start_soon(make, server, "waiting")
        await wait_all_tasks_blocked()
        server.calls.give_up_overdue()
    assert sorted(answers) == ["taken", "waiting"]


async def test_a_fault_while_answers_are_heeded() -> None:
    """What fails in heeding an answer whose task has left comes out, behind the answers of the others."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    calls, answers, then = Calls(60.0), list[Any](), list[str]()

    async def make(after: Callable[[Any], Any]) -> None:
        with suppress(StoreUnavailableError):
            answers.append(await calls.make(note("value"), after))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, fail)
        await wait_all_tasks_blocked()
        nursery.start_soon(make, itself)
        await wait_all_tasks_blocked()
        taken = [call for call in (calls.next_nowait(), calls.next_nowait()) if call is not None and call.take()]
        taken[0].give_up(StoreUnavailableError("too long"))
        for call in taken:
            call.succeed("answer")
        with pytest.raises(ZeroDivisionError):
            calls._conclude(taken, lambda: then.append("then"))
        calls.close()
    assert (answers, then) == (["answer"], ["then"])


async def test_given_up_as_it_fails() -> None:
    """A call that fails just when it is given up, before its task has come to leave, hands no answer over."""
    answers: list[Any] = []
    call = Call(note("late"), answers.append)

    async def wait() -> None:
        with pytest.raises(StoreUnavailableError):
            await answer_of(call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert call.take()
        call.give_up(StoreUnavailableError("too long"))
        call.fail(OSError("locked"))  # in the thread, while the task is on its way
    call.conclude()
    assert not answers


async def test_carried_out_again() -> None:
    """A call that is carried out once more, because its group was undone, is answered as it went then."""
    call = Call(note("again"), itself)
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await answer_of(call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert call.take()
        call.fail(StoreUnavailableError("the id is in use"))
        call.succeed("not any more")
        call.conclude()
    assert answers == ["not any more"]


async def _given_up(server: Server, after: Callable[[Any], object]) -> None:
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


async def test_no_room_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that finds no room in time says so, and one that found it late is given up no later than the others."""
    monkeypatch.setattr(_calls, "WAITING", 1)
    async with open_server(patience=0.2) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.calls.make, note("first"))
            await wait_all_tasks_blocked()
            with trio.fail_after(60), pytest.raises(StoreUnavailableError, match="no room"):
                await server.calls.make(note("second"))
            nursery.start_soon(_given_up, server, itself)
            await trio.sleep(0.1)
            server.let(1)
            await trio.sleep(0.15)
            assert server.done == ["first"]
            server.calls.give_up_overdue()
        server.let(1)
        assert server.done == ["first"]


async def test_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the threads have ended, calls that wait are refused, also those that wait for room, and so are new ones."""
    monkeypatch.setattr(_calls, "WAITING", 1)
    calls = Calls(60.0)
    refused: list[int] = []

    async def make(n: int) -> None:
        with pytest.raises(StoreUnavailableError, match="the store was closed"):
            await calls.make(note(n))
        refused.append(n)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, 1)
            nursery.start_soon(make, 2)
            await wait_all_tasks_blocked()
            calls.close()
        await make(3)
    assert sorted(refused) == [1, 2, 3]


async def test_a_call_ends_a_timed_wait() -> None:
    """A thread that waits for a call with a limit has it as soon as it comes."""
    calls = Calls(60.0)
    got: list[Call | None] = []
    thread = threading.Thread(target=lambda: got.append(calls.next(timeout=60)), daemon=True)
    thread.start()
    with trio.fail_after(60):
        while thread.is_alive() and not calls._bell.locked():  # noqa: ASYNC110 - the thread is on its way to wait
            await trio.sleep(0.001)
        call = Call(note(1), itself)
        calls._put(call)
        await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
    assert got == [call]


def test_answers_after_the_end_of_trio() -> None:
    """A thread that comes back from a call when Trio has ended has nobody to tell, and goes on."""

    async def main() -> Calls:
        return Calls(60.0)

    trio.run(main).deliver(())


async def test_a_short_wait_ends() -> None:
    """A thread that waits for a call for less time than the machine takes to begin with it does not wait for ever."""
    calls = Calls(60.0)
    done = threading.Event()

    def ask() -> None:
        for _ in range(50_000):
            calls.stop()  # what is there at once leaves the queue's own lock open
            assert calls.next() is None
            assert calls.next(1e-9) is None
        done.set()

    thread = threading.Thread(target=ask, daemon=True)  # one that hangs is not to hold up the tests
    thread.start()
    assert await trio.to_thread.run_sync(done.wait, 60)


async def test_a_wait_that_signals_interrupt_ends() -> None:
    """Signals may come to any thread, also to one that waits: its time goes on."""
    calls = Calls(60.0)
    done = threading.Event()

    def ask() -> None:
        for _ in range(1000):
            assert calls.next(1e-4) is None
        done.set()

    thread = threading.Thread(target=ask, daemon=True)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        thread.start()
        with trio.move_on_after(60):
            while not done.is_set():
                signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
                await trio.sleep(1e-4)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done.is_set()
