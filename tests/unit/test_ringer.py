"""The task that wakes many consumers at once."""

from __future__ import annotations

import trio
import trio.testing

from jobtrio._ringer import Ringer


class Bell:
    """Something that can be woken, which counts how often it is."""

    def __init__(self) -> None:
        self.count = 0

    def wake(self) -> None:
        """Count."""
        self.count += 1


async def test_all_that_were_rung_are_woken_once() -> None:
    """Whatever is rung in one turn is woken together, once, and the ringer waits for the next."""
    ringer, bells = Ringer(), [Bell() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        await trio.testing.wait_all_tasks_blocked()
        for turn in (1, 2):
            for bell in bells:
                ringer.ring(bell)
            assert {bell.count for bell in bells} == {turn - 1}
            await trio.testing.wait_all_tasks_blocked()
            assert {bell.count for bell in bells} == {turn}
        nursery.cancel_scope.cancel()


async def test_whether_it_runs() -> None:
    """A ringer that is not running, or no more, says so."""
    ringer = Ringer()
    running = [ringer.is_running]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        await trio.testing.wait_all_tasks_blocked()
        running.append(ringer.is_running)
        nursery.cancel_scope.cancel()
    running.append(ringer.is_running)
    assert running == [False, True, False]


async def test_rung_while_it_is_about_to_wake() -> None:
    """What is rung while the ringer gives way is woken with the others; while it wakes, in the next turn."""
    ringer, late = Ringer(), Bell()

    class Ringing(Bell):
        def wake(self) -> None:
            super().wake()
            ringer.ring(late)

    first, second = Ringing(), Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        await trio.testing.wait_all_tasks_blocked()
        ringer.ring(first)
        await trio.lowlevel.checkpoint()
        ringer.ring(second)
        await trio.testing.wait_all_tasks_blocked()
        assert (first.count, second.count, late.count) == (1, 1, 1)
        nursery.cancel_scope.cancel()


async def test_rung_before_the_task_came_to_wait() -> None:
    """What is rung before the task waits for the first time is not forgotten."""
    ringer, bell = Ringer(), Bell()
    ringer.ring(bell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bell.count == 1
        nursery.cancel_scope.cancel()


async def test_cancelled_with_something_to_wake() -> None:
    """A ringer that is cancelled wakes first."""
    ringer, bell = Ringer(), Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        await trio.testing.wait_all_tasks_blocked()
        ringer.ring(bell)
        nursery.cancel_scope.cancel()
    assert bell.count == 1
