"""Random clients of random jobs: each number once and in order, a gap where some are missing, one end, then nothing.

Sessions on lines within the process, with slow and stalling clients, who watch, leave and watch again in quick order.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from line import anybody, open_line

import jobtrio
from jobtrio import JobContext, Retention, RetryLater, RetryPolicy
from jobtrio.websocket import Limits

if TYPE_CHECKING:
    from line import Line
    from trio.testing import MockClock

KEPT = 12
LIMITS = Limits(batch_items=3, batch_bytes=1000, heartbeat=2, messages_per_second=1000, subscriptions=4)


@attrs.define
class Watched:
    """One subscription, as its client knows it."""

    job: str
    on_gap: str
    position: int
    resends_end: bool
    is_over: bool = False

    def take(self, message: dict[str, Any], sent: dict[int, Any], ends: dict[str, int]) -> None:
        """Check that a message is what comes next."""
        assert not self.is_over
        match message:
            case {"type": "gap", "first": first, "last": last}:
                assert self.on_gap == "yield"
                assert first == self.position + 1 <= last
                self.position = last
            case {"type": "error", "code": code, "first": first}:
                assert (self.on_gap, code, first) == ("raise", "outdated_cursor", self.position + 1)
                self.is_over = True
            case {"type": "events", "seq": seq, "items": items}:
                assert seq == self.position + 1
                assert items == [sent[n] for n in range(seq, seq + len(items))]
                self.position += len(items)
            case {"type": "end", "seq": seq}:
                assert seq == self.position + (not (self.resends_end and seq == self.position))
                assert ends.setdefault(self.job, seq) == seq
                self.position, self.is_over = seq, True
            case {"type": "progress" | "restart", "seq": seq}:
                assert seq == self.position + 1
                assert seq not in sent
                self.position = seq
            case _:
                pytest.fail(f"{message} came")
        self.resends_end = False


class Client:
    """A client that does what chance says, and checks what it is told."""

    def __init__(self, line: Line, rng: Random, jobs: list[str], sent: dict[str, dict[int, Any]]) -> None:
        self.line, self.rng, self.jobs, self.sent = line, rng, jobs, sent
        self.subs: dict[int, Watched] = {}
        self.asked: list[dict[str, Any]] = []
        self.ends: dict[str, int] = {}

    async def speak(self) -> None:
        """Ask for this and that."""
        for id in range(60):
            await trio.sleep(self.rng.choice([0, 0, 0.01, 0.3]))
            self.line.is_stalled = self.rng.random() < 0.3
            if not self.line.is_stalled:
                self.line.read_again()
            after = self.rng.choice([0, 0, 3, "end", 10**6])
            request: dict[str, Any] = {"type": "subscribe", "job": self.rng.choice(self.jobs), "after": after}
            request["on_gap"] = self.rng.choice(["raise", "yield"])
            if self.rng.random() < 0.4:
                request = {"type": "unsubscribe", "sub": self.rng.randrange(1, 3 + max(self.subs, default=0))}
            self.asked.append({**request, "id": id})
            self.line.say(self.asked[-1])
        self.line.read_again()

    async def hear(self) -> None:
        """Check all that comes, for as long as something does."""
        assert (await self.line.hear())["type"] == "hello"
        while True:
            message = await self.line.hear()
            if message["type"] == "heartbeat":
                told = {sub: each.position - each.resends_end for sub, each in self.subs.items() if not each.is_over}
                assert {int(sub): last for sub, last in message["last"].items()} == told
            elif "id" in message:
                self._take_answer(self.asked.pop(0), message)
            else:
                watched = self.subs[message["sub"]]
                watched.take(message, self.sent[watched.job], self.ends)

    def _take_answer(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        assert answer["id"] == request["id"]
        match answer["type"]:
            case "subscribed":
                at_end = request["after"] == "end" or request["after"] == answer["last"]
                after = answer["last"] if request["after"] == "end" else request["after"]
                assert answer["sub"] not in self.subs
                is_ended = answer["state"] in ("COMPLETED", "FAILED", "CANCELLED")
                self.subs[answer["sub"]] = Watched(request["job"], request["on_gap"], after, at_end and is_ended)
            case "ok":
                self.subs[request["sub"]].is_over = True
            case _:
                codes = {"unknown_sub"} if "sub" in request else {"future_cursor", "outdated_cursor"}
                assert answer["code"] in codes | {"too_many_subscriptions"}


@pytest.mark.parametrize("seed", range(20))
async def test_random_clients(autojump_clock: MockClock, seed: int) -> None:
    """Whatever clients do and however slowly they read, each stream is whole, or says where it is not."""
    rng = Random(seed)
    sent: dict[str, dict[int, Any]] = {}

    async def ramble(job: JobContext) -> None:
        for _ in range(rng.randrange(40)):
            match rng.randrange(4):
                case 0:
                    job.progress(1, 2)
                case 1:
                    await trio.sleep(rng.choice([0, 0.1, 1]))
                case _:
                    value = rng.choice([1, "a", None, "b" * 400, {"c": [2.5]}])
                    sent[job.id][job.send_nowait(value)] = value
        if rng.random() < 0.5:
            raise rng.choice([RetryLater(0.1), ValueError("no")])

    async with jobtrio.open_registry(retention=Retention(tokens_per_job=KEPT)) as registry:
        async with open_line(registry, authenticate=anybody, limits=LIMITS) as line:
            jobs = [await registry.create_job(retry=RetryPolicy(max_attempts=3)) for _ in range(6)]
            for job in jobs:
                sent[job.id] = {}
            line.send_time = rng.choice([0, 0.001, 0.05])
            client = Client(line, rng, [job.id for job in jobs], sent)
            with trio.move_on_after(120):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.hear)
                    nursery.start_soon(client.speak)
                    for job in jobs:
                        await trio.sleep(rng.choice([0, 0.5]))
                        async with registry.execute_and_stream(job.id, ramble):
                            pass
    assert not client.asked
    assert all(watched.is_over for watched in client.subs.values())
