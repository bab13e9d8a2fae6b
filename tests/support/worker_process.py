"""A process that works on a store of jobs, for tests that kill, stop or watch one.

What its executors do is told by the payloads; what they have begun and ended goes to a journal, a line each, written
whole. Which store it is, is said by the programs that call `serve`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio import Executors, JobContext, Retention

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jobtrio.abc import JobStore

# -- the program


def make_executors(journal: str) -> Executors:
    """Return the executors that all workers have."""
    executors = Executors()
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(*words: object) -> None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())

    @executors.register("send")
    async def send(job: JobContext) -> int:
        """Send some numbers, with a pause before each."""
        note("begun", job.id, job.attempt, os.getpid())
        for number in range(job.payload["tokens"]):
            await trio.sleep(job.payload.get("pause", 0.0))
            await job.send([job.attempt, number])
        note("ended", job.id, job.attempt, os.getpid())
        return int(job.payload["tokens"])

    @executors.register("hang")
    async def hang(job: JobContext) -> None:
        """Send one token and wait for ever."""
        note("begun", job.id, job.attempt, os.getpid())
        await job.send(os.getpid())
        await trio.sleep_forever()

    @executors.register("die")
    async def die(job: JobContext) -> None:
        """Take the whole process along."""
        note("begun", job.id, job.attempt, os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)
        await trio.sleep_forever()

    return executors


async def submit(registry: jobtrio.JobRegistry, payload: dict[str, Any]) -> None:
    """Submit one job after another, and say of each that it was acknowledged.

    Where the payload has a ``rest``, there are so many seconds between two, and a store that is away is waited out.
    """
    while True:
        try:
            job = await registry.submit("send", payload)
        except jobtrio.StoreUnavailableError:
            if "rest" not in payload:
                raise
            continue
        os.write(1, f"{job.id}\n".encode())
        await trio.sleep(payload.get("rest", 0.0))


async def serve(store: JobStore, journal: str, options: str, payload: str) -> None:
    """Work on a store until the standard input is closed.

    Args:
        store: The store, not opened yet.
        journal: The journal's path.
        options: What `open_registry` is given besides, as JSON; rate limits as lists of numbers.
        payload: That of the jobs to submit, as JSON; null for none.
    """
    submits = json.loads(payload)
    keep, given = Retention(finished_jobs=100_000), json.loads(options)
    limits = {queue: jobtrio.RateLimit(*limit) for queue, limit in given.pop("rate_limits", {}).items()}
    async with jobtrio.open_registry(
        make_executors(journal), store=store, retention=keep, rate_limits=limits, **given
    ) as registry:
        print("ready", flush=True)
        async with trio.open_nursery() as nursery:
            if submits is not None:
                nursery.start_soon(submit, registry, submits)
            async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
                while await stdin.receive_some():
                    pass
            nursery.cancel_scope.cancel()
        await registry.shutdown()


# -- what tests use


class WorkerProcess:
    """One such process.

    Attributes:
        process: The process.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._said = b""

    async def ready(self) -> None:
        """Wait until it serves."""
        while b"ready" not in self._said:
            assert await self._listen(), "the worker has ended early"

    async def acknowledged(self) -> list[str]:
        """Return the jobs that it submitted and had an answer for, to its end."""
        while await self._listen():
            pass
        return self._said.decode().split()[1:]

    async def _listen(self) -> bool:
        assert self.process.stdout is not None  # a pipe
        data = await self.process.stdout.receive_some()
        self._said += data
        return bool(data)

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Let it shut down."""
        assert self.process.stdin is not None  # a pipe
        await self.process.stdin.aclose()
        while await self._listen():  # it may have more to say than the pipe has room for
            pass
        assert await self.process.wait() == 0


@asynccontextmanager
async def open_worker_process(
    program: str, *place: str, options: dict[str, Any], submits: dict[str, Any] | None
) -> AsyncIterator[WorkerProcess]:
    """Start a worker; it is killed at the end of the block, if it still runs.

    Args:
        program: The file that calls `serve`.
        place: Its first arguments. The options and the payload of what it submits follow them.
        options: What its `open_registry` is given besides.
        submits: The payload of the jobs that it also submits, as many as it can; None for none.
    """
    command = [sys.executable, program, *place, json.dumps(options), json.dumps(submits)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker = WorkerProcess(process)
    try:
        await worker.ready()
        yield worker
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()


def journal_of(path: Path) -> Path:
    """Return where workers write what they have begun and ended."""
    return path.with_suffix(".journal")


def read_journal(path: Path) -> list[tuple[str, str, int, int]]:
    """Return the journal: what, which job, which attempt, by which process."""
    if not journal_of(path).exists():
        return []
    lines = [line.split() for line in journal_of(path).read_text().splitlines()]
    return [(what, job_id, int(attempt), int(pid)) for what, job_id, attempt, pid in lines]
