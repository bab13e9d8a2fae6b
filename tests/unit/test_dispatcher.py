"""Which jobs run when: capacity, queues, priorities, and the context that they start in."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
import trio
import trio.testing
from call_count import calls_made
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, Failed, JobContext, JobPriority, RetryPolicy, StoreUnavailableError
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from trio.testing import MockClock

LOW, NORMAL, HIGH, CRITICAL = JobPriority


class Gate:
    """Executors that say when they run, and wait until they are let through."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.order: list[Any] = []
        self.doors: dict[Any, trio.Event] = {}

    async def executor(self, job: JobContext) -> None:
        """Note that the job runs, and wait."""
        name = job.payload
        self.order.append(name)
        self.running.append(name)
        self.doors[name] = trio.Event()
        try:
            await self.doors[name].wait()
        finally:
            self.running.remove(name)

    async def let_through(self, *names: Any) -> None:
        """Let jobs end, and wait until what follows from it has happened."""
        for name in names:
            self.doors[name].set()
        await trio.testing.wait_all_tasks_blocked()

    async def let_all_through(self) -> None:
        """Let jobs end until none is left."""
        while self.running:
            await self.let_through(*self.running)


async def settled() -> None:
    """Wait until nothing more happens by itself."""
    await trio.testing.wait_all_tasks_blocked()


async def test_no_more_than_max_running() -> None:
    """As many jobs run as may, the next one when one has ended."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=3) as registry:
        for n in range(5):
            await registry.submit(gate.executor, n)
        await settled()
        assert sorted(gate.running) == [0, 1, 2]
        await gate.let_through(1)
        assert sorted(gate.running) == [0, 2, 3]
        await gate.let_through(0, 2)
        assert sorted(gate.running) == [3, 4]
        await registry.submit(gate.executor, 5)
        await settled()
        assert sorted(gate.running) == [3, 4, 5]
        await gate.let_all_through()


async def test_a_burst_within_one_turn() -> None:
    """Jobs that are submitted without giving way don't start more than may run."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=2) as registry:
        await registry.submit_many([jobtrio.JobSpec(gate.executor, n) for n in range(100)])
        for n in range(100, 110):
            await registry.submit(gate.executor, n)
        await settled()
        assert gate.order == [0, 1] or gate.order == [1, 0]
        await gate.let_all_through()
        assert sorted(gate.order) == list(range(110))


async def test_order_of_start() -> None:
    """Strict priorities, first in first out within one, over all queues."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        await registry.submit(gate.executor, "first")
        await settled()
        for n, priority in enumerate([LOW, NORMAL, HIGH, NORMAL, CRITICAL, LOW, HIGH]):
            await registry.submit(gate.executor, n, priority=priority, queue=f"queue {n % 2}")
        await settled()
        await gate.let_all_through()
    assert gate.order == ["first", 4, 2, 6, 1, 3, 0, 5]


async def test_a_held_job_stands_in_line_from_its_execution() -> None:
    """A held job takes its place in line when it is executed, not when it was created."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        await registry.submit(gate.executor, "first")
        await settled()
        held = await registry.create_job("held", queue="a")
        await registry.submit(gate.executor, "between", queue="b")
        async with registry.execute_and_stream(held.id, gate.executor):
            pass
        await registry.submit(gate.executor, "last", queue="b")
        await gate.let_all_through()
    assert gate.order == ["first", "between", "held", "last"]


async def test_a_held_job_that_is_executed_before_its_time(autojump_clock: MockClock) -> None:
    """A held job with a delay that is executed before that is over does not stand in line until then."""
    gate, store = Gate(), MemoryJobStore()
    async with jobtrio.open_registry(store=store) as registry:
        held = await registry.create_job("held", delay=5)
        async with registry.execute_and_stream(held.id, gate.executor):
            await settled()
            assert (held.state, store.ready_nowait()) == ("SCHEDULED", 0)
            await trio.sleep(6)
            assert gate.running == ["held"]
            assert store.ready_nowait() == 0
            await gate.let_all_through()


