"""All that may happen to jobs, for tests in which a store fails at each step of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytest

from jobtrio._errors import PayloadError
from jobtrio._messages import End, Token
from jobtrio._outage import keep_trying
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed
from jobtrio.testing._workers import ERROR, LEASE, Worker, new_entry, new_plan, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import postgres_faults
    import sqlite_faults

    from jobtrio.abc import Claim

T = TypeVar("T")


async def insist(call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Make a call again and again while the store is away; return its answer."""
    answer = await keep_trying(partial(call, *args, **options), lambda: False)
    assert answer is not None
    return answer


class Scenario:
    """Three jobs that go through all that may happen to jobs, asking again whenever the store is away."""

    def __init__(self, worker: Worker, n: int) -> None:
        self.worker = worker
        self.one, self.two, self.held = (f"{name} {n}" for name in ("one", "two", "held"))

    async def live(self) -> None:
        """Do it all."""
        store, one, two, held = self.worker.store, self.one, self.two, self.held
        entries = [
            new_entry(payload="x" * 3000, retry=RetryPolicy(), tags={"t": "v"}, job_id=one),
            new_entry(job_id=two, key=f"key of {two}"),
            new_entry(None, job_id=held),
        ]
        await insist(store.insert, entries, f"mark of {one}")
        await insist(store.start_held, held, new_plan())
        assert await insist(self._pause)
        assert await insist(store.set_priority, two, JobPriority.HIGH)
        await self._claim("none", set())
        assert await insist(self._resume)
        claims = await self._claim("first", {one, two, held})
        assert claims[two].entry.plan.priority is JobPriority.HIGH
        assert await insist(store.append_messages, claims[one], tokens(1, 3))
        assert await insist(store.retry, claims[one], ERROR, 0.0, messages=tokens(4, 4))
        assert await insist(store.save_state, claims[two], [2])
        assert await insist(store.release, claims[two], "shutdown")
        reply = await insist(store.request_cancel, held, "why", 0.0)
        assert reply is not None
        assert reply.accepted
        assert await insist(store.finish, claims[held], Completed())
        await insist(store.advance)
        claims = await self._claim("second", {one, two})
        assert claims[two].entry.saved_state == [2]
        for job_id, claim in claims.items():
            (report,) = await insist(store.renew, [claim], LEASE)
            assert report.held
            last = 5 if job_id == one else 1
            assert await insist(store.finish, claim, Completed(), messages=tokens(last + 1, last + 2, attempt=2))

    async def _pause(self) -> bool:
        await self.worker.store.pause("default")
        return True

    async def _resume(self) -> bool:
        await self.worker.store.resume("default")
        return True

    async def _claim(self, claim_id: str, expected: set[str]) -> dict[str, Claim]:
        claim = self.worker.store.claim
        claims = await insist(claim, f"{claim_id} of {self.one}", limit=9, lease=LEASE)
        assert {claim.entry.id for claim in claims} == expected
        return {claim.entry.id: claim for claim in claims}

    async def check(self) -> None:
        """Check what is left of it."""
        worker, one, two = self.worker, self.one, self.two
        stream = await worker.stream(one)
        assert [message.seq for message in stream if hasattr(message, "seq")] == [*range(1, 9)]
        assert stream[-1] == End(8, Completed())
        assert await worker.states(one) == ["QUEUED", "RUNNING", "RETRYING", "QUEUED", "RUNNING", "COMPLETED"]
        assert await worker.states(two) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "COMPLETED"]
        assert (await worker.load(self.held)).outcome == Cancelled("why")

    async def check_heard(self) -> None:
        """Check that each change was told once."""
        for job_id in (self.one, self.two, self.held):
            assert self.worker.heard.of(job_id) == await self.worker.history(job_id)


async def live_with_each_fault(
    worker: Worker, faults: postgres_faults.Faults | sqlite_faults.Faults, when: Literal["before", "after"]
) -> list[Scenario]:
    """Live and check one scenario for each of its steps, which fails in that one; return all of them."""
    scenarios: list[Scenario] = []
    steps = 1
    while len(scenarios) < steps:
        scenarios.append(scenario := Scenario(worker, len(scenarios) + 1))
        faults.count = 0
        faults.fail_at(len(scenarios), when)
        await scenario.live()
        steps = faults.count
        faults.never_fail()
        await scenario.check()
        if when == "before":
            await scenario.check_heard()
    return scenarios


async def try_what_cannot_be_encoded(worker: Worker, claim: Claim) -> None:
    """Check that a store refuses what it could not give back, in every call that brings something."""
    for call in (
        partial(worker.insert, new_entry(payload=object())),
        partial(worker.insert, new_entry(metadata={"x": object()})),
        partial(worker.store.save_state, claim, object()),
        partial(worker.store.finish, claim, Completed(object())),
        partial(worker.store.append_messages, claim, [Token(1, 1, object())]),
        partial(worker.store.append_messages, claim, [End(1, Completed())]),
    ):
        with pytest.raises(PayloadError):
            await call()
