"""Each use of the registry is cut off at its first step, its second, its third …: every promise has to hold.

A scenario runs inside a cancel scope, once within an open registry and once around one. An instrument
cancels that scope at the n-th step that any task takes, for every n until the scenario ends untouched.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing
from cancelled_steps import CancelAtStep

import jobtrio
from jobtrio import Cancelled, Completed, End, JobContext, RetryPolicy, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_STEPS = 3000
LEGAL = {
    None: {"SCHEDULED", "QUEUED"},
    "SCHEDULED": {"QUEUED", "CANCELLED"},
    "QUEUED": {"RUNNING", "CANCELLED", "FAILED"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "RETRYING"},
    "RETRYING": {"QUEUED", "CANCELLED"},
}
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


Scenario: TypeAlias = "Callable[[World], Awaitable[None]]"
Place: TypeAlias = "Callable[[Scenario, CancelAtStep, trio.Nursery], Awaitable[World | None]]"


class World:
    """What a scenario works with, and what is checked when it is over."""

    def __init__(self, registry: jobtrio.JobRegistry, outside: trio.Nursery) -> None:
        self.registry = registry
        self.outside = outside
        self.jobs: list[jobtrio.Job] = []
        self.seen: dict[str, list[Any]] = {}
        self.inside: dict[str, int] = defaultdict(int)
        self.promised: set[str] = set()
        self.events: list[jobtrio.Transition] = []
        self.finished = False
        outside.start_soon(self._listen, registry.subscribe_events())

    async def _listen(self, events: trio.abc.ReceiveChannel[jobtrio.Transition]) -> None:
        async for event in events:
            self.events.append(event)

    async def _watch(self, job_id: str, messages: jobtrio.Subscription) -> None:
        async for message in messages:
            self.seen[job_id].append(message)
            assert not isinstance(message, End) or not self.inside[job_id], "an ending while the attempt lives"

    def take(self, job: jobtrio.Job) -> jobtrio.Job:
        """Note a job that was accepted, and watch it from outside the scope."""
        self.jobs.append(job)
        self.seen[job.id] = []
        self.outside.start_soon(self._watch, job.id, job.subscribe())
        return job

    async def cancel(self, job: jobtrio.Job, grace: float = 0.0) -> None:
        """Cancel a job and note the promise where one was made."""
        if await job.cancel("asked", grace=grace):
            self.promised.add(job.id)

    async def executor(self, job: JobContext) -> str:
        """Do what the payload says, with a child task and clean-up that takes time."""
        self.inside[job.id] += 1
        try:
            await job.send("first")
            job.nursery.start_soon(trio.sleep, 1)
            if job.payload == "fail":
                await job.save_state(job.attempt)
                raise ValueError("no")
            if job.payload == "hang":
                await trio.sleep_forever()
            await job.send("last")
            return "done"
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            self.inside[job.id] -= 1


async def submit(world: World) -> None:
    """Submit one, several, a scheduled and a keyed job, and wait for what they return."""
    registry = world.registry
    world.take(await registry.submit(world.executor))
    spec = jobtrio.JobSpec(world.executor, tags={"of": "three"})
    for job in await registry.submit_many([spec] * 3):
        world.take(job)
    world.take(await registry.submit(world.executor, delay=2))
    first = world.take(await registry.submit(world.executor, key="k"))
    assert (await registry.submit(world.executor, key="k")).id == first.id
    for job in world.jobs:
        assert await job.result() == "done"


async def subscribe(world: World) -> None:
    """Read one job in each of the ways there are."""
    registry = world.registry
    job = world.take(await registry.submit(world.executor))
    everything = [Token(1, 1, "first"), Token(2, 1, "last"), End(3, Completed("done"))]
    async with job.subscribe(lossless=True) as messages:
        assert [message async for message in messages] == everything
    job = world.take(await registry.submit(world.executor))
    async with job.open_channel(size=1) as channel:
        assert [message async for message in channel] == everything
    assert [value async for value in job.tokens()] == ["first", "last"]
    with job.subscribe() as messages:
        assert await messages.receive_batch() == everything
    held = world.take(await registry.create_job())
    async with registry.execute_and_stream(held.id, world.executor) as lines:
        assert [line async for line in lines] == ["first", "last", "[DONE]"]


async def cancel(world: World) -> None:
    """Cancel jobs that run, wait, are scheduled and are held, with grace and without."""
    registry = world.registry
    for grace in (0.0, 1.0):
        jobs = [await registry.submit(world.executor, "hang") for _ in range(3)]
        jobs.append(await registry.submit(world.executor, "hang", delay=5))
        jobs.append(await registry.create_job("hang"))
        for job in jobs:
            world.take(job)
        await trio.sleep(0.1)
        for job in jobs:
            await world.cancel(job, grace)
        for job in jobs:
            assert await job.wait() == Cancelled("asked")


async def retry(world: World) -> None:
    """Let jobs fail until their attempts are used up, one of them cancelled between two."""
    policy = RetryPolicy(max_attempts=3, initial=1, jitter=0)
    failing = world.take(await world.registry.submit(world.executor, "fail", retry=policy))
    timed = world.take(await world.registry.submit(world.executor, "hang", retry=policy, time_limit=1))
    stopped = world.take(await world.registry.submit(world.executor, "fail", retry=policy))
    await trio.sleep(1.7)  # each attempt lasts 1 s, and 1 s lies between two
    assert stopped.state in ("RETRYING", "QUEUED")
    await world.cancel(stopped)
    for job, kind in ((failing, "exception"), (timed, "timeout")):
        outcome = await job.wait()
        assert isinstance(outcome, jobtrio.Failed)
        assert (outcome.error.kind, job.record.attempt) == (kind, 3)
    assert await stopped.wait() == Cancelled("asked")


async def shutdown(world: World) -> None:
    """Shut the registry down while jobs run, wait, retry, are scheduled and are held."""
    registry = world.registry
    for payload in ("hang", "hang", "hang", "fail"):
        world.take(await registry.submit(world.executor, payload, retry=RetryPolicy()))
    world.take(await registry.submit(world.executor, delay=100))
    world.take(await registry.create_job())
    await trio.sleep(0.1)
    await registry.shutdown(grace=1)
    assert set(world.inside.values()) == {0}


async def leave(world: World) -> None:
    """Submit, and leave the rest to the registry's exit."""
    for payload in ("", "fail", "", ""):
        world.take(await world.registry.submit(world.executor, payload, retry=RetryPolicy(max_attempts=2)))
    world.take(await world.registry.submit(world.executor, delay=3))
    await trio.sleep(0.3)


