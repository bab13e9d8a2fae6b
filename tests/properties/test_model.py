"""Random programs against a simple model: what the registry does is what the table and the promises say.

Hypothesis draws a list of operations. They are interpreted one by one, on a clock that only moves when
told to, and after each one everything settles and is compared with the model. No two of the model's timers
fall on one instant, so that it can foretell all but one thing: which ready jobs start. There it looks at
what was started and checks that it was allowed.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, Gap, JobPriority, Progress, Restart, Retention, Token

INF = float("inf")
KEPT = 6
BURST = 9
HELD_FOR = 50.0
LIVING = ("SCHEDULED", "QUEUED", "RUNNING", "RETRYING")
LEGAL = {
    None: {"SCHEDULED", "QUEUED"},
    "SCHEDULED": {"QUEUED", "CANCELLED"},
    "QUEUED": {"RUNNING", "CANCELLED", "FAILED"},
    "RUNNING": {"COMPLETED", "FAILED", "CANCELLED", "RETRYING"},
    "RETRYING": {"QUEUED", "CANCELLED"},
}

# --- operations ---------------------------------------------------------------------------------


@attrs.frozen
class Submit:
    """Submit one job, or several at once; the numbers are seconds before they are told apart."""

    priorities: list[JobPriority]
    delay: float | None
    expires: float | None
    limit: float | None
    attempts: int | None
    key: str | None


@attrs.frozen
class Create:
    """Make a held job."""

    limit: float | None
    expires: float | None


@attrs.frozen
class Execute:
    """Execute a held job and read its text."""

    job: int
    limit: float | None


@attrs.frozen
class Tell:
    """Have a running executor do something."""

    job: int
    what: str


@attrs.frozen
class Cancel:
    """Cancel a job."""

    job: int
    grace: float


@attrs.frozen
class Subscribe:
    """Start a consumer behind a share of the stream; a paused one reads nothing until it is resumed."""

    job: int
    share: float
    on_gap: str
    how: str


@attrs.frozen
class Resume:
    """Let all paused consumers read."""


@attrs.frozen
class Pause:
    """Have no more jobs started, or have them started again."""

    on: bool


@attrs.frozen
class Prioritize:
    """Give a job another priority."""

    job: int
    priority: JobPriority


@attrs.frozen
class Pass:
    """Let time pass."""

    seconds: float


@attrs.frozen
class Find:
    """Look for jobs."""

    state: str


@attrs.frozen
class Remove:
    """Remove a job."""

    job: int


COMMANDS = (
    "send",
    "nowait",
    "burst",
    "progress",
    "return",
    "fail",
    "later",
    "now",
    "give up",
    "stop",
    "child",
    "swallow",
    "break",
)
which = st.integers(0, 7)
limits = st.sampled_from([None, None, 3.0, 8.0])
operations = st.one_of(
    st.builds(
        Submit,
        st.lists(st.sampled_from(JobPriority), min_size=1, max_size=2),
        st.sampled_from([None, None, None, 2.0]),
        st.sampled_from([None, None, 4.0]),
        limits,
        st.sampled_from([None, 2, 3]),
        st.sampled_from([None, None, None, "a", "b"]),
    ),
    st.builds(Create, limits, st.sampled_from([None, None, 4.0])),
    st.builds(Execute, which, limits),
    *[st.builds(Tell, which, st.sampled_from(COMMANDS))] * 3,
    *[st.builds(Tell, which, st.sampled_from(["send", "burst", "return"]))] * 3,
    st.builds(Cancel, which, st.sampled_from([0.0, 0.0, 2.0, 6.0])),
    st.builds(
        Subscribe,
        which,
        st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        st.sampled_from(["raise", "yield"]),
        st.sampled_from(["live", "lossless", "paused"]),
    ),
    st.builds(Resume),
    *[st.builds(Pause, st.booleans())] * 2,
    st.builds(Prioritize, which, st.sampled_from(JobPriority)),
    st.builds(Pass, st.sampled_from([0.5, 2.0, 5.0, 20.0])),
    st.builds(Find, st.sampled_from([*LIVING, "COMPLETED", "FAILED", "CANCELLED"])),
    st.builds(Remove, which),
)

# --- the model ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Life:
    """What the model knows of one job."""

    handle: jobtrio.Job
    order: int
    priority: JobPriority = JobPriority.NORMAL
    limit: float | None = None
    attempts: int | None = None
    initial: float = 0.0
    key: str | None = None
    state: str = "QUEUED"
    held: bool = False
    plain: bool = True
    ready_step: int = -1
    due: float = INF
    expires: float = INF
    start_by: float = INF
    attempt: int = 0
    deadline: float = INF
    stop_at: float = INF
    child_until: float = 0.0
    returned: bool = False
    asked: bool = False
    reason: str | None = None
    mode: str = "plain"
    removed: bool = False
    outcome: Any = None
    messages: list[Any] = attrs.Factory(list)

    @property
    def living(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVING

    @property
    def ready(self) -> bool:
        """Whether it might start now."""
        return self.state == "QUEUED" and not self.held

    def timer(self) -> float:
        """Say when something will happen to it by itself."""
        match self.state:
            case "SCHEDULED" | "RETRYING":
                return self.due
            case "QUEUED":
                return self.expires
            case "RUNNING":
                return min(self.deadline, self.stop_at, self.child_until if self.returned else INF)
        return INF

    def end(self, state: str, outcome: Any) -> None:
        """Let it end."""
        self.state, self.outcome = state, outcome
        self.messages.append(("end", outcome))

    def cancelled(self, reason: str | None) -> None:
        """Let it end cancelled, for the first reason it was given."""
        self.end("CANCELLED", ("cancelled", self.reason if self.asked else reason))

    def failed(self, kind: str, now: float, step: int, later: float | None = None) -> None:
        """Let an attempt fail, and the job with it unless attempts are left."""
        if self.asked:
            self.cancelled(None)
        elif kind != "gave_up" and self.attempt < (self.attempts or (1 if later is None else 3)):
            delay = self.initial * 2 ** (self.attempt - 1) if later is None else later
            self.messages.append(("restart", self.attempt, kind, delay))
            self.state, self.due, self.plain = "RETRYING", now + delay, False
            if delay == 0:
                self.state, self.ready_step = "QUEUED", step
        else:
            self.end("FAILED", ("failed", kind))

    def start(self, attempt: int, now: float) -> None:
        """Let an attempt start."""
        assert self.ready, f"{self.state} job started"
        assert attempt == self.attempt + 1
        self.state, self.attempt, self.returned, self.mode = "RUNNING", attempt, False, "plain"
        self.deadline = INF if self.limit is None else now + self.limit
        self.stop_at, self.child_until, self.expires = INF, now, INF

    def fire(self, now: float, step: int) -> None:
        """Let happen what is due."""
        match self.state:
            case "SCHEDULED" | "RETRYING":
                self.state, self.ready_step = "QUEUED", step
            case "QUEUED":
                self.end("FAILED", ("failed", "expired"))
            case "RUNNING" if self.asked:
                self.cancelled(None)
            case "RUNNING" if self.deadline <= now:
                self.failed("timeout", now, step)
            case _:
                self.end("COMPLETED", ("completed", "returned"))


def told(message: Any) -> Any:
    """Return a message in the model's terms."""
    match message:
        case Token(attempt=attempt, value=value):
            return ("token", attempt, value)
        case Progress(attempt=attempt, done=done):
            return ("progress", attempt, done)
        case Restart(attempt=attempt, error=error, delay=delay):
            return ("restart", attempt, error.kind, delay)
    assert isinstance(message, End)
    return ("end", ending(message.outcome))


