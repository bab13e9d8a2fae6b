"""What a registry and its handles can be asked in another thread than Trio's, and what they say where they can't."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import outcome

    from jobtrio import Job, JobContext, JobRegistry

executors = jobtrio.Executors()

STATS, PEEK, LEN = "registry.stats", "registry.peek, job_id", "len, registry"
LOSSLESS = "partial(job.subscribe, lossless=True)"

IN_MEMORY: list[tuple[str, str, Callable[[JobRegistry, Job], Any]]] = [
    ("registry.stats()", STATS, lambda registry, _: registry.stats()),
    ("registry.peek()", PEEK, lambda registry, job: registry.peek(job.id)),
    ("job_id in registry", PEEK, lambda registry, job: job.id in registry),
    ("len(registry)", LEN, lambda registry, _: len(registry)),
    ("job.subscribe(lossless=True)", LOSSLESS, lambda _, job: job.subscribe(lossless=True)),
]
"""What belongs to Trio's thread where jobs are in memory: its name, what to say instead, the call."""

DURABLE: list[tuple[str, str, Callable[[JobRegistry, Job], Any]]] = [
    ("job.subscribe()", "job.subscribe", lambda _, job: job.subscribe()),
    ("job.subscribe()", "job.subscribe", lambda _, job: job.tokens()),
    ("job.subscribe(lossless=True)", LOSSLESS, lambda _, job: job.subscribe(lossless=True)),
]
"""And where they are in a durable store."""

SUBMIT = "registry.submit, executor"

AWAITED: list[tuple[str, Callable[[JobRegistry, Job], Awaitable[Any]]]] = [
    (SUBMIT, lambda registry, _: registry.submit("hang")),
    (SUBMIT, lambda registry, _: registry.submit_many([])),
    (SUBMIT, lambda registry, _: registry.create_job()),
    (SUBMIT, lambda registry, job: registry.execute_and_stream(job.id, "hang").__aenter__()),
    (SUBMIT, lambda registry, job: registry.get(job.id)),
    (SUBMIT, lambda registry, _: registry.find()),
    (SUBMIT, lambda registry, job: registry.history(job.id)),
    (SUBMIT, lambda registry, _: registry.counts()),
    (SUBMIT, lambda registry, _: registry.workers()),
    (SUBMIT, lambda registry, _: registry.paused()),
    (SUBMIT, lambda registry, _: registry.pause("default")),
    (SUBMIT, lambda registry, _: registry.resume("default")),
    (SUBMIT, lambda registry, job: registry.cancel(job.id)),
    (SUBMIT, lambda registry, job: registry.set_priority(job.id, jobtrio.JobPriority.HIGH)),
    (SUBMIT, lambda registry, job: registry.remove(job.id)),
    (SUBMIT, lambda _, job: job.cancel()),
    (SUBMIT, lambda _, job: job.set_priority(jobtrio.JobPriority.HIGH)),
    ("registry.drain", lambda registry, _: registry.drain()),
    ("registry.shutdown", lambda registry, _: registry.shutdown()),
    ("job.wait", lambda _, job: job.wait()),
    ("job.result", lambda _, job: job.result()),
]
"""What is awaited, in the registry's own run alone: what to say instead, and the call."""


@executors.register("hang")
async def hang(job: JobContext) -> None:
    """Send something, and wait for ever."""
    await job.send("there")
    await trio.sleep_forever()


def anywhere(registry: JobRegistry, job: Job) -> None:
    """Ask what can be asked in any thread."""
    assert "hang" in registry.executors
    assert (job.id, job.state, job.outcome) == (job.record.id, "RUNNING", None)
    assert job == job
    assert hash(job) == hash(job)
    assert repr(job).startswith("<Job ")
    with registry.subscribe_events() as events, pytest.raises(trio.WouldBlock):
        events.receive_nowait()


def refused(registry: JobRegistry, job: Job, call: str, instead: str, ask: Callable[[JobRegistry, Job], Any]) -> None:
    """Ask for what belongs to Trio's thread."""
    with pytest.raises(RuntimeError) as caught:
        ask(registry, job)
    text = str(caught.value)
    assert text.startswith(f"{call} must be called within the run of Trio that opened")
    assert f"trio.from_thread.run_sync({instead})" in text


async def running(registry: JobRegistry) -> Job:
    """Return a job that runs."""
    job = await registry.submit("hang")
    with job.subscribe() as messages:
        await messages.receive()
    return job


@pytest.mark.parametrize(("call", "instead", "ask"), IN_MEMORY)
async def test_in_memory(call: str, instead: str, ask: Callable[[JobRegistry, Job], Any]) -> None:
    """What may change what is kept is refused by its name, in a thread of Trio's, in another run, and after the run."""

    async def other_run() -> None:
        refused(registry, job, call, instead, ask)

    with trio.fail_after(60):
        async with jobtrio.open_registry(executors) as registry:
            job = await running(registry)
            await trio.to_thread.run_sync(refused, registry, job, call, instead, ask)
            await trio.to_thread.run_sync(trio.run, other_run)
            await trio.to_thread.run_sync(anywhere, registry, job)
            await trio.to_thread.run_sync(trio.from_thread.run_sync, ask, registry, job)
            await registry.shutdown()


