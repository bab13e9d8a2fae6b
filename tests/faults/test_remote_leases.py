"""Leases on a store of another machine: who cannot renew stops in time, and who lost writes nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, Executors, JobContext, JobEndedError, JobState, Restart, Token
from jobtrio.abc import Claim, LeaseReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from jobtrio._messages import Message
    from jobtrio.stores.memory import MemoryJobStore

LEASE = 9.0

executors = Executors()


@executors.register("hang")
async def hang(job: JobContext) -> None:
    await trio.sleep_forever()


async def nothing(job: JobContext) -> None:
    pass


@executors.register("tick")
async def tick(job: JobContext) -> None:
    while True:
        await job.send(job.attempt)
        await trio.sleep(1)


def cut_off(store: RemoteStore, how: str) -> None:
    """Keep a worker from renewing: its calls fail, are not answered, or only `renew` does not get through."""
    match how:
        case "away":
            store.network.away = True
        case "hanging":
            store.network.hanging = {"*"}
        case "renew fails":
            store.network.failing = {"renew"}
        case "renew hangs":
            store.network.hanging = {"renew"}


def mend(store: RemoteStore) -> None:
    """Undo it."""
    store.network.away = False
    store.network.hanging = set()
    store.network.failing = set()


class AskedStore(RemoteStore):
    """A store that notes when the last lease was asked for of those that were granted."""

    asked = 0.0

    async def claim(self, claim_id: str, **options: Any) -> list[Claim]:
        """Claim."""
        asked = trio.current_time()
        if claims := await super().claim(claim_id, **options):
            self.asked = asked
        return claims

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Renew."""
        asked = trio.current_time()
        reports = await super().renew(claims, lease)
        if reports:
            self.asked = asked
        return reports


HOW = ("away", "hanging", "renew fails", "renew hangs")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("latency", [0.01, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0, 2.5, 2.9, 3.1, 4.0])
@pytest.mark.parametrize("renewed_for", [0.0, 2.3 * LEASE])
async def test_stopped_in_time(
    autojump_clock: MockClock, how: str, latency: float, offset: float, renewed_for: float
) -> None:
    """A run whose worker can't renew is gone a margin before its lease is over, not much earlier than need be."""
    server = Server()
    stopped: list[tuple[float, float]] = []
    gone = trio.Event()
    watched = Executors()

    @watched.register("work")
    async def work(job: JobContext) -> None:
        if job.attempt > 1:
            return
        await trio.sleep(renewed_for)
        cut_off(store, how)
        try:
            await trio.sleep_forever()
        finally:
            entry = server.store.peek(job.id)
            assert entry is not None
            stopped.append((trio.current_time(), entry.lease_until))
            gone.set()

    store = AskedStore(server, latency=latency)
    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        await trio.sleep(offset)  # the rounds of renewal go on meanwhile
        job = await registry.submit("work")
        with trio.fail_after(5 * LEASE):
            await gone.wait()
        now, lease_until = stopped[0]
        assert lease_until - now > 0.05 * LEASE
        assert 0.8 * LEASE < now - store.asked < 0.95 * LEASE  # by its own clock the lease began when it was asked for
        mend(store)
        assert await job.wait() == Completed(None)


class Stops:
    """An executor that notes when its first attempts were stopped, and when their leases are over."""

    def __init__(self, server: Server) -> None:
        self.stopped: list[tuple[str, float, float]] = []
        self.executors = Executors()
        self.executors.register("work")(self._work)
        self._server = server

    async def _work(self, job: JobContext) -> None:
        try:
            await trio.sleep(0 if job.attempt > 1 else 100)
        finally:
            entry = self._server.store.peek(job.id)
            assert entry is not None
            if job.attempt == 1:
                self.stopped.append((job.payload, trio.current_time(), entry.lease_until))

    def check(self, *names: str) -> None:
        """Check that these jobs were stopped in this order, each in time."""
        assert [name for name, *_ in self.stopped] == [*names]
        for _, now, lease_until in self.stopped:
            assert 0.05 * LEASE < lease_until - now < 0.15 * LEASE


