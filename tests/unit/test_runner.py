"""What follows an attempt: what is saved, in which order it is published, and who is told when saving fails."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Executors,
    Failed,
    JobContext,
    JobEndedError,
    JobError,
    JobPriority,
    Restart,
    RetryPolicy,
    StoreError,
    Token,
)
from jobtrio._entry import JobEntry, Plan, start
from jobtrio._runner import HARD_EXIT, Runner
from jobtrio._token_log import TokenLog
from jobtrio.abc import Claim
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from jobtrio import Message, Outcome


class Recorder(MemoryJobStore):
    """Notes what is written, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.saves = True
        self.keeps = True
        self.takes = 0.0

    async def _write(self, *line: Any) -> bool:
        if self.takes:
            await trio.sleep(self.takes)
        self.written.append(line)
        if self.failure is not None:
            raise self.failure
        return self.keeps

    async def finish(
        self, claim: Claim, outcome: Outcome, *, error: JobError | None = None, messages: Sequence[Message] = ()
    ) -> bool:
        claim.entry.outcome = outcome
        return await self._write("finish", outcome, error and error.message)

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        return await self._write("retry", error.message, delay)

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        return await self._write("release", reason)

    async def save_state(self, claim: Claim, value: Any) -> bool:
        self.written.append(("save", value))
        return self.saves


class Bench:
    """A runner of one kind of job, with what stands around it."""

    def __init__(self) -> None:
        self.store = Recorder()
        self.executor: Any = None
        self.runner = Runner(
            self.store,
            resolve=lambda entry: self.executor,
            retry_on=lambda entry: (ValueError,),
            open_log=self.open_log,
            catch_up=self.nothing,
            let_go=lambda entry: None,
        )
        front: Any = None  # no executor here asks for it
        self.runner.registry = front

    async def nothing(self, *args: Any) -> None:
        """Catch up with nothing."""

    @staticmethod
    def open_log(entry: JobEntry) -> TokenLog:
        """Return the job's log."""
        if entry.log is None:
            entry.log = TokenLog(10)
        return entry.log

    def claim(self, name: str = "id", queue: str = "default", retry: RetryPolicy | None = None) -> Claim:
        """Return a claim on a new job."""
        entry = JobEntry(name, Plan("work", None, queue, JobPriority.NORMAL, None, retry, "w"), None, 0.0)
        start(entry, claim="c", worker="w", now=0.0)
        return Claim(entry, "c", 1)

    async def run(self, executor: Any, **options: Any) -> Claim:
        """Run one attempt."""
        self.executor = executor
        claim = self.claim(**options)
        await self.runner.run(self.runner.prepare(claim))
        return claim


async def work(job: JobContext) -> str:
    """Return at once."""
    return "done"


async def fail(job: JobContext) -> None:
    """Fail."""
    raise ValueError("no")


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


def test_running_attempts_are_counted() -> None:
    """Each prepared attempt is counted in its queue until it is over."""
    bench = Bench()
    bench.runner.prepare(bench.claim("a", "q"))
    bench.runner.prepare(bench.claim("b", "q"))
    attempt = bench.runner.prepare(bench.claim("c", "r"))
    assert bench.runner.by_queue == {"q": 2, "r": 1}
    assert list(bench.runner.running) == ["a", "b", "c"]
    assert bench.runner.running["c"] is attempt


async def test_finished() -> None:
    """An end is written once, is decided then, and the attempt is forgotten."""
    bench = Bench()
    bench.executor = work
    attempt = bench.runner.prepare(bench.claim(queue="q"))
    await bench.runner.run(attempt)
    assert bench.store.written == [("finish", Completed("done"), None)]
    assert attempt.decided
    assert (bench.runner.running, bench.runner.by_queue) == ({}, {})


