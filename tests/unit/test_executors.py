"""Named executors, and what can be one."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
import trio

import jobtrio
from jobtrio import Completed, Executors, Failed, RetryPolicy, UnknownExecutorError
from jobtrio.executors import check_executor, executor_name, is_async_executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jobtrio import JobContext, ThreadJobContext


async def work(job: JobContext) -> str:
    """Return at once."""
    await trio.lowlevel.checkpoint()
    return "async"


def plain(job: ThreadJobContext) -> str:
    """Return at once, in a thread."""
    return "plain"


class AsyncCallable:
    """An object that is called as an async function."""

    async def __call__(self, job: JobContext) -> str:
        return "async"

    async def method(self, job: JobContext) -> str:
        """Return at once."""
        return "async"

    @staticmethod
    async def static(job: JobContext) -> str:
        """Return at once."""
        return "async"

    @classmethod
    async def of_class(cls, job: JobContext) -> str:
        """Return at once."""
        return "async"


class PlainCallable:
    """An object that is called as a plain function."""

    def __call__(self, job: ThreadJobContext) -> str:
        return "plain"

    def method(self, job: ThreadJobContext) -> str:
        """Return at once."""
        return "plain"


async def with_more(more: int, job: JobContext, *, last: int) -> str:
    """Take an argument before the job, and one behind it."""
    return "async"


def plain_with_more(more: int, job: ThreadJobContext, *, last: int) -> str:
    """Take an argument before the job, and one behind it."""
    return "plain"


async def produce(job: JobContext) -> AsyncIterator[int]:
    """Be an async generator, which no executor can be."""
    yield 1


def generate(job: ThreadJobContext) -> Iterator[int]:
    """Be a generator, which no executor can be."""
    yield 1


class Producer:
    """An object whose call is an async generator."""

    async def __call__(self, job: JobContext) -> AsyncIterator[int]:
        yield 1


GOOD = [
    work,
    plain,
    lambda job: "plain",
    AsyncCallable(),
    AsyncCallable().method,
    AsyncCallable.static,
    AsyncCallable.of_class,
    vars(AsyncCallable)["static"],
    functools.partial(staticmethod(with_more), 1, last=2),
    staticmethod(plain),
    PlainCallable(),
    PlainCallable().method,
    functools.partial(with_more, 1, last=2),
    functools.partial(plain_with_more, 1, last=2),
    functools.partial(functools.partial(with_more, 1), last=2),
    functools.partial(AsyncCallable()),
    functools.partial(AsyncCallable().method),
    functools.partial(PlainCallable()),
    AsyncMock(return_value="async"),
]


@pytest.mark.parametrize("executor", GOOD, ids=[str(n) for n in range(len(GOOD))])
async def test_every_kind_of_executor(executor: Any) -> None:
    """Functions, methods, objects and partials of them run, async ones here and plain ones in a thread."""
    check_executor(executor)
    async with jobtrio.open_registry() as registry:
        outcome = await (await registry.submit(executor)).wait()
    assert outcome == Completed("async" if is_async_executor(executor) else "plain")


def test_a_marked_function_is_async() -> None:
    """A plain function that is marked as a coroutine function is taken at its word."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        assert not is_async_executor(lambda job: work(job))
    else:
        assert is_async_executor(mark(lambda job: work(job)))


@pytest.mark.parametrize(
    "wrong",
    [None, 3, "work", b"work", object(), AsyncCallable, produce, generate, Producer(), functools.partial(produce)],
)
def test_no_executor(wrong: Any) -> None:
    """What can't be an executor is refused with what can."""
    with pytest.raises(
        TypeError, match=r"^executor must be an async function, a plain function, or a partial or callable"
    ):
        check_executor(wrong)


def test_a_generator_is_told_what_to_do() -> None:
    """A generator is refused with a hint to `job.send`."""
    with pytest.raises(TypeError, match=r", an async generator: send its values with job\.send$"):
        check_executor(produce)
    with pytest.raises(TypeError, match=r", a generator: send its values with job\.send$"):
        check_executor(generate)


def test_a_call_is_told_what_to_do() -> None:
    """A coroutine in place of its function is refused with a hint, and nothing is left unawaited."""
    with pytest.raises(TypeError, match=r", a coroutine: give the function itself, and don't call it$"):
        check_executor(work(None))  # type: ignore[arg-type]


def test_names() -> None:
    """An executor without a registered name is called as its function or its class is."""

    def inner(job: ThreadJobContext) -> None:
        pass

    assert executor_name(work) == "work"
    assert executor_name(inner) == "inner"
    assert executor_name(AsyncCallable().method) == "AsyncCallable.method"
    assert executor_name(AsyncCallable()) == "AsyncCallable"
    assert executor_name(functools.partial(functools.partial(with_more, 1), last=2)) == "with_more"
    assert executor_name(lambda job: None) == "<lambda>"
    work_of_many_letters = functools.partial(work)
    assert executor_name(work_of_many_letters) == "work"
    inner.__qualname__ = "x" * 300
    assert executor_name(inner) == "x" * 200
    inner.__qualname__ = "a\udc80é"
    assert executor_name(inner) == "a\\udc80é"
    inner.__qualname__ = ""
    assert executor_name(inner) == "function"


