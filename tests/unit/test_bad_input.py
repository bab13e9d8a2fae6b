"""Nonsense is refused at once by name, value and what is allowed, and leaves nothing behind."""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

NAN = math.nan
INF = math.inf
HUGE = 10**400
LONG = "x" * 201
NAIVE = datetime(2040, 1, 1)


async def work(job: jobtrio.JobContext) -> str:
    """Return at once."""
    return "worked"


async def produce(job: jobtrio.JobContext) -> AsyncIterator[int]:
    """Be an async generator, which no executor can be."""
    yield 1


def enumerate_payload(job: jobtrio.JobContext) -> Iterator[int]:
    """Be a generator, which no executor can be either."""
    yield from job.payload


class Worker:
    """A class that was given where an executor was due."""

    def __init__(self, job: jobtrio.JobContext) -> None:
        self.job = job


BAD_SECONDS = (-1, -0.001, NAN, -INF, "1", True, [1], 1j, -HUGE)
BAD_LIMITS = (*BAD_SECONDS, 0, 0.0)
BAD_COUNTS = (0, -1, 1.5, NAN, INF, "3", True, [1])
BAD_NAMES = ("", LONG, "a\nb", "a\x00", "\ud800", 3, b"x", ["x"])
BAD_TAGS = (3, "abc", ["a"], {"a": 1}, {"a": None}, {1: "a"}, {"a": ["b"]}, {b"a": "b"})
BAD_METADATA = (3, "abc", ["a"], {1: "a"}, {None: 1})
BAD_EXECUTORS = (None, 3, b"work", ["work"], Worker, produce, enumerate_payload, object())

OPTIONS: dict[str, Iterable[Any]] = {
    "job_id": BAD_NAMES,
    "key": BAD_NAMES,
    "queue": (*BAD_NAMES, None),
    "priority": ("HIGH", 99, -1, True, None, 1.5),
    "time_limit": BAD_LIMITS,
    "retry": (3, "yes", True, {"max_attempts": 2}, jobtrio.RetryPolicy),
    "delay": (*BAD_SECONDS, INF, HUGE),
    "run_at": (NAIVE, 5.0, "2040-01-01T00:00:00Z", date(2040, 1, 1), True),
    "expires_in": BAD_LIMITS,
    "tags": BAD_TAGS,
    "metadata": BAD_METADATA,
}

Row = tuple[str, Any]


def shown(value: Any) -> str:
    """Return a test's id for a value: the same in every process, hence without the addresses of objects."""
    return ascii(value).partition(" at 0x")[0][:30]


def rows(table: dict[str, Iterable[Any]]) -> list[Any]:
    """Spread a table of parameters and bad values into pytest's parameters."""
    return [
        pytest.param(name, value, id=f"{name}={shown(value)}") for name, values in table.items() for value in values
    ]


def refuses(excinfo: pytest.ExceptionInfo[BaseException], name: str, value: Any) -> None:
    """Check that the refusal names the parameter, the value, and what is allowed."""
    error = excinfo.value
    assert type(error) in (TypeError, ValueError)
    text = str(error)
    assert re.search(rf"\b{name}\b", text), f"{text!r} does not name {name}"
    rest = text.replace(name, "")
    told = innermost(value)
    assert any(repr(part)[:40] in text for part in told), f"{text!r} does not show {value!r}"
    for part in told:
        rest = rest.replace(repr(part)[:40], "")
    assert len(rest.split()) >= 4, f"{text!r} does not say what is allowed"


def innermost(value: Any) -> list[Any]:
    """List what a message may show of a value: itself, or the keys and items at fault in it."""
    if isinstance(value, dict):
        return [value, *value.keys(), *value.values()]
    return [value, *value] if isinstance(value, (list, tuple, str)) else [value]


async def expect_refusal(call: Callable[[], Awaitable[Any]], name: str, value: Any) -> None:
    """Run a call that has to be refused by name and value."""
    with pytest.raises((TypeError, ValueError)) as excinfo:
        await call()
    refuses(excinfo, name, value)


async def untouched(registry: jobtrio.JobRegistry, *, jobs: int = 0) -> None:
    """Check that the registry holds as many jobs as before, and that it still works."""
    assert len(registry) == jobs
    assert len(await registry.find()) == jobs
    job = await registry.submit(work)
    with trio.fail_after(60):
        assert await job.wait() == jobtrio.Completed("worked")