def ending(outcome: Any) -> Any:
    """Return an outcome in the model's terms."""
    match outcome:
        case Completed(result=result):
            return ("completed", result)
        case Failed(error=error):
            return ("failed", error.kind)
        case Cancelled(reason=reason):
            return ("cancelled", reason)
    return None


# --- the interpreter ----------------------------------------------------------------------------


@attrs.define(eq=False)
class Consumer:
    """One reader of one job."""

    life: Life
    after: int
    going: trio.Event
    seen: list[Any] = attrs.Factory(list)
    over: bool = False

    async def read(self, messages: jobtrio.Subscription) -> None:
        """Read to the end, noting gaps."""
        await self.going.wait()
        while not self.over:
            try:
                self.seen.append(await messages.receive())
            except jobtrio.LaggedError as exc:
                self.seen.append(Gap(exc.first, exc.last))
            except trio.EndOfChannel:
                self.over = True

    def check(self) -> None:
        """Check that what was seen is a contiguous part of the stream, gaps told, and then its one end."""
        assert self.over
        expected, position = self.life.messages, self.after
        for message in self.seen:
            if isinstance(message, Gap):
                assert message.first == position + 1 <= message.last <= len(expected) - 1 - KEPT
                position = message.last
            else:
                assert message.seq == position + 1
                assert told(message) == expected[position]
                position += 1
        assert position == len(expected)


