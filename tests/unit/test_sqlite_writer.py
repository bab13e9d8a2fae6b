"""The writer's groups: which of them wait for one more call."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from jobtrio.stores.sqlite._calls import Call
from jobtrio.stores.sqlite._writer import LOOK_AFTER, Writer

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls:
    """Calls that are there, and those that come while they are waited for."""

    def __init__(self, there: int, to_come: int) -> None:
        self._there = [new_call() for _ in range(there)]
        self._to_come = [new_call() for _ in range(to_come)]
        self.waits: list[float] = []

    def next_nowait(self) -> Call | None:
        """Return one that is there."""
        return self._there.pop() if self._there else None

    def next(self, timeout: float) -> Call | None:
        """Wait for one; all that are to come have come then."""
        self.waits.append(timeout)
        self._there, self._to_come = self._there + self._to_come, []
        return self.next_nowait()


def new_call() -> Call:
    """Return a call for nothing."""
    work: Callable[[Any], None] = lambda _: None  # noqa: E731 - it needs a type
    return Call(work, work)


@pytest.mark.parametrize(
    ("there", "to_come", "waits", "size"),
    [
        (0, 2, [LOOK_AFTER], 2),  # all who were answered have asked again while it waited for the first
        (2, 0, [0.01], 2),  # those who were answered are about to ask
        (2, 1, [0.01, 0.01], 3),
        (1, 0, [], 1),  # one alone does not linger
    ],
)
def test_who_lingers(there: int, to_come: int, waits: list[float], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group waits for one more call where its first was there as the last group was answered."""
    writer: Any = object.__new__(Writer)
    writer.calls = Calls(there, to_come)
    writer._waiting = deque()
    writer._linger = 0.01
    writer._stopping = False
    taken: list[Call] = []
    monkeypatch.setattr(writer, "_turn", lambda: list(writer._take(taken, time.monotonic() + 60)))
    writer._step()
    assert (writer.calls.waits, len(taken)) == (waits, size)


def test_stopped_as_it_looks_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sign to stop comes between two looks, it is not waited for once more."""
    writer: Any = object.__new__(Writer)
    writer.calls = Calls(0, 0)
    writer._waiting = deque()
    writer._stopping = True  # by who gave the sign, which `next_nowait` has taken for "no call"
    pauses: list[str] = []
    monkeypatch.setattr(writer, "_idle", lambda: pauses.append("used"))
    writer._step()
    assert (writer.calls.waits, pauses) == ([], ["used"])
