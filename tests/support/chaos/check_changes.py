"""Checks of what clients change while jobs wait: pauses of queues, and priorities."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from chaos.check_endings import TOLERANCE, plans
from chaos.facts import Change
from chaos.verdict import promise
from jobtrio import JobPriority, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts, Kept, Wish
    from chaos.verdict import Finding

WAITING = {JobState.SCHEDULED, JobState.QUEUED, JobState.RETRYING}


@promise
def paused_queues_rest(facts: Facts) -> Iterator[Finding]:
    """No claim that begins behind an acknowledged pause starts a job of the queue before that is over.

    That is when somebody asks to resume it, or when the pause was to end by itself.

    An attempt that was not begun tells nobody when it was asked for.
    """
    asked = {(line.job_id, line.attempt): line.value[0] for line in facts.lines if line.what == "claimed"}
    for job_id, kept in facts.kept.items():
        for since, until in _certain_pauses(facts, kept.record.queue):
            for step in kept.history:
                claimed = asked.get((job_id, step.attempt), 0.0)
                if step.state is JobState.RUNNING and since < claimed and step.at.timestamp() < until - TOLERANCE:
                    what = f"attempt {step.attempt} was asked for {claimed - since:.3f} s after its queue was paused"
                    yield job_id, f"{what}, and claimed {until - step.at.timestamp():.3f} s before that was over"


def _certain_pauses(facts: Facts, queue: str) -> Iterator[tuple[float, float]]:
    """Give the times from the answer to a pause to its end, or the next call to resume before that.

    None behind one that may still arrive.
    """
    changes = facts.changes_of(queue)  # one after the other
    for n, change in enumerate(changes):
        if change.wish == "resume" and change.accepted is None:
            return
        if change.wish == "pause" and change.accepted:
            resumed = next((later.asked for later in changes[n:] if later.wish == "resume"), inf)
            yield change.answered, min(resumed, change.asked + change.lasts)


@promise
def resumed_queues_stay_so(facts: Facts) -> Iterator[Finding]:
    """A queue whose pauses are over in the end is not paused later, unless a call to pause it was not answered."""
    for queue in facts.paused_late:
        changes = facts.changes_of(queue)
        if all(change.accepted for change in changes if change.wish == "pause" or change is changes[-1]):
            yield None, f"{queue} was paused when that had to be over"


@promise
def priorities_are_as_asked(facts: Facts) -> Iterator[Finding]:
    """Attempts and the record have the priority that was acknowledged last, or one that may have been set meanwhile."""
    given = {(line.job_id, line.attempt): line.value[1] for line in facts.lines if line.what == "claimed"}
    for job_id, plan in plans(facts).items():
        if (kept := facts.kept.get(job_id)) is None:
            continue
        changes = [Change(job_id, plan.options["priority"], 0.0, 0.0, True), *facts.changes_of(job_id)]
        if kept.record.priority not in _possible(changes, inf):
            yield job_id, f"its priority is {kept.record.priority!r} in the end"
        for step in kept.history:
            if step.state is JobState.RUNNING and (job_id, step.attempt) in given:
                priority = JobPriority(given[job_id, step.attempt])
                if priority not in _possible(changes, step.at.timestamp()):
                    yield job_id, f"attempt {step.attempt} had the priority {priority!r}"


def _possible(changes: list[Change], at: float) -> set[Wish]:
    """Return the priorities that a job may have at a time, by what its clients were answered."""
    asked = [change for change in changes if change.asked < at + TOLERANCE and change.accepted is not False]
    made = [change for change in asked if change.accepted and change.answered < at - TOLERANCE]
    return {
        change.wish
        for change in asked
        if change not in made or not any(later.asked > change.answered for later in made)
    }


@promise
def priorities_change_while_jobs_wait(facts: Facts) -> Iterator[Finding]:
    """A change of a priority is accepted at a moment in which the job waits, and refused at one in which it doesn't."""
    for change in facts.changes:
        if change.accepted is None or (kept := facts.kept.get(change.subject)) is None:
            continue
        states = _states(kept, change.asked - TOLERANCE, change.answered + TOLERANCE)
        if not (states & WAITING if change.accepted else states - WAITING):
            yield change.subject, f"{change.wish!r}: {change.accepted} while it was {', '.join(states)}"


def _states(kept: Kept, since: float, until: float) -> set[JobState]:
    """Return all states that a job was in between these moments."""
    ends = [*(step.at.timestamp() for step in kept.history[1:]), inf]
    spans = zip(kept.history, ends, strict=True)
    return {step.state for step, end in spans if step.at.timestamp() <= until and end >= since}