SCENARIOS = (submit, subscribe, cancel, retry, shutdown, leave)


async def inside(scenario: Scenario, aim: CancelAtStep, outside: trio.Nursery) -> World | None:
    """Cut the scenario off within a registry that goes on, works, and is then left in peace."""
    async with jobtrio.open_registry(max_running=2) as registry:
        world = World(registry, outside)
        with trio.CancelScope() as scope:
            aim.scope = scope
            await scenario(world)
            world.finished = True
        aim.scope = None
        assert len(await registry.find(tags={"of": "three"})) in (0, 3)
        for record in await registry.find():
            if record.payload == "hang":
                await registry.cancel(record.id)
    return world


async def around(scenario: Scenario, aim: CancelAtStep, outside: trio.Nursery) -> World | None:
    """Cut the scenario off together with its registry, the opening and the exit included."""
    world = None
    with trio.CancelScope() as scope:
        aim.scope = scope
        async with jobtrio.open_registry(max_running=2) as registry:
            world = World(registry, outside)
            await scenario(world)
        world.finished = True
    aim.scope = None
    return world


def check(world: World) -> None:
    """Check what was promised of every job, once the registry is closed."""
    assert set(world.inside.values()) <= {0}
    lives: dict[str, list[jobtrio.Transition]] = defaultdict(list)
    for event in world.events:
        lives[event.job_id].append(event)
    for job_id, lines in lives.items():
        previous: str | None = None
        for line in lines:
            assert line.previous == previous, job_id
            assert line.state in LEGAL[previous], lines
            previous = line.state
        assert previous in ENDED, lines
    for job in world.jobs:
        assert job.outcome is not None
        assert job.state == lives[job.id][-1].state
        assert job.id not in world.promised or job.outcome == Cancelled("asked")
        messages = world.seen[job.id]
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert [message.outcome for message in messages if isinstance(message, End)] == [job.outcome]
        assert isinstance(messages[-1], End)


async def trial(place: Place, scenario: Scenario, aim: CancelAtStep) -> bool:
    """Run one trial; say whether the scenario ended untouched."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as outside:
        with trio.fail_after(500):
            world = await place(scenario, aim, outside)
        await trio.testing.wait_all_tasks_blocked()
        if world is not None:
            check(world)
        outside.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == before
    return world is not None and world.finished and aim.left > 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("place", [inside, around], ids=lambda p: p.__name__)
def test_sweep(place: Place, scenario: Scenario) -> None:
    """Cut off at any step, every job has one ending, every reader sees it, and nothing is left running."""
    for step in range(1, MOST_STEPS):
        aim = CancelAtStep(step)
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            untouched = trio.run(trial, place, scenario, aim, clock=clock, instruments=[aim])
        except BaseException as exc:
            exc.add_note(f"cancelled at step {step}")
            raise
        if untouched:
            assert step > 10
            return
    pytest.fail(f"not over after {MOST_STEPS} steps")