async def test_the_nursery_is_let_go_of() -> None:
    """To write an end may take long; of what the executor ran in nothing is kept meanwhile."""
    bench = Bench()
    scopes: list[weakref.ref[trio.CancelScope]] = []
    gone = []

    async def note(job: JobContext) -> None:
        scopes.append(weakref.ref(job.cancel_scope))

    async def finish(claim: Claim, outcome: Outcome, **_: Any) -> bool:
        gone.append(scopes[0]() is None)
        return True

    bench.store.finish = finish  # type: ignore[method-assign]
    await bench.run(note)
    assert gone == [True]


async def test_retried() -> None:
    """A failure with attempts left is written as such, and then told to the consumers, once."""
    bench = Bench()
    claim = await bench.run(fail, retry=RetryPolicy(initial=3, jitter=0))
    assert bench.store.written == [("retry", "no", 3)]
    log = bench.open_log(claim.entry)
    (restart,) = log.slice(0, 9)
    assert isinstance(restart, Restart)
    assert (restart.attempt, restart.error.message, restart.delay) == (1, "no", 3)
    assert not bench.runner.running


async def test_a_retry_that_became_the_end() -> None:
    """Where the store ends the job instead of retrying it, no restart is told."""
    bench = Bench()

    async def retry(
        claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        claim.entry.outcome = Cancelled("enough")
        return True

    bench.store.retry = retry  # type: ignore[method-assign]
    claim = await bench.run(fail, retry=RetryPolicy())
    assert claim.entry.log is None


async def test_classes_to_retry() -> None:
    """The classes of the executor's registration decide."""
    bench = Bench()

    async def other(job: JobContext) -> None:
        raise KeyError("no")

    await bench.run(other, retry=RetryPolicy())
    assert bench.store.written[0][0] == "finish"


async def test_a_state_that_is_not_kept() -> None:
    """A state that the store refuses is an error of the attempt's."""
    bench = Bench()
    errors: list[Exception] = []

    async def saves(job: JobContext) -> None:
        await job.save_state(1)
        bench.store.saves = False
        try:
            await job.save_state(2)
        except JobEndedError as exc:
            errors.append(exc)

    await bench.run(saves)
    assert len(errors) == 1
    assert bench.store.written[:2] == [("save", 1), ("save", 2)]


@pytest.mark.parametrize("retry", [None, RetryPolicy()])
@pytest.mark.parametrize("executor", [work, fail])
async def test_an_end_that_is_not_kept(
    executor: Any, retry: RetryPolicy | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose claim no longer holds the job when its attempt is over is told so: it runs again."""
    bench = Bench()
    bench.runner._durable = True
    bench.store.keeps = False
    await bench.run(executor, retry=retry)
    assert caplog.messages == ["job id: attempt 1 is lost: its lease was over before its end was written"]


@pytest.mark.parametrize("takes", [0.0, HARD_EXIT - 0.1, HARD_EXIT + 0.1])
@pytest.mark.parametrize("executor", [work, hang])
async def test_told_of_when_torn_down(
    executor: Any, takes: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be written within the bound is told."""
    bench = Bench()
    bench.runner._durable = True
    bench.store.takes = takes
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.run(executor)
    lost = ["job id: attempt 1 is lost: the registry was torn down, and its end was not written within 5 s"]
    assert caplog.messages == (lost if takes > HARD_EXIT else [])


@pytest.mark.parametrize("takes", [0.0, HARD_EXIT - 0.1, HARD_EXIT + 0.1])
async def test_torn_down(takes: float, autojump_clock: MockClock) -> None:
    """An attempt that is torn down has its end written within a bound, and is forgotten."""
    bench = Bench()
    bench.store.takes = takes
    with trio.move_on_after(1) as scope:
        await bench.run(hang)
    assert scope.cancelled_caught
    assert trio.current_time() == 1 + min(takes, HARD_EXIT)
    expected = [] if takes > HARD_EXIT else [("finish", Cancelled("shutdown"), None)]
    assert bench.store.written == expected
    assert (bench.runner.running, bench.runner.by_queue) == ({}, {})


async def test_a_torn_down_attempt_is_not_retried(autojump_clock: MockClock) -> None:
    """What is torn down ends, whatever its policy."""
    bench = Bench()
    with trio.move_on_after(1):
        await bench.run(hang, retry=RetryPolicy())
    assert bench.store.written == [("finish", Cancelled("shutdown"), None)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_exit(kind: type[BaseException]) -> None:
    """An exit is let out when the job's end is written."""
    bench = Bench()

    async def exits(job: JobContext) -> None:
        raise kind("now")

    with pytest.raises(kind, match="now"):
        await bench.run(exits)
    assert bench.store.written == [("finish", Cancelled("shutdown"), None)]
    assert not bench.runner.running


async def test_a_store_that_fails() -> None:
    """A fault of the store's own leaves the runner, and the attempt is forgotten."""
    bench = Bench()
    bench.store.failure = StoreError("damaged")
    with pytest.raises(StoreError, match="damaged"):
        await bench.run(work)
    assert (bench.runner.running, bench.runner.by_queue) == ({}, {})


async def test_a_fault_of_the_store_leaves_the_registry() -> None:
    """A fault of the store's own is not hidden in a job: it ends the registry, bare."""

    class Damaged(MemoryJobStore):
        async def finish(self, *args: Any, **options: Any) -> bool:
            raise StoreError("damaged")

    async def body() -> None:
        async with jobtrio.open_registry(store=Damaged()) as registry:
            await registry.submit(work)
            await trio.sleep_forever()

    with pytest.raises(StoreError, match="damaged"):
        await body()


async def test_saved_before_it_is_published(autojump_clock: MockClock) -> None:
    """A consumer learns of an end or a restart when it is stored, not before."""
    executors, server = Executors(), Server()

    @executors.register("work", retry=RetryPolicy(max_attempts=2, initial=0, jitter=0))
    async def twice(job: JobContext) -> str:
        await job.send(job.attempt)
        if job.attempt == 1:
            raise ValueError
        return "done"

    async with jobtrio.open_registry(executors, store=RemoteStore(server)) as registry:
        job = await registry.submit("work")
        async with job.subscribe() as messages:
            async for message in messages:
                entry = server.store.peek(job.id)
                assert entry is not None
                match message:
                    case Restart():
                        assert entry.state != "RUNNING"
                    case End(outcome=outcome):
                        assert outcome == entry.outcome == Completed("done")


@pytest.mark.parametrize("where", ["token", "result", "state"])
async def test_what_cannot_be_stored_fails_its_job(where: str, autojump_clock: MockClock) -> None:
    """A token, result or state that JSON can't hold fails the job alone, and says so."""
    executors = Executors()

    @executors.register("work")
    async def executor(job: JobContext) -> Any:
        await job.send("before")
        match where:
            case "token":
                await job.send(object())
            case "state":
                await job.save_state(object())
        return object()

    async with jobtrio.open_registry(executors, store=RemoteStore(Server())) as registry:
        job = await registry.submit("work")
        outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "PayloadError"
        assert [m.value async for m in job.subscribe() if isinstance(m, Token)] == ["before"]
        with pytest.raises(jobtrio.PayloadError):
            await registry.submit("work", object())


async def test_an_executor_that_is_not_known_here(autojump_clock: MockClock) -> None:
    """A name that is registered nowhere is refused; nobody claims a job whose executor it does not have."""
    known, other, server = Executors(), Executors(), Server()
    known.register("work")(work)
    async with jobtrio.open_registry(known, store=RemoteStore(server), queues={}) as submits:
        job = await submits.submit("work")
        async with jobtrio.open_registry(other, store=RemoteStore(server)) as stranger:
            with pytest.raises(jobtrio.UnknownExecutorError):
                await stranger.submit("work")
            await trio.sleep(30)
            assert (await stranger.get(job.id)).state == "QUEUED"
            assert other.register("work")(work) is work
            assert await job.wait() == Completed("done")
