"""Aligned tables of plain text.

Cells in, lines out. It must not know what the cells mean, nor who has written them: they may hold anything.
"""

from __future__ import annotations

import sys
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
    columns = [
        padded(column, at_right=name in right) for name, column in zip(head, zip(*shown, strict=True), strict=True)
    ]
    return "".join("  ".join(row).rstrip() + "\n" for row in zip(*columns, strict=True))


def padded(texts: Sequence[str], *, at_right: bool = False) -> list[str]:
    """Return texts with as many spaces behind or before each as make all of them equally wide."""
    widths = list(map(_columns, texts))
    spaces = [" " * (max(widths, default=0) - width) for width in widths]
    return [space + text if at_right else text + space for text, space in zip(texts, spaces, strict=True)]


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes, as far as single characters tell."""
    if text.isascii():
        return len(text)
    encoding = (sys.stdout and sys.stdout.encoding) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # what the locale lacks is shown as escapes
    return sum(2 if east_asian_width(char) in "WF" else category(char) not in IN_PLACE for char in text)
