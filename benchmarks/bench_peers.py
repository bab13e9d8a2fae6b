"""Peers: jobs of no work in memory, beside aiojobs, APScheduler 4 and taskiq.

Each peer runs in an interpreter of its own, from an environment that holds the peers alone and is made
once. They and jobtrio take turns, 100 jobs at once on every side; what counts is the processor time of
the thread that the event loop has, since all of them do everything in it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import jobtrio
from benchmarks._child import open_child
from benchmarks._result import at_least
from benchmarks.bench_submit import AT_ONCE, submit_each

if TYPE_CHECKING:
    from benchmarks._harness import Session
    from benchmarks._result import Goal

ENVIRONMENT = Path(__file__).parent / ".venv-peers"
REQUIREMENTS = ("aiojobs==1.4.0", "apscheduler==4.0.0a6", "taskiq==0.13.0", "trio==0.35.0")
NAME = "no-op job, submit to outcome"

PEERS: tuple[tuple[str, tuple[str, ...], Goal | None], ...] = (
    ("aiojobs, no time limit", ("aiojobs_peer",), None),
    ("APScheduler 4 on Trio, a function", ("apscheduler_peer", "function"), at_least(8.0)),
    ("APScheduler 4 on Trio, by name", ("apscheduler_peer", "name"), None),
    ("taskiq", ("taskiq_peer",), at_least(1.0)),
)
"""What the table says, the module with its form, the goal."""


async def run(session: Session) -> None:
    """Measure against each peer in turn."""
    python = make_environment()
    jobs = session.scale(2_000, 100)
    async with jobtrio.open_registry(max_running=AT_ONCE) as registry:
        for versus, (module, *form), goal in PEERS:
            arguments = (jobs, AT_ONCE, *form)
            async with open_child(f"benchmarks.peers.{module}", *arguments, python=python) as peer:
                subject = submit_each(registry, jobs)
                await session.compare(NAME, f"{AT_ONCE} at once", subject, peer, versus=versus, goal=goal, speed=True)


def make_environment() -> Path:
    """Make the peers' environment unless it is there as wanted; return its interpreter."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "requirements.json"
    wanted = json.dumps(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        uv = shutil.which("uv")
        if uv is None:
            raise SystemExit("the peers need the program uv, to make an environment of their own")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(ENVIRONMENT)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python
