"""A nursery for background tasks, out of which the body's own exception comes bare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio._nursery import open_background_nursery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def fail(exc: BaseException) -> None:
    """Raise an exception."""
    raise exc


async def wait_for(exc: BaseException, *, nested: bool = False) -> None:
    """Wait in the body, or in a nursery within it, while a task raises an exception."""
    async with open_background_nursery() as nursery:
        nursery.start_soon(fail, exc)
        if nested:
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        await trio.sleep_forever()


async def test_tasks_end_with_the_body() -> None:
    """Leaving the body cancels the tasks and waits until they are gone."""
    ended: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            ended.append("task")

    async with open_background_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["task"]


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("mine"),
        ExceptionGroup("mine", [ValueError()]),
        KeyboardInterrupt(),
        StopIteration(),
        StopAsyncIteration(),
        GeneratorExit(),
    ],
)
async def test_the_bodys_exception_is_bare(raised: BaseException) -> None:
    """What the body raises comes out as the very same object, and the tasks are gone."""
    caught: BaseException | None = None
    with trio.CancelScope() as scope:
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise raised
        except BaseException as exc:
            caught = exc
    assert caught is raised
    assert not scope.cancelled_caught


async def test_a_tasks_exception_is_bare() -> None:
    """What one task raises cancels the body and comes out as it is."""
    with pytest.raises(ValueError, match="task"):
        await wait_for(ValueError("task"))


async def test_a_tasks_exception_that_nurseries_wrapped() -> None:
    """A single exception is bare however many nurseries it came through."""
    with pytest.raises(ValueError, match="task"):
        await wait_for(ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("task")])]))


async def test_several_exceptions_are_a_group() -> None:
    """The body's exception comes before those of the tasks."""
    body, task = ValueError("body"), ExceptionGroup("two", [KeyError("a"), KeyError("b")])
    caught: Any = None
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail, task)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            raise body
    except BaseExceptionGroup as group:
        caught = group
    assert caught.exceptions[0] is body
    assert caught.exceptions[1].exceptions == task.exceptions
    assert len(caught.exceptions) == 2


@pytest.mark.parametrize("body", [None, StoreUnavailableError("away"), ExceptionGroup("", [StoreError("gone")])])
async def test_a_store_that_is_lost_is_one_exception(body: Exception | None) -> None:
    """Of several tasks that learn of it the first is heard, rather than a body that was told less."""

    async def use_store() -> None:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail, ExceptionGroup("", [StoreError("gone for good"), StoreError("as well")]))
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            if body is not None:
                raise body
            await trio.sleep_forever()

    with pytest.raises(StoreError, match="gone for good"):
        await use_store()


async def test_a_store_that_is_lost_hides_nothing_else() -> None:
    """What else is raised is told beside it."""
    with pytest.raises(ExceptionGroup) as caught:
        await wait_for(ExceptionGroup("both", [StoreError("gone for good"), ValueError("mine")]))
    assert [type(exc) for exc in caught.value.exceptions] == [StoreError, ValueError]


@pytest.mark.parametrize("nested", [False, True])
async def test_a_body_that_was_only_cancelled_adds_nothing(nested: bool) -> None:
    """The body that a failing task has cancelled has nothing to say, also through a nursery of its own."""
    with pytest.raises(KeyboardInterrupt):
        await wait_for(KeyboardInterrupt(), nested=nested)


async def test_what_a_cancelled_body_raises_besides() -> None:
    """Of a body that was cancelled and failed in its clean-up, the failure is told."""
    caught: Any = None
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(fail, KeyError("task"))
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("clean-up")
    except BaseExceptionGroup as group:
        caught = group
    assert [type(exc) for exc in caught.exceptions] == [ExceptionGroup, KeyError]
    assert [str(exc) for exc in caught.exceptions[0].exceptions] == ["clean-up"]


@pytest.mark.parametrize("at", [trio.sleep_forever, trio.lowlevel.cancel_shielded_checkpoint])
async def test_cancelled_from_outside(at: Callable[[], Awaitable[None]]) -> None:
    """A cancellation, of the body or behind it, comes out bare, and is one for whoever asked for it."""
    caught: BaseException | None = None
    with trio.CancelScope() as scope:
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await at()
        except BaseException as exc:
            caught = exc
            raise
    assert isinstance(caught, trio.Cancelled)
    assert scope.cancelled_caught


async def test_the_bodys_exception_is_bare_in_a_cancelled_program() -> None:
    """What the body raises is bare also where everything around it is cancelled at that moment."""
    body = ValueError("mine")
    caught: BaseException | None = None
    with trio.CancelScope() as scope:
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                raise body
        except ValueError as exc:
            caught = exc
    assert caught is body


async def fail_behind(chain: str) -> None:
    """Raise an exception with another one behind it."""
    try:
        raise KeyError("first")
    except KeyError as exc:
        if chain == "__cause__":
            raise ValueError("second") from exc
        int("second")


async def body_fails(chain: str, scope: trio.CancelScope) -> None:
    """Fail in the body, where everything around it is cancelled at that moment."""
    async with open_background_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await fail_behind(chain)


async def task_fails(chain: str, scope: trio.CancelScope) -> None:
    """Fail in a task."""
    async with open_background_nursery() as nursery:
        nursery.start_soon(fail_behind, chain)
        await trio.sleep_forever()


@pytest.mark.parametrize("chain", ["__cause__", "__context__"])
@pytest.mark.parametrize("where", [body_fails, task_fails])
async def test_what_is_behind_an_exception_stays(where: Any, chain: str) -> None:
    """The exception that comes out still tells from which other one it came."""
    caught: BaseException | None = None
    with trio.CancelScope() as scope:
        try:
            await where(chain, scope)
        except ValueError as exc:
            caught = exc
    assert isinstance(getattr(caught, chain), KeyError)
    assert caught is not None
    assert caught.__suppress_context__ is (chain == "__cause__")
