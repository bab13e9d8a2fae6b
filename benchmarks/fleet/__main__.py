"""The command: ``python -m benchmarks.fleet`` measures what calls cost and simulates fleets of up to 10,000 workers."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Final

import attrs
import trio

from benchmarks._options import count, duration
from benchmarks._servers import new_database, open_postgres, open_valkey, pid_of_valkey
from benchmarks.fleet.costs import Meter, Server
from benchmarks.fleet.model import Fleet, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fleet.model import Costs, Findings

SIZES: Final = (10, 100, 1_000, 10_000)
BUSY: Final = 0.8
LONG_WAIT: Final = 1.0
"""The share of the server, and the seconds that one job in a hundred waits, beyond which a fleet is too large."""


@attrs.frozen
class Scenario:
    """One way to use a fleet.

    Attributes:
        name: How the table names it.
        room: Jobs at once in each worker.
        duration: Seconds that a job takes.
        rate: Jobs a second, or None where there is work for 80 % of all workers' room.
    """

    name: str
    room: int
    duration: float
    rate: float | None

    def fleet(self, size: int, processors: int) -> Fleet:
        """Return the fleet of so many jobs at once."""
        workers = max(size // self.room, 1)
        rate = 0.8 * size / self.duration if self.rate is None else self.rate
        return Fleet(workers, self.room, rate, self.duration, processors)


SCENARIOS: Final = (
    Scenario("workers of one job at once; 1 job a second, of 1 s", 1, 1.0, 1.0),
    Scenario("workers of one job at once; 5 jobs a second, of 1 s", 1, 1.0, 5.0),
    Scenario("workers of one job at once; jobs of 60 s for 80 % of them", 1, 60.0, None),
    Scenario("the same, 100 jobs at once in each worker", 100, 60.0, None),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the costs of each store, and what becomes of fleets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    add = parser.add_argument
    add("--calls", type=count, default=4_000, help="calls of each kind that are measured (default: 4000)")
    add(
        "--listeners", type=count, default=20, help="processes that hear of work while hints are measured (default: 20)"
    )
    add("--seconds", type=duration, default=20.0, help="how long each fleet is simulated (default: 20)")
    add("--processors", type=count, default=8, help="of PostgreSQL's machine; Redis uses one (default: 8)")
    options = parser.parse_args(arguments)
    logging.getLogger("jobtrio.stores").setLevel(logging.ERROR)
    with open_postgres() as postgres:

        def sessions() -> int:
            rows = postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'db_%'")
            return int(rows[0][0])

        meter = Meter(new_database(postgres), Server(postgres.pid), sessions, options.calls, options.listeners)
        _tell("PostgreSQL", meter, options.processors, options.seconds)
    with open_valkey() as valkey:

        def clients() -> int:
            return len(str(valkey.ask("CLIENT", "LIST")).splitlines()) - 1  # who asks is one as well

        meter = Meter(valkey.url, Server(pid_of_valkey(valkey)), clients, options.calls, options.listeners)
        _tell("Redis", meter, 1, options.seconds)
    return 0


def _tell(name: str, meter: Meter, processors: int, seconds: float) -> None:
    costs = trio.run(meter.measure)
    print(f"\n{name}: {meter.connections} connections of a worker; microseconds of the server's processors:")
    print("  " + "  ".join(f"{what} {1e6 * cost:.1f}" for what, cost in attrs.asdict(costs).items()))
    for scenario in SCENARIOS:
        print(f"  {scenario.name}, a server of {processors}")
        for size in SIZES:
            fleet = scenario.fleet(size, processors)
            print("    " + _line(fleet, simulate(costs, fleet, seconds)), flush=True)
        print("    " + _limit(costs, scenario, processors, seconds), flush=True)


def _is_over(found: Findings) -> bool:
    return found.utilisation > BUSY or found.wait(0.99) > LONG_WAIT


def _limit(costs: Costs, scenario: Scenario, processors: int, seconds: float) -> str:
    """Find the size from which on fleets are too large, to within a tenth."""

    def is_too_large(size: int) -> bool:
        return _is_over(simulate(costs, scenario.fleet(size, processors), seconds))

    low, high = scenario.room, SIZES[-1]
    if not is_too_large(high):
        return f"{high:,} jobs at once are not too many"
    while high > 1.1 * low:
        middle = int((low * high) ** 0.5)
        if is_too_large(middle):
            high = middle
        else:
            low = middle
    return f"too large from {high:,} jobs at once"


def _line(fleet: Fleet, found: Findings) -> str:
    shares = ", ".join(f"{what} {100 * share:.1f} %" for what, share in sorted(found.shares.items()) if share > 0.001)
    median, late = (1e3 * found.wait(share) for share in (0.5, 0.99))
    return (
        f"{fleet.workers:6,} workers, {fleet.rate:7.2f} jobs/s: server {100 * found.utilisation:5.1f} % ({shares}); "
        f"wait p50 {median:.1f} ms, p99 {late:.1f} ms; {found.asked / max(found.started, 1):,.0f} claims a job"
        f"{'; too large' * _is_over(found)}"
    )


if __name__ == "__main__":
    sys.exit(main())