def test_register() -> None:
    """The decorator leaves the function as it is, and the collection knows it by name."""
    executors = Executors()
    assert executors.register("work")(work) is work
    assert executors.changes == 1
    executors.register("plain", time_limit=3, queue="gpu", retry=RetryPolicy(), retry_on=(OSError,), expose=True)(plain)
    assert list(executors) == ["work", "plain"]
    assert len(executors) == 2
    assert "work" in executors
    assert "other" not in executors
    assert repr(executors) == "<Executors work, plain>"
    assert repr(Executors()) == "<Executors none>"
    registration = executors.get("plain")
    assert registration.function is plain
    assert (registration.time_limit, registration.queue, registration.retry_on) == (3.0, "gpu", (OSError,))
    assert (registration.retry, registration.expose) == (RetryPolicy(), True)
    simple = executors.get("work")
    assert (simple.time_limit, simple.queue, simple.retry, simple.retry_on) == (None, None, None, (Exception,))
    assert simple.expose is False
    assert executors.find(plain) is registration
    assert executors.find(lambda job: None) is None


def name_found(executors: Executors, function: Any) -> str | None:
    """Return the name under which a function is found."""
    found = executors.find(function)
    return None if found is None else found.name


def test_find_a_bound_method() -> None:
    """A bound method is found although each look at it makes another object."""
    executors, worker = Executors(), AsyncCallable()
    executors.register("method")(worker.method)
    assert name_found(executors, worker.method) == "method"
    assert executors.find(AsyncCallable().method) is None


def test_the_first_registration_counts() -> None:
    """A function that is registered twice is found under its first name."""
    executors = Executors()
    executors.register("one")(work)
    executors.register("two")(work)
    assert name_found(executors, work) == "one"


def test_one_is_registered_while_another_is_looked_for() -> None:
    """A registration in the middle of a search, as by another thread, does not disturb it."""
    executors = Executors()

    class Meanwhile(AsyncCallable):
        """Stands for the other thread: it is asked whether it is the one that is looked for."""

        def __eq__(self, other: object) -> bool:
            executors.register("meanwhile")(plain)
            return False

        __hash__ = None  # type: ignore[assignment]

    executors.register("first")(Meanwhile())
    executors.register("last")(work)
    assert name_found(executors, work) == "last"


def test_one_is_registered_while_names_are_listed() -> None:
    """Nor does it disturb who goes through the names, as a store that is asked for jobs."""
    executors = Executors()
    executors.register("first")(work)
    names = iter(executors)
    executors.register("meanwhile")(plain)
    assert [*names] == ["first"]
    assert [*executors] == ["first", "meanwhile"]


def test_a_name_is_used_once() -> None:
    """A name in use is refused, when the decorator is made and when it is applied."""
    executors = Executors()
    early = executors.register("work")
    executors.register("work")(work)
    with pytest.raises(ValueError, match="'work' is registered already"):
        executors.register("work")
    with pytest.raises(ValueError, match="'work' is registered already"):
        early(plain)
    assert executors.get("work").function is work
    assert executors.changes == 1


def test_refused_executors_are_not_registered() -> None:
    """What can't be an executor leaves the collection as it was."""
    executors = Executors()
    with pytest.raises(TypeError, match="executor must be"):
        executors.register("work")(produce)
    assert len(executors) == executors.changes == 0


def test_unknown() -> None:
    """An unknown name is told with those that are known."""
    executors = Executors()
    with pytest.raises(UnknownExecutorError, match="no executor is registered as 'x'; registered: none"):
        executors.get("x")
    executors.register("b")(work)
    executors.register("a")(work)
    with pytest.raises(UnknownExecutorError, match="registered: 'a', 'b'") as excinfo:
        executors.get("x")
    assert (excinfo.value.name, excinfo.value.known) == ("x", ("a", "b"))
    with pytest.raises(UnknownExecutorError):
        executors.get([])  # type: ignore[arg-type]


def test_unknown_by_a_name_that_is_known() -> None:
    """Of a function that has the name of another's registration it is not said that nothing is registered so."""
    with pytest.raises(UnknownExecutorError, match=r"^another function than this is registered as 'work': give"):
        raise UnknownExecutorError("work", ["work", "other"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": ""}, ValueError),
        ({"name": 3}, TypeError),
        ({"time_limit": 0}, ValueError),
        ({"time_limit": "1"}, TypeError),
        ({"retry": 3}, TypeError),
        ({"queue": ""}, ValueError),
        ({"expose": 1}, TypeError),
        ({"retry_on": ()}, TypeError),
        ({"retry_on": [OSError]}, TypeError),
        ({"retry_on": (OSError, 3)}, TypeError),
        ({"retry_on": (int,)}, TypeError),
        ({"retry_on": None}, TypeError),
    ],
)
def test_refused_options(options: dict[str, Any], error: type[Exception]) -> None:
    """Options that make no sense are refused by name, and the name stays free."""
    executors = Executors()
    with pytest.raises(error, match=f"^{next(iter(options))} must be"):
        executors.register(**{"name": "work", **options})
    assert len(executors) == 0


