"""The ways out of a registry: raised, cancelled, shut down, interrupted, from inside and outside its jobs."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobContext, JobState, RetryPolicy, Token
from jobtrio._attempt import Attempt
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from jobtrio import JobRegistry, ThreadJobContext

STOPPED = Cancelled("shutdown")


class Bare:
    """Expects its block to raise an exception of exactly this class, in no group."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.exc: BaseException | None = None

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        self.exc = exc
        return type(exc) is self.kind


class Log:
    """What happened, in order, by Trio's clock."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        """Note that something has happened now."""
        self.lines.append((trio.current_time(), what))

    async def tidy(self, job: JobContext) -> None:
        """Wait for ever, and clean up for two seconds."""
        self.note("started")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            self.note("gone")


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


async def work(job: JobContext) -> Any:
    """Return the payload."""
    return job.payload


async def populate(registry: JobRegistry, log: Log) -> list[jobtrio.Job]:
    """Submit a job for each way of waiting, to a registry that runs one at once."""
    jobs = [
        await registry.submit(log.tidy),
        await registry.submit(work),
        await registry.submit(work, delay=1000),
        await registry.create_job(),
    ]
    await trio.testing.wait_all_tasks_blocked()
    assert [job.state for job in jobs] == ["RUNNING", "QUEUED", "SCHEDULED", "QUEUED"]
    return jobs


def assert_all_stopped(jobs: list[jobtrio.Job], log: Log) -> None:
    """Check that all have ended by the shutdown, the running one last, after its clean-up."""
    assert [job.outcome for job in jobs] == [STOPPED] * len(jobs)
    assert [what for _, what in log.lines] == ["started", "gone"]
    assert [job.record.attempt for job in jobs] == [1, 0, 0, 0]
    for job in jobs:
        assert job.subscribe().receive_nowait() == End(1, STOPPED)


# -- by an exception, by a cancellation


@pytest.mark.parametrize(
    "raised", [ValueError("mine"), ExceptionGroup("mine", [ValueError()]), KeyboardInterrupt(), SystemExit(3)]
)
async def test_the_body_raises(raised: BaseException, autojump_clock: MockClock) -> None:
    """What the body raises comes out bare, when the clean-up of the jobs is over."""
    log, jobs = Log(), list[jobtrio.Job]()
    with Bare(type(raised)) as caught:
        async with jobtrio.open_registry(max_running=1) as registry:
            jobs = await populate(registry, log)
            raise raised
    assert caught.exc is raised
    assert trio.current_time() == 2
    assert_all_stopped(jobs, log)


async def test_the_body_raises_at_once() -> None:
    """A body that raises before anything of the registry has come to run leaves nothing behind."""
    with Bare(KeyError):
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(work)
            raise KeyError
    assert job.outcome == STOPPED
    assert job.record.attempt == 0


async def test_the_body_is_cancelled(autojump_clock: MockClock) -> None:
    """A cancellation from outside is one, when the clean-up of the jobs is over."""
    log, jobs = Log(), list[jobtrio.Job]()
    with trio.move_on_after(10) as scope:
        async with jobtrio.open_registry(max_running=1) as registry:
            jobs = await populate(registry, log)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 12
    assert_all_stopped(jobs, log)


async def test_cancelled_while_it_waits_at_the_exit(autojump_clock: MockClock) -> None:
    """A cancellation while the exit waits for jobs ends them as one in the body does."""
    log, jobs = Log(), list[jobtrio.Job]()
    with trio.move_on_after(10) as scope:
        async with jobtrio.open_registry(max_running=1) as registry:
            jobs = await populate(registry, log)
    assert scope.cancelled_caught
    assert trio.current_time() == 12
    assert_all_stopped(jobs, log)


async def test_entered_when_cancelled_already() -> None:
    """A registry that is opened in a cancelled scope is left again, whatever the body does."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with jobtrio.open_registry() as registry:
            await registry.submit(work)
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        async with jobtrio.open_registry():
            pass


async def test_cancelled_in_the_clean_up_of_the_exit(autojump_clock: MockClock) -> None:
    """A second cancellation does not cut the clean-up of the jobs short."""
    log = Log()
    with trio.move_on_after(11):
        with trio.move_on_after(10):
            async with jobtrio.open_registry() as registry:
                await registry.submit(log.tidy)
                await trio.sleep_forever()
    assert log.lines == [(0, "started"), (12, "gone")]


