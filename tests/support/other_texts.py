"""Text of a class of its own, as an enumeration's members or a framework's safe strings are."""

from __future__ import annotations


class Label(str):
    """Text."""

    __slots__ = ()