async def test_a_higher_priority_overtakes_until_the_start() -> None:
    """Until it has started a job may be overtaken, also by one submitted in the same turn."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        low = await registry.submit(gate.executor, "low", priority=LOW)
        assert low.state == "QUEUED"
        await registry.submit(gate.executor, "critical", priority=CRITICAL)
        await settled()
        await gate.let_all_through()
    assert gate.order == ["critical", "low"]


async def test_cancelled_in_the_turn_of_its_submission() -> None:
    """A job that is cancelled before its task came to run never runs, and another takes its place."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        job = await registry.submit(gate.executor, "never")
        await registry.submit(gate.executor, "other")
        assert await job.cancel("enough")
        assert job.outcome == Cancelled("enough")
        await settled()
        await gate.let_all_through()
    assert gate.order == ["other"]
    assert job.record.attempt == 0


async def test_queues_have_limits_of_their_own() -> None:
    """Each queue runs as many as it may; a full one does not hold up another, nor does max_running move."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=4, queues={"gpu": 1, "cpu": 2, "io": 9}) as registry:
        for n in range(3):
            await registry.submit(gate.executor, f"gpu {n}", queue="gpu", priority=HIGH)
        for n in range(3):
            await registry.submit(gate.executor, f"cpu {n}", queue="cpu")
        await settled()
        assert sorted(gate.running) == ["cpu 0", "cpu 1", "gpu 0"]
        for n in range(3):
            await registry.submit(gate.executor, f"io {n}", queue="io", priority=LOW)
        await settled()
        assert sorted(gate.running) == ["cpu 0", "cpu 1", "gpu 0", "io 0"]
        await gate.let_through("cpu 1")
        assert sorted(gate.running) == ["cpu 0", "cpu 2", "gpu 0", "io 0"]
        await gate.let_through("gpu 0", "io 0")
        assert sorted(gate.running) == ["cpu 0", "cpu 2", "gpu 1", "io 1"]
        assert registry.stats().running_by_queue == {"cpu": 2, "gpu": 1, "io": 1}
        await gate.let_all_through()
        assert registry.stats().running_by_queue == {}


async def test_room_is_given_to_the_queue_it_is_in() -> None:
    """When a job of a full queue ends, the next of that queue starts, however many wait elsewhere."""
    gate = Gate()
    async with jobtrio.open_registry(queues={f"q{n}": 1 for n in range(10)}) as registry:
        for n in range(10):
            for turn in range(3):
                await registry.submit(gate.executor, (n, turn), queue=f"q{n}")
        for turn in range(3):
            await settled()
            assert sorted(gate.running) == [(n, turn) for n in range(10)]
            await gate.let_through(*gate.running)
        assert gate.running == []


async def test_several_end_in_one_turn() -> None:
    """When several jobs end at once, as many start."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=5) as registry:
        for n in range(15):
            await registry.submit(gate.executor, n)
        for _ in range(3):
            await settled()
            assert len(gate.running) == 5
            await gate.let_through(*gate.running)
        assert sorted(gate.order) == list(range(15))


