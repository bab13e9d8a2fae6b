"""The hooks of a bridge: what is logged where they fail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

import jobtrio
from jobtrio.websocket import Handshake
from jobtrio.websocket._gatekeeper import TOLD, Gatekeeper, Stranger

if TYPE_CHECKING:
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
