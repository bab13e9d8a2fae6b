"""Peers: jobs of no work in memory, beside aiojobs, APScheduler 4, taskiq and PgQueuer.

Each peer runs in an interpreter of its own, from an environment that holds the peers alone and is made
once. They and jobtrio take turns, 100 jobs at once on every side; what counts is the processor time of
the thread that the event loop has, since all of them do everything in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jobtrio
from benchmarks._child import open_child
from benchmarks._peer_environment import make_environment
from benchmarks._result import at_least
from benchmarks.bench_submit import AT_ONCE, submit_each

if TYPE_CHECKING:
    from benchmarks._harness import Session
    from benchmarks._result import Goal

NAME = "no-op job, submit to outcome"

PEERS: tuple[tuple[str, tuple[str, ...], Goal | None], ...] = (
    ("aiojobs, no time limit", ("aiojobs_peer",), None),
    ("APScheduler 4 on Trio, a function", ("apscheduler_peer", "function"), at_least(8.0)),
    ("APScheduler 4 on Trio, by name", ("apscheduler_peer", "name"), None),
    ("taskiq", ("taskiq_peer",), at_least(1.0)),
    ("PgQueuer, which keeps no result", ("pgqueuer_memory_peer",), at_least(1.0)),
)
"""What the table says, the module with its form, the goal."""


async def run(session: Session) -> None:
    """Measure against each peer in turn."""
    python = await make_environment()
    jobs = session.scale(2_000, 100)
    async with jobtrio.open_registry(max_running=AT_ONCE) as registry:
        for versus, (module, *form), goal in PEERS:
            arguments = (jobs, AT_ONCE, *form)
            async with open_child(f"benchmarks.peers.{module}", *arguments, python=python) as peer:
                subject = submit_each(registry, jobs)
                await session.compare(NAME, f"{AT_ONCE} at once", subject, peer, versus=versus, goal=goal, speed=True)
