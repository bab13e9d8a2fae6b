"""Many tasks that share the work of a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


async def in_tasks(tasks: int, count: int, do: Callable[[int], Awaitable[object]]) -> None:
    """Call ``do`` with each number below ``count``, by so many tasks at once, each taking the next number.

    *Cancellation*: the tasks are cancelled.
    """
    numbers = iter(range(count))
    async with trio.open_nursery() as nursery:
        for _ in range(min(tasks, count)):
            nursery.start_soon(_work, numbers, do)


async def _work(numbers: Iterator[int], do: Callable[[int], Awaitable[object]]) -> None:
    for number in numbers:
        await do(number)