class Spawned(trio.abc.Instrument):
    """Counts new tasks whose name ends in some way."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.count = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith(self.name)


async def test_a_full_queue_spawns_nothing() -> None:
    """What waits behind a full queue costs no tasks, although there is room in another queue."""
    gate = Gate()
    async with jobtrio.open_registry(queues={"full": 1, "empty": 50}) as registry:
        for n in range(50):
            await registry.submit(gate.executor, n, queue="full")
        await settled()
        spawned = Spawned()
        trio.lowlevel.add_instrument(spawned)
        for n in range(50, 60):
            await registry.submit(gate.executor, n, queue="full")
            await settled()
        trio.lowlevel.remove_instrument(spawned)
        assert spawned.count <= 10
        await registry.shutdown()


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_limit_for_each_customer(autojump_clock: MockClock, elsewhere: bool) -> None:
    """Each queue of a pattern has the limit for itself, one that is full holds up no other, and an own limit wins."""
    gate, executors = Gate(), jobtrio.Executors()
    executors.register("wait")(gate.executor)
    store = RemoteStore(Server()) if elsewhere else MemoryJobStore()
    queues = {"user:*": 2, "user:big": 3, "user:off*": 1, "default": 1}
    async with jobtrio.open_registry(executors, store=store, queues=queues) as registry:
        names = ("user:ann", "user:bob", "user:big", "user:off", "user:", "user:*", "default")
        for name in names:
            for n in range(4):
                await registry.submit("wait", f"{name} {n}", queue=name)
        await trio.sleep(60)
        expected = dict.fromkeys(names, 2) | {"user:big": 3, "user:off": 1, "default": 1}
        assert registry.stats().running_by_queue == expected
        await gate.let_through("user:ann 0", "default 0", "user:* 1")
        await trio.sleep(60)
        assert registry.stats().running_by_queue == expected
        assert {"user:ann 2", "default 1", "user:* 2"} <= {*gate.running}
        await registry.submit("wait", "new", queue="user:new")
        await trio.sleep(60)
        assert "new" in gate.running
        while gate.running:
            await gate.let_all_through()
            await trio.sleep(60)
        await registry.drain()
        assert len(gate.order) == 4 * len(names) + 1


async def test_a_queue_that_no_pattern_matches_is_refused() -> None:
    """In memory a queue that no key stands for is refused, and any other accepted."""
    gate = Gate()
    async with jobtrio.open_registry(queues={"user:*": 1}, max_running_total={"user:a*": 1}) as registry:
        for queue in ("user", "use", "default", "*"):
            with pytest.raises(ValueError, match=r"one that this registry serves \('user:\*'\); got"):
                await registry.submit(gate.executor, queue=queue)
        for queue in ("user:", "user:*", "user:ann"):
            await registry.submit(gate.executor, queue, queue=queue)
        await settled()
        assert sorted(gate.running) == ["user:", "user:*", "user:ann"]
        await gate.let_all_through()


async def calls_with_queues(queues: int, *, full: bool) -> int:
    """Return the calls that it takes to submit a job, and to start one, where so many queues are served."""
    gate = Gate()
    limits = {f"q{n}": 1 for n in range(queues)}
    async with jobtrio.open_registry(queues=limits, max_running=2 * queues) as registry:
        for turn in range(2):
            for n in range(queues) if full else (3, queues - 1):
                await registry.submit(gate.executor, (n, turn), queue=f"q{n}")
        await settled()
        with calls_made() as calls:
            await registry.submit(gate.executor, "more", queue="q3")
            await gate.let_through((queues - 1, 0))
        assert gate.order[-1] == (queues - 1, 1)
        await registry.shutdown()
    return calls.count


@pytest.mark.parametrize("full", [True, False])
async def test_other_queues_cost_nothing(full: bool) -> None:
    """Neither a submission nor an end takes a look at every queue that is served here."""
    assert await calls_with_queues(600, full=full) < 2 * await calls_with_queues(60, full=full)


async def calls_with_waiting(queues: int, *, by_pattern: bool) -> int:
    """Return the calls that it takes to start a job behind another where one waits in each of so many queues."""
    gate = Gate()
    limits = {"q*": 1} if by_pattern else {f"q{n}": 1 for n in range(queues)}
    async with jobtrio.open_registry(queues=limits, max_running=1) as registry:
        for n in range(queues):
            await registry.submit(gate.executor, n, queue=f"q{n}")
        await settled()
        with calls_made() as calls:
            await gate.let_through(0)
        assert gate.running == [1]
        await registry.shutdown()
    return calls.count


@pytest.mark.parametrize("by_pattern", [False, True])
async def test_other_queues_jobs_cost_nothing(by_pattern: bool) -> None:
    """Nor does an end look at each queue in which a job waits, if that could start, where there is room for one."""
    many, few = [await calls_with_waiting(queues, by_pattern=by_pattern) for queues in (600, 60)]
    assert many < 2 * few


async def calls_with_totals(queues: int, *, by_pattern: bool) -> int:
    """Return the calls that it takes to submit a job where so many queues run as many over all workers as they may."""
    gate = Gate()
    limits = {"q*": 1} if by_pattern else {f"q{n}": 1 for n in range(queues)}
    async with jobtrio.open_registry(max_running_total=limits, max_running=2 * queues) as registry:
        for n in range(queues):
            await registry.submit(gate.executor, n, queue=f"q{n}")
        await settled()
        with calls_made() as calls:
            await registry.submit(gate.executor, "more", queue="q3")
            await settled()
        await registry.shutdown()
    return calls.count


@pytest.mark.parametrize("by_pattern", [False, True])
async def test_full_totals_cost_nothing(by_pattern: bool) -> None:
    """What runs in a queue is known without a look at the others."""
    many, few = [await calls_with_totals(queues, by_pattern=by_pattern) for queues in (600, 60)]
    assert many < 2 * few


async def calls_with_totals_and_waiting(queues: int) -> int:
    """Return the calls that it takes to start a job behind one with tasks of its own, where many queues have one."""
    gate = Gate()

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(trio.lowlevel.checkpoint)
        await gate.executor(job)

    async with jobtrio.open_registry(max_running_total={"q*": 2}, max_running=2) as registry:
        for n in range(queues):
            await registry.submit(executor, n, queue=f"q{n}")
        await settled()
        with calls_made() as calls:
            await gate.let_through(0)
        assert gate.running == [1, 2]
        await registry.shutdown()
    return calls.count


async def test_jobs_that_wait_by_pattern_cost_nothing() -> None:
    """To learn whether one more may start takes no look at each queue in which a job waits."""
    assert await calls_with_totals_and_waiting(600) < 2 * await calls_with_totals_and_waiting(60)


async def test_delays(autojump_clock: MockClock) -> None:
    """A job starts when its time has come, no earlier, in the order of the times."""
    started: list[tuple[str, float]] = []

    async def executor(job: JobContext) -> None:
        started.append((job.payload, trio.current_time()))

    async with jobtrio.open_registry() as registry:
        await registry.submit(executor, "c", delay=3)
        await registry.submit(executor, "a", delay=1)
        await registry.submit(executor, "now", delay=0)
        job = await registry.submit(executor, "b", delay=2)
        assert job.state == "SCHEDULED"
        await trio.sleep(1.5)
        await registry.submit(executor, "between", delay=0.25)
    assert started == [("now", 0), ("a", 1), ("between", 1.75), ("b", 2), ("c", 3)]


async def test_a_due_job_stands_in_line(autojump_clock: MockClock) -> None:
    """A job that becomes due while all is busy waits its turn behind those that were ready before."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        await registry.submit(gate.executor, "first")
        await registry.submit(gate.executor, "due", delay=1)
        await registry.submit(gate.executor, "ready")
        await trio.sleep(2)
        await registry.submit(gate.executor, "later")
        await settled()
        await gate.let_all_through()
    assert gate.order == ["first", "ready", "due", "later"]


