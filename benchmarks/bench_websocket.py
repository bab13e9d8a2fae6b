"""WebSocket: one job's tokens to many watchers, by the bridge, one message a token, and as ready bytes.

Server, watchers and this process are three; what is counted is the server's processor time for each token that a
watcher received. *One message a token* is a loop for each watcher over the same registry and the same WebSocket
library. The floor sends bytes that were made once, in the bridge's rhythm. Latency is from `send` in the job to the
receipt by a watcher, of the first ten.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks._child import open_child
from benchmarks._result import at_least

if TYPE_CHECKING:
    from benchmarks._harness import Session, Side

RATE: Final = 600.0
"""Tokens a second."""

INTERVALS: Final = (0.0, 0.02, 0.05)
"""Seconds in which the bridge collects a client's messages."""

TOKENS: Final = {1: 600, 100: 240, 1000: 60}
"""Tokens of a round, by the number of watchers."""

MOST_ROUNDS: Final = 7
"""Rounds a row: each takes seconds, and is thousands of tokens."""


async def run(session: Session) -> None:
    """Measure the three servers with few watchers and many, in three rhythms."""
    session = attrs.evolve(session, rounds=min(session.rounds, MOST_ROUNDS))
    session.note(f"{RATE:g} tokens a second; at most {MOST_ROUNDS} rounds a row")
    intervals = session.scale(INTERVALS, INTERVALS[1:2])
    for watchers, tokens in session.scale(TOKENS, {5: 6}).items():
        await _measure(session, watchers, tokens, intervals)


async def _measure(session: Session, watchers: int, tokens: int, intervals: tuple[float, ...]) -> None:
    async with AsyncExitStack() as stack:

        async def side(kind: str, interval: float, what: str = "cpu") -> Side:
            arguments = (kind, watchers, tokens, RATE, interval, what)
            return await stack.enter_async_context(open_child("benchmarks._websocket_child", *arguments))

        one_by_one = await side("single", 0.0)
        for interval in intervals:
            variant = f"{watchers:,} watchers, flush_interval={interval:g}"
            bridge = await side("bridge", interval)
            await session.compare(
                "WebSocket, CPU a token",
                variant,
                bridge,
                one_by_one,
                versus="one message a token",
                goal=at_least(4.0) if (watchers, interval) == (100, 0.02) else None,
                speed=True,
            )
            floor = await side("floor", interval)
            await session.compare("WebSocket, CPU a token", variant, bridge, floor, versus="ready bytes, sent")
            late = await side("bridge", interval, "late")
            await session.measure("WebSocket, latency", variant, late)
        await session.measure(
            "WebSocket, latency", f"{watchers:,} watchers, one a token", await side("single", 0.0, "late")
        )
