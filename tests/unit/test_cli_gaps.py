"""What a store still has of messages that a watcher was too slow for is read from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import jobtrio
from jobtrio import End, Gap, StoreUnavailableError, Token
from jobtrio.cli import _gaps
from jobtrio.cli._gaps import Filler

if TYPE_CHECKING:
    from trio.testing import MockClock

    from jobtrio import Message

BEHIND: list[Message] = [Token(10, 1, 10), End(11, jobtrio.Completed())]


class KeptFrom:
    """A store that keeps the stream of a job from some number on, and is away when it is first asked."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._is_away = True

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return messages, 1 to 10 and the end."""
        if self._is_away:
            self._is_away = False
            raise StoreUnavailableError("away")
        if job_id != "j":
            return None
        gap = [Gap(after + 1, self._first - 1)] if after + 1 < self._first else []
        kept = [Token(n, 1, n) for n in range(max(after + 1, self._first), 10)]
        return [*gap, *kept, *BEHIND][:limit]


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (1, [Token(n, 1, n) for n in range(3, 8)]),
        (3, [Token(n, 1, n) for n in range(3, 8)]),
        (5, [Gap(3, 4), Token(5, 1, 5), Token(6, 1, 6), Token(7, 1, 7)]),
        (8, [Gap(3, 7)]),
        (10, [Gap(3, 7)]),
    ],
)
@pytest.mark.parametrize("page", [1, 2, 1024])
async def test_filling(
    first: int, shown: list[Message], page: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """What is kept comes in its place, once and in order, and nothing of what comes behind the gap."""
    monkeypatch.setattr(_gaps, "PAGE", page)
    assert await _shown(KeptFrom(first), "j", [Token(2, 1, 2), Gap(3, 7), Token(8, 1, 8)]) == [
        Token(2, 1, 2),
        *shown,
        Token(8, 1, 8),
    ]


async def test_a_job_that_is_gone(autojump_clock: MockClock) -> None:
    """Of a job that is no longer kept the gap stays, also where another one has its id by now."""
    assert await _shown(KeptFrom(1), "gone", [Gap(3, 7)]) == [Gap(3, 7)]
    assert await _shown(KeptFrom(1), "j", [Gap(3, 7)], is_removed=True) == [Gap(3, 7)]
    assert await _shown(KeptFrom(1), "j", [Gap(3, 7)], is_removed=True, is_replaced=True) == [Gap(3, 7)]


async def _shown(
    store: Any, job_id: str, messages: list[Message], *, is_removed: bool = False, is_replaced: bool = False
) -> list[Message]:
    shown: list[Message] = []

    async def show(batch: list[Message]) -> None:
        assert batch
        shown.extend(batch)

    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(job_id=job_id)
        if is_removed:
            await job.cancel()
            await registry.remove(job_id)
        if is_replaced:
            await registry.create_job(job_id=job_id)
        await Filler(registry, store, job, show).show(messages)
    return shown