async def test_a_retry_stands_in_line(autojump_clock: MockClock) -> None:
    """A retry waits behind those that were ready before its delay was over; its delay holds up nobody."""
    order: list[tuple[str, int]] = []

    async def executor(job: JobContext) -> None:
        order.append((job.payload, job.attempt))
        await trio.sleep(2)
        if job.attempt == 1 and job.payload == "again":
            raise ValueError

    async with jobtrio.open_registry(max_running=1) as registry:
        await registry.submit(executor, "again", retry=RetryPolicy(initial=1, jitter=0))
        await registry.submit(executor, "b")
        await registry.submit(executor, "c")
    assert order == [("again", 1), ("b", 1), ("c", 1), ("again", 2)]


# -- expiry


async def test_expired_in_the_queue(autojump_clock: MockClock) -> None:
    """A job that did not start in time ends without running; one that did runs on."""
    gate = Gate()
    async with jobtrio.open_registry(max_running=1) as registry:
        job = await registry.submit(gate.executor, "runs", expires_in=1)
        late = await registry.submit(gate.executor, "late", expires_in=5)
        await trio.sleep(4.999)
        assert late.state == "QUEUED"
        await trio.sleep(0.001)
        outcome = await late.wait()
        assert isinstance(outcome, Failed)
        assert (outcome.error.kind, outcome.error.message) == ("expired", "not started within 5 s (expires_in)")
        assert job.state == "RUNNING"
        await gate.let_all_through()
    assert gate.order == ["runs"]
    assert job.outcome == Completed(None)


