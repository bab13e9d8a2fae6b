"""Checks of what is kept of each job and how it ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chaos.jobs import POLICY
from chaos.plan import FAR
from chaos.verdict import promise
from jobtrio import JobState
from jobtrio._state import TRANSITIONS
from jobtrio.stores._rules import LOSSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts, Kept
    from chaos.plan import JobPlan
    from chaos.verdict import Finding

TOLERANCE = 0.05
"""Seconds by which two processes' clocks may differ on one machine: histories have milliseconds or better."""


LAPSED = "lost lease"
"""The reason that histories give for a job's return to its queue."""


def plans(facts: Facts) -> dict[str, JobPlan]:
    """Return the planned jobs by id."""
    return {plan.job_id: plan for plan in facts.plan.jobs}


@promise
def acknowledged_is_kept(facts: Facts) -> Iterator[Finding]:
    """What `submit` returned for is there, under its own id."""
    for job_id, submission in facts.submissions.items():
        if submission.answer == "accepted" and submission.stored_id != job_id:
            yield job_id, f"submit returned job {submission.stored_id!r}"
        if submission.answer == "accepted" and job_id not in facts.kept:
            yield job_id, "acknowledged and not kept"


@promise
def nobody_else_submits(facts: Facts) -> Iterator[Finding]:
    """Nothing is kept that nobody submitted, and no key twice."""
    for job_id in facts.kept.keys() - facts.submissions.keys():
        yield job_id, "nobody submitted it"
    keys = Counter(kept.record.key for kept in facts.kept.values() if kept.record.key is not None)
    for key, count in keys.items():
        if count > 1:
            yield None, f"{count} jobs have the key {key!r}"


@promise
def ends_once(facts: Facts) -> Iterator[Finding]:
    """Each job has ended, once, and nothing follows its end."""
    for job_id, kept in facts.kept.items():
        finals = [step for step in kept.history if step.state.is_final]
        if len(finals) != 1:
            yield job_id, f"{len(finals)} endings, {kept.record.state} in the end"
        elif kept.history[-1] is not finals[0]:
            yield job_id, f"{kept.history[-1].state} behind {finals[0].state}"
        elif kept.record.state is not finals[0].state:
            yield job_id, f"its record says {kept.record.state}, its history {finals[0].state}"


@promise
def changes_are_legal(facts: Facts) -> Iterator[Finding]:
    """Each change of state follows from the one before, and attempts are counted without holes."""
    for job_id, kept in facts.kept.items():
        previous, attempt = None, 0
        for step in kept.history:
            if step.previous is not previous or step.state not in TRANSITIONS[previous]:
                yield job_id, f"{step.previous} to {step.state} where it was {previous}"
            if step.attempt != attempt + (step.state is JobState.RUNNING):
                yield job_id, f"attempt {step.attempt} is {step.state} behind attempt {attempt}"
            previous, attempt = step.state, step.attempt


@promise
def ends_as_planned(facts: Facts) -> Iterator[Finding]:
    """A job ends in a way that its executor, its options, a cancellation or the faults account for."""
    for job_id, plan in plans(facts).items():
        if (kept := facts.kept.get(job_id)) is None:
            continue
        error = kept.record.error
        if kept.record.state is JobState.FAILED and error is not None:
            yield from ((job_id, text) for text in _odd_failure(plan, kept, error.kind))
        elif kept.record.state is JobState.COMPLETED and plan.payload["fails"] >= kept.record.attempt:
            yield job_id, f"completed in attempt {kept.record.attempt}, which had to fail"


def _odd_failure(plan: JobPlan, kept: Kept, kind: str) -> Iterator[str]:
    allowed = {"raise": {"exception"}, "later": {"exception"}, "give_up": {"gave_up"}, "time_out": {"timeout"}}
    lapsed = 0  # leases lost in a row
    for step in kept.history:
        lapsed = 0 if step.state is JobState.RETRYING else lapsed + (step.reason == LAPSED)
    retried = sum(step.state is JobState.RETRYING for step in kept.history)
    match kind:
        case "lost" if lapsed >= LOSSES - 1:
            pass
        case "expired" if "expires_in" in plan.options and kept.record.attempt == 0:
            pass
        case "gave_up" if kind in allowed.get(plan.payload["ending"], ()):
            pass
        case "exception" | "timeout" if kind in allowed.get(plan.payload["ending"], ()):
            if retried != POLICY.max_attempts - 1:
                yield f"failed for good behind {retried} retries"
        case _:
            yield f"failed as {kind!r}, which nothing accounts for: {kept.record.error}"


@promise
def cancelled_as_asked(facts: Facts) -> Iterator[Finding]:
    """What was accepted to be cancelled ends cancelled, without another start; nothing else ends so."""
    asked = {one.job_id for one in facts.cancellations}
    for one in facts.cancellations:
        kept = facts.kept.get(one.job_id)
        if kept is None or one.accepted is None:
            continue
        if one.accepted and kept.record.state is not JobState.CANCELLED:
            yield one.job_id, f"its cancellation was accepted, and it ended {kept.record.state}"
        if not one.accepted and (
            kept.record.finished_at is None or kept.record.finished_at.timestamp() > one.answered + TOLERANCE
        ):
            yield one.job_id, "its cancellation was refused as too late while it lived"
    for job_id, kept in facts.kept.items():
        if kept.record.state is JobState.CANCELLED and job_id not in asked:
            yield job_id, "cancelled, and nobody asked"
        yield from ((job_id, text) for text in _starts_behind(kept))


def _starts_behind(kept: Kept) -> Iterator[str]:
    requested = kept.record.cancel_requested_at
    for step in kept.history:
        if requested is not None and step.state is JobState.RUNNING and step.at > requested:
            late = (step.at - requested).total_seconds()
            if late > TOLERANCE:
                yield f"attempt {step.attempt} started {late:.3f} s after the cancellation was accepted"


@promise
def starts_in_time(facts: Facts) -> Iterator[Finding]:
    """Nothing starts before it is due, nor for the first time after it has expired."""
    for job_id, plan in plans(facts).items():
        kept = facts.kept.get(job_id)
        first = next((step for step in kept.history if step.state is JobState.RUNNING), None) if kept else None
        if kept is None or first is None:
            continue
        waited = first.at.timestamp() - kept.record.created_at.timestamp()
        answered = sum(facts.submissions[job_id].tries[-1])  # it was stored no later
        if waited < plan.options.get("delay", 0.0) - TOLERANCE:
            yield job_id, f"started after {waited:.3f} s; its delay was {plan.options['delay']:.3f} s"
        if plan.options.get("delay") == FAR:
            yield job_id, "started long before it was due"
        if first.at.timestamp() - answered > plan.options.get("expires_in", FAR) + TOLERANCE:
            yield job_id, f"started after {waited:.3f} s; it expired after {plan.options['expires_in']:.3f} s"
