"""``jobtrio show``: which messages are shown of a job."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio.cli._json import record_fields
from jobtrio.cli._records import note_text
from jobtrio.cli._show import PAGE, _last_messages, _text

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


async def test_a_job_that_is_to_have_no_time_limit() -> None:
    """It is told as such, and in JSON, which has no infinite number, as a job that has none."""
    async with jobtrio.open_registry() as registry:
        record = (await registry.create_job(time_limit=math.inf)).record
    assert "\ntime limit none\n" in "".join(_text(record, [], []))
    assert record_fields(record)["time_limit"] is None


async def test_a_policy_without_retries() -> None:
    """As every job of ``jobtrio run`` has it: its delays mean nothing."""
    async with jobtrio.open_registry() as registry:
        record = (await registry.create_job(retry=jobtrio.RetryPolicy(max_attempts=1))).record
    assert "\nretries    none\n" in "".join(_text(record, [], []))


async def test_error_out_of_a_nursery() -> None:
    """Where there is little room, what an executor's nursery has raised is told by what is in the group."""

    async def fail(job: jobtrio.JobContext) -> None:
        async with trio.open_nursery(), trio.open_nursery():
            raise ValueError(f"row 7 of the table has no price, as {job.id} says")

    async with jobtrio.open_registry(worker="w") as registry:
        job = await registry.submit(fail, retry=jobtrio.RetryPolicy(max_attempts=2, initial=0))
        await job.wait()
        history = await registry.history(job.id)
    why = "ValueError: row 7 of the table has no price, as "
    assert note_text(job.record).startswith(why)
    assert "".join(_text(job.record, history, [])).count(f"w       {why}") == 2


async def test_a_job_that_was_completed_at_last() -> None:
    """What an earlier attempt failed with does not pass for how it ended."""

    async def fail_once(job: jobtrio.JobContext) -> None:
        if job.attempt == 1:
            raise ValueError("row 7")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fail_once, retry=jobtrio.RetryPolicy(max_attempts=2, initial=0))
        await job.wait()
    shown = "".join(_text(job.record, [], []))
    assert "\nlast error ValueError: row 7 (exception)\n" in shown
    assert "\nerror " not in shown
    assert "Traceback" not in shown