def test_expired_while_nobody_could_look() -> None:
    """A job whose time was over before its turn came never runs, also if the loop was busy all the while."""
    ran: list[str] = []

    async def blocks(job: JobContext) -> None:
        await trio.lowlevel.checkpoint()
        job.payload.jump(10)

    async def executor(job: JobContext) -> None:
        ran.append(job.payload)

    async def main(clock: trio.testing.MockClock) -> None:
        async with jobtrio.open_registry(max_running=1) as registry:
            await registry.submit(blocks, clock)
            late = await registry.submit(executor, "late", expires_in=5)
            intime = await registry.submit(executor, "in time", expires_in=15)
            await registry.submit(executor, "whenever")
            await intime.wait()
            outcome = await late.wait()
            assert isinstance(outcome, Failed)
            assert outcome.error.kind == "expired"
            assert late.record.attempt == 0

    for _ in range(20):
        ran.clear()
        clock = trio.testing.MockClock()
        trio.run(main, clock, clock=clock)
        assert ran == ["in time", "whenever"]


async def test_an_expiry_does_not_end_a_retry(autojump_clock: MockClock) -> None:
    """The expiry bounds the wait for the first start only."""

    async def executor(job: JobContext) -> str:
        if job.attempt == 1:
            raise ValueError
        return "done"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, expires_in=1, retry=RetryPolicy(initial=5, jitter=0))
        assert await job.result() == "done"


# -- context variables

VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
OTHER: contextvars.ContextVar[Any] = contextvars.ContextVar("other")


async def change(job: JobContext) -> Any:
    """Return what the variable holds, and set it."""
    seen = VARIABLE.get("unset")
    VARIABLE.set(job.payload)
    await trio.lowlevel.checkpoint()
    assert VARIABLE.get() is job.payload
    return seen


class Incomparable:
    """A value that does not like to be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("before", [None, 0, [], Incomparable()], ids=["None", "zero", "list", "incomparable"])
@pytest.mark.parametrize("after", [False, [], "text", Incomparable()], ids=["False", "list", "text", "incomparable"])
async def test_no_job_sees_anothers_variables(before: Any, after: Any) -> None:
    """Each attempt sees the very objects of the registry's context, whatever others set, equal or not."""
    VARIABLE.set(before)
    async with jobtrio.open_registry(max_running=1) as registry:
        VARIABLE.set("the submitter's")
        jobs = [await registry.submit(change, after) for _ in range(4)]
        for job in jobs:
            assert await job.result() is before


async def test_variables_that_were_unset() -> None:
    """A variable that a job sets is unset for the next, also where another holds the same value."""

    async def swap(job: JobContext) -> list[Any]:
        seen = [VARIABLE.get("unset"), OTHER.get("unset")]
        token = VARIABLE.set(None)
        VARIABLE.reset(token)
        OTHER.set(None)
        return seen

    context = contextvars.copy_context()
    assert VARIABLE not in context
    async with jobtrio.open_registry(max_running=1) as registry:
        jobs = [await registry.submit(swap) for _ in range(3)]
        assert [await job.result() for job in jobs] == [["unset", "unset"]] * 3


async def test_variables_put_back() -> None:
    """A job that puts its variables back leaves its task fit for the next."""

    async def executor(job: JobContext) -> str:
        token = VARIABLE.set("mine")
        VARIABLE.reset(token)
        return trio.lowlevel.current_task().name

    VARIABLE.set("registry")
    async with jobtrio.open_registry(max_running=1) as registry:
        spawned = Spawned()
        jobs = [await registry.submit(executor) for _ in range(10)]
        trio.lowlevel.add_instrument(spawned)
        for job in jobs:
            await job.wait()
        trio.lowlevel.remove_instrument(spawned)
    assert spawned.count <= 1


def test_in_an_empty_context() -> None:
    """In a program without context variables, too, no job sees another's, and a task serves many jobs."""

    async def executor(job: JobContext) -> Any:
        seen = VARIABLE.get("unset")
        if job.payload:
            VARIABLE.set(job.payload)
        return seen

    async def main() -> int:
        assert not contextvars.copy_context()
        async with jobtrio.open_registry(max_running=1) as registry:
            jobs = [await registry.submit(executor, "set") for _ in range(4)]
            assert [await job.result() for job in jobs] == ["unset"] * 4
            jobs = [await registry.submit(executor) for _ in range(10)]
            spawned = Spawned()
            trio.lowlevel.add_instrument(spawned)
            for job in jobs:
                await job.wait()
            return spawned.count

    assert contextvars.Context().run(trio.run, main) <= 1


