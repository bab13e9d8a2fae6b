"""What is to happen in one run, all drawn from one seed before it begins: jobs, watchers, cancellations, faults.

The same seed gives the same plan; how the processes then get on with it is up to the machine. It must not know how
any of it is done.
"""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from jobtrio import JobPriority, RateLimit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FaultKind: TypeAlias = Literal[
    "kill", "stop", "drain",
    "cut", "cut_up", "cut_down", "lose", "stall", "stall_up", "stall_down", "half_open", "refuse", "ignore",
    "restart", "freeze", "lock",
]  # fmt: skip
"""What can go wrong: with a worker's process, with a connection, and with the server or the file."""

OF_PROCESSES: Final[tuple[FaultKind, ...]] = ("kill", "stop", "drain")
OF_CONNECTIONS: Final[tuple[FaultKind, ...]] = (
    "cut", "cut_up", "cut_down", "lose", "stall", "stall_up", "stall_down", "half_open", "refuse", "ignore",
)  # fmt: skip
OF_SERVERS: Final[tuple[FaultKind, ...]] = ("restart", "freeze", "lock")

LIMITED_QUEUE: Final = "limited"
EACH_CUSTOMER: Final = "customer:*"
CUSTOMERS: Final = ("customer:ann", "customer:bob", "customer:cid", "customer:big")
TOTALS: Final = {LIMITED_QUEUE: 3, EACH_CUSTOMER: 2, "customer:big": 3}
"""How many jobs of a queue may run at once, over all workers, as they are told."""

RATES: Final = {"customer:bob": RateLimit(10, per=1), "c*": RateLimit(100, per=10, burst=3)}
"""How many jobs of a queue may start in a time, over all workers, as they are told."""

PAUSED_QUEUES: Final = ("paused", "customer:ann")
CYCLES: Final = 2
"""The queues that are paused, and how often: by turns until they are resumed, and for a time."""

NORMAL: Final = JobPriority.NORMAL
CERTAIN: Final[tuple[FaultKind, ...]] = ("kill", "stop", "kill", "stop")
CERTAIN_OF_DEAF: Final[tuple[FaultKind, ...]] = ("stop", "stop", "stop", "stop", "kill")
"""What befalls one worker after the other in every run."""

REQUEST: Final = 300
"""Bytes below which what a client sends is no submission."""

FAR: Final = 1000.0
"""Seconds of delay for a job that is to be cancelled before it is due."""

DEAF: Final = 3
"""One seed in so many has deaf workers."""

SPEECHES: Final = (
    (0, 0.0),
    (3, 0.0),
    (5, 0.02),
    (20, 0.02),
    (40, 0.05),
    (60, 0.05),
    (200, 0.002),
    (400, 0.005),
    (4, 0.4),
)
LONG_SPEECHES: Final = ((40, 0.05), (60, 0.05), (50, 0.05), (400, 0.005))
"""How many tokens attempts send, and with which pauses; the latter are drawn more often where workers are deaf."""

QUICK: Final = 0.5
"""Seconds below which an attempt may fail several times."""

ENDINGS: Final = ("return",) * 5 + ("raise", "raise", "time_out", "later", "give_up", "cling", "hang")
"""How attempts end, as often as they are drawn."""


@attrs.frozen
class Form:
    """The size of a run.

    Attributes:
        seconds: How long jobs are submitted and faults happen.
        jobs: How many jobs.
        faults: How many faults, besides those that every run has.
        workers: How many workers.
        lease: Seconds a claim lasts.
        settling: Seconds in which all has to end once the faults are over.
    """

    seconds: float = 12.0
    jobs: int = 200
    faults: int = 12
    workers: int = 3
    lease: float = 1.5
    settling: float = 90.0


LONG: Final = Form()
SHORT: Final = Form(seconds=3.0, jobs=40, faults=2, lease=1.0, settling=40.0)


