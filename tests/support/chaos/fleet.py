"""The workers: real ``jobtrio worker`` processes that are killed, stopped and drained, and started again.

It knows processes and signals. It must not know the store behind a URL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from patience import until

from chaos.facts import Life
from chaos.jobs import JOURNAL, SABOTAGE, STORE, WORKER
from chaos.plan import RATES, TOTALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUPPORT: Final = Path(__file__).parent.parent
GREETING: Final = "jobtrio: worker "
GRACE: Final = 0.3
"""Seconds that a draining worker gives its jobs."""

TELLING: Final = 0.5
"""Seconds in which a worker has told what its tasks are at."""

PAUSE: Final = 0.05
"""Seconds between two looks at a process."""


class Worker:
    """One worker, through all its lives.

    Attributes:
        name: Its name, without the number of its life.
        lives: All its lives, the current one last.
    """

    def __init__(self, name: str, url: str, fleet: Fleet) -> None:
        self.name = name
        self.lives: list[Life] = []
        self._url = url
        self._fleet = fleet
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def life(self) -> Life:
        """The current life."""
        return self.lives[-1]

    def _log(self) -> Path:
        return self._fleet.folder / f"{self.life.name}.stderr"

    def start(self) -> None:
        """Begin a new life."""
        self.lives.append(Life(f"{self.name}.{len(self.lives) + 1}", time.time()))
        with open(self._log(), "wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=self._environment()
            )

    def _command(self) -> list[str]:
        options = {
            "--name": self.life.name,
            "--lease": str(self._fleet.lease),
            "--grace": str(GRACE),
            "--keep": "1000000",
            "--max-running": "20",
        }
        totals = [("--total", f"{queue}={most}") for queue, most in TOTALS.items()]
        rates = [("--rate", f"{queue}={one.starts}/{one.per}s,{one.burst}") for queue, one in RATES.items()]
        flat = [word for option in [*options.items(), *totals, *rates] for word in option]
        return [sys.executable, "-m", "jobtrio", "worker", "chaos.jobs:executors", *flat]

    def _environment(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(SUPPORT),
            STORE: self._url,
            WORKER: self.life.name,
            JOURNAL: str(self._fleet.journal),
        }
        if self._fleet.sabotage:
            own[SABOTAGE] = " ".join(self._fleet.sabotage)
        return {**os.environ, **own}

    # -- what befalls it

    async def kill(self, seconds: float) -> None:
        """Kill it, and let it begin a new life after a while."""
        self.life.end = "killed"
        self._send(signal.SIGKILL)
        await self._gone()
        await trio.sleep(seconds)
        self.start()

    async def stand_still(self, seconds: float) -> None:
        """Stop it, and let it go on after a while."""
        self._send(signal.SIGSTOP)
        began = time.time()
        try:
            await trio.sleep(seconds)
        finally:
            self._send(signal.SIGCONT)
            self.life.stops.append((began, time.time()))

    async def drain(self, seconds: float = inf) -> None:
        """Tell it to end, wait until it has, and let it begin a new life after a while, or none."""
        await self.serving()
        self.life.end = "drained"
        self._send(signal.SIGTERM)
        await self._gone()
        if seconds < inf:
            await trio.sleep(seconds)
            self.start()

    # -- how it is

    async def serving(self) -> None:
        """Wait until it works; where it ended before it came to that, it begins a new life."""
        while not self._greeted():
            if not self.is_alive():
                await trio.sleep(PAUSE)
                self.start()
            await trio.sleep(PAUSE)

    def _greeted(self) -> bool:
        self.life.served = self.life.served or GREETING in self._log().read_text()
        return self.life.served

    def is_alive(self) -> bool:
        """Look whether its process is there; note how it ended where it is not."""
        assert self._process is not None  # started
        life = self.life
        if life.ended is None and self._process.poll() is not None:
            self._greeted()
            assert self._process.stdin is not None  # a pipe
            self._process.stdin.close()
            life.ended, life.code, life.said = time.time(), self._process.returncode, self._log().read_text()
        return life.ended is None

    async def _gone(self) -> None:
        await until(lambda: not self.is_alive())

    def _send(self, number: int) -> None:
        if self.is_alive():
            assert self._process is not None  # it is alive
            self._process.send_signal(number)

    async def tell_tasks(self) -> str:
        """Return what all its tasks are at, where it is alive."""
        before = self._log().stat().st_size
        self._send(signal.SIGUSR1)
        await trio.sleep(TELLING)
        return f"{self.life.name}:\n{self._log().read_text()[before:]}"

    def bury(self) -> None:
        """See that no process is left."""
        if self.lives and self.is_alive():
            assert self._process is not None  # it is alive
            self.life.end = "killed"
            self._process.kill()
            self._process.wait()
            self.is_alive()


class Fleet:
    """All workers.

    Attributes:
        workers: By name.
        folder: Where they write.
        journal: The file that their executors write.
        lease: Seconds that their claims last.
        sabotage: What they and their stores are to get wrong.
    """

    def __init__(self, folder: Path, lease: float, sabotage: tuple[str, ...]) -> None:
        self.workers: dict[str, Worker] = {}
        self.folder = folder
        self.journal: Path = folder / "journal"
        self.lease = lease
        self.sabotage = sabotage

    def add(self, name: str, url: str) -> None:
        """Start a worker that uses this URL."""
        self.workers[name] = Worker(name, url, self)
        self.workers[name].start()

    async def serving(self) -> None:
        """Wait until all work."""
        for worker in self.workers.values():
            await worker.serving()

    async def watch(self) -> None:
        """Start those again that end by themselves, as what supervises them would."""
        while True:
            for worker in self.workers.values():
                if worker.life.end is None and not worker.is_alive():
                    worker.start()
            await trio.sleep(PAUSE)

    async def drain(self) -> None:
        """Tell all to end, and wait until they have."""
        async with trio.open_nursery() as nursery:
            for worker in self.workers.values():
                nursery.start_soon(worker.drain)

    async def tell_tasks(self) -> str:
        """Return what all tasks of all workers are at."""
        return "\n".join([await worker.tell_tasks() for worker in self.workers.values()])

    def lives(self) -> list[Life]:
        """Return all lives of all workers."""
        return [life for worker in self.workers.values() for life in worker.lives]


@asynccontextmanager
async def open_fleet(folder: Path, lease: float, sabotage: tuple[str, ...]) -> AsyncIterator[Fleet]:
    """Give a fleet without workers; no process of it is left afterwards."""
    fleet = Fleet(folder, lease, sabotage)
    try:
        yield fleet
    finally:
        for worker in fleet.workers.values():
            worker.bury()
