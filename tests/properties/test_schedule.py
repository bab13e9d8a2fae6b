"""Random timetables in memory: which job starts when, and how and when each ends, is what a small simulation foretells.

A seed makes a timetable: submissions with all that has to do with time, and requests to cancel, at instants of which no
two are the same. It is run on a virtual clock, and simulated by a list of jobs that is looked through at each step.
"""

from __future__ import annotations

import random
from collections import Counter
from math import inf

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import jobtrio
from jobtrio import Cancelled, Completed, JobPriority, Retention, RetryPolicy

JOBS = 40
SEEDS = range(40)
KEPT_FOR = 8.0
LIMITS: list[dict[str, int] | None] = [
    None,
    {"a": 1, "b": 2, "c": 9},
    {"a": 2, "b": 1, "c": 1},
    {"*": 1},
    {"*": 2, "b": 1},
]
TOTALS: list[dict[str, int]] = [{}, {"b": 1}, {"*": 1}, {"*": 1, "c": 2}]


@attrs.frozen
class Act:
    """What one attempt does: it works, and once it is cancelled, cleans up; its end is a word and perhaps a delay."""

    work: float
    clean_up: float
    end: str
    later: float


@attrs.define(eq=False)
class Plan:
    """A job of the timetable, and what the simulation knows of it.

    Attributes:
        cancels: When it is asked to end, and with which grace.
        due: When it becomes ready.
        ready: Its place in line.
        kind: What its attempt is at: working, or working until it has to stop, or cleaning up, and why.
        over: When that is over.
        left: When it ended.
    """

    name: str
    at: float
    queue: str
    priority: JobPriority
    delay: float
    expires: float
    limit: float
    policy: RetryPolicy | None
    acts: list[Act]
    cancels: list[tuple[float, float]]
    state: str = "new"
    due: float = inf
    ready: int = 0
    attempt: int = 0
    asked: bool = False
    kind: str = ""
    over: float = inf
    left: float = inf

    @property
    def shown(self) -> str:
        """How its record calls its state."""
        match self.state:
            case "waiting":
                return "RETRYING" if self.attempt else "SCHEDULED"
            case "ready":
                return "QUEUED"
            case "running":
                return "RUNNING"
        return {"completed": "COMPLETED", "cancelled": "CANCELLED"}.get(self.kind, "FAILED")

    def next(self) -> float:
        """Return when something happens to it by itself."""
        match self.state:
            case "new":
                return self.at
            case "waiting":
                return self.due
            case "ready":
                return self.expires if self.attempt == 0 else inf
            case "running":
                return self.over
        return inf


@attrs.define
class Rules:
    """What the registry of a timetable is opened with."""

    max_running: int
    queues: dict[str, int] | None
    totals: dict[str, int]
    max_queued: int
    finished_jobs: int


@attrs.define(eq=False)
class Told:
    """What came of a timetable."""

    starts: list[tuple[float, str, int]] = attrs.Factory(list)
    ends: list[tuple[float, str, str]] = attrs.Factory(list)
    looks: list[tuple[dict[str, str], dict[str, int]]] = attrs.Factory(list)
    cancels: list[tuple[str, bool]] = attrs.Factory(list)


