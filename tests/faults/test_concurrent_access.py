"""Many tasks and many threads on one registry: nothing is lost, doubled, or seen half done."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, Completed, JobContext, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LEGAL = {
    None: {"SCHEDULED", "QUEUED"},
    "SCHEDULED": {"QUEUED", "CANCELLED"},
    "QUEUED": {"RUNNING", "CANCELLED", "FAILED"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "RETRYING", "QUEUED"},
    "RETRYING": {"QUEUED", "CANCELLED"},
    "COMPLETED": set(),
    "FAILED": set(),
    "CANCELLED": set(),
}
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


async def work(job: JobContext) -> Any:
    """Send the payload and return it, with a step between."""
    await job.send(job.payload)
    await trio.lowlevel.checkpoint()
    return job.payload


async def together(function: Callable[[int], Awaitable[None]], tasks: int) -> None:
    """Run a function in many tasks at once, each with its number."""
    async with trio.open_nursery() as nursery:
        for n in range(tasks):
            nursery.start_soon(function, n)


def check_history(lines: list[jobtrio.Transition]) -> None:
    """Check that a history is one legal path from the beginning to one ending."""
    previous: str | None = None
    for line in lines:
        assert line.previous == previous
        assert line.state in LEGAL[previous]
        previous = line.state
    assert previous in ENDED
    assert [line.at for line in lines] == sorted(line.at for line in lines)


async def test_creation_by_many_tasks() -> None:
    """Jobs created at once by fifty tasks are all there, once each, with ids of their own."""
    async with jobtrio.open_registry(max_running=10) as registry:
        jobs: list[jobtrio.Job] = []

        async def create(n: int) -> None:
            for i in range(20):
                jobs.append(await registry.submit(work, (n, i), tags={"task": str(n)}))

        await together(create, 50)
        assert len({job.id for job in jobs}) == len(registry) == 1000
        assert sorted([await job.result() for job in jobs]) == [(n, i) for n in range(50) for i in range(20)]
        for n in range(50):
            assert len(await registry.find(tags={"task": str(n)})) == 20


async def test_one_id_for_many_tasks() -> None:
    """Of many tasks that ask for one id, one gets it; of those that share a key, all get one job."""
    async with jobtrio.open_registry() as registry:
        got: list[str] = []
        refused: list[int] = []
        keyed: set[str] = set()

        async def create(n: int) -> None:
            try:
                got.append((await registry.submit(work, n, job_id="mine")).id)
            except jobtrio.DuplicateJobError:
                refused.append(n)
            keyed.add((await registry.submit(work, n, key="one")).id)

        await together(create, 50)
        assert (got, len(refused), len(keyed), len(registry)) == (["mine"], 49, 1, 2)


async def contest(rng: random.Random) -> None:
    """Let fifty tasks at once cancel, execute, watch and read one job."""
    outcomes: list[Any] = []
    runs: list[int] = []

    async def executor(job: JobContext) -> str:
        runs.append(job.attempt)
        await trio.lowlevel.checkpoint()
        return "ran"

    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()

        async def meddle(n: int) -> None:
            for _ in range(rng.randrange(10)):
                await trio.lowlevel.checkpoint()
            if n == 1:
                await job.cancel("meddled")
            elif n % 3 == 0:
                async with registry.execute_and_stream(job.id, executor) as lines:
                    assert [line async for line in lines][-1] in ("[DONE]", "[CANCELLED]")
            else:
                assert (await registry.get(job.id)).id == job.id
            outcomes.append(await job.wait())

        await together(meddle, 50)
        check_history(await registry.history(job.id))
    assert outcomes == [job.outcome] * 50
    assert job.outcome in (Completed("ran"), Cancelled("meddled"))
    assert len(runs) <= 1


async def test_state_changes_of_one_job() -> None:
    """Fifty tasks that meddle with one job agree on what became of it."""
    for seed in range(50):
        try:
            await contest(random.Random(seed))
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise


async def test_state_changes_of_many_jobs() -> None:
    """Jobs that end, fail, retry and are cancelled at random each go one legal way to one ending."""

    async def executor(job: JobContext) -> None:
        for _ in range(rng.randrange(6)):
            await job.send(0)
        if rng.random() < 0.4:
            raise ValueError("no")

    rng = random.Random(1)
    policy = jobtrio.RetryPolicy(max_attempts=3, initial=0, jitter=0)
    async with jobtrio.open_registry(max_running=7) as registry:

        async def lifecycle(n: int) -> None:
            for _ in range(5):
                job = await registry.submit(executor, n, retry=policy if n % 2 else None)
                if rng.random() < 0.4:
                    for _ in range(rng.randrange(6)):
                        await trio.lowlevel.checkpoint()
                    asked = await job.cancel("random")
                    assert not asked or await job.wait() == Cancelled("random")
                await job.wait()

        await together(lifecycle, 40)
        records = await registry.find(limit=1000)
        assert len(records) == 200
        assert {record.state for record in records} == set(ENDED)
        for record in records:
            check_history(await registry.history(record.id))


async def next_page(registry: jobtrio.JobRegistry, after: str | None) -> list[jobtrio.JobRecord]:
    """Return the next seven jobs; none where the last one has been removed since."""
    try:
        return await registry.find(limit=7, after=after)
    except jobtrio.UnknownJobError:
        return []


async def test_reads_during_writes() -> None:
    """Listing, getting and paging while jobs come, change and go never sees a job twice or half done."""
    async with jobtrio.open_registry(max_running=3) as registry:
        done = trio.Event()

        async def write(n: int) -> None:
            for i in range(30):
                job = await registry.submit(work, i, tags={"n": str(n)})
                if i % 3:
                    await job.wait()
                    await registry.remove(job.id)

        async def write_all() -> None:
            await together(write, 10)
            done.set()

        async def list_all() -> None:
            while not done.is_set():
                seen: list[str] = []
                after = None
                while page := await next_page(registry, after):
                    seen += [record.id for record in page]
                    after = page[-1].id
                    for record in page:
                        assert (record.finished_at is not None) == (record.state in ENDED)
                        assert (record.started_at is None) == (record.attempt == 0)
                assert len(seen) == len(set(seen))
                assert 0 <= len(registry) <= 300
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all)
            for _ in range(3):
                nursery.start_soon(list_all)
        await registry.drain()
        assert len(registry) == 100


async def test_removal_by_many_tasks() -> None:
    """Of many tasks that remove one ended job one succeeds; a living one is removed by none."""
    async with jobtrio.open_registry() as registry:
        held = await registry.create_job()
        job = await registry.submit(work)
        await job.wait()
        removed: list[int] = []

        async def remove(n: int) -> None:
            try:
                await registry.remove(job.id)
                removed.append(n)
            except jobtrio.UnknownJobError:
                pass
            with pytest.raises(jobtrio.IllegalTransitionError):
                await registry.remove(held.id)

        await together(remove, 20)
        assert len(removed) == 1
        assert (job.id in registry, held.id in registry) == (False, True)


async def test_payloads_of_many_tasks_stay_apart() -> None:
    """Each of many concurrent jobs is given its own payload, the very object that was submitted."""

    async def executor(job: JobContext) -> int:
        job.payload.append(job.id)
        await trio.lowlevel.checkpoint()
        return id(job.payload)

    async with jobtrio.open_registry() as registry:

        async def submit(n: int) -> None:
            payload = [n]
            job = await registry.submit(executor, payload)
            assert await job.result() == id(payload)
            assert payload == [n, job.id]

        await together(submit, 100)


async def test_mixed_operations_from_threads() -> None:
    """Threads that submit, watch, find, cancel and remove through Trio's bridge see a consistent registry."""
    async with jobtrio.open_registry(max_running=4) as registry:

        async def lifecycle(n: int, i: int) -> None:
            job = await registry.submit(work, (n, i), tags={"thread": str(n)})
            if i % 4 == 3:
                await job.cancel()
                assert await job.wait() in (Cancelled(None), Completed((n, i)))
                return
            async with job.subscribe() as messages:
                assert await messages.receive() == Token(1, 1, (n, i))
            assert await job.result() == (n, i)
            assert job.id in [record.id for record in await registry.find(tags={"thread": str(n)})]
            if i % 4 == 2:
                await registry.remove(job.id)

        def thread(n: int) -> None:
            for i in range(8):
                trio.from_thread.run(lifecycle, n, i)
                assert trio.from_thread.run_sync(len, registry) >= 0

        async with trio.open_nursery() as nursery:
            for n in range(16):
                nursery.start_soon(trio.to_thread.run_sync, thread, n)
        assert len(registry) == 16 * 6
        for record in await registry.find():
            check_history(await registry.history(record.id))


async def test_thread_executors_at_once() -> None:
    """Plain functions run in as many threads as `max_running` says, more than Trio's own limit included."""
    barrier_size = 50
    lock = threading.Lock()
    inside = 0

    def executor(job: Any) -> int:
        nonlocal inside
        with lock:
            inside += 1
        while inside < barrier_size:
            job.check_cancelled()
            trio.from_thread.run(trio.lowlevel.checkpoint)
        job.send(job.payload)
        return int(job.payload)

    async with jobtrio.open_registry(max_running=barrier_size) as registry:
        jobs = [await registry.submit(executor, n) for n in range(barrier_size)]
        assert [await job.result() for job in jobs] == list(range(barrier_size))
        for n, job in enumerate(jobs):
            assert [value async for value in job.tokens()] == [n]
