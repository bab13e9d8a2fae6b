"""`cancelled_at`: a block that is cancelled at the n-th step that any task takes, for sweeps over all steps."""

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
