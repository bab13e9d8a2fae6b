"""The hooks of a bridge: what is logged where they fail."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

import jobtrio
from jobtrio.websocket import Handshake
from jobtrio.websocket._gatekeeper import TOLD, Gatekeeper, Stranger

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

HANDSHAKE = Handshake(path="/ws", query="", headers={}, origin=None, peer="192.0.2.1", token="wrong")


async def refuse(*_: Any) -> Any:
    """Raise as a hook may that reads a token which is none."""
    raise ValueError("no token")


async def test_failures_fill_no_log(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Failures of a hook, as any client can cause, are logged some times a minute, with how many more there were."""
    gatekeeper = Gatekeeper(None, refuse, 10.0)
    spec = jobtrio.JobSpec(refuse)
    with caplog.at_level(logging.WARNING, "jobtrio.websocket"):
        for _ in range(TOLD + 6):
            assert not await gatekeeper.allows(None, "find", spec)
        assert len(caplog.records) == TOLD
        assert caplog.records[-1].exc_info is not None
        await trio.sleep(60)
        for _ in range(2):
            assert not await gatekeeper.allows(None, "find", spec)
    first, second = (record.getMessage() for record in caplog.records[TOLD:])
    assert first == "authorize failed for the action 'find': it is refused (and 6 more since the last of these)"
    assert second == "authorize failed for the action 'find': it is refused"


async def test_hooks_that_are_not_async(caplog: pytest.LogCaptureFixture) -> None:
    """A plain function lets nobody in, whatever it returns, and the log says what it would have to be."""
    hook: Any = lambda *_: True  # noqa: E731
    gatekeeper = Gatekeeper(hook, hook, 10.0)
    with pytest.raises(Stranger):
        await gatekeeper.identify(HANDSHAKE)
    assert not await gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse))
    assert caplog.text.count("TypeError: the hook must be an async function; it returned True") == 2


async def test_strangers_hide_no_failures(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """However often strangers make one hook fail, it is logged that the other does."""
    gatekeeper = Gatekeeper(refuse, refuse, 10.0)
    with caplog.at_level(logging.WARNING, "jobtrio.websocket"):
        for _ in range(TOLD + 5):
            with pytest.raises(Stranger):
                await gatekeeper.identify(HANDSHAKE)
        assert len(caplog.records) == TOLD
        assert not await gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse))
    assert caplog.records[-1].getMessage() == "authorize failed for the action 'submit': it is refused"


class Panic(BaseException):
    """An exception outside the hierarchy that code usually catches."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("no token"),
        lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
        Panic,
        asyncio.CancelledError,
        GeneratorExit,
        lambda: BaseExceptionGroup("one", [Panic("x")]),
    ],
)
async def test_whatever_a_hook_raises_refuses(make: Callable[[], BaseException]) -> None:
    """Whatever a hook raises is about the one whom it was asked about, and is told to nobody else."""

    async def fail(*_: Any) -> Any:
        raise make()

    gatekeeper = Gatekeeper(fail, fail, 10.0)
    with pytest.raises(Stranger) as caught:
        await gatekeeper.identify(HANDSHAKE)
    assert not caught.value.known
    assert not await gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_ends_the_program_leaves_a_hook(kind: type[BaseException], grouped: bool) -> None:
    """A hook in which Ctrl-C arrives, or that exits, does not swallow that."""

    async def leave(*_: Any) -> Any:
        raise BaseExceptionGroup("one", [kind()]) if grouped else kind

    gatekeeper = Gatekeeper(leave, leave, 10.0)
    with pytest.RaisesGroup(kind, allow_unwrapped=True):
        await gatekeeper.identify(HANDSHAKE)
    with pytest.RaisesGroup(kind, allow_unwrapped=True):
        await gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse))


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_cancellation_that_was_kept(grouped: bool) -> None:
    """A hook that hands on how it ended for another, who left meanwhile, fails as by any other error."""
    kept: list[BaseException] = []

    async def remember(*_: Any) -> Any:
        if not kept:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                kept.append(BaseExceptionGroup("one", [exc]) if grouped else exc)
                raise
        raise kept[0]

    gatekeeper = Gatekeeper(remember, remember, 10.0)
    with trio.CancelScope() as scope:
        scope.cancel()
        await gatekeeper.identify(HANDSHAKE)
    assert scope.cancelled_caught
    with pytest.raises((Stranger, trio.Cancelled, BaseExceptionGroup)) as caught:
        await gatekeeper.identify(HANDSHAKE)
    assert caught.type is Stranger
    answers = []
    with suppress(trio.Cancelled, BaseExceptionGroup):  # nobody would notice one that came out of a test
        answers.append(await gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse)))
    assert answers == [False]


async def test_a_hook_is_cancelled_with_its_session() -> None:
    """A session that ends while a hook thinks, with tasks of its own, ends the hook, which refuses nobody by that."""

    async def think(*_: Any) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    gatekeeper = Gatekeeper(think, think, 10.0)
    for ask in (
        lambda: gatekeeper.identify(HANDSHAKE),
        lambda: gatekeeper.allows("someone", "submit", jobtrio.JobSpec(refuse)),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask()
        assert scope.cancelled_caught