async def test_a_claim_that_was_answered_late(autojump_clock: MockClock) -> None:
    """A run that began when much of its lease was gone is stopped in time, beside others whose leases last longer."""
    server = Server()
    stops, store = Stops(server), RemoteStore(server)
    async with jobtrio.open_registry(stops.executors, store=store, lease=LEASE) as registry:
        jobs = [await registry.submit("work", "first")]
        await trio.sleep(0.35 * LEASE)
        store.network.slow["claim"] = 0.65 * LEASE
        jobs.append(await registry.submit("work", "late"))
        await trio.sleep(0.6 * LEASE)  # a renewal later, and when the first lease would have been over without it
        cut_off(store, "renew fails")
        for job in jobs:
            await job.wait()
    stops.check("late", "first")


@pytest.mark.parametrize(("after", "expected"), [(0.85, ("slow", 1)), (1.1, ("other", 2))])
async def test_a_renewal_before_the_start_that_was_answered_late(
    autojump_clock: MockClock, after: float, expected: tuple[str, int]
) -> None:
    """A run whose claim was answered late begins behind a renewal that is not: neither nearly over, nor over again."""
    server = Server()
    runs: list[tuple[str, int]] = []

    def executors_of(worker: str) -> Executors:
        watched = Executors()

        @watched.register("work")
        async def work(job: JobContext) -> None:
            runs.append((worker, job.attempt))
            await trio.sleep(3 * LEASE)

        return watched

    store = RemoteStore(server)
    store.network.slow = {"claim": 0.9 * LEASE, "renew": after * LEASE}
    async with jobtrio.open_registry(executors_of("slow"), store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(0.1)  # the claim is under way
        async with jobtrio.open_registry(executors_of("other"), store=RemoteStore(server), lease=LEASE):
            await trio.sleep(2.1 * LEASE)
            store.network.slow = {}
            assert await job.wait() == Completed(None)
    assert runs == [expected]


async def test_each_in_its_time(autojump_clock: MockClock) -> None:
    """A run is stopped in time whatever began after it."""
    server = Server()
    stops, store = Stops(server), RemoteStore(server)
    cut_off(store, "renew fails")
    async with jobtrio.open_registry(stops.executors, store=store, lease=LEASE) as registry:
        jobs = [await registry.submit("work", "first")]
        await trio.sleep(0.5 * LEASE)
        jobs.append(await registry.submit("work", "second"))
        for job in jobs:
            await job.wait()
    stops.check("first", "second")


async def test_renewed_as_soon_as_it_is_answered(autojump_clock: MockClock) -> None:
    """A run whose claim was answered late renews its lease at once, and from then on no more often than others."""
    store = RemoteStore(Server())
    store.network.slow["claim"] = 0.6 * LEASE
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("hang")
        await trio.sleep(0.57 * LEASE)
        before = store.network.calls.count("renew")
        while job.state != "RUNNING":  # noqa: ASYNC110 - it is only the test that looks at it
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert store.network.calls.count("renew") == before + 1
        await trio.sleep(2 * LEASE)
        assert store.network.calls.count("renew") <= before + 7
        await job.cancel()


async def test_renewed(autojump_clock: MockClock) -> None:
    """A run that lasts many leases keeps its claim, also while every third call fails."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("hang")
        async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, queues={}):
            for _ in range(60):
                store.network.fail_at(2, "before")
                await trio.sleep(1)
        assert len(await registry.history(job.id)) == 2
        await job.cancel()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0, 2.5, 2.9, 2.97])  # the last is just before a renewal
async def test_outages_shorter_than_a_lease(autojump_clock: MockClock, how: str, offset: float) -> None:
    """An outage of half a lease costs no run, whenever it begins; one in which calls hang may last a third."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("hang")
        await trio.sleep(2 * LEASE + offset)
        cut_off(store, how)
        await trio.sleep(LEASE / (3 if "hang" in how else 2))
        mend(store)
        async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, queues={}):
            await trio.sleep(2 * LEASE)
        assert len(await registry.history(job.id)) == 2
        await job.cancel()


