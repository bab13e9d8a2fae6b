"""Checks of the workers' processes, of the callers' waits, and of the run itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chaos.rig import OUTAGE_LIMIT
from chaos.verdict import promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts
    from chaos.verdict import Finding

SLACK: Final = 1.0
"""Seconds that a call may take beyond its bound where the machine is busy."""


@promise
def the_run_went_well(facts: Facts) -> Iterator[Finding]:
    """All came to its end in time, and nobody met an error that is not to be expected."""
    yield from facts.complaints


@promise
def workers_outlive_outages(facts: Facts) -> Iterator[Finding]:
    """A worker that works ends when it is told to, with 0, and for nothing else."""
    for life in facts.lives:
        if life.end is None and life.served:
            yield None, f"worker {life.name} ended by itself, with {life.code}: {life.said[-2000:]}"
        if life.end == "drained" and life.code != 0:
            yield None, f"worker {life.name} was told to end, and ended with {life.code}: {life.said[-2000:]}"
        if "Traceback" in life.said:
            yield None, f"worker {life.name} wrote a traceback: {life.said[-4000:]}"


@promise
def submissions_are_answered(facts: Facts) -> Iterator[Finding]:
    """`submit` returns or raises within the bound."""
    for job_id, submission in facts.submissions.items():
        for began, seconds in submission.tries:
            if seconds > OUTAGE_LIMIT + SLACK + facts.paused(began, began + seconds):
                yield job_id, f"submit took {seconds:.2f} s; its bound is {OUTAGE_LIMIT:g} s"


@promise
def faults_were_carried_out(facts: Facts) -> Iterator[Finding]:
    """What was planned to go wrong went wrong."""
    if len(facts.happenings) != len(facts.plan.faults):
        yield None, f"{len(facts.happenings)} of {len(facts.plan.faults)} faults were carried out"
