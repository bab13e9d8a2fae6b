"""Each call is cut off where it waits, at its first wait, its second …: what its docstring says of that is true.

A call runs within a cancel scope, which is cancelled when the call's task has begun its n-th wait, for every n until
the call ends untouched; and once before the call. With the memory store most calls wait for nothing, and end.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pytest
import trio
from cancelled_steps import cancelled_at_wait
from store_urls import STORES, check_store, new_url

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    DuplicateJobError,
    End,
    JobContext,
    JobPriority,
    JobSpec,
    StreamSpan,
    Token,
    UnknownJobError,
)
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

T = TypeVar("T")

MOST_WAITS = 300
LIMIT = 60.0
DONE = Completed("done")
TOKENS = [1, 2, 3, 4, 5]
STREAM = [*(Token(n, 1, n) for n in TOKENS), End(6, DONE)]
MORE_THAN_A_PAGE = 101


class World:
    """A registry, what its jobs do, and where a call is cut off.

    Attributes:
        registry: The registry, while it is open.
        url: The store's URL; None for memory.
        wait: At which of its waits the call is cut off; 0 for before the call.
        is_over: Whether the call ended untouched.
        inside: What the executor "inside" does.
        runs: How often each job was run.
    """

    registry: jobtrio.JobRegistry

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.wait = 0
        self.is_over = False
        self.inside: Callable[[JobContext], Awaitable[object]] | None = None
        self.runs: Counter[str] = Counter()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[jobtrio.JobRegistry]:
        """Open the registry."""
        executors = jobtrio.Executors()
        for name, executor in (("count", self._count), ("hang", self._hang), ("inside", self._inside)):
            executors.register(name)(executor)
        store = None if self.url is None else parse_store_url(self.url).make_store()
        async with jobtrio.open_registry(executors, store=store) as self.registry:
            yield self.registry

    async def _count(self, job: JobContext) -> str:
        self.runs[job.id] += 1
        for n in TOKENS:
            await job.send(n)
        return "done"

    async def _hang(self, job: JobContext) -> None:
        self.runs[job.id] += 1
        await job.send(1)
        await trio.sleep_forever()

    async def _inside(self, job: JobContext) -> str:
        self.runs[job.id] += 1
        assert self.inside is not None
        await self.inside(job)
        return "done"

    def new_id(self, name: str = "job") -> str:
        """Return an id that no other cut has."""
        return f"{name} cut off at {self.wait}"

    async def cut(self, call: Callable[[], Awaitable[T]]) -> list[T]:
        """Make a call that is cut off; return what it returned, if it did."""
        returned = []
        with cancelled_at_wait(self.wait) as scope:
            if self.wait == 0:
                scope.cancel()
            returned.append(await call())
        assert scope.cancelled_caught is not bool(returned)
        self.is_over = not scope.cancel_called
        return returned

    async def are_there(self, *job_ids: str) -> bool:
        """Return whether jobs are there, all or none."""
        there = {await self._is_there(job_id) for job_id in job_ids}
        assert len(there) == 1
        return there.pop()

    async def check_accepted(self, said: list[Any], *job_ids: str) -> bool:
        """Return whether jobs were accepted; they were if that was said, and in memory only then."""
        are_there = await self.are_there(*job_ids)
        assert are_there is bool(said) or (are_there and self.url is not None)
        return are_there

    async def _is_there(self, job_id: str) -> bool:
        try:
            await self.registry.get(job_id)
        except UnknownJobError:
            return False
        return True

    async def check_done(self, *job_ids: str) -> None:
        """Check that jobs come to their ends by one run each, and that all of it can be read."""
        for job_id in job_ids:
            job = await self.registry.get(job_id)
            assert await job.wait() == DONE
            async with job.subscribe() as messages:
                assert [message async for message in messages] == STREAM
            assert self.runs[job_id] == 1
            states = [line.state.value for line in await self.registry.history(job_id)]
            assert states == ["QUEUED", "RUNNING", "COMPLETED"]


Trial: TypeAlias = "Callable[[World], Awaitable[None]]"


async def submit(world: World) -> None:
    """A job was not accepted; with a durable store it may have been."""
    registry, job_id, key = world.registry, world.new_id(), world.new_id("key")
    said = await world.cut(lambda: registry.submit("count", job_id=job_id, key=key))
    await world.check_accepted(said, job_id)
    assert (await registry.submit("count", job_id=job_id, key=key)).id == job_id
    await world.check_done(job_id)


async def submit_many(world: World) -> None:
    """None was accepted; with a durable store all may have been."""
    registry, job_ids = world.registry, [world.new_id(name) for name in "abc"]
    specs = [JobSpec("count", job_id=job_id) for job_id in job_ids]
    said = await world.cut(lambda: registry.submit_many(specs))
    if await world.check_accepted(said, *job_ids):
        with pytest.raises(DuplicateJobError):
            await registry.submit_many(specs)
    else:
        await registry.submit_many(specs)
    await world.check_done(*job_ids)


async def execute(world: World) -> None:
    """A held job was not accepted, or may have been; one that was started goes on."""
    registry, job_id = world.registry, world.new_id()
    lines: list[str] = []

    async def create_and_stream() -> None:
        await registry.create_job(job_id=job_id)
        async with registry.execute_and_stream(job_id, "count") as stream:
            lines.extend([line async for line in stream])

    said = await world.cut(create_and_stream)
    if not await world.are_there(job_id):
        assert not said
        await registry.create_job(job_id=job_id)
    async with registry.execute_and_stream(job_id, "count") as stream:
        assert [line async for line in stream] == [*map(str, TOKENS), "[DONE]"]
    await world.check_done(job_id)


async def look(world: World) -> None:
    """Nothing has changed, and who looks again sees it."""
    registry, job_id = world.registry, world.new_id()
    await (await registry.submit("count", job_id=job_id, tags={"looked": "at"})).wait()

    async def look_at_all() -> tuple[object, ...]:
        job = await registry.get(job_id)
        found = await registry.find(tags={"looked": "at"}, limit=1, newest_first=True)
        counts = await registry.counts()
        return (
            await job.span(),
            [record.id for record in found],
            counts["default"][jobtrio.JobState.COMPLETED],
            len(await registry.history(job_id)),
            len(await registry.workers()),
            len(await registry.paused()),
        )

    expected = (StreamSpan(1, 6, True), [job_id], world.wait + 1, 3, 1, 0)
    assert await world.cut(look_at_all) in ([], [expected])
    assert await look_at_all() == expected


async def find_all(world: World) -> None:
    """Iterating on goes on where it was."""
    if world.wait == 0:
        await world.registry.submit_many([JobSpec("count")] * MORE_THAN_A_PAGE)
    found: list[str] = []
    records = world.registry.find_all()

    async def iterate() -> None:
        async for record in records:
            found.append(record.id)

    await world.cut(iterate)
    await iterate()
    assert len(found) == len(set(found)) == MORE_THAN_A_PAGE


async def pause(world: World) -> None:
    """The queue may be paused; then it can be resumed, which may have been done as well."""
    registry, job_id = world.registry, world.new_id()
    said = await world.cut(lambda: registry.pause("default"))
    assert [*await registry.paused()] in ([["default"]] if said else [[], ["default"]])
    await registry.pause("default")
    await registry.submit("count", job_id=job_id)
    said = await world.cut(lambda: registry.resume("default"))
    assert [*await registry.paused()] in ([[]] if said else [[], ["default"]])
    await registry.resume("default")
    await world.check_done(job_id)


async def cancel(world: World) -> None:
    """The request may have been made; then it is heeded, and another one changes nothing."""
    job = await world.registry.submit("hang")
    async with job.subscribe() as messages:
        await messages.receive()
    said = await world.cut(lambda: world.registry.cancel(job.id, "first"))
    if not said and (await world.registry.get(job.id)).record.cancel_requested_at is None:
        assert await job.cancel("first")
    assert await job.wait() == Cancelled("first")


async def set_priority(world: World) -> None:
    """It may have been changed; another call changes it in any case, and the job then runs with it."""
    registry, job_id = world.registry, world.new_id()
    await registry.pause("default")
    job = await registry.submit("count", job_id=job_id)
    said = await world.cut(lambda: job.set_priority(JobPriority.HIGH))
    shown = (await registry.get(job_id)).record.priority
    assert said in ([], [True])
    assert shown is JobPriority.HIGH or (not said and shown is JobPriority.NORMAL)
    assert await registry.set_priority(job_id, JobPriority.LOW)
    assert job.record.priority is JobPriority.LOW
    await registry.resume("default")
    await world.check_done(job_id)


async def remove(world: World) -> None:
    """The job may have been removed; its id can be given anew."""
    registry, job_id = world.registry, world.new_id()
    await (await registry.submit("count", job_id=job_id)).wait()
    said = await world.cut(lambda: registry.remove(job_id))
    if await world.are_there(job_id):
        assert not said
        await registry.remove(job_id)
    world.runs.clear()
    await registry.submit("count", job_id=job_id)
    await world.check_done(job_id)


async def receive(world: World) -> None:
    """No message is lost; the next call receives it."""
    job = await world.registry.submit("count", job_id=world.new_id())
    received = []
    async with job.subscribe(lossless=True) as messages:

        async def receive_all() -> None:
            for _ in range(2):
                received.append(await messages.receive())
            while received[-1] != STREAM[-1]:
                received.extend(await messages.receive_batch(2))

        if not await world.cut(receive_all):
            received.extend([message async for message in messages])
    assert received == STREAM
    await world.check_done(job.id)


async def tokens(world: World) -> None:
    """The job goes on, and no value is lost."""
    job = await world.registry.submit("count", job_id=world.new_id())
    values: list[int] = []
    stream = job.tokens()

    async def iterate() -> None:
        async for value in stream:
            values.append(value)

    await world.cut(iterate)
    await iterate()
    assert values == TOKENS
    await world.check_done(job.id)


async def channel(world: World) -> None:
    """The channel is closed; the job goes on."""
    job = await world.registry.submit("count", job_id=world.new_id())
    channels = []

    async def read() -> None:
        async with job.open_channel(size=1) as channel:
            channels.append(channel)
            assert [message async for message in channel] == STREAM

    await world.cut(read)
    for each in channels:
        with pytest.raises(trio.ClosedResourceError):
            each.receive_nowait()
    await world.check_done(job.id)


async def wait(world: World) -> None:
    """The job goes on."""
    job = await world.registry.submit("count", job_id=world.new_id())

    async def wait_in_each_way() -> None:
        assert await job.wait() == DONE
        await world.registry.drain()
        assert await job.result() == "done"

    await world.cut(wait_in_each_way)
    await world.check_done(job.id)


async def send(world: World) -> None:
    """What was cut off was not sent, so that it can be sent again; of two values to be kept one is."""
    job_id = world.new_id()

    async def say(job: JobContext) -> None:
        sent: list[int] = []
        await job.save_state([])

        async def send_all() -> None:
            for n in TOKENS[len(sent) :]:
                await job.send(n)
                sent.append(n)
                await job.save_state(tuple(sent))

        await world.cut(send_all)
        assert list(job.saved_state) in (sent, sent[:-1])
        await send_all()
        assert list(job.saved_state) in (TOKENS, TOKENS[:-1])

    world.inside = say
    await world.registry.submit("inside", job_id=job_id)
    await world.check_done(job_id)


CALLS = (
    submit,
    submit_many,
    execute,
    look,
    find_all,
    pause,
    cancel,
    set_priority,
    remove,
    receive,
    tokens,
    channel,
    wait,
    send,
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["memory", *STORES])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_a_call(call: Trial, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever a call is cut off, the registry serves on, every job ends once, and nothing is left."""
    caplog.set_level(logging.ERROR)
    world = World(None if kind == "memory" else new_url(kind, request))
    before = trio.lowlevel.current_statistics().tasks_living
    async with world.opened():
        while not world.is_over:
            with trio.fail_after(LIMIT):
                await call(world)
            world.wait += 1
            assert world.wait < MOST_WAITS
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert caplog.records == []
    if world.url is not None:
        check_store(world.url, request)


