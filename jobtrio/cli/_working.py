"""One worker on its way from the first job to the end of its draining.

Signals become a shutdown here and nowhere else; what is said of jobs is decided in `_work_log`. It must not know
how the options were given.
"""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

import jobtrio
from jobtrio._exceptions import is_all, lone_leaf
from jobtrio._nursery import open_background_nursery
from jobtrio._patterns import is_pattern
from jobtrio.cli import _program
from jobtrio.cli._endings import duration, plural
from jobtrio.cli._output import LAST_WORD, STDERR, STDOUT, Output, forget_dead_terminals
from jobtrio.cli._signals import heeded, said_of
from jobtrio.cli._work_log import WorkLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import FrameType

    from jobtrio.abc import JobStore
    from jobtrio.cli._executors import Lifespan

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that drain."""

TERMINAL_LOOK = 1.0
"""Seconds between two looks whether a terminal is still there. What jobs print to one that is gone would fail them."""

AT_ONCE = 2.0
"""Seconds that running jobs have to be gone after a later Ctrl-C."""


Say: TypeAlias = "Callable[[str], Awaitable[None]]"
Beside: TypeAlias = "Callable[[jobtrio.JobRegistry, Say], AbstractAsyncContextManager[None]]"


@attrs.frozen
class WorkerPlan:
    """What a worker is to run, and how.

    Attributes:
        executors: The executors.
        lifespan: Makes the block that is open around the registry.
        max_running: How many jobs at once.
        queues: Which queues, and how many jobs of each at once; None for every queue, and none to run no jobs.
        totals: How many jobs of a queue may run over all workers, by queue.
        rates: How many may start in a time, likewise.
        name: The worker's name; None for one that is made.
        grace: Seconds that running jobs have to end at the first signal.
        lease: Seconds that a claim lasts unless renewed.
        retention: What is kept of ended jobs, and of streams.
    """

    executors: jobtrio.Executors
    lifespan: Lifespan
    max_running: int
    queues: Mapping[str, int] | None
    totals: Mapping[str, int]
    rates: Mapping[str, jobtrio.RateLimit]
    name: str | None
    grace: float
    lease: float
    retention: jobtrio.Retention


class Worker:
    """Runs a store's jobs until told to stop."""

    def __init__(
        self, store: JobStore, plan: WorkerPlan, *, as_json: bool, beside: Beside = lambda *_: nullcontext()
    ) -> None:
        """Prepare to work.

        Args:
            store: The store.
            plan: What to run, and how.
            as_json: Whether stdout gets each change as a line of JSON.
            beside: What is open as long as the worker works and drains; it is given the registry, and what says a line.
        """
        self._store = store
        self._plan = plan
        self._as_json = as_json
        self._beside = beside
        self._output = Output()
        self._told = trio.Event()  # all that happened has been told
        self._opening = trio.CancelScope()  # until the store is there, a signal ends all
        self._registry: jobtrio.JobRegistry | None = None  # once it is open
        self._log: WorkLog | None = None  # likewise
        self._stopped = trio.Event()
        self._number = 0  # the signal that has told it to stop
        self._hurried = trio.Event()
        self._is_over = False  # all is done, and the process about to exit

    async def serve(self) -> int:
        """Work until told to stop, and return the exit code.

        Raises:
            StoreError: The store can't be used.

        *Cancellation*: running jobs return to their queue.
        """
        os.register_at_fork(after_in_child=_end_by_sigterm)
        with trio.open_signal_receiver(*heeded(STOPPING, always=(signal.SIGTERM, signal.SIGINT))) as signals:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(self._hurry)
                nursery.start_soon(_mind_terminals)
                with self._opening:
                    try:
                        await self._work(nursery)
                    except (SystemExit, KeyboardInterrupt) as exc:  # not Ctrl-C, which comes as a signal
                        await self._say(f"jobtrio: the executor of a job has ended this worker: {exc!r}")
                        raise
                if self._opening.cancelled_caught:
                    await self._say(f"{said_of(self._number)}: ends before it has begun")
            self._is_over = True
        return 0

    def end(self, number: int, frame: FrameType | None) -> None:
        """Be a signal's handler around `serve`: end the process, with 0 where all is done."""
        if self._is_over:
            os._exit(0)  # threads may be left that keep it
        _end_by_sigterm()
        signal.raise_signal(number)

    async def _work(self, nursery: trio.Nursery) -> None:
        async with self._lifespan():
            await self._run_jobs(nursery)
        if self._log is not None:
            with trio.move_on_after(LAST_WORD):
                await self._told.wait()
        if not self._stopped.is_set():
            await self._say("jobtrio: the block that --lifespan names has ended by itself")
        if self._log is not None:
            await self._say(self._log.summary())

    async def _run_jobs(self, nursery: trio.Nursery) -> None:
        async with self._open_registry() as registry:
            self._registry = registry
            log = self._log = WorkLog(registry, as_json=self._as_json)
            await self._say(self._greeting(registry.stats().worker))
            nursery.start_soon(self._tell, log)
            async with self._beside(registry, self._say):
                await self._stopped.wait()
                await self._drain(registry)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Stop at the first signal, and hurry at a later Ctrl-C.

        The others may come twice: SIGHUP from shell and system, SIGTERM to the process and to its group.
        """
        async for number in signals:
            if number == signal.SIGHUP:
                forget_dead_terminals()
            if not self._stopped.is_set():
                self._number = number
                self._stopped.set()
                if self._registry is None:
                    self._opening.cancel(reason="the worker was told to stop")
            elif number == signal.SIGINT:
                self._hurried.set()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        """Be within the user's own block; what that raises is not to pass for an error of the store's."""
        passing: BaseException | None = None
        try:
            async with self._plan.lifespan():
                try:
                    yield
                except BaseException as exc:
                    passing = exc
                    raise
        except BaseException as exc:
            if passing is None or lone_leaf(exc) is not passing:  # a nursery in the block may have wrapped it
                if is_all(exc, trio.Cancelled):
                    raise
                raise RuntimeError("the block that --lifespan names has failed") from exc
        else:
            if passing is None or is_all(passing, trio.Cancelled):  # by a scope in the block, which ends it in order
                return
        raise passing

    def _open_registry(self) -> AbstractAsyncContextManager[jobtrio.JobRegistry]:
        plan = self._plan
        return jobtrio.open_registry(
            plan.executors,
            store=self._store,
            max_running=plan.max_running,
            queues=plan.queues,
            retention=plan.retention,
            lease=plan.lease,
            worker=plan.name,
            max_running_total=plan.totals,
            rate_limits=plan.rates,
        )

    async def _tell(self, log: WorkLog) -> None:
        """Write the log to its end, which is that of the registry."""
        is_said = False
        while pieces := await log.next():
            try:
                await self._output.write(pieces)
            except OSError as exc:  # the jobs are worth more than the log
                log.miss_last()
                if not is_said:
                    is_said = True
                    await self._say(f"jobtrio: changes can't be logged: {exc.strerror}; the work goes on")
        self._told.set()

    async def _drain(self, registry: jobtrio.JobRegistry) -> None:
        """Start nothing more, and see what runs to its end or back into its queue."""
        running = registry.stats().running
        has = "" if not running else f"; {plural(running, 'job')} may take {duration(self._plan.grace)} to end"
        await self._say(f"{said_of(self._number)}: starts nothing more{has}")
        await registry.shutdown(self._plan.grace)

    async def _hurry(self) -> None:
        """At a later Ctrl-C, end what runs at once, and the process with whatever does not."""
        await self._hurried.wait()
        await self._say(f"{said_of(signal.SIGINT)}: ends at once")
        with trio.move_on_after(AT_ONCE):
            if self._registry is not None:
                await self._registry.shutdown(0.0)
            await trio.sleep_forever()  # the drain sees the same and, once what is around has ended, this is cancelled
        # Its jobs start again elsewhere once their lease is over. Programs must not run on beside them.
        _program.kill()
        os._exit(128 + signal.SIGINT)

    def _greeting(self, name: str) -> str:
        plan = self._plan
        if plan.queues == {}:
            return f"jobtrio: worker {name} runs no jobs"
        queues = "every queue"
        if plan.queues is not None:
            queues = ", ".join(
                f"{key} ({most}{' of each' if is_pattern(key) else ''} at once)" for key, most in plan.queues.items()
            )
        totals = "".join(
            f", {most} of {'each ' if is_pattern(key) else ''}{key} over all workers"
            for key, most in plan.totals.items()
        )
        totals += "".join(
            f", {plural(rate.starts, 'start')} of {'each ' if is_pattern(key) else ''}{key} in {duration(rate.per)} "
            f"{f'({rate.burst} at once) ' if rate.burst > 1 else ''}over all workers"
            for key, rate in plan.rates.items()
        )
        return (
            f"jobtrio: worker {name} runs {', '.join(sorted(plan.executors))}; queues: {queues}; "
            f"at most {plural(plan.max_running, 'job')} at once{totals}"
        )

    async def _say(self, line: str) -> None:
        with trio.move_on_after(LAST_WORD):
            await self._output.say(line)


async def serve_and_exit(worker: Worker) -> int:
    """Return what `Worker.serve` does, to a process that exits with it, whatever SIGTERM comes behind.

    *Cancellation*: running jobs return to their queue.
    """
    signal.signal(signal.SIGTERM, worker.end)  # which holds again once serving ends; what was not heeded then comes now
    code = await worker.serve()
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # no thread is left, and handlers are gone soon
    return code


def _end_by_sigterm() -> None:
    """Let SIGTERM end a process that an executor forks, as its ``terminate`` expects, rather than tell the worker."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def _mind_terminals() -> None:
    """Notice that a terminal is gone without a SIGHUP, as for a worker in the background whose shell has ended."""
    is_there = True
    while is_there:
        await trio.sleep(TERMINAL_LOOK)
        is_there = os.isatty(STDOUT) or os.isatty(STDERR)
        forget_dead_terminals()
