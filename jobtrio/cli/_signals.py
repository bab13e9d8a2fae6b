"""Which of the signals that end a command it heeds, and what they are called. It must not know what they end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

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