async def test_taken_away(autojump_clock: MockClock) -> None:
    """A run whose claim no longer holds, for whatever reason, is cancelled when its worker learns of it."""
    server = Server()
    watched = Executors()
    gone: list[float] = []

    @watched.register("work")
    async def work(job: JobContext) -> int:
        try:
            if job.attempt == 1:
                await trio.sleep_forever()
        finally:
            gone.append(trio.current_time())
        return job.attempt

    async with jobtrio.open_registry(watched, store=RemoteStore(server), lease=LEASE, max_running=1) as registry:
        job = await registry.submit("work")
        await trio.sleep(1)
        entry = server.store.peek(job.id)
        assert entry is not None
        assert entry.claim is not None
        assert await server.store.release(Claim(entry, entry.claim, entry.attempt), "taken away")
        taken = trio.current_time()
        assert await job.wait() == Completed(2)
        assert gone[0] - taken < LEASE / 3 + 1


async def test_sends_of_a_lost_run(autojump_clock: MockClock) -> None:
    """What a run sends after its worker learned that the lease is lost raises, even in a shield."""
    server = Server()
    errors: list[BaseException] = []
    watched = Executors()

    @watched.register("work")
    async def work(job: JobContext) -> None:
        await job.send("before")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for call in (job.send, job.save_state):
                    try:
                        await call("after")
                    except BaseException as exc:
                        errors.append(exc)

    store = RemoteStore(server)
    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(1)
        store.network.away = True
        await trio.sleep(2 * LEASE)
        assert [type(exc) for exc in errors] == [JobEndedError, JobEndedError]
        entry = server.store.peek(job.id)
        assert entry is not None
        assert entry.saved_state is None
        store.network.away = False


async def test_nothing_of_a_lost_run_is_stored(autojump_clock: MockClock) -> None:
    """A worker that was asleep past its lease writes nothing when it wakes: no token, no state, no ending."""
    server = Server()
    asleep, awake = RemoteStore(server), RemoteStore(server)
    watched = Executors()
    go = trio.Event()

    @watched.register("work")
    async def work(job: JobContext) -> str:
        await job.send(f"first of {job.attempt}")
        if job.attempt == 1:
            with trio.CancelScope(shield=True):
                await go.wait()
                asleep.network.hanging = set()  # awake again: nothing tells it yet
                job.send_nowait("late")
        else:
            await trio.sleep(3 * LEASE)
        return f"by {job.attempt}"

    async with jobtrio.open_registry(watched, store=asleep, lease=LEASE, queues={"default": 1}, worker="asleep") as a:
        job = await a.submit("work")
        await trio.sleep(1)
        asleep.network.hanging = {"*"}
        async with jobtrio.open_registry(watched, store=awake, lease=LEASE, worker="awake") as b:
            there = await b.get(job.id)
            with there.subscribe() as messages:
                while not isinstance(await messages.receive(), Restart):
                    pass
            go.set()
            assert await there.wait() == Completed("by 2")
        stored = await awake.read_messages(job.id, 0, 100)
        assert stored is not None
        assert [m.value for m in stored if isinstance(m, Token)] == ["first of 1", "first of 2"]
        with trio.fail_after(LEASE):
            assert await job.wait() == Completed("by 2")
    lines = [(line.state, line.worker) for line in await awake.history(job.id) or ()]
    assert lines == [
        (JobState.QUEUED, "asleep"),
        (JobState.RUNNING, "asleep"),
        (JobState.QUEUED, "awake"),
        (JobState.RUNNING, "awake"),
        (JobState.COMPLETED, "awake"),
    ]


class Stubborn:
    """An executor whose first attempt takes its time to go once it has lost its lease."""

    def __init__(self, seconds: float) -> None:
        self.runs: list[int] = []
        self.executors = Executors()
        self.executors.register("work")(self._work)
        self._seconds = seconds

    async def _work(self, job: JobContext) -> int:
        self.runs.append(job.attempt)
        if job.attempt == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._seconds)
        return job.attempt


async def lose(store: RemoteStore) -> None:
    """Have a run that has just begun lose its lease."""
    await trio.sleep(0.1 * LEASE)
    store.network.away = True
    await trio.sleep(LEASE)
    store.network.away = False


