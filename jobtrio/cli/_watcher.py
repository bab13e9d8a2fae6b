"""Watches one job that may run anywhere, or several together, and says how they ended.

Leaving them, by Ctrl-C or because nobody reads any more, leaves the jobs alone. It must not know how they came about.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from jobtrio._nursery import open_background_nursery
from jobtrio.cli._bar import open_bar
from jobtrio.cli._endings import exit_code, summary
from jobtrio.cli._output import LAST_WORD, STDERR, STDOUT, Output
from jobtrio.cli._screen import Screen
from jobtrio.cli._signals import heeded, line_start

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio._messages import Message
    from jobtrio.cli._sources import Source

LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end the watching."""

PATIENCE = 2.0
"""Seconds after which it is said what a job waits for that does not run."""


EXIT_CODES = """\
exit code:
  0   completed            the program's own, or 128 + n, where a program failed
  1   failed               124 its time was up       125 it was cancelled
  2   bad usage            126 it can't be executed  127 it isn't found
  130 Ctrl-C, 143 SIGTERM, 129 SIGHUP: not watched to its end
  141 nobody reads the output any more
"""


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command that watches a job takes."""
    parser.add_argument(
        "--text",
        action="store_true",
        help="join tokens that are text, as a language model's are, rather than show one a line",
    )


class Watcher:
    """Shows a job's messages until its end, or until the user leaves."""

    def __init__(
        self,
        source: Source,
        *,
        after: int = 0,
        as_json: bool = False,
        as_text: bool = False,
        job: str | None = None,
        output: Output | None = None,
    ) -> None:
        """Prepare to watch.

        Args:
            source: The job's stream.
            after: The number of the last message that is not wanted.
            as_json: Whether stdout gets each message as a line of JSON, rather than what it says.
            as_text: Whether tokens that are text are put together, rather than one a line.
            job: The job's id, where others are watched as well.
            output: What tells its lines from theirs.
        """
        self._source = source
        self._after = after
        self._is_alone = job is None
        self._output = Output() if output is None else output
        self._writing = trio.Lock()
        self._screen = Screen(
            attempts=source.attempts,
            as_json=as_json,
            as_text=as_text,
            tidy=os.isatty(STDOUT),
            bar=open_bar() if job is None else None,
            job=job,
        )

    async def watch(self) -> int:
        """Watch, and return the exit code.

        Raises:
            JobtrioError: The stream can't be read on.
            BrokenPipeError: Nobody reads the output any more.
            OSError: The output can't be written.

        *Cancellation*: the job goes on.
        """
        if (left := await watch_until_left(self.follow, self._say_farewell)) is not None:
            return 128 + left
        line, code = await self.ending()
        await self._output.write([(STDERR, f"{line}\n")])
        return code

    async def follow(self) -> None:
        """Show the messages to the job's end. Raises what `watch` raises. *Cancellation*: the job goes on."""
        async with open_background_nursery() as nursery:
            if self._is_alone:  # else it is said of all together
                nursery.start_soon(self._tell_waiting)
            await self._source.follow(self._show, self._after)

    async def _tell_waiting(self) -> None:
        with suppress(OSError):  # the task that shows the job meets it too
            await trio.sleep(PATIENCE)
            if what := await self._source.waiting():
                async with self._writing:  # messages may have come meanwhile
                    await self._output.write([*self._screen.close(), (STDERR, f"jobtrio: {what}\n")])

    async def _show(self, messages: list[Message]) -> None:
        async with self._writing:
            await self._output.write(self._screen.pieces(messages))

    async def _say_farewell(self, number: int) -> None:
        what = "has ended" if self._source.has_ended else f"goes on{self._source.hint}"
        await self._output.write([*self._screen.close(), (STDERR, f"{line_start(number)}jobtrio: the job {what}\n")])

    async def ending(self) -> tuple[str, int]:
        """Return how the job ended, as a line, and the exit code. *Cancellation*: nothing has changed."""
        outcome, seconds, attempts = await self._source.ending()
        line = summary(outcome, seconds=seconds, attempts=attempts, lines=self._screen.lines or None)
        return line, exit_code(outcome)


async def watch_until_left(
    follow: Callable[[], Awaitable[None]], say_farewell: Callable[[int], Awaitable[None]]
) -> int | None:
    """Follow what is watched to its end, or until the user leaves; return the signal by which that was.

    *Cancellation*: the jobs go on.
    """
    left: int | None = None

    async def heed(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        nonlocal left
        async for number in signals:
            left = number
            scope.cancel()

    with trio.open_signal_receiver(*heeded(LEAVING)) as signals:
        async with open_background_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(heed, signals, scope)
                await follow()
            if left is not None:
                # Still within the receiver: `timeout` sends its signal to the command, and then to its group.
                with trio.move_on_after(LAST_WORD), suppress(OSError):  # a terminal that is gone
                    await say_farewell(left)
            return left
