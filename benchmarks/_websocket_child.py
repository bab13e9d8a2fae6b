"""A server in a process of its own: ``python -m benchmarks._websocket_child KIND WATCHERS TOKENS RATE INTERVAL WHAT``.

Each round runs one job that sends so many tokens, so many a second, to watchers in a third process. WHAT is ``cpu``,
for this process's seconds of processor time for each token that a watcher received, or ``late``, for the seconds
from sending a token to its receipt, by the machine's monotonic clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

import jobtrio
from benchmarks._child import ROOT
from benchmarks._rounds import serve_rounds
from benchmarks._websocket_servers import Floor, bridge, floor, one_by_one
from jobtrio.websocket.protocol import Ended, Events, WireCompleted, encode_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

SAMPLED: Final = 10
"""Watchers that say how late tokens are; to ask all of them would take the machine from the server."""


class Watchers:
    """The process that watches."""

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks._websocket_watchers", str(port), str(count), str(SAMPLED)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)

    async def begin(self, path: str) -> None:
        """Have all of them watch what is under a path, and return once they do."""
        assert self._process.stdin is not None
        self._process.stdin.write(path + "\n")
        self._process.stdin.flush()
        assert await self._line() == "watching\n"

    async def end(self) -> list[float]:
        """Wait until all of them have seen the end; return how late tokens were."""
        late: list[float] = json.loads(await self._line())
        return late

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return await trio.to_thread.run_sync(self._process.stdout.readline)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


async def speak(tokens: int, rate: float, send: Callable[[list[float]], Awaitable[Any]], interval: float) -> None:
    """Send tokens that are the time, in steps of an interval, or one by one where that is shorter."""
    start = trio.current_time()
    sent = 0
    while sent < tokens:
        due = min(int((trio.current_time() - start) * rate) + 1, tokens)
        if due > sent:
            await send([time.monotonic()] * (due - sent))
            sent = due
        await trio.sleep_until(start + max(sent / rate, (trio.current_time() - start) + interval if interval else 0.0))


class Plan:
    """What a round is."""

    def __init__(self, arguments: Sequence[str]) -> None:
        kind, watchers, tokens, rate, interval, what = arguments
        self.kind = kind
        self.watchers = int(watchers)
        self.tokens = int(tokens)
        self.rate = float(rate)
        self.interval = float(interval)
        self.what = what

    def result(self, seconds: float, late: list[float]) -> list[float]:
        """Return the round's samples."""
        assert len(late) == self.tokens * min(self.watchers, SAMPLED), len(late)
        return late if self.what == "late" else [seconds / (self.tokens * self.watchers)]


@asynccontextmanager
async def open_watchers(port: int, count: int) -> AsyncIterator[Watchers]:
    """Have the process for the block."""
    watchers = Watchers(port, count)
    try:
        yield watchers
    finally:
        watchers.close()


async def serve_jobs(plan: Plan) -> None:
    """Serve rounds by one of the servers that show a registry's jobs."""
    async with jobtrio.open_registry() as registry:
        server = bridge(registry, plan.interval) if plan.kind == "bridge" else one_by_one(registry)
        async with server as port, open_watchers(port, plan.watchers) as watchers:

            async def side() -> Sequence[float]:
                start = trio.Event()

                async def send(job: jobtrio.JobContext) -> None:
                    async def one(items: list[float]) -> None:
                        for item in items:
                            await job.send(item)

                    await start.wait()
                    await speak(plan.tokens, plan.rate, one, 0.0)

                job = await registry.submit(send)
                await watchers.begin(f"/jobs/{job.id}")
                before = time.process_time()
                start.set()
                late = await watchers.end()
                return plan.result(time.process_time() - before, late)

            await serve_rounds(side)


async def serve_bytes(plan: Plan) -> None:
    """Serve rounds by the floor."""
    async with floor() as server, open_watchers(server.port, plan.watchers) as watchers:

        async def side() -> Sequence[float]:
            server.forget()
            await watchers.begin("/")
            before = time.process_time()
            await speak(plan.tokens, plan.rate, sender(server), plan.interval)
            await server.send(encode_reply(Ended(seq=plan.tokens + 1, outcome=WireCompleted(result=None))))
            late = await watchers.end()
            return plan.result(time.process_time() - before, late)

        await serve_rounds(side)


def sender(server: Floor) -> Callable[[list[float]], Awaitable[None]]:
    """Return what sends tokens to all as one message."""
    sent = 0

    async def send(items: list[float]) -> None:
        nonlocal sent
        await server.send(encode_reply(Events(seq=sent + 1, attempt=1, items=items)))
        sent += len(items)

    return send


if __name__ == "__main__":
    plan = Plan(sys.argv[1:])
    trio.run(serve_bytes if plan.kind == "floor" else serve_jobs, plan)