@pytest.mark.parametrize("leases", [1.5, 2.8, 9.0])
async def test_claimed_again_by_its_own_worker(autojump_clock: MockClock, leases: float) -> None:
    """A run that takes long to go after it has lost its job to its own worker costs the job that one lease alone."""
    stubborn, store = Stubborn(leases * LEASE), RemoteStore(Server())
    async with jobtrio.open_registry(stubborn.executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await lose(store)
        await registry.drain()
        assert job.outcome == Completed(2)
        assert stubborn.runs == [1, 2]
    assert store.network.calls.count("renew") < 10 * (leases + 2)


@pytest.mark.parametrize("limits", [{"max_running": 2}, {"queues": {"default": 2}}])
async def test_no_more_than_may_run(autojump_clock: MockClock, limits: Any) -> None:
    """A claim that waits for an earlier run to go keeps that one's place, which nobody else gets meanwhile."""
    store, counted = RemoteStore(Server()), Executors()
    inside: set[str] = set()
    most = 0

    @counted.register("work")
    async def work(job: JobContext) -> None:
        nonlocal most
        inside.add(f"{job.id} {job.attempt}")
        most = max(most, len(inside))
        with trio.CancelScope(shield=job.id == "stubborn"):
            await trio.sleep(3 * LEASE)
        inside.remove(f"{job.id} {job.attempt}")

    async with jobtrio.open_registry(counted, store=store, lease=LEASE, **limits) as registry:
        job = await registry.submit("work", job_id="stubborn")
        await lose(store)
        await trio.sleep(0.2 * LEASE)
        assert job.record.attempt == 2  # which waits for the first to go
        assert registry.stats().running == 1
        store.network.slow = {"renew": 0.1 * LEASE}  # as that claim is, once more, before its job starts
        for _ in range(4):
            await registry.submit("work")
        await registry.drain()
        assert job.outcome == Completed()
        assert registry.stats().running == 0
    assert most == 2


async def test_claimed_again_before_it_was_noticed(autojump_clock: MockClock) -> None:
    """A run whose job is claimed again by its own worker is stopped at once, though nobody has said that it is lost."""
    server = Server()
    store, watched = RemoteStore(server), Executors()
    stopped = trio.Event()

    @watched.register("work")
    async def work(job: JobContext) -> int:
        if job.attempt == 1:
            try:
                await trio.sleep_forever()
            finally:
                stopped.set()
        return job.attempt

    async def lapse(kept: MemoryJobStore) -> None:
        entry = kept.peek(job.id)
        assert entry is not None
        kept._lapse(entry)

    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(0.1 * LEASE)
        server.serve(store, lapse)
        with trio.fail_after(0.1 * LEASE):  # long before the next renewal
            await stopped.wait()
        assert await job.wait() == Completed(2)


async def test_a_claim_that_is_lost_by_its_answer(autojump_clock: MockClock) -> None:
    """A job whose claim is answered when another worker has it already is not started here."""
    server, watched = Server(), Executors()
    store = RemoteStore(server)
    store.network.slow["claim"] = 1.1 * LEASE
    runs: list[int] = []

    @watched.register("work")
    async def work(job: JobContext) -> None:
        runs.append(job.attempt)
        await trio.sleep(LEASE)

    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(0.5 * LEASE)
        async with jobtrio.open_registry(watched, store=RemoteStore(server), lease=LEASE):
            assert await job.wait() == Completed(None)
    assert runs == [2]


async def test_claims_that_are_answered_in_time_are_not_renewed_at_once(autojump_clock: MockClock) -> None:
    """A job that starts in time costs no renewal besides those of its worker's rounds."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        await trio.sleep(0.1)
        before = store.network.calls.count("renew")
        jobs = []
        for _ in range(5):
            await trio.sleep(0.05 * LEASE)
            jobs.append(await registry.submit("hang"))
        await trio.sleep(0.01 * LEASE)
        assert store.network.calls.count("renew") == before
        for job in jobs:
            await job.cancel()


async def test_lost_again_and_again(autojump_clock: MockClock) -> None:
    """A claim that waits for an earlier run of its job to go may be lost as well, and harms nobody."""
    stubborn, store = Stubborn(2.8 * LEASE), RemoteStore(Server())
    async with jobtrio.open_registry(stubborn.executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await lose(store)
        await trio.sleep(0.1 * LEASE)
        store.network.failing = {"renew"}
        await trio.sleep(1.2 * LEASE)
        store.network.failing = set()
        assert await job.wait() == Completed(3)
        assert stubborn.runs == [1, 3]


async def test_cancelled_while_it_waits_for_an_earlier_run(autojump_clock: MockClock) -> None:
    """A request to cancel made elsewhere while a claim waits for an earlier run to go comes before its start."""
    server = Server()
    stubborn, store = Stubborn(3 * LEASE), RemoteStore(server)
    async with jobtrio.open_registry(stubborn.executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await lose(store)
        async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as other:
            await trio.sleep(LEASE)
            assert await other.cancel(job.id, "why")
        assert await job.wait() == Cancelled("why")
        assert stubborn.runs == [1]


async def test_shut_down_while_a_claim_waits_for_an_earlier_run(autojump_clock: MockClock) -> None:
    """A claim that waits for an earlier run to go is given back by a shutdown, and does not lapse."""
    server = Server()
    stubborn, store = Stubborn(3 * LEASE), RemoteStore(server)
    async with jobtrio.open_registry(stubborn.executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await lose(store)
        await trio.sleep(0.5 * LEASE)
        await registry.shutdown()
    entry = server.store.peek(job.id)
    assert entry is not None
    assert (entry.state, entry.attempt, entry.losses) == (JobState.QUEUED, 2, 0)
    assert stubborn.runs == [1]


async def test_torn_down_while_a_claim_waits_and_the_store_is_away(autojump_clock: MockClock) -> None:
    """A claim that waits for an earlier run to go, and can't be given back, takes no exit's place."""
    stubborn, store = Stubborn(3 * LEASE), RemoteStore(Server())
    leave = trio.Event()

    @stubborn.executors.register("exits")
    async def exits(job: JobContext) -> None:
        await leave.wait()
        raise KeyboardInterrupt

    async def program() -> None:
        async with jobtrio.open_registry(stubborn.executors, store=store, lease=LEASE) as registry:
            job = await registry.submit("work")
            await registry.submit("exits")
            await lose(store)
            await trio.sleep(0.2 * LEASE)
            assert job.record.attempt == 2
            store.network.away = True
            leave.set()
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await program()
    assert stubborn.runs == [1]


@pytest.mark.parametrize(("refused", "work"), [("finish", "quick"), ("release", "hang")])
async def test_shut_down_while_what_became_of_a_job_is_refused(
    autojump_clock: MockClock, refused: str, work: str
) -> None:
    """Where only small writes succeed, as on a disk that is nearly full, a shutdown ends with the leases all the same.

    Until then the leases are renewed for as long as it takes, and the end is written once there is room.
    """
    server = Server()
    store = RemoteStore(server)
    quick = Executors()
    quick.register("quick")(nothing)
    quick.register("hang")(hang)
    async with jobtrio.open_registry(quick, store=store, lease=LEASE) as registry:
        store.network.failing = {"finish"}
        job = await registry.submit("quick")
        await trio.sleep(3 * LEASE)
        store.network.failing = set()
        assert await job.wait() == Completed(None)
        store.network.failing = {refused}
        await registry.submit(work)
        await trio.sleep(3 * LEASE)
        job = await registry.submit(work)  # whose lease is over after that of the first
        await trio.sleep(0.2 * LEASE)
        with trio.move_on_after(LEASE) as scope:
            await registry.shutdown()
        store.network.failing = set()
        assert not scope.cancelled_caught
        entry = server.store.peek(job.id)
        assert entry is not None
        assert (entry.state, entry.losses) == (JobState.RUNNING, 0)  # and others will find it lost


class OneByOne(RemoteStore):
    """A store that gives jobs back one behind the other."""

    way: trio.Lock

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Give a job back, which takes a tenth of a lease."""
        async with self.way:
            await trio.sleep(0.1 * LEASE)
            return await super().release(claim, reason, messages=messages)


async def test_shut_down_while_ends_are_written_slowly(autojump_clock: MockClock) -> None:
    """Where it takes longer than a lease to give all jobs back, and none is refused, none is lost."""
    server = Server()
    store = OneByOne(server)
    store.way = trio.Lock()
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        jobs = await registry.submit_many([jobtrio.JobSpec("hang")] * 25)
        await trio.sleep(LEASE)
        await registry.shutdown()
    entries = [server.store.peek(job.id) for job in jobs]
    assert {(entry.state, entry.losses) for entry in entries if entry is not None} == {(JobState.QUEUED, 0)}


async def test_an_end_that_is_refused_during_a_grace(autojump_clock: MockClock) -> None:
    """While other jobs still run in their grace, an end that the store does not take is waited for."""
    store = RemoteStore(Server())
    both = Executors()
    both.register("quick")(nothing)
    both.register("hang")(hang)
    async with jobtrio.open_registry(both, store=store, lease=LEASE) as registry, trio.open_nursery() as nursery:
        await registry.submit("hang")
        store.network.failing = {"finish"}
        job = await registry.submit("quick")
        await trio.sleep(LEASE)
        nursery.start_soon(registry.shutdown, 3 * LEASE)
        await trio.sleep(2 * LEASE)
        store.network.failing = set()
        with trio.fail_after(LEASE):
            assert await job.wait() == Completed(None)


async def test_cancelled_behind_an_end_that_is_lost(autojump_clock: MockClock) -> None:
    """A job whose end could not be written before its lease was over can be cancelled: it would run again."""
    store = RemoteStore(Server(), outage_limit=2 * LEASE)
    runs: list[int] = []
    watched = Executors()

    @watched.register("work")
    async def work(job: JobContext) -> int:
        runs.append(job.attempt)
        store.network.failing, store.network.hanging = {"renew"}, {"finish"}
        return job.attempt

    async with jobtrio.open_registry(watched, store=store, lease=LEASE, max_running=1) as registry:
        job = await registry.submit("work")
        await trio.sleep(0.5 * LEASE)
        assert not await job.cancel("too early")
        await trio.sleep(LEASE)
        assert await job.cancel("why")
        mend(store)
        assert await job.wait() == Cancelled("why")
        assert runs == [1]


@pytest.mark.parametrize("queues", [None, {}])
async def test_cancelled_ahead_of_an_end_that_is_lost(queues: dict[str, int] | None, autojump_clock: MockClock) -> None:
    """A request for which a job's ending was decided holds where that is not written: the job does not run on."""
    server = Server()
    store = RemoteStore(server)
    runs: list[int] = []
    leaving = Executors()

    @leaving.register("work")
    async def work(job: JobContext) -> None:
        runs.append(job.attempt)
        if job.attempt > 1:
            await trio.sleep(10 * LEASE)
        store.network.away = job.attempt == 1

    async with jobtrio.open_registry(leaving, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(0.5 * LEASE)
        assert not await job.cancel("why")
        assert not await job.cancel("again")
        async with jobtrio.open_registry(leaving, store=RemoteStore(server), lease=LEASE, queues=queues):
            await trio.sleep(2 * LEASE)
            store.network.away = False
            store.network.slow = {"request_cancel": 1.0}
            assert await job.wait() == Cancelled("why")
    assert runs == ([1, 2] if queues is None else [1])  # it was begun where the request could not be known


async def test_an_outage_longer_than_a_lease_in_a_claim(autojump_clock: MockClock) -> None:
    """A claim that is repeated for longer than a lease, until the store is back, loses no lease that has just begun."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        store.network.failing = {"claim"}
        job = await registry.submit("hang")
        await trio.sleep(2 * LEASE)
        store.network.failing = set()
        await trio.sleep(2 * LEASE)
        assert [line.state for line in await registry.history(job.id)] == ["QUEUED", "RUNNING"]
        assert job.state == JobState.RUNNING
        await job.cancel()


async def test_who_only_watches_renews_nothing(autojump_clock: MockClock) -> None:
    """A process that claims nothing is no worker, and asks for no renewals."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, lease=LEASE, queues={}) as registry:
        await trio.sleep(2 * LEASE)
        assert await registry.workers() == []
    assert "renew" not in store.network.calls


async def test_a_worker_says_at_once_that_it_is_there(autojump_clock: MockClock) -> None:
    """A worker is seen long before it would renew a lease."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, worker="here"),
        jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, queues={}) as there,
    ):
        await trio.sleep(0.1)
        assert [report.name for report in await there.workers()] == ["here"]