async def test_what_the_clean_up_raises_stays_with_the_job() -> None:
    """An exception in a job's clean-up does not join the body's."""

    async def breaks(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("clean-up")

    with Bare(KeyError):
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(breaks)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError
    assert job.outcome == STOPPED
    assert job.record.error is not None
    assert job.record.error.message == "clean-up"


async def test_a_thread_holds_up_the_exit() -> None:
    """A thread that never looks is waited for, also by an exit in an exception."""
    begun, go_on = trio.Event(), threading.Event()
    ended: list[bool] = []

    def executor(job: ThreadJobContext) -> None:
        trio.from_thread.run_sync(begun.set)
        go_on.wait()
        ended.append(True)

    async def let_go() -> None:
        await begun.wait()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        with Bare(KeyError):
            async with jobtrio.open_registry() as registry:
                job = await registry.submit(executor)
                await begun.wait()
                raise KeyError
        assert ended == [True]
        assert job.outcome == STOPPED


# -- by an exit from within


async def raise_now(kind: type[BaseException], where: str, job: JobContext) -> None:
    """Raise an exit from one of the places that a job has."""

    async def exits() -> None:
        raise kind("now")

    match where:
        case "executor":
            await exits()
        case "child":
            job.nursery.start_soon(exits)
        case "nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exits)
                await trio.sleep_forever()
        case "clean-up":
            try:
                await trio.sleep_forever()
            finally:
                await exits()


@pytest.mark.parametrize("where", ["executor", "child", "nursery", "clean-up"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_exit_from_a_job(kind: type[BaseException], where: str, autojump_clock: MockClock) -> None:
    """An exit that a job raises leaves the registry bare; every job has ended by then, every consumer knows."""
    log = Log()

    async def exits(job: JobContext) -> None:
        await job.send("before")
        await trio.sleep(1)
        if where == "clean-up":
            job.cancel_scope.cancel()
        await raise_now(kind, where, job)

    body: list[str] = []
    with Bare(kind):
        async with jobtrio.open_registry(max_running=2) as registry:
            jobs = [await registry.submit(exits), await registry.submit(log.tidy), await registry.submit(work)]
            held = await registry.create_job()
            try:
                await trio.sleep_forever()
            finally:
                body.append("cancelled")
    assert body == ["cancelled"]
    assert [job.outcome for job in (*jobs, held)] == [STOPPED] * 4
    assert [what for _, what in log.lines] == ["started", "gone"]
    assert [m async for m in jobs[0].subscribe()] == [Token(1, 1, "before"), End(2, STOPPED)]


async def test_an_exit_while_the_registry_waits_at_its_end(autojump_clock: MockClock) -> None:
    """An exit that a job raises while the exit waits for it comes out as well."""

    async def exits(job: JobContext) -> None:
        await trio.sleep(1)
        raise SystemExit(3)

    with pytest.raises(SystemExit) as excinfo:
        async with jobtrio.open_registry() as registry:
            await registry.submit(exits)
    assert excinfo.value.code == 3


async def test_exits_from_several_jobs(autojump_clock: MockClock) -> None:
    """Of several exits at once all are told."""

    async def exits(job: JobContext) -> None:
        try:
            await trio.sleep(job.payload)
        finally:
            raise SystemExit(job.payload)

    with Bare(BaseExceptionGroup) as caught:
        async with jobtrio.open_registry() as registry:
            for n in (1, 2):
                await registry.submit(exits, n)
    codes = [exc.code for exc in leaves(caught.exc) if isinstance(exc, SystemExit)]
    assert sorted(map(str, codes)) == ["1", "2"]


def leaves(exc: BaseException | None) -> list[BaseException]:
    """Return the single exceptions in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in leaves(each)]
    return [] if exc is None else [exc]


async def test_a_body_in_a_nursery_of_its_own(autojump_clock: MockClock) -> None:
    """An exit from a job is bare, too, where the body waits in nurseries of its own."""

    async def exits(job: JobContext) -> None:
        raise KeyboardInterrupt

    with Bare(KeyboardInterrupt):
        async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await registry.submit(exits)
            await trio.sleep_forever()


async def test_nothing_starts_behind_an_exit(autojump_clock: MockClock) -> None:
    """When a job has raised an exit no other is started, however long the body and other jobs take to end."""
    started: list[int] = []

    async def exits(job: JobContext) -> None:
        raise KeyboardInterrupt

    async def takes_its_time(job: JobContext) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return "done"

    async def note(job: JobContext) -> None:
        started.append(job.payload)

    with Bare(KeyboardInterrupt):
        async with jobtrio.open_registry(max_running=2) as registry:
            slow = await registry.submit(takes_its_time)
            await registry.submit(exits)
            jobs = [await registry.submit(note, n) for n in range(10)]
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
                    with pytest.raises(trio.ClosedResourceError):
                        await registry.submit(note)
    assert started == []
    assert [job.outcome for job in (slow, *jobs)] == [STOPPED] * 11


class Neighbours:
    """Jobs beside one that exits, none of which comes to an end of its own."""

    def __init__(self) -> None:
        self.executors = jobtrio.Executors()
        for name in ("plain", "swallows", "raises", "in_a_thread"):
            self.executors.register(name)(getattr(self, name))
        self.executors.register("exits")(self.exits)
        self.started: list[str] = []

    async def plain(self, job: JobContext) -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    async def swallows(self, job: JobContext) -> str:
        """Return what there is so far."""
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "a part"

    async def raises(self, job: JobContext) -> None:
        """Fail while cleaning up."""
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the clean-up")

    def in_a_thread(self, job: ThreadJobContext) -> str:
        """Return what there is so far."""
        try:
            while True:
                job.check_cancelled()
                time.sleep(0.001)
        except trio.Cancelled:
            return "a part"

    async def exits(self, job: JobContext) -> None:
        """Exit after a while."""
        self.started.append(job.id)
        await trio.sleep(0.1)
        raise SystemExit(3)

    async def run(self, store: jobtrio.abc.JobStore | None, names: Sequence[str], **options: Any) -> list[jobtrio.Job]:
        """Submit these, and one that exits."""
        jobs = []
        with Bare(SystemExit):
            async with jobtrio.open_registry(self.executors, store=store, **options) as registry:
                jobs = [await registry.submit(name) for name in (*names, "exits")]
                await trio.sleep(100)
        return jobs


NEIGHBOURS = ["plain", "swallows", "raises", "in_a_thread"]


async def test_neighbours_of_an_exit() -> None:
    """A job that is cut off by another's exit is stopped by a shutdown, whatever it makes of that."""
    jobs = await Neighbours().run(None, NEIGHBOURS)
    assert [job.outcome for job in jobs] == [STOPPED] * 5
    assert [job.record.error and job.record.error.message for job in jobs[:-1]] == [None, None, "in the clean-up", None]


@pytest.mark.parametrize("round", range(3))
async def test_neighbours_of_an_exit_are_given_back(tmp_path: Path, round: int) -> None:
    """In a durable store they are returned to their queue, and none of them is left to a lease."""
    store = SqliteJobStore(tmp_path / "jobs.db")
    neighbours = Neighbours()
    jobs = await neighbours.run(store, NEIGHBOURS)
    async with jobtrio.open_registry(neighbours.executors, store=store, queues={}) as registry:
        for job in jobs[:-1]:
            record = await registry.get(job.id)
            assert (record.state, (await registry.history(job.id))[-1].reason) == ("QUEUED", "shutdown")
        assert "shutdown" not in [change.reason for change in await registry.history(jobs[-1].id)]


@pytest.mark.parametrize("round", range(3))
async def test_nothing_is_claimed_behind_an_exit(tmp_path: Path, round: int) -> None:
    """While a registry is torn down by a job that exits, no other is taken, nor the same once more."""
    store = SqliteJobStore(tmp_path / "jobs.db")
    neighbours = Neighbours()
    jobs = await neighbours.run(store, ["exits", "exits"], max_running=1)
    assert neighbours.started == [jobs[0].id]
    async with jobtrio.open_registry(neighbours.executors, store=store, queues={}) as registry:
        states = [[change.state for change in await registry.history(job.id)] for job in jobs]
        assert states[0].count(JobState.RUNNING) == 1
        assert states[1:] == [["QUEUED"], ["QUEUED"]]


class Hesitant(RemoteStore):
    """A client that takes its time to ask for the first end of an attempt."""

    hesitates = True

    async def _hesitate(self) -> None:
        if self.hesitates:
            self.hesitates = False
            await trio.sleep(1)

    async def finish(self, *args: Any, **options: Any) -> bool:
        """End a job, not at once."""
        await self._hesitate()
        return await super().finish(*args, **options)

    async def retry(self, *args: Any, **options: Any) -> bool:
        """Let a job wait for another attempt, not at once."""
        await self._hesitate()
        return await super().retry(*args, **options)


@pytest.mark.parametrize(("name", "state"), [("returns", "COMPLETED"), ("sends", "COMPLETED"), ("fails", "RETRYING")])
async def test_an_end_is_written_in_spite_of_an_exit(name: str, state: str, autojump_clock: MockClock) -> None:
    """What has come to its end by itself before another job exits is written as that, though all is torn down."""
    server = Server()
    executors = jobtrio.Executors()

    @executors.register("returns")
    async def returns(job: JobContext) -> str:
        return "whole"

    @executors.register("sends")
    async def sends(job: JobContext) -> str:
        await job.send("a part")
        return "whole"

    @executors.register("fails", retry=RetryPolicy(initial=100))
    async def fails(job: JobContext) -> None:
        raise ValueError("no")

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        await trio.sleep(0.5)
        raise SystemExit(3)

    with Bare(SystemExit):
        async with jobtrio.open_registry(executors, store=Hesitant(server)) as registry:
            jobs = [await registry.submit("exits"), await registry.submit(name)]
            await trio.sleep(100)
    entries = [server.store.peek(job.id) for job in jobs]
    assert [entry and entry.state for entry in entries] == ["RUNNING", state]  # the one that exits is left to its lease


@pytest.mark.parametrize(
    ("slow", "pause", "seconds"),
    [({"read_messages": 10}, 1, 2), ({"retry": 9}, 0, 5)],
    ids=["it reads what came before", "it waits for the last to go"],
)
async def test_an_exit_before_a_neighbour_begins_again(
    slow: dict[str, float], pause: float, seconds: float, autojump_clock: MockClock
) -> None:
    """A job is given back though its next attempt was only about to begin."""
    server = Server()
    store = RemoteStore(server)
    executors = jobtrio.Executors()

    @executors.register("fails", retry=RetryPolicy(initial=pause, jitter=0))
    async def fails(job: JobContext) -> None:
        raise ValueError("no")

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        await trio.sleep(seconds)
        raise SystemExit(3)

    store.network.slow = slow
    with Bare(SystemExit):
        async with jobtrio.open_registry(executors, store=store) as registry:
            await registry.submit("exits")
            job = await registry.submit("fails")
            await trio.sleep_forever()
    entry = server.store.peek(job.id)
    assert entry is not None
    assert [(change.state, change.attempt) for change in entry.history()[-2:]] == [("RUNNING", 2), ("QUEUED", 2)]
    assert entry.history()[-1].reason == "shutdown"


@pytest.mark.parametrize("awaited", ["wait", "receive", "tokens"])
async def test_an_exit_while_the_block_waits_for_a_job(awaited: str, autojump_clock: MockClock) -> None:
    """Whoever waits in the block for a job of a durable store is cancelled, and adds nothing of its own."""
    executors = jobtrio.Executors()
    executors.register("hang")(hang)

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        await trio.sleep(1)
        raise SystemExit(3)

    with Bare(SystemExit):
        async with jobtrio.open_registry(executors, store=RemoteStore(Server())) as registry:
            await registry.submit("exits")
            job = await registry.submit("hang")
            waits = {"wait": job.wait, "receive": job.subscribe().receive, "tokens": job.tokens().__anext__}
            await waits[awaited]()


async def test_an_exit_while_others_are_claimed(autojump_clock: MockClock) -> None:
    """What is claimed just when all is torn down is given back, and not left to a lease."""
    server = Server()
    store = RemoteStore(server)
    executors = jobtrio.Executors()

    @executors.register("waits")
    async def waits(job: JobContext) -> None:
        raise AssertionError

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        store.network.slow = {"claim": 3}
        await registry.submit("waits", job_id="claimed")
        await trio.sleep(1)
        raise SystemExit(3)

    with Bare(SystemExit):
        async with jobtrio.open_registry(executors, store=store) as registry:
            await registry.submit("exits")
            await trio.sleep_forever()
    entry = server.store.peek("claimed")
    assert entry is not None
    assert [change.state for change in entry.history()] == ["QUEUED", "RUNNING", "QUEUED"]
    assert entry.history()[-1].reason == "shutdown"


async def test_a_job_that_exits_always(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A job that ends each worker that runs it is run three times, and then has failed; others are done meanwhile."""
    executors = jobtrio.Executors()
    server = Server()
    runs: list[int] = []

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        runs.append(job.attempt)
        await job.send(f"attempt {job.attempt}")
        raise SystemExit(3)

    @executors.register("works")
    async def works(job: JobContext) -> None:
        pass

    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
        job = await registry.submit("exits")
        for _ in range(3):
            with trio.fail_after(600), Bare(SystemExit):
                async with jobtrio.open_registry(executors, store=RemoteStore(server)):
                    await trio.sleep_forever()
        async with jobtrio.open_registry(executors, store=RemoteStore(server)) as other:
            with trio.fail_after(600):
                outcome = await job.wait()
                other_outcome = await (await other.submit("works")).wait()
    assert isinstance(other_outcome, Completed)
    assert isinstance(outcome, Failed)
    assert outcome.error.kind == "lost"
    assert runs == [1, 2, 3]
    told = [text for text in caplog.messages if "SystemExit" in text]
    assert told == [f"job {job.id}: attempt {n} is lost: its executor raised SystemExit" for n in runs]


async def test_an_exit_with_a_store_elsewhere(autojump_clock: MockClock) -> None:
    """With a store on another machine, too, an exit from a job is let out, and the others are given back."""
    executors = jobtrio.Executors()
    server = Server()

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        await trio.sleep(5)
        raise KeyboardInterrupt

    @executors.register("waits")
    async def waits(job: JobContext) -> None:
        await trio.sleep_forever()

    with trio.fail_after(60), Bare(KeyboardInterrupt):
        async with jobtrio.open_registry(executors, store=RemoteStore(server)) as registry:
            jobs = [await registry.submit(name) for name in ("waits", "exits", "waits")]
            await trio.sleep_forever()
    for job in jobs:
        entry = server.store.peek(job.id)
        assert entry is not None
        assert entry.state == "QUEUED"


async def test_neighbours_of_an_exit_with_a_store_that_takes_its_time(autojump_clock: MockClock) -> None:
    """The others are stopped at once when an exit comes out of a job, however long it takes to give that back."""
    executors, store = jobtrio.Executors(), RemoteStore(Server())
    store.network.slow["release"] = 3
    gone: list[float] = []

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        await trio.sleep(5)
        gone.append(trio.current_time())
        raise KeyboardInterrupt

    @executors.register("waits")
    async def waits(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            gone.append(trio.current_time())

    with Bare(KeyboardInterrupt):
        async with jobtrio.open_registry(executors, store=store) as registry:
            for name in ("waits", "exits", "waits"):
                await registry.submit(name)
            await trio.sleep_forever()
    assert len(gone) == 3
    assert max(gone) - min(gone) < 1


async def test_an_exit_while_nothing_is_answered(autojump_clock: MockClock) -> None:
    """An exit waits a few seconds for ends that are under way and for what is given back, and then no longer."""
    executors, store = jobtrio.Executors(), RemoteStore(Server())

    @executors.register("work")
    async def work(job: JobContext) -> None:
        await trio.sleep(job.payload)
        if job.payload == 2:
            raise KeyboardInterrupt

    with Bare(KeyboardInterrupt):
        async with jobtrio.open_registry(executors, store=store) as registry:
            for seconds in (1, 2, 3):
                await registry.submit("work", seconds)
            await trio.sleep(0.5)
            store.network.hanging = {"*"}
            await trio.sleep_forever()
    assert trio.current_time() < 20


@pytest.mark.parametrize("where", ["memory", "elsewhere"])
async def test_an_exit_while_it_is_left(where: str, autojump_clock: MockClock) -> None:
    """An exit from a job's clean-up joins what the body raised, and holds up nobody who waits for the jobs."""
    executors = jobtrio.Executors()

    @executors.register("exits")
    async def exits(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            raise SystemExit(3)

    store = None if where == "memory" else RemoteStore(Server())
    with Bare(BaseExceptionGroup) as caught:
        async with jobtrio.open_registry(executors, store=store) as registry:
            await registry.submit("exits")
            await trio.sleep(5)
            raise KeyError
    assert [type(exc) for exc in leaves(caught.exc)] == [KeyError, SystemExit]


# -- by shutting it down


async def test_shutdown_is_final(autojump_clock: MockClock) -> None:
    """Behind a shutdown nothing is accepted; what there was can be looked at, also when the block is left."""
    async with jobtrio.open_registry() as registry:
        ended = await registry.submit(work, 1)
        await ended.wait()
        held = await registry.create_job()
        events = registry.subscribe_events()
        await registry.shutdown()
        assert held.outcome == STOPPED
        for again in (False, True):
            if again:
                await registry.shutdown(grace=5)
            for call in (registry.submit(work), registry.create_job(), registry.submit_many([jobtrio.JobSpec(work)])):
                with pytest.raises(trio.ClosedResourceError, match="accepts no more jobs"):
                    await call
            assert await registry.get(ended.id) == ended
            assert not await held.cancel()
            async with registry.execute_and_stream(held.id, work) as lines:
                assert [line async for line in lines] == ["[CANCELLED]"]
        await registry.drain()
    assert [t.job_id async for t in events] == [held.id]
    assert [record.id for record in await registry.find()] == [ended.id, held.id]
    assert [m async for m in ended.subscribe()] == [End(1, Completed(1))]
    await registry.remove(ended.id)
    await registry.drain()
    await registry.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await registry.submit(work)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), "1"])
async def test_a_grace_that_makes_no_sense(grace: Any) -> None:
    """A grace that is no time is refused, and nothing is shut down."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises((ValueError, TypeError), match="grace must be"):
            await registry.shutdown(grace)
        assert await (await registry.submit(work, 1)).result() == 1


async def test_two_shutdowns(autojump_clock: MockClock) -> None:
    """The shorter grace of two counts, and both return when all are gone."""
    log = Log()
    async with jobtrio.open_registry() as registry:
        await registry.submit(log.tidy)
        await trio.testing.wait_all_tasks_blocked()

        async def shut(grace: float) -> None:
            await registry.shutdown(grace)
            log.note(f"returned {grace:g}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shut, 100)
            await trio.sleep(1)
            nursery.start_soon(shut, 5)
    assert sorted(log.lines) == [(0, "started"), (8, "gone"), (8, "returned 100"), (8, "returned 5")]


async def test_a_job_that_fails_within_the_grace(autojump_clock: MockClock) -> None:
    """A job that would be tried again when a shutdown waits for it ends with the shutdown, at once."""

    async def fail(job: JobContext) -> None:
        await trio.sleep(2)
        raise ValueError("own")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fail, retry=RetryPolicy())
        await trio.sleep(1)
        await registry.shutdown(grace=100)
        assert trio.current_time() == 2
        assert job.outcome == STOPPED
        assert job.record.error is not None
        assert job.record.error.message == "own"


async def fail_soon() -> None:
    await trio.sleep(0.1)
    raise ValueError("boom")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("how", ["child", "inner", "itself", "cancels itself", "time limit", "not in time", "refused"])
async def test_what_ends_a_job_within_the_grace(how: str, durable: bool, autojump_clock: MockClock) -> None:
    """Whatever ends a job in a shutdown's grace is how it ends, where it is not the shutdown."""
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: JobContext) -> None:
        match how:
            case "child":
                job.nursery.start_soon(fail_soon)
                await trio.sleep(1)
            case "inner":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail_soon)
            case "itself":
                await fail_soon()
            case "cancels itself":
                await trio.sleep(0.1)
                job.cancel_scope.cancel()
            case "refused":
                job.nursery.start_soon(submit_later)
        await trio.sleep_forever()

    async def submit_later() -> None:
        await trio.sleep(1)
        try:
            await registry.submit("work")
        except trio.ClosedResourceError as exc:
            raise ValueError("no step follows") from exc

    server = Server()
    store = RemoteStore(server) if durable else None
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("work", time_limit=2 if how == "time limit" else None)
        await trio.sleep(0.1)
        await registry.shutdown(grace=3)
        if how in ("child", "inner", "itself"):
            assert isinstance(job.outcome, Failed)
            assert "boom" in job.outcome.error.traceback
        elif how == "cancels itself":
            assert job.outcome == Cancelled(None)
        else:
            assert (job.state, job.outcome) == (("QUEUED", None) if durable else ("CANCELLED", STOPPED))


