"""Aligned tables of plain text.

Pure: cells in, lines out. It must not know what the cells mean, nor who has written them: they may hold anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

from jobtrio.cli._endings import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

IN_PLACE = {"Mn", "Me"}
"""The categories of characters that are shown on or between others, without a column of their own."""


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> str:
    """Return a table, each line with its end: every column as wide as its widest cell.

    Args:
        head: The columns' names.
        rows: The cells, row by row.
        right: The names of columns whose cells stand at the right.
    """
    shown = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_columns, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [
            _padded(cell, width - _columns(cell), at_right=name in right)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _padded(cell: str, spaces: int, *, at_right: bool) -> str:
    return " " * spaces + cell if at_right else cell + " " * spaces


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes, as far as single characters tell."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(char) in "WF" else category(char) not in IN_PLACE for char in text)
