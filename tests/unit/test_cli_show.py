"""``jobtrio show``: which messages are shown of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio.cli._show import PAGE, _last_messages

if TYPE_CHECKING:
    from trio.testing import MockClock


class BusyStore:
    """A store that is far away, of a job that sends all the time: behind each page there is more."""

    def __init__(self, last: int) -> None:
        self.last = last

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[jobtrio.Message]:
        await trio.sleep(0.1)
        self.last += 5
        return [jobtrio.Token(seq, 1, None) for seq in range(after + 1, min(after + limit, self.last) + 1)]


async def test_a_job_that_never_pauses(autojump_clock: MockClock) -> None:
    """The last messages are shown of those that there are now, though others follow all the time."""
    for last in (1, 3 * PAGE):
        store: Any = BusyStore(last)
        with trio.fail_after(30):
            shown = await _last_messages(store, "id", 3)
        assert len(shown) == 3
        assert [message.seq for message in shown if isinstance(message, jobtrio.Token)][-1] >= last
