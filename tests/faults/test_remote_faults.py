"""Each call to a store of another machine fails once, before or after it was carried out: nothing is lost."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server
from trio.testing import MockClock

import jobtrio
from jobtrio import Cancelled, Completed, End, Executors, Failed, JobContext, Restart, RetryPolicy, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from faulty_network import Network, When

pytestmark = pytest.mark.once

MOST_CALLS = 500
LEASE = 30.0
POLICY = RetryPolicy(initial=1, jitter=0)
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


class Scenario:
    """A worker whose network is faulty and a watcher whose network is not, on one server."""

    def __init__(self) -> None:
        self.server = Server()
        self.faulty = RemoteStore(self.server)
        self.sound = RemoteStore(self.server)
        self.runs: Counter[tuple[Any, int]] = Counter()
        self.executors = Executors()
        self.executors.register("work")(self.work)

    async def work(self, job: JobContext) -> Any:
        """Send three tokens, and keep a number for the next attempt; fail, hang or return as the payload says."""
        self.runs[job.payload, job.attempt] += 1
        for number in range(3):
            await job.send([job.attempt, number])
            await trio.sleep(0.05)
        if job.payload == "retry" and job.attempt < 3:
            await job.save_state(job.attempt)
            raise ValueError("not yet")
        if job.payload == "fail":
            raise ValueError("no")
        if job.payload == "hang":
            await trio.sleep_forever()
        return [job.payload, job.saved_state]

    async def play(self) -> None:
        """Submit, watch, retry, cancel, find, leave: both sides see the same, all of it, once."""
        async with jobtrio.open_registry(self.executors, store=self.sound, queues={}) as watcher:
            async with jobtrio.open_registry(self.executors, store=self.faulty, lease=LEASE, worker="w") as worker:
                jobs = [
                    await worker.submit("work", "return"),
                    *await worker.submit_many([jobtrio.JobSpec("work", p, retry=POLICY) for p in ("retry", "fail")]),
                    await worker.submit("work", "later", delay=2),
                    await worker.submit("work", "hang"),
                    await worker.submit("work", "never", delay=1000),
                ]
                there = [await watcher.get(job.id) for job in jobs]
                await trio.sleep(1)
                for job in jobs[-2:]:
                    assert await job.cancel("asked")
                streams = [await read(job) for job in jobs]
                assert await read_all(there) == streams
            self.check([job.id for job in jobs], streams)

    def check(self, job_ids: list[str], streams: list[list[jobtrio.Message]]) -> None:
        """Check outcomes, runs, histories and stored streams against what was asked for."""
        error = [1, 2, 3]
        outcomes = [stream[-1].outcome for stream in streams if isinstance(stream[-1], End)]
        assert outcomes[:2] == [Completed(["return", None]), Completed(["retry", 2])]
        assert isinstance(outcomes[2], Failed)
        assert outcomes[3:] == [Completed(["later", None]), Cancelled("asked"), Cancelled("asked")]
        assert self.runs == {
            ("return", 1): 1,
            **{(payload, attempt): 1 for payload in ("retry", "fail") for attempt in error},
            ("later", 1): 1,
            ("hang", 1): 1,
        }
        assert len(self.server.store) == len(job_ids)
        for job_id, stream in zip(job_ids, streams, strict=True):
            entry = self.server.store.peek(job_id)
            assert entry is not None
            assert entry.log is not None
            assert entry.log.slice(0, 1000) == stream
            assert [line.state in FINAL for line in entry.history()].count(True) == 1
            assert [m.seq for m in stream if not isinstance(m, jobtrio.Gap)] == [*range(1, len(stream) + 1)]
            for attempt in {m.attempt for m in stream if isinstance(m, Token)}:
                values = [m.value for m in stream if isinstance(m, Token) and m.attempt == attempt]
                assert values == [[attempt, 0], [attempt, 1], [attempt, 2]]
        assert [m.attempt for m in streams[1] if isinstance(m, Restart)] == [1, 2]


async def read(job: jobtrio.Job) -> list[jobtrio.Message]:
    with job.subscribe() as messages:
        return [message async for message in messages]


async def read_all(jobs: list[jobtrio.Job]) -> list[list[jobtrio.Message]]:
    return [await read(job) for job in jobs]


async def play(arm: Callable[[Network], None]) -> int:
    """Play the scenario with faults; return how many calls the faulty worker made."""
    scenario = Scenario()
    arm(scenario.faulty.network)
    with trio.fail_after(300):
        await scenario.play()
    return len(scenario.faulty.network.calls)


def sweep(arm: Callable[[int, Network], None]) -> None:
    """Play the scenario with the fault at its first call, its second, its third, to the last."""
    for n in range(1, MOST_CALLS):
        try:
            calls = trio.run(play, partial(arm, n), clock=MockClock(autojump_threshold=0))
        except BaseException as exc:
            exc.add_note(f"with the fault at call {n}")
            raise
        if calls < n:
            assert n > 40
            return
    pytest.fail(f"not over after {MOST_CALLS} calls")


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_call_fails(when: When) -> None:
    """With any one call failing, every job that was accepted ends once, and its stream is whole."""
    sweep(lambda n, network: network.fail_at(n, when))


def test_three_calls_fail() -> None:
    """The same holds if three calls in a row fail: on the way back, on the way there, and on the way back again."""

    def arm(n: int, network: Network) -> None:
        network.fail_at(n, "after")
        network.fail_at(n + 1, "before")
        network.fail_at(n + 2, "after")

    sweep(arm)


@pytest.mark.parametrize(
    "name", ["insert", "claim", "append_messages", "retry", "save_state", "finish", "advance", "request_cancel"]
)
def test_each_reply_is_lost_once(name: str) -> None:
    """The same holds if every other reply to one kind of call is lost."""

    def arm(network: Network) -> None:
        network.lose_every_other(name)

    assert trio.run(play, arm, clock=MockClock(autojump_threshold=0)) > 0


async def test_an_answer_that_is_older_than_what_was_saved(autojump_clock: MockClock) -> None:
    """Whoever asks for a job that runs changes nothing of what its executor works with, however late the answer is."""
    server = Server()
    store = RemoteStore(server)
    executors = Executors()
    asked = trio.Event()

    @executors.register("work")
    async def work(job: JobContext) -> list[Any]:
        await job.save_state("old")
        asked.set()
        await trio.sleep(1)
        await job.save_state("new")
        job.payload.append("mine")
        await trio.sleep(10)
        return [job.payload, job.saved_state]

    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("work", ())
        await asked.wait()
        store.network.slow["load"] = 5.0
        await registry.get(job.id)
        assert await job.wait() == Completed([["mine"], "new"])
