"""Limits by queue, whose keys may be patterns: which key stands for a queue.

Pure: it knows neither jobs nor stores. Where no key is a pattern, a look-up is one of a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

V = TypeVar("V")

STAR: Final = "*"
"""What a pattern ends in."""


def is_pattern(key: str) -> bool:
    """Whether a key stands for all queues whose names begin with what precedes its last character."""
    return key.endswith(STAR)


def own_key(queue: str) -> str:
    """Return the key for a single queue: its name.

    Where that looks like a pattern, it is one that only this queue matches, and those whose names go on behind it.
    """
    return queue + STAR if is_pattern(queue) else queue


class Patterns:
    """Keys that are patterns, prepared so that a look-up costs the same however many there are of one length."""

    __slots__ = ("_by_prefix", "_lengths")

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_prefix = {key[:-1]: key for key in keys}
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def longest(self, queue: str) -> str | None:
        """Return the longest that matches a queue, or None."""
        for length in self._lengths:
            key = self._by_prefix.get(queue[:length])
            if key is not None:
                return key
        return None

    def prefixes(self) -> list[str]:
        """Return what the names of queues begin with, the longest first."""
        return sorted(self._by_prefix, key=len, reverse=True)


def patterns_among(keys: Collection[str]) -> Patterns | None:
    """Return those keys that are patterns, or None if none is."""
    if isinstance(keys, ByQueue):
        return keys.patterns
    found = [key for key in keys if is_pattern(key)]
    return Patterns(found) if found else None


def key_for(queue: str, keys: Collection[str]) -> str | None:
    """Return the one of some keys that stands for a queue, or None if none does.

    That is the queue's own name or, where that is not among them, the longest of the patterns that match. A key that
    ends in ``*`` is a pattern, and never a name: it matches every queue whose name begins with what precedes the ``*``.
    """
    return _key_for(queue, keys, patterns_among(keys))


def _key_for(queue: str, keys: Collection[str], patterns: Patterns | None) -> str | None:
    if queue in keys and not is_pattern(queue):
        return queue
    return None if patterns is None else patterns.longest(queue)


class ByQueue(dict[str, V]):
    """What holds for a queue, by key. As a dict it knows its keys; `find` looks a queue up.

    Attributes:
        patterns: Those keys that are patterns; None if none is.
    """

    __slots__ = ("patterns",)

    def __init__(self, values: Mapping[str, V] | Iterable[tuple[str, V]] = ()) -> None:
        super().__init__(values)
        self.patterns: Patterns | None = None
        self.prepare()

    @classmethod
    def of(cls, values: Mapping[str, V]) -> Self:
        """Return values as such."""
        return values if isinstance(values, cls) else cls(values)

    def prepare(self) -> None:
        """Take note of the patterns among the keys. Called once one of these has come or gone."""
        found = [key for key in self if is_pattern(key)]
        self.patterns = Patterns(found) if found else None

    def copy(self) -> Self:
        """Return a copy."""
        other = type(self)()
        other.update(self)
        other.patterns = self.patterns
        return other

    @property
    def find(self) -> Callable[[str], V | None]:
        """The function that returns what holds for a queue, or None where nothing does."""
        return self.get if self.patterns is None else self._find

    def _find(self, queue: str) -> V | None:
        key = _key_for(queue, self, self.patterns)
        return None if key is None else self[key]

    def split(self) -> tuple[list[tuple[str, V]], list[tuple[str, V]]]:
        """Return what holds for single queues, and for patterns by what names begin with, the longest first."""
        if self.patterns is None:
            return list(self.items()), []
        single = [(queue, value) for queue, value in self.items() if not is_pattern(queue)]
        return single, [(prefix, self[prefix + STAR]) for prefix in self.patterns.prefixes()]


class Limits(ByQueue[int]):
    """How many jobs of a queue there may be, by key."""

    __slots__ = ()


def note_running(left: Limits, limits: Limits, queue: str, running: int) -> None:
    """Bring what is ``left`` of ``limits``, in the queues that have room, to how many jobs of one of them run."""
    most = limits.find(queue)
    if most is None:
        return
    if limits.patterns is None:
        if most > running:
            left[queue] = most - running
        else:
            left.pop(queue, None)
        return
    # What is full is named as well: a pattern would match it.
    key = own_key(queue)
    if running:
        left[key] = max(most - running, 0)
    elif key in limits:
        left[key] = limits[key]
    else:
        left.pop(key, None)
    if is_pattern(key):
        left.prepare()


def limited_by(totals: ByQueue[V], room: Mapping[str, int] | None) -> list[str]:
    """Return the keys of ``totals`` that stand for a queue from which there is ``room`` to take; None for any queue.

    Of patterns on both sides, all that may have a queue in common.
    """
    if room is None:
        return list(totals)
    room = Limits.of(room)
    if totals.patterns is None and room.patterns is None:
        return [key for key in totals if key in room]
    found = {key_for(key, totals) for key, most in room.items() if most > 0 and not is_pattern(key)}
    if room.patterns is not None:
        prefixes = room.patterns.prefixes()
        found |= {key for key in totals if any(_have_common(key, prefix) for prefix in prefixes)}
    return [key for key in totals if key in found]


def _have_common(key: str, prefix: str) -> bool:
    """Whether a key stands for a queue whose name begins with ``prefix``."""
    return key.startswith(prefix) or (is_pattern(key) and prefix.startswith(key[:-1]))
