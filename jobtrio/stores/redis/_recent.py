"""`Recent`: the last few of many things. It must not know what they are."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

K = TypeVar("K")

KEPT: Final = 1000


class Recent(Generic[K]):
    """Remembers the last thousand things that were added."""

    def __init__(self) -> None:
        self._kept: dict[K, None] = {}

    def add(self, thing: K) -> None:
        """Remember a thing, and forget the oldest beyond a thousand."""
        self._kept[thing] = None
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def discard(self, thing: K) -> None:
        """Forget a thing."""
        self._kept.pop(thing, None)

    def __contains__(self, thing: K) -> bool:
        return thing in self._kept
