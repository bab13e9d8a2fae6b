"""Counts of what happens at a bridge, for those who look after it. It must not know why."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.frozen
class ServerStats:
    """Counts of a bridge at one moment.

    Attributes:
        connections: Clients that are connected, those included that were not accepted yet.
        subscriptions: Subscriptions and tails that are open.
        accepted: Connections accepted so far.
        refused: Connections refused so far, by HTTP status.
        closed: Connections closed by the bridge so far, by close code.
        dropped: Connections cut off so far without a close, by reason: ``"too slow"`` (it did not read), ``"silent"``
            (it gave no sign of life), ``"shutdown"``, ``"fault"``, ``"gone before it was accepted"``.
    """

    connections: int
    subscriptions: int
    accepted: int
    refused: dict[int, int]
    closed: dict[int, int]
    dropped: dict[str, int]


class Tally:
    """What a bridge has counted so far.

    Attributes:
        accepted: Connections accepted.
    """

    def __init__(self) -> None:
        self.accepted: int = 0
        self._refused: Counter[int] = Counter()
        self._closed: Counter[int] = Counter()
        self._dropped: Counter[str] = Counter()

    def refuse(self, status: int) -> None:
        """Count a connection that was refused."""
        self._refused[int(status)] += 1

    def close(self, code: int) -> None:
        """Count a connection that is closed."""
        self._closed[int(code)] += 1

    def drop(self, why: str) -> None:
        """Count a connection that is cut off."""
        self._dropped[why] += 1

    def stats(self, connections: int, subscriptions: int) -> ServerStats:
        """Return the counts."""
        return ServerStats(
            connections=connections,
            subscriptions=subscriptions,
            accepted=self.accepted,
            refused=dict(self._refused),
            closed=dict(self._closed),
            dropped=dict(self._dropped),
        )
