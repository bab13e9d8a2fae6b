"""Counts of what happens at a bridge, for those who look after it. It must not know why."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.frozen
class ServerStats:
    """Counts of a bridge at one moment.

    Attributes:
        connections: Clients that are connected, including those that were not accepted yet.
        subscriptions: Subscriptions and tails that are open.
        accepted: Connections accepted so far.
        refused: Connections refused so far, by HTTP status.
        closed: Connections closed by the bridge so far, by close code.
        dropped: Connections cut off so far without a close, by reason: ``"too slow"`` (it did not read), ``"silent"``
            (it gave no sign of life), ``"malformed"`` (what it sent was no WebSocket), ``"shutdown"``, ``"fault"``,
            ``"gone before it was accepted"``.
    """

    connections: int
    subscriptions: int
    accepted: int
    refused: dict[int, int]
    closed: dict[int, int]
    dropped: dict[str, int]


@attrs.define
class Tally:
    """What a bridge has counted so far, as `ServerStats` tells it."""

    accepted: int = 0
    refused: Counter[int] = attrs.field(factory=Counter)
    closed: Counter[int] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)

    def stats(self, connections: int, subscriptions: int) -> ServerStats:
        """Return the counts."""
        return ServerStats(
            connections=connections,
            subscriptions=subscriptions,
            accepted=self.accepted,
            refused={int(status): count for status, count in self.refused.items()},
            closed={int(code): count for code, count in self.closed.items()},
            dropped=dict(self.dropped),
        )
