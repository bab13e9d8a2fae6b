"""A progress bar in one line of a terminal, drawn with rich where it is installed.

The line is only made here, so that it is written in order with all else that the terminal shows. It must not
know whose progress it is.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jobtrio.cli._endings import one_line

if TYPE_CHECKING:
    from jobtrio._messages import Progress
    from jobtrio.cli._screen import ProgressBar

BAR_WIDTH = 30
"""Columns of the bar itself."""


def open_bar() -> ProgressBar | None:
    """Return a bar for stderr, or None where that is no terminal that could show one or rich isn't installed."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") in {None, "", "dumb"}:
        return None
    try:
        import rich  # noqa: F401
    except ImportError:
        return None
    return RichBar()


class RichBar:
    """Draws progress as a note, a bar, and numbers."""

    def draw(self, progress: Progress) -> str:
        """Return the line, without its end: shorter than the terminal is wide."""
        from rich.console import Console
        from rich.progress_bar import ProgressBar as Bar
        from rich.text import Text

        # Made anew each time: the terminal's width may have changed.
        console = Console(stderr=True, force_terminal=True, highlight=False)
        width = min(BAR_WIDTH, console.width // 3)
        numbers = Text(_numbers(progress))
        note = Text("" if progress.note is None else f"{one_line(progress.note)} ")
        # One column is left free, or some terminals would go on to the next line.
        note.truncate(max(console.width - 1 - width - 1 - numbers.cell_len, 0), overflow="ellipsis")
        bar = Bar(total=progress.total, completed=progress.done, pulse=not progress.total, width=width)
        with console.capture() as captured:
            console.print(note, bar, Text(" "), numbers, sep="", end="", soft_wrap=True)
        return captured.get().replace("\n", "")


def _numbers(progress: Progress) -> str:
    if not progress.total:
        return f"{progress.done:.15g}"
    return f"{progress.done / progress.total:4.0%} {progress.done:.15g}/{progress.total:.15g}"