async def enter(context: Any) -> None:
    """Enter and leave an async context manager."""
    async with context:
        pass


@pytest.mark.parametrize(("name", "value"), rows(OPTIONS))
async def test_submit(name: str, value: Any) -> None:
    """`submit` refuses each option's nonsense and stores nothing."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.submit(work, **{name: value}), name, value)
        await untouched(registry)


@pytest.mark.parametrize(("name", "value"), rows(OPTIONS))
async def test_create_job(name: str, value: Any) -> None:
    """`create_job` refuses the same as `submit`."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.create_job(None, **{name: value}), name, value)
        await untouched(registry)


@pytest.mark.parametrize(("name", "value"), rows(OPTIONS))
async def test_submit_many(name: str, value: Any) -> None:
    """One spec that makes no sense refuses the whole list, wherever it stands in it."""
    async with jobtrio.open_registry() as registry:

        async def call() -> None:
            spec = jobtrio.JobSpec(work, **{name: value})
            await registry.submit_many([jobtrio.JobSpec(work), spec, jobtrio.JobSpec(work)])

        await expect_refusal(call, name, value)
        await untouched(registry)


@pytest.mark.parametrize("value", BAD_EXECUTORS, ids=shown)
async def test_executor(value: Any) -> None:
    """What cannot be an executor is refused wherever one is given; a held job is then still held."""
    async with jobtrio.open_registry() as registry:
        held = await registry.create_job()
        await expect_refusal(lambda: registry.submit(value), "executor", value)
        await expect_refusal(lambda: registry.submit_many([jobtrio.JobSpec(value)]), "executor", value)
        await expect_refusal(lambda: enter(registry.execute_and_stream(held.id, value)), "executor", value)
        assert held.state == "QUEUED"
        await untouched(registry, jobs=1)


async def test_coroutine_in_place_of_an_executor() -> None:
    """An executor that was called by mistake is refused like anything else that cannot be called."""
    called = work(None)  # type: ignore[arg-type]
    try:
        async with jobtrio.open_registry() as registry:
            await expect_refusal(lambda: registry.submit(called), "executor", called)  # type: ignore[arg-type]
            await untouched(registry)
    finally:
        called.close()


async def test_unknown_executor() -> None:
    """A name that nobody registered is refused by its own error, which lists the registered ones."""
    executors = jobtrio.Executors()
    executors.register("known")(work)
    async with jobtrio.open_registry(executors) as registry:
        held = await registry.create_job()
        for call in (
            partial(registry.submit, "unknown"),
            partial(registry.submit_many, [jobtrio.JobSpec("known"), jobtrio.JobSpec("unknown")]),
            lambda: enter(registry.execute_and_stream(held.id, "unknown")),
        ):
            with pytest.raises(jobtrio.UnknownExecutorError, match=r"'unknown'.*'known'"):
                await call()
        await untouched(registry, jobs=1)


@pytest.mark.parametrize("value", [None, 3, "abc", [1], ["known"], [None], work], ids=shown)
async def test_specs(value: Any) -> None:
    """`submit_many` takes an iterable of `JobSpec` and nothing else."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.submit_many(value), "specs", value)
        await untouched(registry)


RATE = jobtrio.RateLimit(1, per=1)

REGISTRY_OPTIONS: dict[str, Iterable[Any]] = {
    "executors": (3, {}, {"work": work}, "module:executors", work),
    "store": (3, "sqlite:///jobs.db", {}),
    "max_running": BAD_COUNTS,
    "max_running_total": (3, "gpu", ["gpu"], {"": 1}, {1: 1}, *({"gpu": n} for n in (0, -1, 1.5, NAN, True))),
    "rate_limits": (
        3,
        "gpu",
        ["gpu"],
        *({name: RATE} for name in ("", 1, LONG)),
        {"gpu": 1},
        {"gpu": "1/s"},
    ),
    "queues": (3, "gpu", ["gpu"], {"": 1}, {1: 1}, {LONG: 1}, *({"gpu": n} for n in (0, -1, 1.5, NAN, True))),
    "max_queued": BAD_COUNTS,
    "retention": (3, {}, {"finished_jobs": 1}, jobtrio.Retention),
    "lease": (*BAD_LIMITS, 0.5),
    "worker": BAD_NAMES,
}


@pytest.mark.parametrize(("name", "value"), rows(REGISTRY_OPTIONS))
async def test_open_registry(name: str, value: Any) -> None:
    """`open_registry` refuses each option's nonsense before anything runs, bare and not in a group."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    await expect_refusal(lambda: enter(jobtrio.open_registry(**{name: value})), name, value)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


