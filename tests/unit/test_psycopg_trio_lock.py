"""Who may speak to the server, and who listens meanwhile."""

from __future__ import annotations

import contextlib
import signal

import pytest
import trio
from trio.testing import Sequencer, wait_all_tasks_blocked

from jobtrio.psycopg_trio._lock import ConnectionLock


def make_lock(patience: float = 0.0) -> ConnectionLock:
    return ConnectionLock(lambda: None, lambda: patience)


async def test_free_lock_is_no_checkpoint() -> None:
    """Taking and releasing a free lock lets nobody else run, and is not cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with make_lock():
            pass
    assert not scope.cancelled_caught


def test_interrupted_from_the_keyboard() -> None:
    """Ctrl-C that comes while the lock is released waits until it is."""

    async def main() -> None:
        lock = ConnectionLock(lambda: signal.raise_signal(signal.SIGINT), lambda: 0.0)
        async with lock:
            pass
        with pytest.raises(KeyboardInterrupt):
            await trio.lowlevel.checkpoint()
        assert not lock.held

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


async def test_turns_in_order() -> None:
    """Tasks get the lock one at a time, in the order in which they asked."""
    lock = make_lock()
    got: list[int] = []

    async def ask(number: int) -> None:
        async with lock:
            got.append(number)
            await wait_all_tasks_blocked()
            assert got[-1] == number

    async with trio.open_nursery() as nursery:
        async with lock:
            for number in range(5):
                nursery.start_soon(ask, number)
                await wait_all_tasks_blocked()
    assert got == [0, 1, 2, 3, 4]
    assert not lock.held


async def test_no_overtaking() -> None:
    """A task that comes while the lock is handed on waits behind the one it goes to."""
    lock = make_lock()
    got: list[str] = []

    async def ask(name: str) -> None:
        async with lock:
            got.append(name)

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(ask, "first")
            await wait_all_tasks_blocked()
        await ask("late")
    assert got == ["first", "late"]


async def test_cancelled_wait() -> None:
    """A cancelled wait takes no turn."""
    lock = make_lock()
    async with lock:
        with trio.move_on_after(0) as scope:
            async with lock:
                raise AssertionError
        assert scope.cancelled_caught
    assert not lock.held


async def test_patience(autojump_clock: trio.testing.MockClock) -> None:
    """A task that has something to finish waits on though it is cancelled, but not for ever."""
    lock = make_lock(patience=5)
    async with trio.open_nursery() as nursery:

        async def hold(seconds: float) -> None:
            async with lock:
                await trio.sleep(seconds)

        nursery.start_soon(hold, 3)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            async with lock:
                assert scope.cancel_called
        assert not scope.cancelled_caught
        nursery.start_soon(hold, 100)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        with trio.move_on_after(1) as scope:
            async with lock:
                raise AssertionError
        assert scope.cancelled_caught
        assert trio.current_time() - begun == 6
        nursery.cancel_scope.cancel()


async def test_settled_before_the_next(autojump_clock: trio.testing.MockClock) -> None:
    """The connection is looked at after each holder, also behind an exception, before the next one's turn."""
    seen: list[str] = []
    lock = ConnectionLock(lambda: seen.append("settled"), lambda: 0.0)

    async def ask() -> None:
        async with lock:
            seen.append("next")

    async with trio.open_nursery() as nursery:
        with contextlib.suppress(ValueError):
            async with lock:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                raise ValueError
    assert seen == ["settled", "next", "settled"]


async def test_idler_steps_aside() -> None:
    """A listener's wait ends when somebody takes the lock, before that one goes on."""
    lock = make_lock()
    order = Sequencer()
    waiting: list[bool] = []

    async def wait() -> None:
        waiting.append(True)
        try:
            await trio.sleep_forever()
        finally:
            waiting.clear()

    async def listen() -> None:
        async with order(0):
            assert not await lock.idle(wait)  # somebody took the lock
        assert not await lock.idle(wait)  # it was released
        async with order(2):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        assert waiting
        async with lock:
            await wait_all_tasks_blocked()
            assert not waiting
            async with order(1):
                pass


async def test_idling_to_the_end() -> None:
    """A listener that was not disturbed learns that it may read."""
    lock = make_lock()
    assert await lock.idle(trio.lowlevel.checkpoint)


async def test_idling_ends_as_lock_is_taken() -> None:
    """A listener whose wait ended just as somebody took the lock learns that it may not read."""
    lock = make_lock()
    news = trio.Event()

    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert not await lock.idle(news.wait)

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        news.set()
        async with lock:
            await wait_all_tasks_blocked()


async def test_second_idler_takes_over() -> None:
    """When a listener leaves, another one that waited for a change can listen."""
    lock = make_lock()
    left = trio.Event()

    async def first() -> None:
        with scope:
            await lock.idle(trio.sleep_forever)

    async def second() -> None:
        assert not await lock.idle(trio.sleep_forever)
        left.set()
        assert await lock.idle(trio.lowlevel.checkpoint)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        assert not left.is_set()
        scope.cancel()
