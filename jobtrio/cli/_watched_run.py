"""One run of a program as a job: submitted, shown live, stopped by signals, summed up.

Signals become cancellation here and nowhere else. How the program is run belongs to `run_command`, what its
endings are called to `_program`. It must not know how the options were given.
"""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio.cli._output import STDERR, Output, json_line, line_of
from jobtrio.cli._program import Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jobtrio.cli._output import Piece

KEPT = 1000
"""Messages that wait for a stalled output; past that the program waits, as in a pipe."""

STOPPING = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
    signal.SIGQUIT: "SIGQUIT",
}
"""The signals that stop the program, as the summary names them."""

LAST_WORD = 1.0
"""Seconds that the summary may take after a second Ctrl-C: stderr may be as stalled as the rest."""


class WatchedRun:
    """One program on its way from the submission to the exit code."""

    def __init__(
        self, payload: dict[str, Any], *, queue: str, time_limit: float | None, retries: int, as_json: bool
    ) -> None:
        """Prepare a run.

        Args:
            payload: What `run_command` takes, ``argv`` and ``grace`` included.
            queue: The job's queue.
            time_limit: Seconds that each attempt may take, or None.
            retries: How many attempts may follow the first.
            as_json: Whether stdout gets each message as a line of JSON, rather than the program's lines.
        """
        self._payload = payload
        self._queue = queue
        self._time_limit = time_limit
        self._attempts = retries + 1
        self._as_json = as_json
        self._program = Program(payload["argv"][0])
        self._output = Output()
        self._showing = trio.CancelScope()
        self._lines = 0
        self._stopped: int | None = None  # the exit code of what asked the program to stop
        self._cut_short = False  # whether output was given up
        self._killing = False

    async def perform(self) -> int:
        """Run the program and return the exit code.

        *Cancellation*: ends the program and its group, as that of any job.
        """
        started = trio.current_time()
        with trio.open_signal_receiver(*_signals_to_obey()) as signals:
            async with jobtrio.open_registry(
                max_running=1, retention=jobtrio.Retention(tokens_per_job=KEPT)
            ) as registry:
                async with trio.open_nursery() as nursery:
                    job = await self._submit(registry)
                    nursery.start_soon(self._obey, signals, job, nursery)
                    await self._show(job)
                    outcome = await job.wait()
                    nursery.cancel_scope.cancel()
        if self._stopped != 128 + signal.SIGPIPE:
            seconds = trio.current_time() - started
            with trio.move_on_after(LAST_WORD if self._cut_short else math.inf):
                await self._say(self._program.summary(job.record.attempt, outcome, seconds, self._lines))
        return self._exit_code(job.record.attempt, outcome)

    async def _submit(self, registry: jobtrio.JobRegistry) -> jobtrio.Job:
        return await registry.submit(
            self._program.attempt,
            self._payload,
            queue=self._queue,
            time_limit=self._time_limit,
            retry=jobtrio.RetryPolicy(max_attempts=self._attempts, jitter=0.0),
        )

    async def _show(self, job: jobtrio.Job) -> None:
        """Write the job's messages as they come, to the end or until nobody wants or can have them."""
        with self._showing:
            try:
                async with job.subscribe(lossless=True, on_gap="yield") as messages:
                    while True:
                        batch = await messages.receive_batch()
                        pieces = [piece for message in batch for piece in self._pieces(message)]
                        await self._output.write(pieces)
            except trio.EndOfChannel:
                pass
            except BrokenPipeError:
                await self._give_up(job, 128 + signal.SIGPIPE, "nobody reads the output")
            except OSError as exc:
                await self._give_up(job, 1, f"the output can't be written: {exc.strerror}")

    async def _give_up(self, job: jobtrio.Job, exit_code: int, why: str) -> None:
        self._cut_short = True
        if self._stopped is None:  # Ctrl-C in a pipeline ends the reader as well, and came first
            self._stopped = exit_code
        await job.cancel(why)

    def _pieces(self, message: jobtrio.Message) -> Iterator[Piece]:
        """Yield what is shown of a message, and where."""
        if self._as_json:
            yield json_line(message)
        match message:
            case jobtrio.Token():
                self._lines += not message.value.get("partial")
                if not self._as_json:
                    yield line_of(message)
            case jobtrio.Restart(_, attempt, error, delay):
                what = f"attempt {attempt} of {self._attempts} {self._program.describe(attempt, error)}"
                yield STDERR, f"jobtrio: {what}; the next follows in {delay:g} s\n"
            case jobtrio.Gap(first, last):
                yield STDERR, f"jobtrio: messages {first} to {last} are lost\n"
            case jobtrio.Progress() | jobtrio.End():
                pass

    async def _obey(self, signals: AsyncIterator[int], job: jobtrio.Job, nursery: trio.Nursery) -> None:
        """Cancel the job at the first signal; at a later Ctrl-C kill the program and drop its output."""
        async for number in signals:
            first = self._stopped is None
            # Only Ctrl-C at a second time: some tools send SIGTERM twice, to the process and to its group.
            kills = number == signal.SIGQUIT or (number == signal.SIGINT and not first)
            if first:
                self._stopped = 128 + number
                name = STOPPING[signal.Signals(number)]
                if await job.cancel(name) and not kills:
                    # In a task of its own: a stalled terminal must not keep the next Ctrl-C waiting.
                    nursery.start_soon(self._say, self._farewell(name))
            if kills and not self._killing:
                self._killing = self._cut_short = True
                self._showing.cancel()
                nursery.start_soon(self._kill)

    async def _kill(self) -> None:
        """Kill the program until the job has ended: it may have started something in the meantime."""
        while True:
            self._program.kill()
            await trio.sleep(0.05)

    def _farewell(self, name: str) -> str:
        # A terminal has just shown ^C, and no newline behind it.
        start = "\n" if name == "Ctrl-C" and os.isatty(STDERR) else ""
        return f"{start}jobtrio: {name}: the program has {self._payload['grace']:g} s to end; Ctrl-C kills it"

    def _exit_code(self, attempt: int, outcome: jobtrio.Outcome) -> int:
        if self._stopped is not None and (self._cut_short or isinstance(outcome, jobtrio.Cancelled)):
            return self._stopped
        if isinstance(outcome, jobtrio.Failed):
            return self._program.exit_code(attempt, outcome.error)
        return 0

    async def _say(self, line: str) -> None:
        try:
            await self._output.write([(STDERR, line + "\n")])
        except OSError:
            pass  # stderr is gone: there is nowhere to say it


def _signals_to_obey() -> list[signal.Signals]:
    """Return the signals that stop the program, without those that ``nohup`` or a shell's ``&`` silenced."""
    ignored = {number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN}
    return [number for number in STOPPING if number not in ignored or number is signal.SIGTERM]