POLICY: dict[str, Iterable[Any]] = {
    "max_attempts": BAD_COUNTS,
    "initial": (*BAD_SECONDS, INF, HUGE),
    "multiplier": (-1, 0, 0.9, NAN, INF, "2", True),
    "max_delay": (*BAD_SECONDS, INF, HUGE),
    "jitter": (-0.1, 1.1, NAN, INF, "0.1", True),
}


@pytest.mark.parametrize(("name", "value"), rows(POLICY))
def test_retry_policy(name: str, value: Any) -> None:
    """`RetryPolicy` refuses numbers that make no sense when it is made."""
    with pytest.raises((TypeError, ValueError)) as excinfo:
        jobtrio.RetryPolicy(**{name: value})
    refuses(excinfo, name, value)


RETENTION: dict[str, Iterable[Any]] = {
    "finished_jobs": (-1, 1.5, NAN, INF, "3", True),
    "finished_for": BAD_SECONDS,
    "tokens_per_job": BAD_COUNTS,
    "held_for": BAD_LIMITS,
}


@pytest.mark.parametrize(("name", "value"), rows(RETENTION))
def test_retention(name: str, value: Any) -> None:
    """`Retention` refuses numbers that make no sense when it is made."""
    with pytest.raises((TypeError, ValueError)) as excinfo:
        jobtrio.Retention(**{name: value})
    refuses(excinfo, name, value)


@pytest.mark.parametrize("value", [*BAD_SECONDS, INF, HUGE], ids=shown)
def test_retry_later(value: Any) -> None:
    """`RetryLater` refuses a delay that makes no sense when it is made."""
    with pytest.raises((TypeError, ValueError)) as excinfo:
        jobtrio.RetryLater(value)
    refuses(excinfo, "delay", value)


def test_retry_later_counts() -> None:
    """`RetryLater` counts or does not, and nothing else."""
    with pytest.raises(TypeError) as excinfo:
        jobtrio.RetryLater(1, counts=0)  # type: ignore[arg-type]
    refuses(excinfo, "counts", 0)


CANCEL: dict[str, Iterable[Any]] = {"reason": (3, b"why", ["why"], True), "grace": (*BAD_SECONDS, INF)}


@pytest.mark.parametrize(("name", "value"), rows(CANCEL))
async def test_cancel(name: str, value: Any) -> None:
    """A cancellation with nonsense is refused and cancels nothing."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        await expect_refusal(lambda: registry.cancel(job.id, **{name: value}), name, value)
        await expect_refusal(lambda: job.cancel(**{name: value}), name, value)
        assert (job.state, job.record.cancel_requested_at) == ("QUEUED", None)
        await untouched(registry, jobs=1)


SUBSCRIBE: dict[str, Iterable[Any]] = {
    "after": (-1, 1, 1.0, NAN, "0", True, None, HUGE),
    "on_gap": ("skip", "", None, 3, True),
    "lossless": ("yes", None, 2),
}


@pytest.mark.parametrize(("name", "value"), rows(SUBSCRIBE))
async def test_subscribe(name: str, value: Any) -> None:
    """`subscribe` refuses nonsense, and numbers that the stream has not reached."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        with pytest.raises((TypeError, ValueError)) as excinfo:
            job.subscribe(**{name: value})
        refuses(excinfo, name, value)
        await untouched(registry, jobs=1)


@pytest.mark.parametrize("value", SUBSCRIBE["after"], ids=shown)
async def test_after_elsewhere(value: Any) -> None:
    """`tokens` and `open_channel` refuse the same numbers as `subscribe`."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        with pytest.raises((TypeError, ValueError)) as excinfo:
            job.tokens(after=value)
        refuses(excinfo, "after", value)
        await expect_refusal(lambda: enter(job.open_channel(after=value)), "after", value)
        await untouched(registry, jobs=1)


@pytest.mark.parametrize("value", [-1, 1.5, NAN, INF, "64", True, None], ids=ascii)
async def test_open_channel_size(value: Any) -> None:
    """A channel's size is a whole number: none of Trio's channels here is unbounded."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        await expect_refusal(lambda: enter(job.open_channel(size=value)), "size", value)
        await untouched(registry, jobs=1)