@attrs.define(eq=False)
class World:
    """A registry, its model, and the program that works on both."""

    registry: jobtrio.JobRegistry
    clock: MockClock
    outside: trio.Nursery
    max_running: int
    lives: list[Life] = attrs.Factory(list)
    consumers: list[Consumer] = attrs.Factory(list)
    remotes: dict[str, trio.MemorySendChannel[str]] = attrs.Factory(dict)
    inside: set[str] = attrs.Factory(set)
    starts: list[tuple[str, int]] = attrs.Factory(list)
    waited: dict[str, Any] = attrs.Factory(dict)
    texts: dict[str, list[str]] = attrs.Factory(dict)
    events: list[jobtrio.Transition] = attrs.Factory(list)
    paused: bool = False
    step: int = 0
    drawn: int = 0

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.clock.current_time()

    def apart(self, seconds: float | None) -> Any:
        """Add a little to a duration, a different one each time, in a fraction that floats can hold."""
        self.drawn += 1
        return None if seconds is None else seconds + (self.drawn * 0x9E3779B1 % 2**20) / 2**24

    # what runs in jobs and around them

    async def executor(self, job: jobtrio.JobContext) -> str:
        """Do as one is told."""
        orders, inbox = trio.open_memory_channel[str](INF)
        self.remotes[job.id] = orders
        self.inside.add(job.id)
        assert len(self.inside) <= self.max_running
        self.starts.append((job.id, job.attempt))
        try:
            async for order in inbox:
                await obey(job, order, self.life(job.id))
                if order == "return":
                    return "returned"
        except trio.Cancelled:
            mode = self.life(job.id).mode
            if mode == "swallow":
                return "swallowed"
            if mode == "break":
                raise ValueError("broken clean-up") from None
            raise
        finally:
            self.inside.discard(job.id)
        raise AssertionError("unreachable")

    async def wait(self, job: jobtrio.Job) -> None:
        """Wait for a job as a caller would."""
        self.waited[job.id] = await job.wait()
        assert job.id not in self.inside, "an outcome while the executor lives"

    async def listen(self, channel: trio.abc.ReceiveChannel[jobtrio.Transition]) -> None:
        """Note every transition."""
        async for line in channel:
            self.events.append(line)

    async def execute(self, job: jobtrio.Job, limit: float | None) -> None:
        """Execute a held job and note its text."""
        async with self.registry.execute_and_stream(job.id, self.executor, time_limit=limit) as lines:
            self.texts[job.id] = [line async for line in lines]

    # settling and comparing

    def life(self, job_id: str) -> Life:
        """Return the model of one job."""
        return next(life for life in self.lives if life.handle.id == job_id)

    async def settle(self) -> None:
        """Let everything come to rest, follow what was started, and compare."""
        await wait_all_tasks_blocked()
        for life in self.lives:
            if life.timer() <= self.now:
                life.fire(self.now, self.step)
        started = [(self.life(job_id), attempt) for job_id, attempt in self.starts]
        self.starts.clear()
        assert not (started and self.paused), "started though the queue is paused"
        for life, attempt in started:
            life.start(attempt, self.now)
        left = [life for life in self.lives if life.ready and not self.paused]
        for life, _ in started:
            for other in left:
                if other.ready_step < self.step:
                    assert other.priority <= life.priority, "a lower priority went first"
                    if other.priority == life.priority and other.plain and life.plain:
                        assert other.order > life.order, "a later one went first"
        running = sum(life.state == "RUNNING" for life in self.lives)
        assert running == self.max_running or (running < self.max_running and not left), "a ready job was left"
        self.compare()
        self.step += 1

    def compare(self) -> None:
        """Compare every job with its model."""
        for life in self.lives:
            job = life.handle
            assert (job.state, ending(job.outcome)) == (life.state, life.outcome)
            assert ending(self.waited.get(job.id)) == life.outcome
            record = job.record
            assert (record.state, record.attempt) == (life.state, life.attempt)
            assert record.priority is life.priority
            assert (record.cancel_requested_at is not None) == life.asked
            assert record.cancel_reason == life.reason
            assert (record.finished_at is None) == life.living
            if not life.removed:
                assert job.id in self.registry

    async def advance(self, until: float) -> None:
        """Go from timer to timer to a moment."""
        while True:
            at = min((life.timer() for life in self.lives), default=INF)
            self.clock.jump(max(0.0, min(at, until) - self.now))
            await self.settle()
            if at > until:
                return

    # operations

    def add(self, job: jobtrio.Job, **known: Any) -> Life:
        """Begin the model of a job that was accepted."""
        life = Life(job, len(self.lives), ready_step=self.step - 1, **known)
        self.lives.append(life)
        self.outside.start_soon(self.wait, job)
        return life

    async def do(self, operation: Any) -> None:
        """Do one operation on registry and model, and let it settle."""
        match operation:
            case Submit():
                await self.submit(operation)
            case Create(limit=limit, expires=expires):
                limit, expires = self.apart(limit), self.apart(expires)
                job = await self.registry.create_job(time_limit=limit, expires_in=expires)
                life = self.add(job, limit=limit, held=True, plain=False)
                life.start_by = INF if expires is None else self.now + expires
                life.expires = min(life.start_by, self.now + HELD_FOR)
            case Pass(seconds=seconds):
                await self.advance(self.now + self.apart(seconds))
            case Resume():
                for consumer in self.consumers:
                    consumer.going.set()
            case Pause(on=on):
                await (self.registry.pause if on else self.registry.resume)("default")
                self.paused = on
                assert [*await self.registry.paused()] == ["default"] * on
            case Find(state=state):
                records = await self.registry.find(state=jobtrio.JobState(state))
                expected = [life.handle.id for life in self.lives if life.state == state and not life.removed]
                assert [record.id for record in records] == expected
            case _ if likely := self.candidates(operation):
                await self.do_to(operation, likely[operation.job % len(likely)])
        await self.settle()

    def candidates(self, operation: Any) -> list[Life]:
        """List the jobs on which an operation does something; for some it may be any."""
        match operation:
            case Tell():
                return [life for life in self.lives if life.state == "RUNNING" and not life.returned]
            case Execute():
                return [life for life in self.lives if life.held and life.living]
            case Cancel() | Subscribe() | Prioritize() if operation.job % 2:
                return [life for life in self.lives if life.living]
        return self.lives

    async def submit(self, op: Submit) -> None:
        """Submit one job or several."""
        delay, expires, limit = self.apart(op.delay), self.apart(op.expires), self.apart(op.limit)
        initial = self.apart(1.0)
        retry = None
        if op.attempts:
            retry = jobtrio.RetryPolicy(max_attempts=op.attempts, initial=initial, jitter=0)
        key = op.key if len(op.priorities) == 1 else None
        options: dict[str, Any] = {
            "delay": delay,
            "expires_in": expires,
            "time_limit": limit,
            "retry": retry,
            "key": key,
        }
        if key is None:
            specs = [jobtrio.JobSpec(self.executor, priority=level, **options) for level in op.priorities]
            jobs = await self.registry.submit_many(specs)
        else:
            jobs = [await self.registry.submit(self.executor, priority=op.priorities[0], **options)]
            for life in self.lives:
                if life.key == key and not life.removed:
                    assert jobs[0].id == life.handle.id
                    return
        for job, level in zip(jobs, op.priorities, strict=True):
            life = self.add(job, priority=level, limit=limit, attempts=op.attempts, initial=initial, key=key)
            if expires is not None:
                life.expires = self.now + expires
            if delay is not None:
                life.state, life.due, life.plain = "SCHEDULED", self.now + delay, False

    async def do_to(self, operation: Any, life: Life) -> None:
        """Do one operation on one job."""
        job = life.handle
        match operation:
            case Execute(limit=limit):
                limit = self.apart(limit)
                life.held, life.ready_step, life.expires = False, self.step - 1, life.start_by
                life.limit = life.limit if limit is None else limit
                self.outside.start_soon(self.execute, job, limit)
            case Tell(what=what):
                self.tell(life, what)
            case Cancel(grace=grace):
                await self.cancel(life, self.apart(grace) if grace else 0.0)
            case Subscribe(share=share, on_gap=on_gap, how=how) if not life.removed:
                consumer = Consumer(life, int(len(life.messages) * share), trio.Event())
                if how != "paused":
                    consumer.going.set()
                messages = job.subscribe(consumer.after, on_gap=on_gap, lossless=how == "lossless")  # type: ignore[arg-type]
                self.outside.start_soon(consumer.read, messages)
                self.consumers.append(consumer)
            case Remove():
                await self.remove(life)
            case Prioritize(priority=priority):
                await self.prioritize(life, priority)

    def tell(self, life: Life, what: str) -> None:
        """Have an executor do something, in model and fact."""
        pause = self.apart(1.0)
        self.remotes[life.handle.id].send_nowait(f"{what}:{pause}" if what in ("later", "child") else what)
        match what:
            case "send" | "nowait":
                life.messages.append(("token", life.attempt, what))
            case "burst":
                life.messages += [("token", life.attempt, "burst")] * BURST
            case "progress":
                life.messages.append(("progress", life.attempt, 1))
            case "fail" | "give up":
                life.failed("exception" if what == "fail" else "gave_up", self.now, self.step)
            case "later" | "now":
                life.failed("exception", self.now, self.step, later=pause if what == "later" else 0.0)
            case "stop":
                life.cancelled(None)
            case "child":
                life.child_until = max(life.child_until, self.now + pause)
            case "swallow" | "break":
                life.mode = what
            case "return":
                life.returned = True
                if life.child_until <= self.now:
                    life.cancelled(None) if life.asked else life.end("COMPLETED", ("completed", "returned"))

    async def cancel(self, life: Life, grace: float) -> None:
        """Cancel a job, in model and fact."""
        reason = f"reason {self.step}"
        if life.removed:
            with pytest.raises(jobtrio.UnknownJobError):
                await self.registry.cancel(life.handle.id, reason, grace=grace)
        assert await life.handle.cancel(reason, grace=grace) is life.living
        if not life.living:
            return
        if not life.asked:
            life.asked, life.reason = True, reason
        if life.state == "RUNNING":
            life.stop_at = min(life.stop_at, self.now + grace)
        else:
            life.cancelled(reason)

    async def prioritize(self, life: Life, priority: JobPriority) -> None:
        """Give a job another priority, in model and fact."""
        waits = life.state in ("SCHEDULED", "QUEUED", "RETRYING")
        if life.removed:
            with pytest.raises(jobtrio.UnknownJobError):
                await self.registry.set_priority(life.handle.id, priority)
        assert await life.handle.set_priority(priority) is waits
        if waits and life.priority is not priority:
            life.priority, life.plain = priority, False

    async def remove(self, life: Life) -> None:
        """Remove a job, in model and fact."""
        job = life.handle
        if life.removed or life.living:
            error = jobtrio.UnknownJobError if life.removed else jobtrio.IllegalTransitionError
            with pytest.raises(error):
                await self.registry.remove(job.id)
            return
        for consumer in self.consumers:
            consumer.going.set()
        await wait_all_tasks_blocked()
        await self.registry.remove(job.id)
        life.removed = True
        assert job.id not in self.registry

    async def finish(self) -> None:
        """Bring everything to its end before the block is left."""
        for consumer in self.consumers:
            consumer.going.set()
        for life in sorted(self.lives, key=lambda life: life.state == "RUNNING"):
            await self.cancel(life, 0.0)
        await self.settle()

    def check(self, how: str) -> None:
        """Check everything once more when the registry is closed."""
        if how != "finish":
            for life in self.lives:
                if life.living:
                    life.cancelled("shutdown")
        for life in self.lives:
            job = life.handle
            assert (job.state, ending(job.outcome)) == (life.state, life.outcome)
            assert self.waited[job.id] == job.outcome
            if job.id in self.texts:
                tokens = [message[2] for message in life.messages if message[0] == "token"]
                assert self.texts[job.id][:-1] == tokens
            self.check_history(life)
        for consumer in self.consumers:
            consumer.check()
        assert not self.inside

    def check_history(self, life: Life) -> None:
        """Check that a job's transitions are a way through the table, to its one end."""
        previous: str | None = None
        lines = [line for line in self.events if line.job_id == life.handle.id]
        for line in lines:
            assert line.previous == previous
            assert line.state in LEGAL[previous]
            previous = line.state
        assert previous == life.state
        assert max(line.attempt for line in lines) == life.attempt


