"""One run of a program as a job: submitted, shown live, stopped by signals, summed up.

Signals become cancellation here and nowhere else. How the program is run belongs to `run_command`, what its
endings are called to `_endings`, what is shown to `Screen`. It must not know how the options were given.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

import jobtrio
from jobtrio._checks import NAME_LIMIT
from jobtrio._errors import JobtrioError
from jobtrio._ids import new_id
from jobtrio._nursery import open_background_nursery
from jobtrio._patterns import own_key
from jobtrio.cli import _program
from jobtrio.cli._endings import exit_code, one_line, summary
from jobtrio.cli._follow import follow
from jobtrio.cli._output import LAST_WORD, Output
from jobtrio.cli._screen import Screen
from jobtrio.cli._signals import heeded, line_start, name_of, said_of
from jobtrio.cli._store import KEEP_ALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from jobtrio._messages import Message
    from jobtrio.abc import JobStore

KEPT = 1000
"""Messages that wait for a stalled output; past that the program waits, as in a pipe."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals that stop the program."""

AT_ONCE = 2.0
"""Seconds after which a second Ctrl-C leaves a job that is kept elsewhere to itself."""


@attrs.frozen
class RunPlan:
    """What is to be run, and how.

    Attributes:
        payload: What `run_command` takes, ``argv`` and ``grace`` included.
        queue: The job's queue; None for one of its own where there is a store, else "default".
        time_limit: Seconds that each attempt may take, or None.
        retries: How many attempts may follow the first.
        as_json: Whether stdout gets each message as a line of JSON, rather than the program's lines.
        store: Where the job is kept; None keeps it in memory.
    """

    payload: dict[str, Any]
    queue: str | None
    time_limit: float | None
    retries: int
    as_json: bool
    store: JobStore | None = None


