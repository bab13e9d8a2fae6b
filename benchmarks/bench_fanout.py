"""Fan-out: one job's tokens to 1, 10 and 100 consumers, in seconds a delivery.

Two floors. Where each token is followed by a checkpoint: one bounded channel for each consumer, into
which the producer sends in turn. Where tokens come in bursts: a loop that appends each to N lists,
with no Trio in it at all, and nobody who reads them. Every other consumer takes every token in hand and counts it.
"""

from __future__ import annotations

from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
import trio.testing

import jobtrio
from benchmarks._harness import Session, Stopwatch
from benchmarks._result import at_least

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks._harness import Side

    Reader: TypeAlias = Callable[[jobtrio.Subscription], Awaitable[int]]

BURST = 64
CHANNEL_SIZE = 64
SLOW_SECONDS = 0.001
"""What a slow consumer sleeps after each thing that it received."""


async def run(session: Session) -> None:
    """Measure one token a turn, bursts, and a slow consumer beside fast ones."""
    async with jobtrio.open_registry() as registry:
        await _measure_single(session, registry)
        await _measure_bursts(session, registry)
        await _measure_slow(session, registry)


async def _measure_single(session: Session, registry: jobtrio.JobRegistry) -> None:
    for consumers in (1, 10, 100):
        tokens = session.scale({1: 3_000, 10: 1_000, 100: 300}[consumers], 10)
        await session.compare(
            "fan-out, a checkpoint a token",
            f"{consumers} consumers, async for",
            Fanout(registry, _speak_singly, tokens, (read_each,) * consumers),
            channels(tokens, consumers),
            versus="a bounded channel each",
            goal=at_least(4.0) if consumers == 100 else None,
            speed=True,
        )


async def _measure_bursts(session: Session, registry: jobtrio.JobRegistry) -> None:
    for consumers in (1, 10, 100):
        tokens = session.scale(100, 2) * BURST
        for how, read, goal in (("receive_batch", read_batches, 0.20), ("async for", read_each, 0.08)):
            await session.compare(
                f"fan-out, bursts of {BURST}",
                f"{consumers} consumers, {how}",
                Fanout(registry, _speak_in_bursts, tokens, (read,) * consumers),
                append_to_lists(tokens, consumers),
                versus="append to N lists",
                goal=at_least(goal) if consumers == 100 else None,
                speed=True,
            )


async def _measure_slow(session: Session, registry: jobtrio.JobRegistry) -> None:
    tokens = session.scale(300, 10)
    fast = (read_each,) * 10
    beside_slow = Fanout(registry, _speak_singly, tokens, fast, slow=True, clock=perf_counter)
    await session.compare(
        "fan-out, a slow consumer",
        "10 fast ones beside a slow one",
        beside_slow,
        channels(tokens, 10, slow=True),
        versus="a bounded channel each",
        speed=True,
    )
    await session.compare(
        "fan-out, a slow consumer",
        "10 fast ones beside a slow one",
        beside_slow,
        Fanout(registry, _speak_singly, tokens, fast, clock=perf_counter),
        versus="the same without it",
        speed=True,
    )


async def _speak_singly(job: jobtrio.JobContext) -> None:
    for n in range(job.payload):
        await job.send(n)


async def _speak_in_bursts(job: jobtrio.JobContext) -> None:
    for start in range(0, job.payload, BURST):
        for n in range(start, start + BURST):
            job.send_nowait(n)
        await trio.lowlevel.checkpoint()


async def read_each(messages: jobtrio.Subscription) -> int:
    """Count messages one by one."""
    count = 0
    async for _ in messages:
        count += 1
    return count


async def read_batches(messages: jobtrio.Subscription) -> int:
    """Count messages batch by batch, each of them taken in hand."""
    count = 0
    try:
        while True:
            for _ in await messages.receive_batch():
                count += 1
    except trio.EndOfChannel:
        return count


async def _read_slowly(messages: jobtrio.Subscription) -> int:
    count = 0
    async for _ in messages:
        count += 1
        await trio.sleep(SLOW_SECONDS)
    return count


class Fanout:
    """jobtrio's side: consumers wait, a job speaks, and the clock stops when the last of them saw the end.

    A slow consumer is left alone: what counts is when the others are done.
    """

    def __init__(
        self,
        registry: jobtrio.JobRegistry,
        speak: Callable[[jobtrio.JobContext], Awaitable[None]],
        tokens: int,
        readers: tuple[Reader, ...],
        *,
        slow: bool = False,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        self._registry = registry
        self._speak = speak
        self._tokens = tokens
        self._readers = readers
        self._slow = slow
        self._clock = clock

    async def __call__(self) -> Sequence[float]:
        """Run one round."""
        start = trio.Event()

        async def speak(job: jobtrio.JobContext) -> None:
            await start.wait()
            await self._speak(job)

        job = await self._registry.submit(speak, self._tokens)
        counts: list[int] = []
        async with trio.open_nursery() as slow_ones:
            if self._slow:
                slow_ones.start_soon(_consume, job, _read_slowly, [])
            async with trio.open_nursery() as fast_ones:
                for read in self._readers:
                    fast_ones.start_soon(_consume, job, read, counts)
                await trio.testing.wait_all_tasks_blocked()
                watch = Stopwatch(self._clock).__enter__()
                start.set()
            watch.__exit__(None, None, None)
            slow_ones.cancel_scope.cancel()
        assert counts == [self._tokens + 1] * len(self._readers), counts
        await job.wait()
        return watch.per(self._tokens * len(self._readers))


async def _consume(job: jobtrio.Job, read: Reader, counts: list[int]) -> None:
    async with job.subscribe() as messages:
        counts.append(await read(messages))


def channels(tokens: int, consumers: int, *, slow: bool = False) -> Side:
    """Make the floor with one bounded channel for each consumer, into which each token is sent."""

    async def consume(channel: trio.MemoryReceiveChannel[int], counts: list[int]) -> None:
        count = 0
        async for _ in channel:
            count += 1
        counts.append(count)

    async def consume_slowly(channel: trio.MemoryReceiveChannel[int]) -> None:
        async for _ in channel:
            await trio.sleep(SLOW_SECONDS)

    async def speak(sends: list[trio.MemorySendChannel[int]]) -> None:
        for n in range(tokens):
            for send in sends:
                await send.send(n)
        for send in sends:
            send.close()

    async def side() -> Sequence[float]:
        counts: list[int] = []
        pairs = [trio.open_memory_channel[int](CHANNEL_SIZE) for _ in range(consumers + slow)]
        async with trio.open_nursery() as slow_ones:
            if slow:
                slow_ones.start_soon(consume_slowly, pairs[-1][1])
            async with trio.open_nursery() as fast_ones:
                for _, receive in pairs[:consumers]:
                    fast_ones.start_soon(consume, receive, counts)
                await trio.testing.wait_all_tasks_blocked()
                watch = Stopwatch(perf_counter if slow else thread_time).__enter__()
                fast_ones.start_soon(speak, [send for send, _ in pairs])
            watch.__exit__(None, None, None)
            slow_ones.cancel_scope.cancel()
        assert counts == [tokens] * consumers
        return watch.per(tokens * consumers)

    return side


def append_to_lists(tokens: int, consumers: int) -> Side:
    """Make the floor without Trio: each token is appended to one list for each consumer."""

    async def side() -> Sequence[float]:
        lists: list[list[Any]] = [[] for _ in range(consumers)]
        with Stopwatch() as watch:
            for n in range(tokens):
                for target in lists:
                    target.append(n)
        assert all(len(target) == tokens for target in lists)
        return watch.per(tokens * consumers)

    return side