@attrs.frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: When, in seconds from the start.
        kind: What.
        target: The worker or client that it befalls, or ``"server"``.
        seconds: How long it lasts.
        count: How many bytes, where it is about those.
    """

    at: float
    kind: FaultKind
    target: str
    seconds: float
    count: int = 0

    def __str__(self) -> str:
        after = f", {self.count} bytes" if self.count else ""
        return f"{self.at:6.2f} s  {self.kind} {self.target} for {self.seconds:.2f} s{after}"


@attrs.frozen
class JobPlan:
    """One job, and what is done with it.

    Attributes:
        at: When it is submitted, in seconds from the start.
        job_id: Its id.
        payload: What its executor is told to do.
        options: What `submit` is given besides.
        cancel_after: Seconds from its acceptance to a request to cancel, or None.
        watched_after: Seconds from its acceptance to each watcher's arrival.
        leaves_after: How many messages a watcher takes before it leaves and comes back.
        priorities: Seconds from its acceptance to each request for another priority, and which.
    """

    at: float
    job_id: str
    payload: dict[str, Any]
    options: dict[str, Any]
    cancel_after: float | None
    watched_after: tuple[float, ...]
    leaves_after: int
    priorities: tuple[tuple[float, JobPriority], ...] = ()


@attrs.frozen
class Plan:
    """One run.

    Attributes:
        seed: What it was drawn from.
        form: Its size.
        jobs: The jobs, by time.
        faults: The faults, by time.
        pauses: By queue, when a pause begins and ends, by turns, in seconds from the start.
        deaf: Whether workers do not notice that they lost a lease, so that the store alone keeps them from writing.
    """

    seed: int
    form: Form
    jobs: tuple[JobPlan, ...]
    faults: tuple[Fault, ...]
    pauses: dict[str, list[float]]
    deaf: bool

    @property
    def workers(self) -> list[str]:
        """The workers' names."""
        return worker_names(self.form)


def worker_names(form: Form) -> list[str]:
    """Return the workers' names."""
    return [f"w{n}" for n in range(form.workers)]


def limit_of(queue: str) -> float:
    """Return how many jobs of a queue may run at once, over all workers."""
    is_customers = queue.startswith(EACH_CUSTOMER.removesuffix("*"))
    return TOTALS.get(queue, TOTALS[EACH_CUSTOMER] if is_customers else inf)


def rate_of(queue: str) -> RateLimit | None:
    """Return how many jobs of a queue may start in a time, over all workers."""
    return RATES.get(queue, RATES["c*"] if queue.startswith("c") else None)


def draw_plan(seed: int, form: Form, possible: Collection[FaultKind]) -> Plan:
    """Return the plan of a seed, with faults of these kinds alone."""
    rng = random.Random(seed)
    deaf = seed % DEAF == 0
    speeches = SPEECHES + LONG_SPEECHES * (3 if deaf else 0)
    certain = CERTAIN_OF_DEAF if deaf else CERTAIN
    jobs = [_draw_job(rng, form, n, speeches) for n in range(form.jobs)]
    faults = [
        *_draw_certain(rng, form, possible, certain),
        *(_draw_fault(rng, form, possible) for _ in range(form.faults)),
    ]
    more = random.Random(f"{seed} more")  # so that seeds draw the rest as they did before there was more
    jobs = sorted((_draw_more(more, job) for job in jobs), key=lambda job: job.at)
    pauses = {queue: _draw_pauses(more, form) for queue in PAUSED_QUEUES}
    return Plan(seed, form, tuple(jobs), tuple(sorted(faults, key=lambda fault: fault.at)), pauses, deaf)


# -- jobs


def _draw_job(rng: random.Random, form: Form, number: int, speeches: Sequence[tuple[int, float]]) -> JobPlan:
    tokens, pause = rng.choice(speeches)
    ending = rng.choice(ENDINGS)
    payload = {
        "tokens": tokens,
        "pause": pause,
        "ending": ending,
        "fails": _draw_fails(rng, ending, tokens * pause),
        "saves": rng.random() < 0.3,
        "padding": rng.choice([0, 0, 0, 2000]),
    }
    options = _draw_options(rng, number)
    if ending == "time_out":
        options["time_limit"] = 0.5 + 1.5 * tokens * pause
    return JobPlan(
        at=rng.uniform(0.0, 0.9 * form.seconds),
        job_id=f"job-{number}",
        payload=payload,
        options=options,
        cancel_after=_draw_cancel(rng, certain=ending == "hang" or options.get("delay") == FAR),
        watched_after=tuple(rng.choice([0.0, 0.0, 0.3, 2.0]) for _ in range(rng.choice([0, 1, 1, 2]))),
        leaves_after=rng.choice([1, 5, 1000, 1000]),
    )


