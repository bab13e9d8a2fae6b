"""Watches one job that may run anywhere, and says how it ended.

Leaving it, by Ctrl-C or because nobody reads any more, leaves the job alone. It must not know how the job came
about.
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
    from collections.abc import AsyncIterator

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
        help="put tokens that are text together, as a language model's are, rather than show one a line",
    )


class Watcher:
    """Shows a job's messages until its end, or until the user leaves."""

    def __init__(self, source: Source, *, after: int = 0, as_json: bool = False, as_text: bool = False) -> None:
        """Prepare to watch.

        Args:
            source: The job's stream.
            after: The number of the last message that is not wanted.
            as_json: Whether stdout gets each message as a line of JSON, rather than what it says.
            as_text: Whether tokens that are text are put together, rather than one a line.
        """
        self._source = source
        self._after = after
        self._output = Output()
        self._writing = trio.Lock()
        self._screen = Screen(
            attempts=source.attempts,
            as_json=as_json,
            as_text=as_text,
            tidy=os.isatty(STDOUT),
            bar=open_bar(),
        )
        self._left: int | None = None  # the signal by which the user left

    async def watch(self) -> int:
        """Watch, and return the exit code.

        Raises:
            JobtrioError: The stream can't be read on.
            BrokenPipeError: Nobody reads the output any more.
            OSError: The output can't be written.

        *Cancellation*: the job goes on.
        """
        with trio.open_signal_receiver(*heeded(LEAVING)) as signals:
            async with open_background_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(self._heed, signals, scope)
                    await self._follow()
                if (left := self._left) is not None:
                    # Still within the receiver: `timeout` sends its signal to the command, and then to its group.
                    with trio.move_on_after(LAST_WORD), suppress(OSError):  # a terminal that is gone
                        await self._say_farewell(left)
                    return 128 + left
        return await self._sum_up()

    async def _follow(self) -> None:
        async with open_background_nursery() as nursery:
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

    async def _heed(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            self._left = number
            scope.cancel()

    async def _say_farewell(self, number: int) -> None:
        what = "has ended" if self._source.has_ended else f"goes on{self._source.hint}"
        await self._output.write([*self._screen.close(), (STDERR, f"{line_start(number)}jobtrio: the job {what}\n")])

    async def _sum_up(self) -> int:
        outcome, seconds, attempts = await self._source.ending()
        line = summary(outcome, seconds=seconds, attempts=attempts, lines=self._screen.lines or None)
        await self._output.write([(STDERR, line + "\n")])
        return exit_code(outcome)
