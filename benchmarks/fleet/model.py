"""A fleet of workers on one server, simulated: who asks when, how long the server is busy with it, how long jobs wait.

Workers do what `Dispatcher` and `Leases` do: they ask for jobs when they are told of work, when a job of theirs ends
and after each poll interval, have one such call at a time under way, and renew three times a lease. The server takes
requests in order, on so many processors. Pure: it knows costs only as numbers.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

LEASE: Final = 30.0
POLL: Final = 5.0
RENEWALS: Final = 3
"""As the library has them by default."""


@attrs.frozen
class Costs:
    """Seconds of the server's processors.

    Attributes:
        insert: To put one job in.
        hint: To tell one worker that there is work.
        look: To find no job for a worker that asks.
        claim: More than that, for each job found.
        finish: To end one job.
        renew: To renew a worker's presence.
        hold: More than that, for each job that it runs.
    """

    insert: float
    hint: float
    look: float
    claim: float
    finish: float
    renew: float
    hold: float


@attrs.frozen
class Fleet:
    """What is simulated.

    Attributes:
        workers: How many.
        room: Jobs that each runs at once.
        rate: Jobs put in a second.
        duration: Seconds that a job takes.
        processors: Of the server.
    """

    workers: int
    room: int
    rate: float
    duration: float
    processors: int


@attrs.frozen
class Findings:
    """What came of it.

    Attributes:
        utilisation: The share of the server's processors that was busy.
        shares: The same by what they were busy with.
        waits: Seconds from when jobs were put in to when they were claimed, sorted.
        started: Jobs that were claimed.
        asked: Calls to claim.
        backlog: Jobs still waiting at the end.
    """

    utilisation: float
    shares: dict[str, float]
    waits: Sequence[float]
    started: int
    asked: int
    backlog: int

    def wait(self, share: float) -> float:
        """Return the wait below which this share of all lies."""
        return self.waits[min(int(len(self.waits) * share), len(self.waits) - 1)] if self.waits else 0.0


Event: TypeAlias = tuple[float, int, Callable[[], None]]


@attrs.define(eq=False)
class _Worker:
    running: int = 0
    asks: bool = False
    rung: bool = False


class Simulation:
    """One run of a fleet."""

    def __init__(self, costs: Costs, fleet: Fleet, seed: int = 1) -> None:
        self._costs = costs
        self._fleet = fleet
        self._rng = random.Random(seed)
        self._now = 0.0
        self._events: list[Event] = []
        self._count = 0
        self._free = [0.0] * fleet.processors  # when each of them is
        self._busy: dict[str, float] = defaultdict(float)
        self._ready: deque[float] = deque()  # when each job that is there was put in
        self._waits: list[float] = []
        self._asked = 0
        self._workers = [_Worker() for _ in range(fleet.workers)]

    def run(self, seconds: float) -> Findings:
        """Simulate so many seconds, from a fleet whose timers are spread evenly."""
        self._after(self._rng.expovariate(self._fleet.rate), self._submit)
        for worker in self._workers:
            self._after(self._rng.uniform(0, POLL), self._poll_of(worker))
            self._after(self._rng.uniform(0, LEASE / RENEWALS), self._renew_of(worker))
        while self._events and self._events[0][0] <= seconds:
            self._now, _, event = heapq.heappop(self._events)
            event()
        whole = max(seconds, *self._free) * self._fleet.processors  # what is still to be done takes its time
        shares = {what: busy / whole for what, busy in self._busy.items()}
        waits = sorted(self._waits)
        return Findings(sum(shares.values()), shares, waits, len(waits), self._asked, len(self._ready))

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self._now + seconds, self._count, event))

    def _serve(self, what: str, cost: float, then: Callable[[], None] | None = None) -> None:
        """Have the server do something, behind all that it was asked before."""
        begin = max(heapq.heappop(self._free), self._now)
        heapq.heappush(self._free, begin + cost)
        self._busy[what] += cost
        if then is not None:
            self._after(begin + cost - self._now, then)

    # -- jobs

    def _submit(self) -> None:
        self._serve("insert", self._costs.insert, partial(self._inserted, self._now))
        self._after(self._rng.expovariate(self._fleet.rate), self._submit)

    def _inserted(self, submitted: float) -> None:
        self._ready.append(submitted)
        self._serve("hints", self._costs.hint * len(self._workers), self._ring_all)

    def _ring_all(self) -> None:
        for worker in self._rng.sample(self._workers, len(self._workers)):
            self._ring(worker)

    def _end_of(self, worker: _Worker) -> Callable[[], None]:
        def over() -> None:
            self._serve("finish", self._costs.finish, gone)

        def gone() -> None:
            worker.running -= 1
            self._ring(worker)

        return over

    # -- workers

    def _ring(self, worker: _Worker) -> None:
        if worker.asks:
            worker.rung = True
        elif worker.running < self._fleet.room:
            worker.asks = True
            self._asked += 1
            found = min(len(self._ready), self._fleet.room - worker.running)
            # What it finds is decided when it is served; what that costs is known only now, near enough.
            self._serve("claims", self._costs.look + found * self._costs.claim, self._answer_of(worker))

    def _answer_of(self, worker: _Worker) -> Callable[[], None]:
        def answered() -> None:
            while self._ready and worker.running < self._fleet.room:
                self._waits.append(self._now - self._ready.popleft())
                worker.running += 1
                self._after(self._fleet.duration, self._end_of(worker))
            worker.asks = False
            if worker.rung:
                worker.rung = False
                self._ring(worker)

        return answered

    def _poll_of(self, worker: _Worker) -> Callable[[], None]:
        def poll() -> None:
            self._ring(worker)
            self._after(POLL, poll)

        return poll

    def _renew_of(self, worker: _Worker) -> Callable[[], None]:
        def renew() -> None:
            self._serve("renewals", self._costs.renew + self._costs.hold * worker.running)
            self._after(LEASE / RENEWALS, renew)

        return renew


def simulate(costs: Costs, fleet: Fleet, seconds: float, seed: int = 1) -> Findings:
    """Return what comes of a fleet."""
    return Simulation(costs, fleet, seed).run(seconds)
