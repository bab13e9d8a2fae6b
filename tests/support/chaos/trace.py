"""What was seen, for people: the plan of a run, and all that concerns one job, in the order in which it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio import Restart, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts
    from chaos.verdict import Violation
    from jobtrio import Message

MOST_JOBS = 5
"""Jobs that are told at length."""


def tell(facts: Facts, violations: list[Violation]) -> str:
    """Return what a reader needs to understand what was found."""
    parts = [f"seed {facts.plan.seed}: {len(violations)} violations", *map(str, violations), "", "faults:"]
    parts += [_moment(facts, one.began, f"to {one.ended - facts.began:.2f} s: {one.fault}") for one in facts.happenings]
    jobs = list(dict.fromkeys(one.job_id for one in violations if one.job_id is not None))
    for job_id in jobs[:MOST_JOBS]:
        parts += ["", *tell_job(facts, job_id)]
    if len(jobs) > MOST_JOBS:
        parts.append(f"and {len(jobs) - MOST_JOBS} more jobs")
    return "\n".join(parts)


def tell_job(facts: Facts, job_id: str) -> list[str]:
    """Return all that concerns one job, a line each."""
    submission, kept = facts.submissions.get(job_id), facts.kept.get(job_id)
    head = [f"job {job_id}:"]
    if submission is not None:
        head.append(f"  {submission.plan.payload} {submission.plan.options}")
    events = sorted([*_of_clients(facts, job_id), *_of_workers(facts, job_id), *_of_store(facts, job_id)])
    told = [_moment(facts, at, text) for at, text in events]
    stream = [] if kept is None else ["  stream: " + " ".join(_short(message) for message in kept.messages)]
    return [*head, *told, *stream]


def _moment(facts: Facts, at: float, text: str) -> str:
    return f"  {at - facts.began:8.3f} s  {text}"


def _of_clients(facts: Facts, job_id: str) -> Iterator[tuple[float, str]]:
    if (submission := facts.submissions.get(job_id)) is not None:
        for at, seconds in submission.tries:
            yield at, f"submit is called, and takes {seconds:.3f} s"
        at, seconds = submission.tries[-1] if submission.tries else (facts.began, 0.0)
        yield at + seconds, f"submit: {submission.answer}"
    for one in facts.cancellations:
        if one.job_id == job_id:
            yield one.asked, "cancel is called"
            yield one.answered, f"cancel: {'unknown job' if not one.known else one.accepted}"
    subjects = {job_id, *([submission.plan.options.get("queue")] if submission else [])}
    for change in facts.changes:
        if change.subject in subjects:
            yield change.asked, f"{change.subject}: {change.wish!r} is asked for"
            yield change.answered, f"{change.subject}: {change.wish!r}: {change.accepted}"


def _of_workers(facts: Facts, job_id: str) -> Iterator[tuple[float, str]]:
    for line in facts.lines_of(job_id):
        if line.what != "token":
            value = "" if line.value is None else f" {line.value}"
            yield line.at, f"{line.worker}: attempt {line.attempt} {line.what}{value}"
    names = {line.worker for line in facts.lines_of(job_id)}
    for life in facts.lives:
        if life.name in names:
            yield life.began, f"{life.name} is started"
            if life.ended is not None:
                yield life.ended, f"{life.name} is gone: {life.end}, {life.code}"
            for begun, until in life.stops:
                yield begun, f"{life.name} stands still"
                yield until, f"{life.name} goes on"


def _of_store(facts: Facts, job_id: str) -> Iterator[tuple[float, str]]:
    if (kept := facts.kept.get(job_id)) is not None:
        for step in kept.history:
            reason = "" if step.reason is None else f" ({step.reason})"
            yield step.at.timestamp(), f"store: {step.state}, attempt {step.attempt}, by {step.worker}{reason}"


def _short(message: Message) -> str:
    match message:
        case Token(seq=seq, attempt=attempt, value=[_, count, worker, *_]):
            return f"{seq}:{attempt}/{count}@{worker}"
        case Restart(seq=seq, attempt=attempt):
            return f"{seq}:Restart({attempt})"
        case _:
            return f"{getattr(message, 'seq', '-')}:{type(message).__name__}"