def _draw_fails(rng: random.Random, ending: str, seconds: float) -> int:
    """Draw how many attempts fail; of those that take long, one at most."""
    if ending in ("return", "cling", "hang"):
        return 0
    return rng.choice([1, 1, 2, 9]) if seconds < QUICK and ending != "time_out" else 1


def _draw_options(rng: random.Random, number: int) -> dict[str, Any]:
    options: dict[str, Any] = {"priority": rng.choice([NORMAL, NORMAL, *JobPriority])}
    if rng.random() < 0.2:
        options["queue"] = LIMITED_QUEUE
    if rng.random() < 0.2:
        options["key"] = f"key-{number}"
    chance = rng.random()
    if chance < 0.1:
        options["delay"] = rng.uniform(0.2, 2.0)
    elif chance < 0.15:
        options["delay"] = FAR
    elif chance < 0.2:
        options["expires_in"] = rng.uniform(0.05, 1.0)
    return options


def _draw_cancel(rng: random.Random, *, certain: bool) -> float | None:
    if certain:
        return rng.choice([0.0, 0.5, 2.0])
    if rng.random() < 0.3:
        return rng.choice([0.0, 0.0, 0.05, rng.uniform(0.1, 3.0)])
    return None


def _draw_more(rng: random.Random, job: JobPlan) -> JobPlan:
    """Give a job a queue, where it has none, and changes of its priority."""
    queue = {"queue": rng.choice([*CUSTOMERS, PAUSED_QUEUES[0], PAUSED_QUEUES[0]])} if rng.random() < 0.3 else {}
    changes = rng.choice([0, 0, 1, 2, 3])
    delays = [rng.choice([0.0, 0.1, rng.uniform(0.0, 3.0)]) for _ in range(changes)]
    priorities = tuple((delay, rng.choice([*JobPriority])) for delay in delays)
    return attrs.evolve(job, options={**queue, **job.options}, priorities=priorities)


def _draw_pauses(rng: random.Random, form: Form) -> list[float]:
    return sorted(rng.uniform(0.05, 0.95) * form.seconds for _ in range(2 * CYCLES))


# -- faults


def _draw_certain(
    rng: random.Random, form: Form, possible: Collection[FaultKind], of_workers: Sequence[FaultKind]
) -> list[Fault]:
    """Draw what every run has.

    Workers are killed and stopped past their lease, the server is restarted amid it, and answers to the submitter and
    to a worker are lost.
    """
    victims = worker_names(form)
    rng.shuffle(victims)
    wanted: list[tuple[FaultKind, str, int]] = [
        (kind, victims[n % len(victims)], 0) for n, kind in enumerate(of_workers)
    ]
    wanted += [("restart", "server", 0), ("lock", "server", 0)]
    wanted += [("lose", "submitter", REQUEST), ("lose", "submitter", REQUEST), ("lose", victims[-1], 1)]
    return [
        Fault(rng.uniform(0.1, 0.7) * form.seconds, kind, target, _draw_seconds(rng, form, kind, long=True), count)
        for kind, target, count in wanted
        if kind in possible
    ]


def _draw_fault(rng: random.Random, form: Form, possible: Collection[FaultKind]) -> Fault:
    kind = rng.choice(sorted(possible))
    if kind in OF_SERVERS:
        target = "server"
    elif kind in OF_CONNECTIONS:
        target = rng.choice([*worker_names(form), "submitter", "watcher"])
    else:
        target = rng.choice(worker_names(form))
    count = rng.choice([1, 100, 5000, 100_000]) if kind in ("cut_up", "cut_down", "lose") else 0
    return Fault(rng.uniform(0.1, 0.9) * form.seconds, kind, target, _draw_seconds(rng, form, kind), count)


def _draw_seconds(rng: random.Random, form: Form, kind: FaultKind, *, long: bool = False) -> float:
    match kind:
        case "stop":
            return form.lease * (1.5 if long else rng.choice([0.3, 1.2, 1.5, 2.5]))
        case "kill" | "drain":
            return rng.uniform(0.0, 2.0)
        case "restart" | "freeze" | "lock":
            return rng.choice([0.1, 0.5, 1.0, 2.0 * form.lease])
        case _:
            return 0.5 if long else rng.choice([0.1, 0.5, form.lease, 2.0 * form.lease])
