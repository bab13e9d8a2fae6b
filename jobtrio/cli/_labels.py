"""What tells the lines of several jobs apart: before each stands how its job's id begins.

It must not know what the lines say.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from jobtrio.cli._endings import printable
from jobtrio.cli._output import STDERR, STDOUT, Output, can_draw
from jobtrio.cli._table import padded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio

    from jobtrio.cli._output import Piece

LEAST = 6
"""Characters of an id that are shown, where it has as many."""

PLAIN = "\033[0m"
"""What ends the colours of a terminal: the line before may have left some."""


def labels_of(ids: Iterable[str]) -> list[str]:
    """Return what each of some ids begins with and no other one does, and what parts it from a line, all equally wide.

    Args:
        ids: The ids, none of them twice.
    """
    shown = [printable(each) for each in ids]
    length, longest = LEAST, max(map(len, shown), default=0)
    while length < longest and len({each[:length] for each in shown}) < len(shown):
        length += 1
    return [f"{each} | " for each in padded([each[:length] for each in shown])]


class LabelledOutput(Output):
    """The process's stdout and stderr for one of several jobs: a label stands before each line, JSON excepted."""

    def __init__(self, label: str, turn: trio.Lock, *, as_json: bool = False) -> None:
        """Prepare to write.

        Args:
            label: What stands before each line.
            turn: Who has it writes: one for all the jobs.
            as_json: Whether stdout gets JSON, which has the job's id in it.
        """
        super().__init__()
        self._turn = turn
        out, err = (PLAIN * can_draw(stream) + label for stream in (sys.stdout, sys.stderr))
        self._labels = {STDOUT: "" if as_json else out, STDERR: err}

    async def write(self, pieces: Iterable[Piece]) -> None:
        """Write whole lines as `Output` does, and none of another job's between them."""
        async with self._turn:
            await super().write([(fd, self._labelled(fd, text)) for fd, text in pieces])

    def _labelled(self, fd: int, text: str) -> str:
        """Return lines with their labels. What a program draws over again has it each time."""
        return "".join(self._labels[fd] + line for line in io.StringIO(text, newline=""))