@pytest.mark.parametrize(("call", "instead", "ask"), DURABLE)
async def test_durable(call: str, instead: str, ask: Callable[[JobRegistry, Job], Any], tmp_path: Path) -> None:
    """With a durable store it is what has a job's stream followed; the rest can be asked anywhere."""
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
            job = await running(registry)
            await trio.to_thread.run_sync(refused, registry, job, call, instead, ask)
            await trio.to_thread.run_sync(anywhere, registry, job)
            for _, _, harmless in IN_MEMORY[:4]:
                await trio.to_thread.run_sync(harmless, registry, job)
            await trio.to_thread.run_sync(trio.from_thread.run_sync, ask, registry, job)
            await registry.shutdown()


@pytest.mark.parametrize("durable", [False, True])
async def test_awaited_in_another_run(durable: bool, tmp_path: Path) -> None:
    """What is awaited by a `trio.run` in another thread is refused there, and does no harm to the registry."""

    async def other_run(instead: str, call: Callable[[JobRegistry, Job], Awaitable[Any]]) -> None:
        with pytest.raises(RuntimeError, match="must be called within the run of Trio") as caught:
            await call(registry, job)
        assert f"trio.from_thread.run({instead})" in str(caught.value)

    store = SqliteJobStore(tmp_path / "jobs.db") if durable else None
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=store) as registry:
            job = await running(registry)
            for instead, call in AWAITED:
                await trio.to_thread.run_sync(trio.run, other_run, instead, call)
            assert await registry.counts() == {"default": dict.fromkeys(jobtrio.JobState, 0) | {job.state: 1}}
            assert await job.cancel("enough")
            assert await job.wait() == jobtrio.Cancelled("enough")


async def test_a_span_in_another_run(tmp_path: Path) -> None:
    """With a durable store a job's span is refused by its own name, not by that of what it makes use of."""

    async def other_run() -> None:
        with pytest.raises(RuntimeError, match=r"^job\.span\(\) must .*trio\.from_thread\.run\(job\.span\)"):
            await job.span()

    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
            job = await running(registry)
            await trio.to_thread.run_sync(trio.run, other_run)
            await job.span()
            await registry.shutdown()


@pytest.mark.parametrize("durable", [False, True])
async def test_received_in_another_run(durable: bool, tmp_path: Path) -> None:
    """Who would wait for a message by a `trio.run` in another thread is refused; others still receive it."""

    async def other_run() -> None:
        for receive in (messages.receive, messages.receive_batch):
            with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run\(messages\.receive\)"):
                await receive()

    store = SqliteJobStore(tmp_path / "jobs.db") if durable else None
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=store) as registry:
            job = await running(registry)
            with job.subscribe(after=1) as messages:
                await trio.to_thread.run_sync(trio.run, other_run)
                assert await job.cancel("enough")
                assert await messages.receive() == jobtrio.End(2, jobtrio.Cancelled("enough"))