@pytest.mark.parametrize("value", [*BAD_COUNTS, None], ids=ascii)
async def test_receive_batch(value: Any) -> None:
    """A batch holds at least one message, and a refusal loses none."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(work)
        with job.subscribe() as messages:
            await expect_refusal(lambda: messages.receive_batch(max=value), "max", value)
            assert await messages.receive_batch() == [jobtrio.End(1, jobtrio.Completed("worked"))]


FIND: dict[str, Iterable[Any]] = {
    "state": ("NOPE", "", 3, True, ["NOPE"], [3], ["QUEUED", None]),
    "tags": BAD_TAGS,
    "queue": ("", 3, b"x", ["x"]),
    "executor": ("", 3, b"x", ["x"]),
    "key": ("", LONG, "a\nb", 3, b"x", ["x"]),
    "limit": BAD_COUNTS,
    "after": (3, b"x", ["x"]),
    "newest_first": (0, 1, None, "yes"),
}


@pytest.mark.parametrize("value", [*BAD_TAGS])
async def test_counts(value: Any) -> None:
    """`counts` refuses tags that no job can have."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.counts(tags=value), "tags", value)
        await untouched(registry)


@pytest.mark.parametrize(("name", "value"), rows(FIND))
async def test_find(name: str, value: Any) -> None:
    """`find` refuses filters that can match nothing because they make no sense."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.find(**{name: value}), name, value)
        await untouched(registry)


@pytest.mark.parametrize(("name", "value"), rows({name: FIND[name] for name in FIND if name not in ("limit", "after")}))
async def test_find_all(name: str, value: Any) -> None:
    """`find_all` refuses them as soon as it is called."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises((TypeError, ValueError)) as excinfo:
            registry.find_all(**{name: value})
        refuses(excinfo, name, value)


@pytest.mark.parametrize("value", OPTIONS["priority"], ids=shown)
async def test_priority(value: Any) -> None:
    """Nonsense for a priority is refused in the words of `submit`, and changes nothing."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        for call in (partial(registry.set_priority, job.id), job.set_priority, partial(registry.set_priority, "none")):
            await expect_refusal(partial(call, value), "priority", value)
        with pytest.raises(TypeError) as expected:
            await registry.submit(work, priority=value)
        with pytest.raises(TypeError) as excinfo:
            await job.set_priority(value)
        assert str(excinfo.value) == str(expected.value)
        assert job.record.priority is jobtrio.JobPriority.NORMAL
        await untouched(registry, jobs=1)


@pytest.mark.parametrize("job_id", ["nobody", "", LONG, "[DONE]", "../x", "a\nb", "😀"], ids=ascii)
async def test_unknown_ids(job_id: str) -> None:
    """Every method that takes an id answers one that nobody has with `UnknownJobError`."""
    async with jobtrio.open_registry() as registry:
        for call in (
            partial(registry.get, job_id),
            partial(registry.cancel, job_id),
            partial(registry.set_priority, job_id, jobtrio.JobPriority.HIGH),
            partial(registry.history, job_id),
            partial(registry.remove, job_id),
            partial(registry.find, after=job_id),
            lambda: enter(registry.execute_and_stream(job_id, work)),
        ):
            with pytest.raises(jobtrio.UnknownJobError) as excinfo:
                await call()
            assert excinfo.value.job_id == job_id
        assert job_id not in registry
        await untouched(registry)


async def test_what_is_asked_for_is_shown_in_part() -> None:
    """A whole file that was given for an id or a name does not fill the log; what can be one is shown in full."""
    longest = "'\"" * 100
    async with jobtrio.open_registry(jobtrio.Executors()) as registry:
        for ask, error in ((registry.get, jobtrio.UnknownJobError), (registry.submit, jobtrio.UnknownExecutorError)):
            with pytest.raises(error) as excinfo:
                await ask(longest)
            assert repr(longest) in str(excinfo.value)
            assert len(str(error("x" * 1_000_000))) < 1000


@pytest.mark.parametrize("value", [3, None, True, b"x", ["x"], {"x": "y"}], ids=shown)
async def test_ids_of_another_type(value: Any) -> None:
    """Every method that takes an id refuses what is no text, whether it can be looked up or not."""
    async with jobtrio.open_registry() as registry:
        for call in (registry.get, registry.cancel, registry.history, registry.remove):
            await expect_refusal(partial(call, value), "job_id", value)
        await expect_refusal(lambda: enter(registry.execute_and_stream(value, work)), "job_id", value)
        await expect_refusal(lambda: registry.set_priority(value, jobtrio.JobPriority.HIGH), "job_id", value)
        with pytest.raises(TypeError) as excinfo:
            registry.peek(value)
        refuses(excinfo, "job_id", value)
        assert value not in registry


@pytest.mark.parametrize("value", [*BAD_SECONDS, INF], ids=shown)
async def test_shutdown(value: Any) -> None:
    """A shutdown with nonsense is refused and shuts nothing down."""
    async with jobtrio.open_registry() as registry:
        await expect_refusal(lambda: registry.shutdown(value), "grace", value)
        await untouched(registry)


@pytest.mark.parametrize("value", BAD_LIMITS, ids=shown)
async def test_execute_and_stream_time_limit(value: Any) -> None:
    """A limit that makes no sense is refused and the held job is still held."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        await expect_refusal(
            lambda: enter(registry.execute_and_stream(job.id, work, time_limit=value)), "time_limit", value
        )
        assert job.state == "QUEUED"
        await untouched(registry, jobs=1)


