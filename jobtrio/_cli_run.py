"""``jobtrio run``: a program as a job, shown live, with the exit code that a shell would give.

It submits the program to a registry in memory, shows the job's stream to its end and sums up on stderr.
Signals become cancellation here and nowhere else. How a program is run belongs to `run_command`.
"""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio import _cli_options
from jobtrio._cli_output import STDERR, Output, json_line, line_of
from jobtrio._cli_program import Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jobtrio._cli_output import Piece

KEPT = 1000
"""Messages that wait for a stalled output; past that the program waits, as in a pipe."""

STOPPING = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""The signals that cancel the program, as the summary names them."""

DESCRIPTION = """\
Run a program as a job and watch it. Each line appears as the program writes it,
on stdout or stderr as the program chose; a summary on stderr tells how it ended.
The program has no standard input. When its time is up or it is cancelled, it and
all that it started get SIGTERM, and after the grace SIGKILL. Ctrl-C cancels it,
a second Ctrl-C kills it; nothing is left running.
"""

EPILOG = """\
exit code:
  the program's own, or 128 + n when signal n killed it
  124 its time was up      126 it can't be executed      127 it isn't found
  130 Ctrl-C               143 SIGTERM                   129 SIGHUP
  141 nobody reads the output any more                   2   bad usage

examples:
  jobtrio run -- make test
  jobtrio run --time-limit 60 --retry 2 -- ./import.sh orders.csv
  jobtrio run --cwd /srv/app --env DEBUG=1 -- sh -c 'make && ./check'
  jobtrio run --json -- ping -c 3 127.0.0.1 | jq -c .
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``run`` to the command's parser."""
    parser = commands.add_parser(
        "run",
        help="run a program as a job and watch it",
        usage="jobtrio run [OPTION ...] -- PROGRAM [ARGUMENT ...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--time-limit",
        metavar="S",
        type=_cli_options.positive_seconds,
        help="seconds that each attempt may take (default: no limit)",
    )
    add(
        "--retry",
        metavar="N",
        type=_cli_options.count,
        default=0,
        help="how many more times a failed program is tried, after 1, 2, 4 … seconds (default: 0)",
    )
    add(
        "--grace",
        metavar="S",
        type=_cli_options.seconds,
        default=5.0,
        help="seconds between SIGTERM and SIGKILL (default: 5)",
    )
    add("--cwd", metavar="DIR", type=_cli_options.directory, help="the directory to run it in")
    add(
        "--env",
        metavar="NAME=VALUE",
        type=_cli_options.variable,
        action="append",
        default=[],
        help="an environment variable for it, besides those that it inherits; may be given several times",
    )
    add("--queue", metavar="NAME", type=_cli_options.name, default="default", help="the job's queue")
    add("--json", action="store_true", help="show each message of the job as a line of JSON on stdout")
    add("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run the program that the options name and return its exit code."""
    argv = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not argv:
        options.parser.error("PROGRAM is missing: put it behind --, as in: jobtrio run -- ls -l")
    if not argv[0]:
        options.parser.error("PROGRAM must be a program's name or path; got ''")
    payload = {"argv": argv, "cwd": options.cwd, "env": dict(options.env), "grace": options.grace}
    return trio.run(Run(options, payload).perform)


class Run:
    """One program on its way from the submission to the exit code."""

    def __init__(self, options: argparse.Namespace, payload: dict[str, Any]) -> None:
        self._options = options
        self._payload = payload
        self._program = Program(payload["argv"][0])
        self._output = Output()
        self._showing = trio.CancelScope()
        self._lines = 0
        self._stopped: int | None = None  # the exit code of what asked the program to stop
        self._cut_short = False  # whether output was given up

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
            await self._say(self._program.summary(job.record.attempt, outcome, seconds, self._lines))
        return self._exit_code(job.record.attempt, outcome)

    async def _submit(self, registry: jobtrio.JobRegistry) -> jobtrio.Job:
        options = self._options
        return await registry.submit(
            self._program.attempt,
            self._payload,
            queue=options.queue,
            time_limit=options.time_limit,
            retry=jobtrio.RetryPolicy(max_attempts=options.retry + 1, jitter=0.0),
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
        self._stopped = exit_code
        self._cut_short = True
        await job.cancel(why)

    def _pieces(self, message: jobtrio.Message) -> Iterator[Piece]:
        """Yield what is shown of a message, and where."""
        as_json = self._options.json
        if as_json:
            yield json_line(message)
        match message:
            case jobtrio.Token():
                self._lines += not message.value.get("partial")
                if not as_json:
                    yield line_of(message)
            case jobtrio.Restart(_, attempt, error, delay):
                what = f"attempt {attempt} of {self._options.retry + 1} {self._program.describe(attempt, error)}"
                yield STDERR, f"jobtrio: {what}; the next follows in {delay:g} s\n"
            case jobtrio.Gap(first, last):
                yield STDERR, f"jobtrio: messages {first} to {last} are lost\n"
            case jobtrio.Progress() | jobtrio.End():
                pass

    async def _obey(self, signals: AsyncIterator[int], job: jobtrio.Job, nursery: trio.Nursery) -> None:
        """Cancel the job at the first signal; at a later Ctrl-C kill the program and drop its output."""
        async for number in signals:
            if self._stopped is None:
                self._stopped = 128 + number
                name = STOPPING[signal.Signals(number)]
                if await job.cancel(name):
                    # In a task of its own: a stalled terminal must not keep the next Ctrl-C waiting.
                    nursery.start_soon(self._say, self._farewell(name))
            elif number == signal.SIGINT:
                # Only Ctrl-C: some tools send SIGTERM twice, to the process and to its group.
                self._cut_short = True
                self._program.kill()
                self._showing.cancel()

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