def test_awaited_by_the_host() -> None:
    """What a coroutine of asyncio awaits, where that hosts Trio's run, is refused and does no harm either."""

    async def guest(opened: asyncio.Future[tuple[JobRegistry, Job]], asked: trio.Event) -> Job:
        async with jobtrio.open_registry(executors) as registry:
            job = await running(registry)
            opened.set_result((registry, job))
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert await job.cancel("enough")
        return job

    async def host() -> Job:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[tuple[JobRegistry, Job]] = loop.create_future()
        over: asyncio.Future[outcome.Outcome[Job]] = loop.create_future()
        asked = trio.Event()
        trio.lowlevel.start_guest_run(
            guest,
            opened,
            asked,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        registry, job = await opened
        for _, call in AWAITED:
            with pytest.raises(RuntimeError):
                await call(registry, job)
        asked.set()
        return (await over).unwrap()

    assert asyncio.run(host()).outcome == jobtrio.Cancelled("enough")


async def test_events_in_another_run() -> None:
    """Who would wait for an event by a `trio.run` in another thread is refused; others still receive it."""

    async def other_run() -> None:
        with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run\(events\.receive\)"):
            await events.receive()

    with trio.fail_after(60):
        async with jobtrio.open_registry(executors) as registry:
            with registry.subscribe_events() as events:
                await trio.to_thread.run_sync(trio.run, other_run)
                job = await running(registry)
                assert (await events.receive()).job_id == job.id
                assert await job.cancel()


RECEIVE, CLOSE = r"trio\.from_thread\.run\(messages\.receive\)", r"trio\.from_thread\.run_sync\(messages\.close\)"

WAKING: list[tuple[str, Callable[[jobtrio.Subscription], Any]]] = [
    (RECEIVE, lambda messages: messages.receive_nowait()),
    (RECEIVE, lambda messages: trio.run(messages.receive)),
    (RECEIVE, lambda messages: trio.run(messages.receive_batch)),
    (CLOSE, lambda messages: messages.close()),
    (CLOSE, lambda messages: messages.__exit__(None, None, None)),
    (CLOSE, lambda messages: trio.run(messages.aclose)),
]
"""What may wake a job that waits for a lossless consumer: what to say instead, and the call."""


@pytest.mark.parametrize(("instead", "ask"), WAKING)
async def test_what_would_wake_a_job(instead: str, ask: Callable[[jobtrio.Subscription], Any]) -> None:
    """A lossless consumer is refused what would have its job go on; it has lost nothing, and the job waits for it."""

    async def count(job: JobContext) -> None:
        for number in range(4):
            await job.send(number)

    def in_thread() -> None:
        with pytest.raises(RuntimeError, match=instead):
            ask(messages)

    retention = jobtrio.Retention(tokens_per_job=1)
    with trio.fail_after(60):
        async with jobtrio.open_registry(retention=retention) as registry:
            job = await registry.submit(count)
            messages = job.subscribe(lossless=True)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(in_thread)
            seen = [message async for message in messages]
    assert [message.value for message in seen[:-1] if isinstance(message, jobtrio.Token)] == [0, 1, 2, 3]
    assert seen[-1] == jobtrio.End(5, jobtrio.Completed())
    await trio.to_thread.run_sync(messages.close)  # nobody is left to be woken


@pytest.mark.parametrize("of", ["messages", "events"])
async def test_closed_while_it_waits(of: str) -> None:
    """Whoever waits goes on to do so, and hears of what comes."""

    def in_thread() -> None:
        with pytest.raises(RuntimeError, match=rf"trio\.from_thread\.run_sync\({of}\.close\)"):
            channel.close()

    async def receive() -> None:
        heard.append(await channel.receive())

    heard: list[Any] = []
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors) as registry:
            job = await running(registry)
            channel: Any = job.subscribe(after=1) if of == "messages" else registry.subscribe_events()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                await trio.to_thread.run_sync(in_thread)
                assert not heard
                assert await job.cancel()
            await trio.to_thread.run_sync(channel.close)  # nobody waits now
    assert len(heard) == 1


def test_after_the_run() -> None:
    """When the run is over, what needs it says so; a handle is still readable."""

    async def main() -> tuple[JobRegistry, Job]:
        async with jobtrio.open_registry(executors) as registry:
            job = await running(registry)
            await registry.shutdown()
        return registry, job

    registry, job = trio.run(main)
    for call, instead, ask in IN_MEMORY:
        refused(registry, job, call, instead, ask)
    assert job.outcome == jobtrio.Cancelled("shutdown")
    with job.subscribe() as messages:
        assert messages.receive_nowait() == jobtrio.Token(1, 1, "there")


def test_read_in_another_run() -> None:
    """What a registry kept when it was closed is still there in another run, whose clock tells no job's age."""

    async def main() -> JobRegistry:
        async with jobtrio.open_registry(executors) as registry:
            await running(registry)
            await registry.shutdown()
        return registry

    async def read() -> None:
        clock.jump(1_000_000)
        (record,) = await registry.find()
        job = await registry.get(record.id)
        assert job.outcome == jobtrio.Cancelled("shutdown")
        assert len(await registry.history(job.id)) == 3

    clock = trio.testing.MockClock()
    registry = trio.run(main, clock=trio.testing.MockClock())
    trio.run(read, clock=clock)


async def test_as_it_says(tmp_path: Path) -> None:
    """What is said to do instead does it."""
    with trio.fail_after(60):
        token = trio.lowlevel.current_trio_token()

        def ask(job: Job) -> None:
            assert trio.from_thread.run_sync(registry.stats).running == 1
            assert trio.from_thread.run_sync(registry.peek, job.id, trio_token=token) == job
            assert trio.from_thread.run_sync(len, registry) == 1
            messages = trio.from_thread.run_sync(partial(job.subscribe, lossless=True))
            assert trio.from_thread.run(messages.receive) == jobtrio.Token(1, 1, "there")
            trio.from_thread.run_sync(messages.close)
            assert trio.from_thread.run(partial(registry.cancel, job.id, "enough"))

        async with jobtrio.open_registry(executors) as registry:
            job = await running(registry)
            await trio.to_thread.run_sync(ask, job)
            assert await job.wait() == jobtrio.Cancelled("enough")


def test_awaited_behind_the_run() -> None:
    """When all is over there is nothing to wait for, and another run may ask for it."""

    async def main() -> JobRegistry:
        async with jobtrio.open_registry() as registry:
            return registry

    registry = trio.run(main)
    trio.run(registry.drain)
    trio.run(registry.shutdown)