async def obey(job: jobtrio.JobContext, order: str, life: Life) -> None:
    """Do in an executor what the model was told."""
    what, _, pause = order.partition(":")
    match what:
        case "send":
            await job.send("send")
        case "nowait":
            job.send_nowait("nowait")
        case "burst":
            for _ in range(BURST):
                await job.send("burst")
        case "progress":
            job.progress(1)
        case "fail":
            raise ValueError("told to")
        case "later" | "now":
            raise jobtrio.RetryLater(float(pause or 0))
        case "give up":
            raise jobtrio.GiveUp("told to")
        case "stop":
            life.mode = "plain"
            job.cancel_scope.cancel()
            await trio.sleep_forever()
        case "child":
            job.nursery.start_soon(trio.sleep, float(pause))


class LeaveError(Exception):
    """Raised by a body to leave its registry."""


async def run(program: list[Any], max_running: int, how: str, clock: MockClock) -> None:
    """Interpret one program."""
    retention = Retention(tokens_per_job=KEPT, held_for=HELD_FOR)
    async with trio.open_nursery() as outside:
        try:
            async with jobtrio.open_registry(max_running=max_running, retention=retention) as registry:
                world = World(registry, clock, outside, max_running)
                outside.start_soon(world.listen, registry.subscribe_events())
                await world.settle()
                for operation in program:
                    await world.do(operation)
                for consumer in world.consumers:
                    consumer.going.set()
                if how == "finish":
                    await world.finish()
                elif how == "shutdown":
                    await registry.shutdown()
                else:
                    raise LeaveError
        except LeaveError:
            assert how == "raise"
        await wait_all_tasks_blocked()
        world.check(how)
        outside.cancel_scope.cancel()


@settings(
    max_examples=int(os.environ.get("JOBTRIO_EXAMPLES", "400")),
    derandomize=bool(os.environ.get("CI")),
)
@given(
    program=st.one_of(st.lists(operations, max_size=15), st.lists(operations, min_size=15, max_size=60)),
    max_running=st.integers(1, 3),
    how=st.sampled_from(["finish", "shutdown", "raise"]),
)
def test_model(program: list[Any], max_running: int, how: str) -> None:
    """Whatever is done in whatever order, each job's life, stream and ending are what the model says."""
    clock = MockClock()
    event(f"{len(program) // 10 * 10} operations or more, {how}")
    trio.run(run, program, max_running, how, clock, clock=clock)