async def test_as_many_tasks_as_jobs() -> None:
    """However jobs come, no more tasks are made than there are jobs to run."""
    gate = Gate()
    async with jobtrio.open_registry(queues={"a": 5, "b": 5}) as registry:
        spawned = Spawned()
        trio.lowlevel.add_instrument(spawned)
        for n in range(6):
            await registry.submit(gate.executor, n, queue="ab"[n % 2])
        await registry.submit_many([jobtrio.JobSpec(gate.executor, n, queue="a") for n in range(6, 8)])
        await settled()
        trio.lowlevel.remove_instrument(spawned)
        assert spawned.count <= 8 + 1  # one of them is this test's own, that waits
        assert len(gate.running) == 8
        await gate.let_all_through()


async def test_limits_with_a_store_elsewhere(autojump_clock: MockClock) -> None:
    """Where jobs are claimed many at a time, no more of a queue run than may, nor more of all."""
    executors, running, most = jobtrio.Executors(), dict[str, int](), dict[str, int]()

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        for name in (job.queue, "all"):
            running[name] = running.get(name, 0) + 1
            most[name] = max(most.get(name, 0), running[name])
        await trio.sleep(job.payload)
        for name in (job.queue, "all"):
            running[name] -= 1

    for limits, expected in [
        ({"max_running": 50, "queues": {"gpu": 2, "cpu": 3}}, {"gpu": 2, "cpu": 3, "all": 5}),
        ({"max_running": 4, "queues": {"gpu": 9, "cpu": 9}}, {"all": 4}),
        ({"max_running": 50, "queues": {"*": 2, "gpu": 3}}, {"gpu": 3, "cpu": 2, "all": 5}),
        ({"max_running": 50, "max_running_total": {"*": 2}}, {"gpu": 2, "cpu": 2, "all": 4}),
    ]:
        most.clear()
        async with jobtrio.open_registry(executors, store=RemoteStore(Server()), **limits) as registry:  # type: ignore[arg-type]
            jobs = [await registry.submit("work", 1 + n % 3, queue=("gpu", "cpu")[n % 2]) for n in range(20)]
            for job in jobs:
                assert await job.wait() == Completed(None)
        assert {name: most[name] for name in expected} == expected


async def test_jobs_run_while_the_next_are_claimed(autojump_clock: MockClock) -> None:
    """A store elsewhere fills the room in two halves, so that one runs while it looks for the other."""
    store, executors = RemoteStore(Server(), latency=1.0), jobtrio.Executors()
    asked: list[int] = []
    started: list[float] = []
    claim = store.claim

    async def spied(claim_id: str, *, limit: int, **others: Any) -> Any:
        asked.append(limit)
        return await claim(claim_id, limit=limit, **others)

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        started.append(trio.current_time())
        await trio.sleep(100)

    async with jobtrio.open_registry(executors, store=RemoteStore(store._server), queues={}) as registry:
        await registry.submit_many(jobtrio.JobSpec("work") for _ in range(9))
    with patch.object(store, "claim", spied):
        async with jobtrio.open_registry(executors, store=store, max_running=5) as registry:
            await trio.sleep(50)
            assert asked == [3, 2]
            assert [round(moment - started[0]) for moment in started] == [0, 0, 0, 4, 4]  # a look, and a claim
            await registry.drain()
            assert max(asked) == 3
            assert len(started) == 9


async def test_the_second_half_follows_the_first(autojump_clock: MockClock) -> None:
    """What a store elsewhere is asked for in two halves is asked for at once, though it tells of it only once."""
    server, executors = Server(), jobtrio.Executors()
    started: list[float] = []

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        started.append(trio.current_time())
        await trio.sleep(100)

    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as submitter,
        jobtrio.open_registry(executors, store=RemoteStore(server), max_running=5),
    ):
        await submitter.submit("work")
        await trio.sleep(51)  # its lease is over before those of the others: these are no news of what falls due
        await submitter.submit_many([jobtrio.JobSpec("work")] * 4)
        await trio.sleep(40)
        assert len(started) == 5
        assert max(started[1:]) - min(started[1:]) < 1


