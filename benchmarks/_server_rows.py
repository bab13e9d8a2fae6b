"""The rows of jobs that stores on servers have in common: alone, and beside peers."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks._child import open_child
from benchmarks._peer_environment import make_environment
from benchmarks._server_jobs import ServerJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks._harness import Session
    from benchmarks._peer_environment import Environment
    from benchmarks._result import Goal

AT_ONCE: Final = 100
PARTS: Final = {
    "each": ("no-op job, enqueue", "a call each"),
    "many": ("no-op job, enqueue", "1,000 a call"),
    "drain": ("no-op job, drain", "100 at once"),
    "live": ("no-op job, submit to outcome", "100 at once"),
}
"""What is timed, and how."""


@attrs.frozen
class Peer:
    """Another library on a server of the same kind.

    Attributes:
        name: How the table names it.
        module: Its module among the peers.
        url: Where its own jobs are.
        jobs: How many a round: fewer for the slow.
        parts: What of it is timed.
        goal: For draining.
    """

    name: str
    module: str
    url: str
    jobs: int
    parts: tuple[str, ...]
    goal: Goal | None


async def measure_jobs(session: Session, url: str, empty: Callable[[], None], setting: str) -> None:
    """Measure jobtrio alone."""
    jobs = ServerJobs(url, session.scale(5_000, 100), AT_ONCE, empty)
    for part, (name, way) in PARTS.items():
        await session.measure(name, f"{setting}, {way}", getattr(jobs, part))


async def compare_with_peers(
    session: Session,
    environment: Environment,
    peers: Sequence[Peer],
    url: str,
    empty: Callable[[], None],
    setting: str,
) -> None:
    """Measure jobtrio beside each peer, in turns: as many jobs on either side."""
    python = await make_environment(environment)
    session.note(f"Python {platform.python_version()}; the peers run on {environment.python}")
    for peer in peers:
        await _compare_with_peer(session, python, peer, url, empty, setting)


async def _compare_with_peer(
    session: Session, python: Path, peer: Peer, url: str, empty: Callable[[], None], setting: str
) -> None:
    count = session.scale(peer.jobs, 100)
    jobs = ServerJobs(url, count, AT_ONCE, empty)
    for part in peer.parts:
        name, way = PARTS[part]
        async with open_child(f"benchmarks.peers.{peer.module}", peer.url, count, part, python=python) as other:
            await session.compare(
                name,
                f"{setting}, {way}",
                getattr(jobs, part),
                other,
                versus=peer.name,
                goal=peer.goal if part == "drain" else None,
                speed=True,
            )
