"""How long a call waits for a server that is away. It must not know why it is away, nor what the call asks."""

from __future__ import annotations

from math import inf

import trio


class Patience:
    """One call's: seconds without its server, counted over the whole call.

    Attributes:
        scope: What the call waits in; it is cancelled when they are used up.
    """

    def __init__(self, seconds: float) -> None:
        self.scope: trio.CancelScope = trio.CancelScope()
        self._left = seconds
        self._is_put_off = False

    def count(self) -> None:
        """Have the seconds run, if they don't already: the server is away."""
        if self.scope.deadline == inf:
            self.scope.deadline = trio.current_time() + self._left

    def pause(self) -> None:
        """Have them run no more: the server is back."""
        # A server that puts calls off may be connected for good: to be connected again is no sign of an answer.
        if self.scope.deadline != inf and not self._is_put_off:
            self._left = max(self.scope.deadline - trio.current_time(), 0.0)
            self.scope.deadline = inf

    def put_off(self) -> None:
        """Have them run from now on, whether it is connected or not: the server has put the call off."""
        self._is_put_off = True
        self.count()
