"""A progress bar in one line of a terminal, drawn with rich where it is installed.

The line is only made here, so that it is written in order with all else that the terminal shows. It must not
know whose progress it is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobtrio.cli._endings import one_line, shown_share
from jobtrio.cli._output import can_draw

if TYPE_CHECKING:
    from rich.text import Text

    from jobtrio._messages import Progress
    from jobtrio.cli._screen import DrawBar

BAR_WIDTH = 30
"""Columns of the bar itself."""


def open_bar() -> DrawBar | None:
    """Return what draws a bar on stderr; None where that is no terminal that can show one, or rich isn't installed."""
    if not can_draw(sys.stderr):
        return None
    try:
        import rich  # noqa: F401
    except ImportError:
        return None
    return _draw


def _draw(progress: Progress) -> str:
    """Return progress as a note, a bar, and numbers: shorter than the terminal is wide."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    # Made anew each time: the terminal's width may have changed.
    console = Console(stderr=True, force_terminal=True, highlight=False)
    room = console.width - 1  # or some terminals would go on to the next line
    numbers = _fitted(_numbers(progress), room, console.encoding)
    room -= numbers.cell_len + 1
    width = min(BAR_WIDTH, console.width // 3, room)
    shown: list[Any] = [numbers]
    if width > 0:
        note = "" if progress.note is None else f"{one_line(progress.note)} "
        # A share, since rich can't count with the largest and the smallest numbers.
        share = progress.done / progress.total if progress.total else 0.0
        bar = ProgressBar(total=1.0, completed=share, pulse=not progress.total, width=width)
        shown = [_fitted(note, room - width, console.encoding), bar, " ", numbers]
    with console.capture() as captured:
        console.print(*shown, sep="", end="", soft_wrap=True)
    return captured.get().replace("\n", "")


def _fitted(text: str, columns: int, encoding: str) -> Text:
    """Return a text as a terminal of this encoding shows it, with escapes for what that lacks, cut to its columns."""
    from rich.text import Text

    fitted = Text(text.encode(encoding, "backslashreplace").decode(encoding))
    has_ellipsis = columns > 0 and encoding.startswith("utf")
    fitted.truncate(columns, overflow="ellipsis" if has_ellipsis else "crop")
    return fitted


def _numbers(progress: Progress) -> str:
    if not progress.total:
        return f"{progress.done:.15g}"
    return f"{shown_share(progress.done, progress.total):4.0%} {progress.done:.15g}/{progress.total:.15g}"
