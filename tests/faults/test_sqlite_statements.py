"""Each statement of a scenario fails once, before or after it is executed: nothing is lost, nothing is done twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import sqlite_faults
import trio
from sqlite_invariants import check_file

from jobtrio._errors import StoreError
from jobtrio._messages import End
from jobtrio._outage import keep_trying
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.testing._workers import ERROR, LEASE, Worker, new_entry, new_plan, open_worker, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sqlite_faults import Faults, When

    from jobtrio.abc import Claim

T = TypeVar("T")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong. Nobody waits long."""
    monkeypatch.setattr("jobtrio._outage.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.PATIENCE", 0.0)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.PAUSE", 0.0)
    return sqlite_faults.install(monkeypatch)


async def _insist(call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
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
        await _insist(store.insert, entries, f"mark of {one}")
        await _insist(store.start_held, held, new_plan())
        claims = await self._claim("first", {one, two, held})
        assert await _insist(store.append_messages, claims[one], tokens(1, 3))
        assert await _insist(store.retry, claims[one], ERROR, 0.0, messages=tokens(4, 4))
        assert await _insist(store.save_state, claims[two], [2])
        assert await _insist(store.release, claims[two], "shutdown")
        reply = await _insist(store.request_cancel, held, "why", 0.0)
        assert reply is not None
        assert reply.accepted
        assert await _insist(store.finish, claims[held], Completed())
        await _insist(store.advance)
        claims = await self._claim("second", {one, two})
        assert claims[two].entry.saved_state == [2]
        for job_id, claim in claims.items():
            (report,) = await _insist(store.renew, [claim], LEASE)
            assert report.held
            last = 5 if job_id == one else 1
            assert await _insist(store.finish, claim, Completed(), messages=tokens(last + 1, last + 2, attempt=2))

    async def _claim(self, claim_id: str, expected: set[str]) -> dict[str, Claim]:
        claim = self.worker.store.claim
        claims = await _insist(claim, f"{claim_id} of {self.one}", limit=9, lease=LEASE)
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


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("code", ["SQLITE_IOERR", "SQLITE_BUSY"])
async def test_each_statement_fails_once(tmp_path: Path, faults: Faults, when: When, code: str) -> None:
    """Whatever fails is asked for again, and then done, once."""
    faults.code, faults.holding = code, True
    path = tmp_path / "jobs.db"
    count, n = 1, 0
    async with open_worker(lambda: SqliteJobStore(path, synchronous="NORMAL")) as worker:
        while n < count:
            n += 1
            scenario = Scenario(worker, n)
            faults.count = 0
            faults.fail_at(n, when)
            await scenario.live()
            count = faults.count
            faults.never_fail()
            await scenario.check()
            if when == "before":
                await scenario.check_heard()
    assert n > 100
    assert len(check_file(path, [scenario.one])) == 3 * n


@pytest.mark.parametrize("when", ["before", "after"])
async def test_each_statement_of_opening_fails_once(tmp_path: Path, faults: Faults, when: When) -> None:
    """A file whose making failed is made at the next try, and one that is there is opened then."""
    n = 1
    while True:
        path = tmp_path / f"{n}.db"
        for _ in range(2):
            faults.count = 0
            faults.fail_at(n, when)
            async with open_worker(partial(SqliteJobStore, path)) as worker:
                await _insist(worker.store.insert, [new_entry()], f"{n}")
        if n > faults.count:
            break
        n += 1
    assert n > 10


async def test_damage_is_told(tmp_path: Path, faults: Faults) -> None:
    """Damage is no outage: nobody waits for it to pass."""
    async with open_worker(lambda: SqliteJobStore(tmp_path / "jobs.db")) as worker:
        faults.code, faults.failing = "SQLITE_CORRUPT", True
        for call in (partial(worker.insert, new_entry()), partial(worker.store.load, "id")):
            with trio.fail_after(5), pytest.raises(StoreError, match="damaged") as caught:
                await call()
            assert caught.type is StoreError
        faults.failing = False
        await worker.insert(new_entry())