async def test_a_store_that_rings_as_it_fails(autojump_clock: MockClock) -> None:
    """A store that is away is asked now and then, though each failure wants to be looked into; then jobs start."""
    store, executors = RemoteStore(Server()), jobtrio.Executors()
    claim = store.claim

    async def ringing(claim_id: str, **options: Any) -> Any:
        try:
            return await claim(claim_id, **options)
        except StoreUnavailableError:
            store.settings.listener.work_ready()  # it may have been carried out all the same
            raise

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        """Do nothing."""

    with patch.object(store, "claim", ringing):
        async with jobtrio.open_registry(executors, store=store) as registry:
            store.network.failing = {"claim"}
            job = await registry.submit("work")
            await trio.sleep(60)
            assert 30 < store.network.calls.count("claim") < 90
            store.network.failing = set()
            assert await job.wait() == Completed(None)


async def test_a_store_elsewhere_and_variables(autojump_clock: MockClock) -> None:
    """Where jobs are claimed many at a time, no job sees another's variables either, and tasks serve many jobs."""
    executors = jobtrio.Executors()

    @executors.register("change")
    async def executor(job: JobContext) -> Any:
        seen = VARIABLE.get("unset")
        if job.payload:
            VARIABLE.set(job.payload)
        return seen

    VARIABLE.set("registry")
    async with jobtrio.open_registry(executors, store=RemoteStore(Server()), max_running=4) as registry:
        for payloads, number in (([None] * 20, range(1, 5)), (["mine"] * 20, range(21)), ([None] * 20, range(5))):
            spawned = Spawned("_work")
            trio.lowlevel.add_instrument(spawned)
            jobs = await registry.submit_many(jobtrio.JobSpec("change", payload) for payload in payloads)
            assert [await job.result() for job in jobs] == ["registry"] * 20
            trio.lowlevel.remove_instrument(spawned)
            assert spawned.count in number


async def test_few_tasks_are_kept(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many jobs at once, no more tasks than a few wait for others; a shutdown dismisses those that do."""
    monkeypatch.setattr("jobtrio._dispatcher.SPARE", 3)
    executors = jobtrio.Executors()

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        """Do nothing, in no time."""

    async with jobtrio.open_registry(executors, store=RemoteStore(Server()), max_running=20) as registry:
        await trio.sleep(1)  # until the first renewal is answered
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(2):
            await registry.submit_many(jobtrio.JobSpec("work") for _ in range(20))
            await registry.drain()
            await settled()
            assert trio.lowlevel.current_statistics().tasks_living == before + 3
        await registry.submit("work")
        await registry.shutdown()


async def test_spare_tasks_that_are_cancelled(autojump_clock: MockClock) -> None:
    """Tasks that wait for another attempt are in the way of no exit."""
    executors = jobtrio.Executors()

    @executors.register("work")
    async def executor(job: JobContext) -> None:
        if job.payload:
            raise SystemExit(job.payload)

    async def program() -> None:
        async with jobtrio.open_registry(executors, store=RemoteStore(Server()), max_running=20) as registry:
            await registry.submit_many(jobtrio.JobSpec("work") for _ in range(20))
            await registry.drain()
            await registry.submit("work", 3)
            await trio.sleep_forever()

    with pytest.raises(SystemExit):
        await program()


async def test_child_tasks_see_the_attempts_variables() -> None:
    """A child task sees what its attempt has set before it was started."""
    seen: list[Any] = []

    async def child() -> None:
        seen.append(VARIABLE.get())

    async def executor(job: JobContext) -> None:
        VARIABLE.set("attempt")
        job.nursery.start_soon(child)

    async with jobtrio.open_registry() as registry:
        await (await registry.submit(executor)).wait()
    assert seen == ["attempt"]


# -- fairness


async def test_jobs_that_never_give_way_let_others_live() -> None:
    """A long line of jobs without a checkpoint of their own holds nobody up."""

    async def nothing(job: JobContext) -> None:
        pass

    async with jobtrio.open_registry(max_running=1) as registry:
        jobs = await registry.submit_many([jobtrio.JobSpec(nothing) for _ in range(500)])
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert any(job.outcome is None for job in jobs)
        assert await jobs[-1].wait() == Completed(None)
