"""Lists as PostgreSQL's array literals, made in one go.

An array literal escapes quotes and backslashes as JSON does, so a JSON array with braces for brackets is one, as long
as its texts hold no control characters: JSON writes those as escapes that an array literal does not know. The store's
texts hold none: they are names, which are printable, or JSON themselves. It must not know what the lists are of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

R = TypeVar("R")

LARGEST: Final = 8 * 1024 * 1024
"""Characters that one statement is given, unless one value alone is larger; the server takes less than a gigabyte."""

ANSWERED: Final = 8 * 1024 * 1024
"""Bytes of what users gave beyond which an answer has no more jobs: all of it has to come in time."""

MOST: Final = 2**31 - 1
"""What counts are cut to that may be larger than the server's integers; it stands for no limit."""

BIGGEST: Final = 2**63 - 1
"""The largest number that a job could have."""

_encode = msgspec.json.Encoder().encode


def array(values: Collection[str | int | float | bool | None]) -> str:
    """Return a list of texts without control characters, or of finite numbers, or of flags; None stands for NULL."""
    return f"{{{_encode(values)[1:-1].decode()}}}"


def slices(rows: Sequence[R], size: Callable[[R], int]) -> Iterator[Sequence[R]]:
    """Cut rows into pieces that one statement can take; ``size`` tells the characters of a row."""
    first = total = 0
    for n, row in enumerate(rows):
        length = size(row)
        if n > first and total + length > LARGEST:
            yield rows[first:n]
            first, total = n, 0
        total += length
    if first < len(rows):
        yield rows[first:]


def arrays(rows: Iterable[tuple[str | int | float | bool | None, ...]], width: int) -> list[str]:
    """Return the columns of rows of this width, an array literal each."""
    columns = list(zip(*rows, strict=True))
    return [array(column) for column in columns] if columns else ["{}"] * width