class Times:
    """Draws seconds in fractions that floats add exactly, so fine that no two sums of them are the same."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, low: float, high: float) -> float:
        return self._rng.randrange(int(low * 2**24), int(high * 2**24)) / 2**24


def timetable(rng: random.Random) -> tuple[Rules, list[Plan], list[float]]:
    """Draw one; also return when to look at what is kept."""
    seconds, pick = Times(rng), rng.choice
    plans = []
    for n in range(JOBS):
        at = seconds(0, 20)
        delay = seconds(0.5, 5) if rng.random() < 0.3 else 0.0
        acts = [
            Act(
                seconds(0.1, 3),
                pick([0.0, 0.0, seconds(0.1, 2)]),
                pick(["return", "return", "raise", "raise", "later", "give up"]),
                seconds(0.1, 3),
            )
            for _ in range(5)
        ]
        policy = RetryPolicy(pick([2, 4]), seconds(0.1, 2), 2.0, 3.0, 0.0) if rng.random() < 0.5 else None
        cancels = sorted((at + seconds(0, 9), pick([0.0, seconds(0.1, 3)])) for _ in range(pick([0, 0, 0, 1, 2])))
        plans.append(
            Plan(
                *(f"{n}", at, pick("abc"), pick([*JobPriority]), delay),
                delay + seconds(0.2, 6) if rng.random() < 0.3 else inf,
                seconds(0.5, 3) if rng.random() < 0.4 else inf,
                *(policy, acts, cancels),
            )
        )
    rules = Rules(pick([1, 2, 5]), pick(LIMITS), pick(TOTALS), pick([8, 1000]), pick([5, 1000]))
    return rules, plans, sorted(seconds(0, 40) for _ in range(10))


# --- the simulation -----------------------------------------------------------------------------


@attrs.define(eq=False)
class Simulation:
    """The rules by which jobs take their turns, without a scheduler."""

    rules: Rules
    plans: list[Plan]
    told: Told = attrs.Factory(Told)
    now: float = 0.0
    line: int = 0

    def run(self, looks: list[float]) -> Told:
        """Go from instant to instant."""
        requests = sorted((at, plan.name, grace, plan) for plan in self.plans for at, grace in plan.cancels)
        looks = list(looks)
        while True:
            plan = min(self.plans, key=Plan.next)
            at = min(plan.next(), requests[0][0] if requests else inf, looks[0] if looks else inf)
            if at == inf:
                return self.told
            self.now = at
            if looks and looks[0] == at:
                self.look(looks.pop(0))
            elif requests and requests[0][0] == at:
                self.cancel(*requests.pop(0)[2:])
            else:
                self.happen(plan)
            self.start()

    def look(self, at: float) -> None:
        """Note which jobs are kept and how they stand, and how many run of each queue."""
        ended = [plan for plan in sorted(self.plans, key=lambda plan: plan.left) if plan.left != inf]
        kept = [plan for plan in ended[-self.rules.finished_jobs :] if plan.left + KEPT_FOR > at]
        living = [plan for plan in self.plans if plan.state in ("waiting", "ready", "running")]
        running = Counter(plan.queue for plan in living if plan.state == "running")
        states = {plan.name: plan.shown for plan in living + kept}
        self.told.looks.append((states, dict(running)))

    def happen(self, plan: Plan) -> None:
        """Let happen to a job what is due."""
        match plan.state:
            case "new" if self.never_started() >= self.rules.max_queued:
                plan.state = "refused"
                self.told.ends.append((self.now, plan.name, plan.state))
            case "new" if plan.delay:
                plan.state, plan.due = "waiting", self.now + plan.delay
                plan.expires += self.now
            case "new":
                plan.expires += self.now
                self.become_ready(plan)
            case "waiting":
                self.become_ready(plan)
            case "ready":
                self.end(plan, "expired")
            case "running" if plan.kind == "stopping":
                # Its time to stop has come, by request, or by its limit: what follows is its clean-up.
                self.stop(plan)
            case _:
                self.attempt_over(plan)

    def never_started(self) -> int:
        """Return how many jobs have been submitted and wait for their first start."""
        return sum(plan.attempt == 0 and plan.state in ("waiting", "ready") for plan in self.plans)

    def become_ready(self, plan: Plan) -> None:
        self.line += 1
        plan.state, plan.ready = "ready", self.line

    def start(self) -> None:
        """Start what there is room for."""
        while True:
            running = [plan for plan in self.plans if plan.state == "running"]
            ready = [plan for plan in self.plans if plan.state == "ready" and self.has_room(plan, running)]
            if not ready or len(running) >= self.rules.max_running:
                return
            plan = min(ready, key=lambda plan: (-plan.priority, plan.ready))
            plan.state, plan.attempt = "running", plan.attempt + 1
            self.told.starts.append((self.now, plan.name, plan.attempt))
            work = plan.acts[plan.attempt - 1].work
            plan.kind = "working" if work < plan.limit else "stopping"
            plan.over = self.now + min(work, plan.limit)

    def has_room(self, plan: Plan, running: list[Plan]) -> bool:
        others = sum(other.queue == plan.queue for other in running)
        limits = (self.rules.queues or {}, self.rules.totals)
        return all(others < limit.get(plan.queue, limit.get("*", inf)) for limit in limits)

    def stop(self, plan: Plan) -> None:
        """Cancel the attempt, which cleans up."""
        plan.kind = "cancelled" if plan.asked else "timeout"
        plan.over = self.now + plan.acts[plan.attempt - 1].clean_up
        if plan.over == self.now:
            self.attempt_over(plan)

    def attempt_over(self, plan: Plan) -> None:
        act = plan.acts[plan.attempt - 1]
        plan.over = inf
        if plan.asked:
            self.end(plan, "cancelled")
        elif plan.kind != "timeout" and act.end == "return":
            self.end(plan, "completed")
        elif plan.kind != "timeout" and act.end == "give up":
            self.end(plan, "gave_up")
        else:
            self.fail(plan, act)

    def fail(self, plan: Plan, act: Act) -> None:
        asks = plan.kind != "timeout" and act.end == "later"
        policy = plan.policy or (RetryPolicy() if asks else RetryPolicy(1))
        if plan.attempt >= policy.max_attempts:
            self.end(plan, "timeout" if plan.kind == "timeout" else "exception")
            return
        plan.state = "waiting"
        plan.due = self.now + (act.later if asks else min(policy.initial * 2 ** (plan.attempt - 1), policy.max_delay))

    def cancel(self, grace: float, plan: Plan) -> None:
        """Ask a job to end."""
        if plan.state in ("new", "refused"):
            return
        # The time of an attempt is up at its limit, whatever its clean-up takes: no request decides its last one.
        decided = plan.kind == "timeout" and plan.attempt >= (plan.policy.max_attempts if plan.policy else 1)
        alive = plan.state != "ended" and not (plan.state == "running" and decided)
        self.told.cancels.append((plan.name, alive))
        if not alive:
            return
        if plan.state != "running":
            self.end(plan, "cancelled")
            return
        plan.asked = True
        if plan.kind in ("timeout", "cancelled"):
            return
        if self.now + grace < plan.over:
            plan.kind, plan.over = "stopping", self.now + grace
        if not grace:
            self.stop(plan)

    def end(self, plan: Plan, how: str) -> None:
        plan.state, plan.left, plan.kind = "ended", self.now, how
        self.told.ends.append((self.now, plan.name, how))


# --- the real thing -----------------------------------------------------------------------------


@attrs.define(eq=False)
class Play:
    """A timetable as it is run."""

    plans: list[Plan]
    told: Told = attrs.Factory(Told)
    jobs: dict[str, jobtrio.Job] = attrs.Factory(dict)

    async def executor(self, job: jobtrio.JobContext) -> None:
        """Do what the timetable says of this attempt."""
        self.told.starts.append((trio.current_time(), job.id, job.attempt))
        act = job.payload.acts[job.attempt - 1]
        try:
            await trio.sleep(act.work)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(act.clean_up)
            raise
        match act.end:
            case "raise":
                raise ValueError("as planned")
            case "later":
                raise jobtrio.RetryLater(act.later)
            case "give up":
                raise jobtrio.GiveUp("as planned")

    async def run(self, rules: Rules, looks: list[float]) -> Told:
        """Submit, cancel and look at the times of the timetable."""
        retention = Retention(finished_jobs=rules.finished_jobs, finished_for=KEPT_FOR)
        async with (
            jobtrio.open_registry(
                max_running=rules.max_running,
                queues=rules.queues,
                max_running_total=rules.totals,
                max_queued=rules.max_queued,
                retention=retention,
            ) as registry,
            trio.open_nursery() as nursery,
        ):
            for plan in self.plans:
                nursery.start_soon(self.submit, registry, plan)
                for at, grace in plan.cancels:
                    nursery.start_soon(self.cancel, plan, at, grace)
            for at in looks:
                nursery.start_soon(self.look, registry, at)
        self.told.ends.sort()
        return self.told

    async def submit(self, registry: jobtrio.JobRegistry, plan: Plan) -> None:
        await trio.sleep_until(plan.at)
        try:
            job = self.jobs[plan.name] = await registry.submit(
                self.executor,
                plan,
                job_id=plan.name,
                queue=plan.queue,
                priority=plan.priority,
                delay=plan.delay or None,
                expires_in=None if plan.expires == inf else plan.expires,
                time_limit=None if plan.limit == inf else plan.limit,
                retry=plan.policy,
            )
        except jobtrio.QueueFullError:
            self.told.ends.append((trio.current_time(), plan.name, "refused"))
        else:
            outcome = await job.wait()
            self.told.ends.append((trio.current_time(), job.id, kind_of(outcome)))

    async def cancel(self, plan: Plan, at: float, grace: float) -> None:
        await trio.sleep_until(at)
        if job := self.jobs.get(plan.name):
            try:
                self.told.cancels.append((plan.name, await job.cancel(grace=grace)))
            except jobtrio.UnknownJobError:
                self.told.cancels.append((plan.name, False))

    async def look(self, registry: jobtrio.JobRegistry, at: float) -> None:
        await trio.sleep_until(at)
        await wait_all_tasks_blocked()
        records = await registry.find(limit=JOBS)
        stats = registry.stats()
        states = {record.id: str(record.state) for record in records}
        assert Counter(states.values()) == Counter({str(state): n for state, n in stats.states.items()})
        self.told.looks.append((states, stats.running_by_queue))


def kind_of(outcome: jobtrio.Outcome) -> str:
    match outcome:
        case Completed():
            return "completed"
        case Cancelled():
            return "cancelled"
    return outcome.error.kind


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_start_and_end_as_foretold(seed: int) -> None:
    """Every start, every end, every answer to a request, and what is kept."""
    rng = random.Random(seed)
    rules, plans, looks = timetable(rng)
    play = Play(plans)

    clock = MockClock(autojump_threshold=0)
    told = trio.run(play.run, rules, looks, clock=clock)
    foretold = Simulation(rules, plans).run(looks)
    assert told.starts == foretold.starts
    assert told.ends == sorted(foretold.ends)
    assert told.cancels == foretold.cancels
    assert told.looks == foretold.looks
