"""Each trip to the server fails once, before or after it has done its work: nothing is lost, nothing is done twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import postgres_faults
import psycopg
import pytest
import trio
from postgres_invariants import check_schema
from store_scenario import insist, live_with_each_fault

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres._connections import Link
from jobtrio.testing._workers import new_entry, open_worker

if TYPE_CHECKING:
    from postgres_faults import Faults, When


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong. Nobody waits long, and nothing happens in the background."""
    monkeypatch.setattr("jobtrio._outage.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("jobtrio.stores.postgres._session.LOOK_OFTEN", 600.0)
    return postgres_faults.install(monkeypatch)


@pytest.mark.parametrize(("kind", "when"), [("lost", "before"), ("lost", "after"), ("deadlock", "before")])
async def test_each_trip_fails_once(postgres: str, faults: Faults, kind: Any, when: When) -> None:
    """Whatever fails is asked for again, and then done, once."""
    async with open_worker(lambda: PostgresJobStore(postgres, listen=False)) as worker:
        faults.kind = kind
        scenarios = await live_with_each_fault(worker, faults, when)
    assert len(scenarios) > 20
    assert len(check_schema(postgres, [scenarios[-1].one])) == 3 * len(scenarios)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_each_trip_of_a_group_fails_once(postgres: str, faults: Faults, when: When) -> None:
    """What several ask at once is asked for again by each, and done once, whoever it was that failed."""
    count, n = 1, 0
    async with open_worker(lambda: PostgresJobStore(postgres, listen=False)) as worker:
        while n < count:
            n += 1
            faults.count = 0
            faults.fail_at(n, when)

            async def submit(n: int, part: int) -> None:
                entry = new_entry(job_id=f"{n} {part}", key=f"{n} {part // 2}", tags={"n": str(n)})
                await insist(worker.store.insert, [entry], f"mark {n} {part}")

            async with trio.open_nursery() as nursery:
                for part in range(6):
                    nursery.start_soon(submit, n, part)
            count = faults.count
            faults.never_fail()
            claims = await worker.claim()
            assert len(claims) == 3
            for claim in claims:
                await worker.end(claim)
    assert n >= 2
    assert len(check_schema(postgres, ())) == 3 * n


async def test_a_claim_whose_answer_was_lost(postgres: str, faults: Faults) -> None:
    """The call that is made again finds what the first one claimed, and it is told once, as it has not been yet."""
    async with open_worker(lambda: PostgresJobStore(postgres, listen=False)) as worker:
        await worker.insert(*(new_entry() for _ in range(3)))
        faults.fail_at(1, "after")
        with pytest.raises(StoreUnavailableError):
            await worker.store.claim("call", limit=2, lease=60.0)
        for _ in range(2):
            claims = await worker.store.claim("call", limit=2, lease=60.0)
            assert len(claims) == 2
        for claim in claims:
            assert worker.heard.of(claim.entry.id) == await worker.history(claim.entry.id)
        assert len(await worker.claim()) == 1


async def test_a_fault_of_the_server(postgres: str, monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    """What will not pass by itself is no outage: nobody waits for it."""
    async with open_worker(lambda: PostgresJobStore(postgres, listen=False)) as worker:

        async def corrupted(*_: Any) -> Any:
            raise psycopg.errors.DataCorrupted("page 3")

        for method in ("fetch", "fetch_all"):
            monkeypatch.setattr(Link, method, corrupted)
        for call in (partial(worker.insert, new_entry()), partial(worker.store.load, "id"), worker.store.counts):
            with trio.fail_after(60), pytest.raises(StoreError, match="is damaged") as caught:
                await call()
            assert caught.type is StoreError
        monkeypatch.undo()
        await worker.insert(new_entry())


async def test_conflicts_without_end(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that comes between others each time it is tried is one that can't be carried out for now."""
    tried = 0
    async with open_worker(lambda: PostgresJobStore(postgres, listen=False)) as worker:

        async def conflict(*_: Any) -> Any:
            nonlocal tried
            tried += 1
            raise psycopg.errors.SerializationFailure("on purpose")

        monkeypatch.setattr(Link, "fetch", conflict)
        with pytest.raises(StoreUnavailableError, match="on purpose"):
            await worker.store.counts()
        assert tried > 2
        monkeypatch.undo()


async def test_lost_statements(postgres: str) -> None:
    """Where prepared statements get lost, the same is asked without; nobody notices."""
    async with open_worker(lambda: PostgresJobStore(postgres, pool_size=1)) as worker:
        for n in range(6):
            await worker.insert(new_entry(job_id=f"before {n}"))
        session = worker.store._session  # type: ignore[attr-defined]
        assert session.connections.is_direct
        await session.connections.use(
            lambda link: link.connection.execute("DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'")
        )
        await worker.insert(new_entry(job_id="after"))
        assert not session.connections.is_direct
        assert len(await worker.claim()) == 7


async def test_prepared_again(postgres: str) -> None:
    """A connection that was used while nobody could hear keeps the plans of its statements again once one can."""

    async def plans(link: Link) -> int | None:
        return link.connection.prepare_threshold

    async with open_worker(lambda: PostgresJobStore(postgres, pool_size=1)) as worker:
        connections = worker.store._session.connections  # type: ignore[attr-defined]
        assert await connections.use(plans) is not None
        connections.is_direct = False
        assert await connections.use(plans) is None
        connections.is_direct = True
        assert await connections.use(plans) is not None


async def test_one_plan_for_all_parameters(postgres: str) -> None:
    """A statement that is kept is planned once and for all: to plan a claim takes longer than to claim."""

    async def plans(link: Link) -> list[tuple[int, int]]:
        kept = await link.connection.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements")
        return await kept.fetchall()

    async with open_worker(lambda: PostgresJobStore(postgres, pool_size=1)) as worker:
        for _ in range(4):
            await worker.end(await worker.start())
        made = await worker.store._session.connections.use(plans)  # type: ignore[attr-defined]
    assert made
    assert all(planned_once and not planned_anew for planned_once, planned_anew in made)