async def test_many_are_refused_something_within_the_grace(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each job that a shutdown refuses another one, that is noted without a look at all the others."""
    looked_at: list[Attempt] = []
    refuse = Attempt.refuse

    def noted(attempt: Attempt, *args: Any) -> None:
        looked_at.append(attempt)
        refuse(attempt, *args)

    async def work(job: JobContext) -> None:
        await trio.sleep(1)
        with pytest.raises(trio.ClosedResourceError):
            await registry.submit(work)

    monkeypatch.setattr(Attempt, "refuse", noted)
    async with jobtrio.open_registry() as registry:
        jobs = [await registry.submit(work) for _ in range(20)]
        await trio.sleep(0.5)
        await registry.shutdown(grace=3)
        assert [job.outcome for job in jobs] == [STOPPED] * 20
    assert len(looked_at) == len(set(looked_at)) == 20


async def test_a_shutdown_from_a_job(autojump_clock: MockClock) -> None:
    """A job that shuts its own registry down is stopped with the others, and the registry can be left."""
    for payload in (0.0, 5.0):
        async with jobtrio.open_registry(max_running=1) as registry:

            async def executor(job: JobContext) -> None:
                await registry.shutdown(job.payload)

            job = await registry.submit(executor, payload)
            queued, scheduled = await registry.submit(work), await registry.submit(work, delay=1000)
        assert [each.outcome for each in (job, queued, scheduled)] == [STOPPED] * 3


async def test_a_shutdown_from_a_job_while_the_body_waits(autojump_clock: MockClock) -> None:
    """Whoever waits for a job, or for all of them, is let go when a job shuts the registry down."""
    async with jobtrio.open_registry(max_running=1) as registry:

        async def executor(job: JobContext) -> None:
            await trio.sleep(1)
            await registry.shutdown()

        await registry.submit(executor)
        queued = await registry.submit(work)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.drain)
        assert trio.current_time() == 1
        await registry.shutdown()
        assert await queued.wait() == STOPPED


@pytest.mark.parametrize("cut", ["grace", "clean-up"])
async def test_a_shutdown_that_is_cut_off(cut: str, autojump_clock: MockClock) -> None:
    """A shutdown that is cancelled is completed when the block is left; until then drain waits for no more."""
    log = Log()
    async with jobtrio.open_registry(max_running=1) as registry:
        jobs = await populate(registry, log)
        with trio.move_on_after(1):
            await registry.shutdown(10 if cut == "grace" else 0)
        assert jobs[0].state == "RUNNING"
        await registry.drain()
        assert jobs[0].outcome == STOPPED
        assert jobs[1].state == "QUEUED"
    assert_all_stopped(jobs, log)


# -- with jobs that go on


async def test_jobs_that_submit_jobs_while_it_is_left(autojump_clock: MockClock) -> None:
    """A normal exit waits for what jobs submit meanwhile, to the last one."""
    ran: list[int] = []
    async with jobtrio.open_registry(max_running=1) as registry:

        async def executor(job: JobContext) -> None:
            ran.append(job.payload)
            await trio.sleep(1)
            if job.payload:
                await registry.submit(executor, job.payload - 1, delay=job.payload % 2)

        await registry.submit(executor, 5)
    assert ran == [5, 4, 3, 2, 1, 0]


async def test_what_was_about_to_start(autojump_clock: MockClock) -> None:
    """A job that is queued when it is shut down is never started, though there be room and others take long to go."""
    log = Log()
    async with jobtrio.open_registry() as registry:
        await registry.submit(log.tidy)
        await trio.testing.wait_all_tasks_blocked()
        job = await registry.submit(work)
        await registry.shutdown()
        assert job.outcome == STOPPED
        assert job.record.attempt == 0


async def test_jobs_that_submit_jobs_while_it_is_stopped(autojump_clock: MockClock) -> None:
    """In an exit that stops the jobs they can submit nothing, and are told so."""
    errors: list[BaseException] = []

    async def executor(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await registry.submit(work)
                except Exception as exc:
                    errors.append(exc)

    with Bare(KeyError):
        async with jobtrio.open_registry() as registry:
            await registry.submit(executor)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError
    assert [type(exc) for exc in errors] == [trio.ClosedResourceError]


async def test_it_waits_for_retries(autojump_clock: MockClock) -> None:
    """A normal exit waits for attempts that are still to come."""

    async def executor(job: JobContext) -> int:
        if job.attempt < 3:
            raise ValueError
        return job.attempt

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(initial=10, jitter=0))
    assert job.outcome == Completed(3)
    assert trio.current_time() == 30


async def test_it_waits_for_all_that_will_run(autojump_clock: MockClock) -> None:
    """A normal exit waits for what waits in different ways at the same time."""

    async def executor(job: JobContext) -> float:
        if job.payload and job.attempt == 1:
            raise ValueError
        return trio.current_time()

    async with jobtrio.open_registry() as registry:
        again = await registry.submit(executor, True, retry=RetryPolicy(initial=10, jitter=0))
        later = await registry.submit(executor, False, delay=20)
    assert (again.outcome, later.outcome) == (Completed(10), Completed(20))


async def test_what_is_waited_for_may_be_cancelled(autojump_clock: MockClock) -> None:
    """A job that is cancelled before it runs holds up neither `drain` nor the exit any longer."""

    async def fail(job: JobContext) -> None:
        raise ValueError

    async def cancel(job: jobtrio.Job) -> None:
        await trio.sleep(5)
        await job.cancel()

    async with trio.open_nursery() as nursery:
        async with jobtrio.open_registry() as registry:
            nursery.start_soon(cancel, await registry.submit(fail, retry=RetryPolicy(initial=1000)))
            await registry.drain()
            assert trio.current_time() == 5
            nursery.start_soon(cancel, await registry.submit(work, delay=1000))
        assert trio.current_time() == 10


async def test_drain_is_a_checkpoint() -> None:
    """`drain` gives way also where there is nothing to wait for, and can be cancelled."""
    async with jobtrio.open_registry() as registry:
        with trio.testing.assert_checkpoints():
            await registry.drain()
        job = await registry.submit(hang)
        with trio.CancelScope() as scope:
            scope.cancel()
            await registry.drain()
        assert scope.cancelled_caught
        await job.cancel()


async def test_a_job_that_ends_held_ones(autojump_clock: MockClock) -> None:
    """A held job that is executed while the exit waits is waited for."""
    async with jobtrio.open_registry() as registry:
        held = await registry.create_job("held")

        async def executor(job: JobContext) -> None:
            await trio.sleep(1)
            async with registry.execute_and_stream(held.id, work):
                pass

        await registry.submit(executor)
    assert held.outcome == Completed("held")


@pytest.mark.parametrize("where", ["executor", "child", "thread", "nested registry"])
async def test_a_job_that_drains(where: str) -> None:
    """A job that would wait for itself is told so, wherever in it the call is made."""

    async def drains(job: JobContext) -> None:
        await registry.drain()

    async def in_a_child(job: JobContext) -> None:
        job.nursery.start_soon(registry.drain)

    def in_a_thread(job: ThreadJobContext) -> None:
        trio.from_thread.run(registry.drain)

    async def in_a_nested_registry(job: JobContext) -> Any:
        async with jobtrio.open_registry() as inner:
            return await (await inner.submit(drains)).result()

    executors: dict[str, Any] = {
        "executor": drains,
        "child": in_a_child,
        "thread": in_a_thread,
        "nested registry": in_a_nested_registry,
    }
    async with jobtrio.open_registry() as registry:
        outcome = await (await registry.submit(executors[where])).wait()
    assert isinstance(outcome, Failed)
    assert "waits for itself" in outcome.error.message


async def test_drain_from_a_neighbour(autojump_clock: MockClock) -> None:
    """A job of another registry may wait until this one is idle."""

    async def executor(job: JobContext) -> float:
        await registry.drain()
        return trio.current_time()

    async def rest(job: JobContext) -> None:
        await trio.sleep(5)

    async with jobtrio.open_registry() as registry, jobtrio.open_registry() as other:
        await registry.submit(rest)
        job = await other.submit(executor)
        assert await job.result() == 5


async def test_nested_registries(autojump_clock: MockClock) -> None:
    """A registry in a job of another ends with that job, clean-up first."""
    log = Log()
    inner_jobs: list[jobtrio.Job] = []

    async def executor(job: JobContext) -> None:
        async with jobtrio.open_registry() as inner:
            inner_jobs.append(await inner.submit(log.tidy))
            await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await trio.sleep(1)
        await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")
        assert log.lines == [(0, "started"), (3, "gone")]
    assert inner_jobs[0].outcome == STOPPED
    assert job.record.error is None


async def test_an_exit_from_a_nested_registry() -> None:
    """An exit from a job of an inner registry leaves the outer one, too."""

    async def exits(job: JobContext) -> None:
        raise KeyboardInterrupt

    async def executor(job: JobContext) -> None:
        async with jobtrio.open_registry() as inner:
            await inner.submit(exits)

    with Bare(KeyboardInterrupt):
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(executor)
            await trio.sleep_forever()
    assert job.outcome == STOPPED


async def test_waiting_tasks_outside_are_let_go(autojump_clock: MockClock) -> None:
    """Whoever waits outside the registry's block for a job, its stream, an event or all of it is let go."""
    done: list[str] = []

    async def wait(name: str, call: Any) -> None:
        try:
            await call()
        finally:
            done.append(name)

    async with trio.open_nursery() as nursery:
        async with jobtrio.open_registry(max_running=1) as registry:
            jobs = [await registry.submit(hang), await registry.submit(work)]
            await trio.testing.wait_all_tasks_blocked()
            events = registry.subscribe_events()
            for n, job in enumerate(jobs):
                nursery.start_soon(wait, f"wait {n}", job.wait)
                nursery.start_soon(wait, f"stream {n}", job.subscribe().receive)
            nursery.start_soon(wait, "event", events.receive)
            nursery.start_soon(wait, "drain", registry.drain)
            await trio.sleep(1)
            assert done == []
            await registry.shutdown()
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(done) == ["drain", "event", "stream 0", "stream 1", "wait 0", "wait 1"]


async def test_drain_from_outside_an_interrupted_registry(autojump_clock: MockClock) -> None:
    """Whoever drains a registry from outside its block is let go when an exit has torn it down."""
    drained: list[float] = []

    async def exits(job: JobContext) -> None:
        await trio.sleep(1)
        raise KeyboardInterrupt

    async def drain(registry: JobRegistry) -> None:
        await registry.drain()
        drained.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        with Bare(KeyboardInterrupt):
            async with jobtrio.open_registry(max_running=1) as registry:
                await registry.submit(exits)
                await registry.submit(work)
                nursery.start_soon(drain, registry)
                await trio.sleep_forever()
        await trio.testing.wait_all_tasks_blocked()
        assert drained == [1]
