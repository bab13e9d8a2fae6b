"""What all tasks of a Trio program are at, as text: for processes that do not get on, and no debugger is at hand."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


def tell_tasks() -> str:
    """Return the tree of tasks, each with where it waits; "" where no Trio runs in this thread."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        root = None
    return "" if root is None else "\n".join(_lines(root, 0))


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name.rpartition('.')[2]}: {' < '.join(reversed(list(_places(task.coro))))}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)


def _places(coro: Any) -> Iterator[str]:
    """Give the lines that a coroutine has come to, the outermost first."""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None) or getattr(coro, "gi_frame", None)
        if frame is not None:
            yield f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None) or getattr(coro, "gi_yieldfrom", None)


def tell_at(number: signal.Signals) -> None:
    """Have this process write its tasks to stderr whenever it gets a signal."""
    signal.signal(number, lambda *_: os.write(2, (tell_tasks() + "\n").encode()) and None)