class WatchedRun:
    """One program on its way from the submission to the exit code."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        # A queue of its own: this process runs no other jobs of the store, but others may run this one.
        own = "default" if plan.store is None else f"run-{secrets.token_hex(4)}"
        self._queue = plan.queue or own
        self._job_id = new_id()
        self._starting = trio.CancelScope()  # until the job is stored
        self._is_open = self._is_stored = False
        self._output = Output()
        self._screen = Screen(attempts=plan.retries + 1, as_json=plan.as_json)
        self._showing = trio.CancelScope()
        self._stopped: int | None = None  # the exit code of what asked the program to stop
        self._saying: trio.Event | None = None  # a line that is being written
        self._cut_short = False  # whether output was given up
        self._fault: str | None = None  # why it could not be written
        self._killing = False
        self._ended_at = math.inf  # by Trio's clock: the job may have ended long before all of it is shown

    async def perform(self) -> int:
        """Run the program and return the exit code.

        Raises:
            JobtrioError: The store can't be used.

        *Cancellation*: ends the program and its group, as that of any job.
        """
        started = trio.current_time()
        told, signals = trio.open_memory_channel[int](math.inf)
        with trio.open_signal_receiver(*heeded(STOPPING)) as received:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._receive, received, told)
                with self._starting:
                    job, outcome = await self._run(signals)
        if self._starting.cancelled_caught:
            return await self._end_early(signals.receive_nowait())
        if self._stopped != 128 + signal.SIGPIPE:
            seconds = min(trio.current_time(), self._ended_at) - started
            start = line_start(signal.SIGINT) if self._killing else ""
            with trio.move_on_after(LAST_WORD if self._cut_short else math.inf):
                await self._output.say(start + self._last_word(job, outcome, seconds))
        return self._exit_code(outcome)

    async def _run(self, signals: AsyncIterator[int]) -> tuple[jobtrio.Job, jobtrio.Outcome]:
        async with self._open_registry() as registry:
            self._is_open = True
            job = await self._submit(registry)
            self._is_stored, self._starting.deadline = True, math.inf
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._obey, signals, job, nursery)
                nursery.start_soon(self._note_end, job)
                await self._show(registry, job)
                outcome = await job.wait()
            if self._plan.store is not None:
                await registry.shutdown()  # another job of a shared queue may just have been started
        return job, outcome

    async def _note_end(self, job: jobtrio.Job) -> None:
        with suppress(trio.BrokenResourceError):  # the task that shows the job meets it too
            await job.wait()
            self._ended_at = trio.current_time()

    async def _receive(self, signals: AsyncIterator[int], told: trio.MemorySendChannel[int]) -> None:
        """Pass signals on to whoever obeys them; until the job is stored, they end the wait for that."""
        async for number in signals:
            told.send_nowait(number)
            if not self._is_open:
                self._starting.cancel(reason="told to stop")
            elif not self._is_stored:
                # A job that is about to be stored is better cancelled than left to others.
                self._starting.deadline = min(self._starting.deadline, trio.current_time() + AT_ONCE)

    async def _end_early(self, number: int) -> int:
        """Say that the program was not started, and return the exit code."""
        stored = f"; job {self._job_id} may have been stored" if self._is_open else ""
        await self._output.say(f"{said_of(number)}: ends before the program was started{stored}")
        return 128 + number

    def _open_registry(self) -> AbstractAsyncContextManager[jobtrio.JobRegistry]:
        if self._plan.store is None:
            kept = jobtrio.Retention(tokens_per_job=KEPT)
            return jobtrio.open_registry(_program.programs, max_running=1, retention=kept)
        served = own_key(self._queue)[:NAME_LIMIT]
        return jobtrio.open_registry(
            _program.programs, store=self._plan.store, max_running=1, queues={served: 1}, retention=KEEP_ALL
        )

    async def _submit(self, registry: jobtrio.JobRegistry) -> jobtrio.Job:
        plan = self._plan
        return await registry.submit(
            _program.RUN_COMMAND,
            plan.payload,
            job_id=self._job_id,
            queue=self._queue,
            time_limit=plan.time_limit,
            retry=jobtrio.RetryPolicy(max_attempts=plan.retries + 1, jitter=0.0),
        )

    async def _show(self, registry: jobtrio.JobRegistry, job: jobtrio.Job) -> None:
        """Write the job's messages as they come, to the end or until nobody wants or can have them."""

        async def show(messages: list[Message]) -> None:
            if self._saying is not None:  # what the program answers comes behind it
                with trio.move_on_after(LAST_WORD):
                    await self._saying.wait()
                self._saying = None
            await self._output.write(self._screen.pieces(messages))

        with self._showing:
            try:
                await follow(registry, job, show, lossless=True)
            except BrokenPipeError:
                await self._give_up(job, 128 + signal.SIGPIPE, "nobody reads the output")
            except OSError as exc:
                self._fault = f"the output can't be written: {exc.strerror}"
                await self._give_up(job, 1, self._fault)

    async def _give_up(self, job: jobtrio.Job, exit_code: int, why: str) -> None:
        self._cut_short = True
        if self._stopped is None:  # Ctrl-C in a pipeline ends the reader as well, and came first
            self._stopped = exit_code
        await job.cancel(why)

    async def _obey(self, signals: AsyncIterator[int], job: jobtrio.Job, nursery: trio.Nursery) -> None:
        """Cancel the job at the first signal; at a later Ctrl-C kill the program and drop its output."""
        async for number in signals:
            first = self._stopped is None
            # A second SIGTERM does not kill: some tools send it twice, to the process and to its group.
            kills = number == signal.SIGQUIT or (number == signal.SIGINT and not first)
            if first:
                self._stopped = 128 + number
                if self._plan.store is not None:
                    # In a task of its own: a store that is away must not keep the next Ctrl-C waiting.
                    nursery.start_soon(self._cancel_elsewhere, job, number, kills, nursery)
                elif await job.cancel(name_of(number)) and not kills:
                    self._announce(number, nursery)
            if kills and not self._killing:
                self._killing = self._cut_short = True
                self._showing.cancel()
                nursery.start_soon(self._kill, 128 + number)

    async def _cancel_elsewhere(self, job: jobtrio.Job, number: int, kills: bool, nursery: trio.Nursery) -> None:
        if not kills:
            self._announce(number, nursery)
        try:
            await job.cancel(name_of(number))
        except JobtrioError as exc:
            await self._output.say(f"jobtrio: the job could not be cancelled: {one_line(str(exc))}; Ctrl-C kills it")

    def _announce(self, number: int, nursery: trio.Nursery) -> None:
        """Say what follows, before the program's answer is shown, without waiting here: a terminal may be stalled."""
        self._saying = trio.Event()
        nursery.start_soon(self._say_farewell, number, self._saying)

    async def _say_farewell(self, number: int, said: trio.Event) -> None:
        grace = self._plan.payload["grace"]
        await self._output.say(f"{said_of(number)}: the program has {grace:g} s to end; Ctrl-C kills it")
        said.set()

    async def _kill(self, exit_code: int) -> None:
        """Kill the program until the job has ended: it may have started something in the meantime."""
        began = trio.current_time()
        while self._plan.store is None or trio.current_time() - began < AT_ONCE:
            _program.kill()
            await trio.sleep(0.05)
        # The store is away, or the job runs elsewhere and takes its time: it ends without this process.
        os._exit(exit_code)

    def _last_word(self, job: jobtrio.Job, outcome: jobtrio.Outcome, seconds: float) -> str:
        if self._fault is not None and not isinstance(outcome, jobtrio.Cancelled):  # it had ended before it could be
            return f"jobtrio: {self._fault}"
        return summary(outcome, seconds=seconds, attempts=job.record.attempt, lines=self._screen.lines)

    def _exit_code(self, outcome: jobtrio.Outcome) -> int:
        if self._stopped is not None and (self._cut_short or isinstance(outcome, jobtrio.Cancelled)):
            return self._stopped
        return exit_code(outcome)
