"""Blocks that are cancelled at their n-th step, for sweeps over all steps.

`cancelled_at` counts the steps that any task takes, `cancelled_at_wait` those after which the block's own task waits.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope it is aimed at, at the n-th step of any task from then on; or behind the n-th of one task.

    Attributes:
        left: How many steps are left until then.
        scope: The scope.
    """

    def __init__(self, step: int, task: trio.lowlevel.Task | None = None) -> None:
        self.left = step
        self.scope: trio.CancelScope | None = None
        self._task = task

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step of any task."""
        if self._task is None:
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step of the task, if there is one: it waits, and no other task has come to run."""
        if self._task is task:
            self._count()

    def _count(self) -> None:
        if self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@contextmanager
def cancelled_at(step: int, task: trio.lowlevel.Task | None = None) -> Iterator[trio.CancelScope]:
    """Cancel the block at the n-th step of any task, or behind the n-th of one task."""
    aim = CancelAtStep(step, task)
    with trio.CancelScope() as aim.scope:
        trio.lowlevel.add_instrument(aim)
        try:
            yield aim.scope
        finally:
            trio.lowlevel.remove_instrument(aim)


def cancelled_at_wait(wait: int) -> AbstractContextManager[trio.CancelScope]:
    """Cancel the block when its task has begun its n-th wait."""
    return cancelled_at(wait, trio.lowlevel.current_task())
