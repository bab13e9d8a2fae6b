"""Store checks: values and numbers as large as may be, and much at once."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._messages import End, Message, Progress, Restart, Token
from jobtrio._policies import Retention, RetryPolicy
from jobtrio._records import Cancelled, Completed, JobError
from jobtrio._state import JobState
from jobtrio.testing._workers import ERROR, SHORT, new_entry, open_worker, open_workers

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore

MANY = 1100
"""Jobs that fall due at once, more than a store does in one step."""


async def check_much_falls_due_at_once(open_store: OpenStore) -> None:
    """However much falls due at once, `advance` does it all, or says that there is more; and `prune` likewise."""
    async with open_worker(open_store, Retention(finished_for=SHORT)) as worker:
        await worker.insert(*(new_entry(delay=SHORT) for _ in range(MANY)))
        await worker.insert(*(new_entry(expires_in=SHORT) for _ in range(MANY)))
        await worker.pass_time()
        counts = (await worker.store.counts())["default"]
        assert (counts[JobState.SCHEDULED], counts[JobState.QUEUED]) == (0, MANY)
        await trio.sleep(2 * SHORT)
        for _ in range(MANY):
            seconds = await worker.store.prune()
            if seconds > SHORT:
                break
            await trio.sleep(seconds)
        left = (await worker.store.counts())["default"]
        assert (left[JobState.QUEUED], sum(left.values())) == (MANY, MANY)
        assert len(await worker.claim(limit=MANY, lease=SHORT)) > MANY / 2
        await worker.pass_time()
        assert (await worker.store.counts())["default"][JobState.QUEUED] == MANY


LARGE = "€" * 300_000
"""A text of nearly a megabyte."""


async def check_large_values_are_kept_whole(open_store: OpenStore) -> None:
    """Values and texts of any size that is allowed are kept whole."""
    error = JobError("exception", "E" * 1000, "m" * 65_536, "t" * 65_536)
    reason = "r" * 10_000
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.insert(waiting := new_entry(None))
        await b.store.request_cancel(waiting.id, reason, 0.0)
        claim = await a.start(new_entry(payload=LARGE, metadata={"large": LARGE}, retry=RetryPolicy()))
        sent: list[Message] = [Token(1, 1, LARGE), Progress(2, 1, 1, None, reason)]
        assert await a.store.append_messages(claim, sent)
        assert await a.store.save_state(claim, [LARGE])
        assert await a.store.retry(claim, error, 0.0)
        failed = await b.record(claim.entry.id)
        await a.pass_time(0)
        again = await a.claim_one()
        assert await a.store.finish(again, Completed(LARGE))
        ended = await b.record(claim.entry.id)
        stream = [*sent, Restart(3, 1, error, 0.0), End(4, Completed(LARGE))]
        is_whole = {  # rather than the values themselves, which would take long to show
            "payload": ended.payload == LARGE,
            "metadata": ended.metadata == {"large": LARGE},
            "saved_state": again.entry.saved_state == [LARGE],
            "error": failed.error == error,
            "result": ended.result == LARGE,
            "messages": await b.stream(ended.id) == stream,
            "reason": (await a.load(waiting.id)).outcome == Cancelled(reason),
        }
        assert [name for name, whole in is_whole.items() if not whole] == []


async def check_numbers_of_any_size(open_store: OpenStore) -> None:
    """Limits and delays of any size that is allowed are kept, and what lies that far ahead does not come about."""
    policy = RetryPolicy(max_attempts=2**40, initial=1e9, max_delay=1e300)
    async with open_workers(open_store, "a", "b", retention=Retention(2**40, inf, 2**40, inf)) as (a, b):
        far = new_entry(delay=1e10, expires_in=1e300)
        await a.insert(far, late := new_entry(None, expires_in=1e300, time_limit=inf))
        assert (await b.record(late.id)).time_limit == inf
        claim = await a.start(new_entry(time_limit=1e300, retry=policy, expires_in=1e300))
        plan = (await b.load(claim.entry.id)).plan
        assert (plan.time_limit, plan.retry) == (1e300, policy)
        await b.store.request_cancel(claim.entry.id, None, 1e300)
        (report,) = await a.store.renew([claim], 1e6)
        assert report.entry.cancel is not None
        assert report.entry.cancel.grace == 1e300
        assert await a.store.finish(claim, Completed())
        again = await a.start(new_entry(retry=policy))
        assert await a.store.retry(again, ERROR, 1e9)
        await a.advance()
        await a.store.prune()
        states = [(await b.record(job_id)).state for job_id in (far.id, late.id, claim.entry.id, again.entry.id)]
        assert states == ["SCHEDULED", "QUEUED", "CANCELLED", "RETRYING"]
