"""Which of the signals that end a command it heeds, and what is said of them. It must not know what they end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from jobtrio.cli._output import STDERR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def heeded(
    numbers: Iterable[signal.Signals], *, always: Collection[signal.Signals] = (signal.SIGTERM,)
) -> list[signal.Signals]:
    """Return those that are heeded: without what ``nohup`` or a shell's ``&`` has silenced, but for ``always``."""
    return [n for n in numbers if n in always or signal.getsignal(n) is not signal.SIG_IGN]


def name_of(number: int) -> str:
    """Return what a signal is called: by what was typed, or by its name."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def line_start(number: int) -> str:
    """Return what begins a line of our own behind a signal: a terminal shows ^C, and no newline behind it."""
    return "\n" if number == signal.SIGINT and os.isatty(STDERR) else ""


def said_of(number: int) -> str:
    """Return the beginning of a line that says what follows from a signal."""
    return f"{line_start(number)}jobtrio: {name_of(number)}"