REGISTER: dict[str, Iterable[Any]] = {
    "time_limit": BAD_LIMITS,
    "retry": OPTIONS["retry"],
    "queue": BAD_NAMES,
    "retry_on": (3, "OSError", ("OSError",), (int,), (3,), (OSError(),)),
    "expose": ("yes", None, 2),
}


@pytest.mark.parametrize(("name", "value"), rows(REGISTER))
async def test_register(name: str, value: Any) -> None:
    """`Executors.register` refuses each option's nonsense and registers nothing."""
    executors = jobtrio.Executors()
    with pytest.raises((TypeError, ValueError)) as excinfo:
        executors.register("generate", **{name: value})(work)
    refuses(excinfo, name, value)
    async with jobtrio.open_registry(executors) as registry:
        with pytest.raises(jobtrio.UnknownExecutorError):
            await registry.submit("generate")


@pytest.mark.parametrize("value", [*BAD_NAMES, None, work], ids=shown)
def test_register_name(value: Any) -> None:
    """An executor's name is text of 1 to 200 printable characters."""
    with pytest.raises((TypeError, ValueError)) as excinfo:
        jobtrio.Executors().register(value)(work)
    refuses(excinfo, "name", value)


def test_register_without_a_name() -> None:
    """A decorator without its parentheses is told how it is written."""
    with pytest.raises(TypeError, match=r'as in @executors\.register\("work"\)'):
        jobtrio.Executors().register(work)  # type: ignore[arg-type]


PROGRESS: dict[str, Iterable[Any]] = {
    "done": (-1, NAN, INF, "1", None, [1]),
    "total": (-1, NAN, INF, "1", [1]),
    "note": (3, b"x", ["x"]),
}
EXTEND: dict[str, Iterable[Any]] = {"seconds": (NAN, -INF, "1", None, [1], True)}


@pytest.mark.parametrize(("name", "value"), rows({**PROGRESS, **EXTEND}))
async def test_context(name: str, value: Any) -> None:
    """`progress` and `extend` refuse nonsense; the attempt goes on and nothing of it is in the stream."""

    async def executor(job: jobtrio.JobContext) -> float:
        before = job.deadline
        options = {name: value} if name == "seconds" else {"done": 1, "total": 2, name: value}
        method = job.extend if name == "seconds" else job.progress
        with pytest.raises((TypeError, ValueError)) as excinfo:
            method(**options)
        refuses(excinfo, name, value)
        return job.deadline - before

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=30)
        with job.subscribe() as messages:
            assert [message async for message in messages] == [jobtrio.End(1, jobtrio.Completed(0.0))]


async def test_events_and_stats_see_nothing_of_a_refusal() -> None:
    """A refused submission leaves no line in the audit log and no trace in the figures."""
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        events: list[jobtrio.Transition] = []
        channel = registry.subscribe_events()

        async def listen() -> None:
            async for event in channel:
                events.append(event)

        nursery.start_soon(listen)
        stats = registry.stats()
        for name, values in OPTIONS.items():
            for value in values:
                with pytest.raises((TypeError, ValueError)):
                    await registry.submit(work, **{name: value})
        await trio.testing.wait_all_tasks_blocked()
        assert events == []
        assert registry.stats() == stats
        nursery.cancel_scope.cancel()
