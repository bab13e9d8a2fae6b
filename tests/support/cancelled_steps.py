"""Blocks that are cancelled at their n-th step, for sweeps over all steps.

`cancelled_at` counts the steps that any task takes, `cancelled_at_wait` those after which the block's own task waits.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope it is aimed at, at the n-th step of any task from then on.

    Attributes:
        left: How many steps are left until then.
        scope: The scope.
    """

    def __init__(self, step: int) -> None:
        self.left = step
        self.scope: trio.CancelScope | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step; cancel at the last one."""
        if self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@contextmanager
def cancelled_at(step: int) -> Iterator[trio.CancelScope]:
    """Cancel the block at the n-th step of any task."""
    aim = CancelAtStep(step)
    with trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(aim)
        aim.scope = scope
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(aim)


class CancelAtWait(trio.abc.Instrument):
    """Cancels a scope when the current task has begun its n-th wait, and before any other task has come to run.

    Attributes:
        left: How many waits are left until then.
    """

    def __init__(self, scope: trio.CancelScope, wait: int) -> None:
        self.left = wait
        self._scope = scope
        self._task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a wait; cancel at the last one."""
        if task is self._task:
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()


@contextmanager
def cancelled_at_wait(wait: int) -> Iterator[trio.CancelScope]:
    """Cancel the block when its task has begun its n-th wait."""
    with trio.CancelScope() as scope:
        aim = CancelAtWait(scope, wait)
        trio.lowlevel.add_instrument(aim)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(aim)
