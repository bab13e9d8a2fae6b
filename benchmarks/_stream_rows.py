"""The rows of streams that all durable stores have: how soon another process sees a token, and what many streams cost.

The jobs run in this process, and another one watches. What many cost is processor time, of all the threads that a
process has, from when all jobs run to when all ends were seen elsewhere. Beside that stands a process that runs and
follows as many jobs in memory.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

import jobtrio
from benchmarks._child import open_child
from benchmarks._result import Figures, seconds_at_most
from benchmarks._stream_child import MEMORY, PAUSE, Streams
from benchmarks._watching_child import PACES, speakers
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks._harness import Session

CHILD: Final = "benchmarks._stream_child"


async def measure_tokens(session: Session, url: str, setting: str) -> None:
    """Measure from `send` in this process to the receipt in a watcher's."""
    tokens = session.scale(100, 10)
    async with jobtrio.open_registry(speakers(), store=parse_store_url(url).make_store()):
        await trio.lowlevel.checkpoint()
        for pace, pause in PACES:
            async with open_child("benchmarks._watching_child", url, tokens, pause) as watcher:
                name = "token in another process, p50"
                await session.measure(name, f"{setting}, {pace}", watcher, goal=seconds_at_most(0.005))


@attrs.define
class _Clocks:
    """Reads what this process and the server have used, at a round's start and at its end.

    Attributes:
        server: Returns the seconds that the server has used so far.
    """

    server: Callable[[], float]
    _start: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def start(self) -> None:
        """Remember what has been used so far; to ask for the server's takes this process some milliseconds."""
        self._start = (self.server(), time.monotonic(), time.process_time())

    def since(self) -> tuple[float, float, float]:
        """Return the seconds that this process has used since, those of the server, and those on the wall."""
        process, wall = time.process_time(), time.monotonic()
        server = self.server()
        return process - self._start[2], server - self._start[0], wall - self._start[1]


async def measure_streams(session: Session, url: str, setting: str, server: Callable[[], float] | None = None) -> None:
    """Measure a token of many jobs at once: the worker, the watcher, the server where there is one, and how late."""
    jobs, tokens = session.scale((100, 50), (5, 10))
    clocks = _Clocks(server or (lambda: 0.0))
    streams = Streams(jobs, clocks.start)
    rounds: list[tuple[Sequence[float], ...]] = []
    async with (
        jobtrio.open_registry(streams.executors, store=parse_store_url(url).make_store()),
        open_child(CHILD, url, jobs, tokens) as watcher,
        open_child(CHILD, MEMORY, jobs, tokens) as memory,
    ):

        async def worker() -> Sequence[float]:
            streams.begin_round()
            watching, *late = await watcher()
            process, served, wall = clocks.since()
            rounds.append(([watching], [served / (jobs * tokens)], late, [wall]))
            return [process / (jobs * tokens)]

        async def floor() -> Sequence[float]:
            return (await memory())[:1]

        name, variant = f"token of {jobs} jobs", f"{setting}, {1 / PAUSE:.0f} a second each"
        versus = "sent and followed in memory"
        row = await session.compare(f"{name}, worker CPU", variant, worker, floor, versus=versus)
    scored = zip(*rounds[-session.rounds :], strict=True)  # without the warm-up
    watching, served, late, wall = (Figures(tuple(map(tuple, each))) for each in scored)
    session.keep(attrs.evolve(row, name=f"{name}, watcher CPU", subject=watching))
    if server is not None:
        session.keep(attrs.evolve(row, name=f"{name}, server CPU", subject=served))
    session.keep(attrs.evolve(row, name=f"{name}, p50", subject=late, other=None, versus=""))
    session.note(f"the tokens of {tokens * PAUSE:.2g} s were through in {wall.median:.3g} s")
