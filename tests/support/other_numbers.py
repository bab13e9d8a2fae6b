"""Whole numbers of a class of its own that is no `int`, as numpy's are."""

from __future__ import annotations


class Whole:
    """A whole number."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Whole({self.value})"