def test_one_class_to_retry() -> None:
    """One exception class may stand without a tuple, as in an `except` clause."""
    executors = Executors()
    executors.register("work", retry_on=OSError)(work)
    assert executors.get("work").retry_on == (OSError,)


# -- what belongs to the executor


async def fails(job: JobContext) -> None:
    """Fail, and count the attempts in the metadata."""
    job.payload.append(job.attempt)
    raise ValueError("no")


async def test_options_of_the_executor_apply() -> None:
    """Registered options are those of the job, by function and by name; what is submitted wins."""
    executors = Executors()
    executors.register("named", time_limit=3, queue="gpu", retry=RetryPolicy(max_attempts=2, initial=0))(fails)
    async with jobtrio.open_registry(executors) as registry:
        for executor in ("named", fails):
            attempts: list[int] = []
            job = await registry.submit(executor, attempts)
            await job.wait()
            record = job.record
            assert (record.executor, record.queue, record.max_attempts, attempts) == ("named", "gpu", 2, [1, 2])
        attempts = []
        once = RetryPolicy(max_attempts=1)
        job = await registry.submit("named", attempts, queue="default", retry=once, time_limit=5)
        await job.wait()
        assert (job.record.queue, job.record.max_attempts, attempts) == ("default", 1, [1])


async def test_the_time_limit_of_the_executor() -> None:
    """A registered time limit is each attempt's deadline, and a submitted one takes its place."""
    executors = Executors()

    @executors.register("named", time_limit=3)
    async def deadline(job: JobContext) -> float:
        return job.deadline - trio.current_time()

    async with jobtrio.open_registry(executors) as registry:
        assert 2 < await (await registry.submit("named")).result() <= 3
        assert 4 < await (await registry.submit("named", time_limit=5)).result() <= 5
        assert await (await registry.submit("named", time_limit=float("inf"))).result() == float("inf")


async def test_retry_on_belongs_to_the_function() -> None:
    """`retry_on` counts for the registered function under any of its ways in, not for another of its name."""
    executors = Executors()
    executors.register("fails", retry_on=(OSError,))(work)
    executors.register("plain", retry_on=(OSError,))(fails)
    policy = RetryPolicy(max_attempts=2, initial=0)
    async with jobtrio.open_registry(executors) as registry:
        attempts: list[int] = []
        job = await registry.submit("plain", attempts, retry=policy)
        await job.wait()
        assert attempts == [1]
        attempts = []
        job = await registry.submit(fails, attempts, retry=policy)
        await job.wait()
        assert attempts == [1]

        async def other(job: JobContext) -> None:
            job.payload.append(job.attempt)
            raise ValueError

        other.__qualname__ = "fails"
        attempts = []
        job = await registry.submit(other, attempts, retry=policy)
        await job.wait()
        assert job.record.executor == "fails"
        assert attempts == [1, 2]


async def test_retry_on_of_a_thread() -> None:
    """A plain function is known by its registration, too, although a thread is put around it."""
    executors = Executors()
    attempts: list[int] = []

    @executors.register("thread", retry_on=(OSError,), retry=RetryPolicy(max_attempts=2, initial=0))
    def thread(job: ThreadJobContext) -> None:
        attempts.append(job.attempt)
        raise ValueError

    async with jobtrio.open_registry(executors) as registry:
        for executor in ("thread", thread):
            assert isinstance(await (await registry.submit(executor)).wait(), Failed)
    assert attempts == [1, 1]


async def test_registered_later() -> None:
    """An executor that is registered after it was submitted is known from then on."""
    executors = Executors()
    async with jobtrio.open_registry(executors) as registry:
        assert (await registry.submit(work)).record.executor == "work"
        executors.register("later", queue="gpu")(work)
        record = (await registry.submit(work)).record
        assert (record.executor, record.queue) == ("later", "gpu")
        assert (await registry.submit("later")).record.queue == "gpu"


async def test_found_by_executor() -> None:
    """Jobs are found by their executor, given as a function or by name."""
    executors = Executors()
    executors.register("named")(work)
    async with jobtrio.open_registry(executors) as registry:
        named, other = await registry.submit("named"), await registry.submit(plain)
        asked: list[tuple[Any, jobtrio.Job]] = [("named", named), (work, named), (plain, other), ("plain", other)]
        for executor, job in asked:
            assert [record.id for record in await registry.find(executor=executor)] == [job.id]
        assert await registry.find(executor="unknown") == []
        with pytest.raises(TypeError, match="executor must be"):
            await registry.find(executor=3)  # type: ignore[arg-type]
