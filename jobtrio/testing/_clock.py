"""A virtual clock that is safe where an executor works in threads or with the outside world.

A clock that jumps to the next deadline whenever all tasks wait would jump over the time that a worker thread
takes, and fire every time limit. It must not know what runs on it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeVar

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

TRIOS_OWN = 1
"""Waits for a file in a run loop that nobody uses: one task of Trio's reads what other threads wake it by."""

_TO_THREAD = trio.to_thread.run_sync.__code__


class VirtualTime(trio.abc.Instrument):
    """Drives a `MockClock`: real time while a task waits for a worker thread or a file, jumps otherwise.

    Files are whatever the run loop waits for: sockets, pipes, processes.
    """

    def __init__(self) -> None:
        self.clock = MockClock(autojump_threshold=0)
        self._in_threads: set[trio.lowlevel.Task] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Look whether anything goes on that takes real time; this step may have begun or ended it."""
        if _waits_for_thread(task):
            self._in_threads.add(task)
        else:
            self._in_threads.discard(task)
        is_real = bool(self._in_threads) or _files_awaited() > TRIOS_OWN
        if is_real != bool(self.clock.rate):
            self.clock.rate = 1.0 if is_real else 0.0
            self.clock.autojump_threshold = inf if is_real else 0.0


def run_virtually(main: Callable[[], Awaitable[T]], *instruments: trio.abc.Instrument) -> T:
    """Run ``main`` to its end in a Trio of its own, on a virtual clock.

    Raises:
        RuntimeError: It was called within Trio.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "this runs a Trio of its own: call it from a plain function, not from a task or an async test"
        )
    time = VirtualTime()
    return trio.run(main, clock=time.clock, instruments=[time, *instruments])


def _waits_for_thread(task: trio.lowlevel.Task) -> bool:
    return any(frame.f_code is _TO_THREAD for frame, _ in task.iter_await_frames())


def _files_awaited() -> int:
    statistics = trio.lowlevel.current_statistics().io_statistics
    # Each system's statistics have other names for it; all of them begin alike.
    names = (name for name in dir(statistics) if name.startswith("tasks_waiting"))
    return sum(getattr(statistics, name) for name in names)