async def use(world: World, job_ids: list[str]) -> None:
    """Open a registry, have a job in it cancelled and one completed, and leave it."""
    async with world.opened() as registry:
        hanging = await registry.submit("hang", job_id=world.new_id("hanging"))
        job_ids.append(hanging.id)
        async with hanging.subscribe() as messages:
            await messages.receive()
        counting = await registry.submit("count", job_id=world.new_id("counting"))
        job_ids.append(counting.id)
        await counting.wait()
        await hanging.cancel()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", STORES)
async def test_a_registry(kind: str, request: pytest.FixtureRequest) -> None:
    """Wherever a registry is cut off, opening and exit included, no job is left running, and the next one goes on."""
    url = new_url(kind, request)
    world = World(url)
    before = trio.lowlevel.current_statistics().tasks_living
    while not world.is_over:
        job_ids: list[str] = []
        with trio.fail_after(LIMIT):
            await world.cut(partial(use, world, job_ids))
            assert trio.lowlevel.current_statistics().tasks_living == before
            if job_ids:
                assert "RUNNING" not in check_store(url, request, job_ids).values()
            async with world.opened() as registry:
                for job_id, outcome in zip(job_ids, (Cancelled(None), DONE), strict=False):
                    job = await registry.get(job_id)
                    if outcome != DONE:
                        await job.cancel()
                    assert await job.wait() == outcome
                    lines = await registry.history(job_id)
                    assert world.runs[job_id] <= sum(line.state == "RUNNING" for line in lines)
        world.wait += 1
        assert world.wait < MOST_WAITS
    assert world.wait > 10  # or nothing was cut off on the way
