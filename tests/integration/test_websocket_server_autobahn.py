"""The Autobahn cases, through the guard: it keeps to the protocol as well as what it guards does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import kosoku
import pytest
import trio
from bridge import open_bridge

from jobtrio.websocket import Limits
from jobtrio.websocket.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence


class EchoSession(Session):
    """Sends back what it hears."""

    async def _speak(self) -> None:
        transport: Any = self._transport
        while True:
            data = await transport.receive()
            if isinstance(data, str):
                await transport.send(data)
            else:
                await transport._connection.send_message(data)

    async def _beat(self) -> None:
        await trio.sleep_forever()

    def feeds(self) -> list[Any]:
        """Return nothing: it shows no job."""
        return []


async def failures(port: int, cases: Sequence[str]) -> dict[str, str]:
    """Return the verdicts of the cases that were not passed."""

    async def run() -> list[Any]:
        try:
            return await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}/jobs/echo", cases, concurrency=4)
        except kosoku.FailureError as exc:
            return exc.results

    results = await trio.to_thread.run_sync(lambda: asyncio.run(run()))
    assert results
    allowed = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
    return {
        result.case_id: f"{result.behavior.value}, {result.behavior_close.value}"
        for result in results
        if result.behavior.value not in allowed or result.behavior_close.value not in ("OK", "INFORMATIONAL")
    }


@pytest.mark.parametrize("cases", [["1.*", "2.*", "3.*", "4.*", "5.*"], ["6.*"], ["7.*", "10.*"], ["9.1.1", "9.3.4"]])
async def test_cases(monkeypatch: pytest.MonkeyPatch, cases: list[str]) -> None:
    """An echo behind the guard passes the cases: framing, pings, fragments, UTF-8, closing, sizes."""
    monkeypatch.setattr("jobtrio.websocket._visit.TailSession", EchoSession)
    limits = Limits(message_bytes=20 * 2**20, message_frames=100_000, messages_per_second=1e9)
    async with open_bridge(limits=limits) as bridge:
        failed = await failures(bridge.port, cases)
        if failed:  # once more: on a machine that stood still a client's patience may have come to its end
            failed = await failures(bridge.port, [*failed])
        assert failed == {}
