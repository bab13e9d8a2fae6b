"""Checks of what executors wrote down, beside what the store says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from chaos.check_endings import LAPSED, TOLERANCE
from chaos.check_fleet import SLACK
from chaos.jobs import CLINGS
from chaos.plan import limit_of, rate_of
from chaos.verdict import promise
from jobtrio import JobState
from jobtrio._leases import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts, Kept, Line
    from chaos.verdict import Finding


WORK: Final = ("started", "token", "saved", "sent")
"""What executors write down while they work."""

ROUNDED: Final = 1e-4
"""Seconds by which moments may be off that were read from a history."""

BEFORE: Final = 0.5
AFTER: Final = 2.0
"""Seconds before a claim is kept in which what goes wrong may lose its answer, and for which a fault has effects."""


def workers_of(kept: Kept) -> dict[int, str]:
    """Return who ran each attempt, by the history."""
    return {step.attempt: step.worker for step in kept.history if step.state is JobState.RUNNING}


@promise
def attempts_run_once(facts: Facts) -> Iterator[Finding]:
    """Each attempt was begun once at most, by the worker that the history names."""
    begun = Counter((line.job_id, line.attempt) for line in facts.lines if line.what == "started")
    for (job_id, attempt), count in begun.items():
        if count > 1:
            yield job_id, f"attempt {attempt} was begun {count} times"
    for line in facts.lines:
        if line.what == "started" and (kept := facts.kept.get(line.job_id)) is not None:
            worker = workers_of(kept).get(line.attempt)
            if worker != line.worker:
                yield line.job_id, f"attempt {line.attempt} was begun by {line.worker}; its history says {worker}"


@promise
def never_started_never_ran(facts: Facts) -> Iterator[Finding]:
    """What was cancelled or expired before its start, or is not kept, has not run."""
    for line in facts.lines:
        kept = facts.kept.get(line.job_id)
        if line.what == "started" and (kept is None or kept.record.attempt == 0):
            yield line.job_id, f"it ran on {line.worker}, and never started by its history"


@promise
def ends_are_the_holders(facts: Facts) -> Iterator[Finding]:
    """A completed job's result is that of its last attempt, which returned; its ending was written by who held it."""
    for job_id, kept in facts.kept.items():
        if kept.record.state is not JobState.COMPLETED:
            continue
        attempt, worker = kept.record.attempt, workers_of(kept).get(kept.record.attempt)
        if kept.record.result != [attempt, worker]:
            yield job_id, f"attempt {attempt} of {worker} ended it, with the result {kept.record.result}"
        if kept.history[-1].worker != worker:
            yield job_id, f"its ending was written by {kept.history[-1].worker}; {worker} held it"
        if not any(_is(line, "returned", attempt, worker) for line in facts.lines_of(job_id)):
            yield job_id, f"completed, and attempt {attempt} has not returned"


def _is(line: Line, what: str, attempt: int, worker: str | None) -> bool:
    return (line.what, line.attempt, line.worker) == (what, attempt, worker)


@promise
def states_go_forward(facts: Facts) -> Iterator[Finding]:
    """An attempt begins with the newest state that was acknowledged before it, or a newer one, never its own."""
    for job_id in facts.kept:
        newest = [0, -1]
        for line in sorted(facts.lines_of(job_id), key=lambda line: line.attempt):
            if line.what == "saved" and line.value > newest:
                newest = line.value
            if line.what != "started":
                continue
            found = line.value or [0, -1]
            if found < newest:
                yield job_id, f"attempt {line.attempt} was given {found}; {newest} had been saved"
            elif found[0] >= line.attempt:
                yield job_id, f"attempt {line.attempt} was given {found}"


@promise
def lost_attempts_stop(facts: Facts) -> Iterator[Finding]:
    """When the next attempt begins, the one before does nothing more, unless its worker stood still, or is deaf.

    How it ends does not count: a call that was under way may take its time, and an executor may cling.
    """
    if facts.plan.deaf:
        return
    for job_id in facts.kept:
        by_attempt: dict[int, list[Line]] = defaultdict(list)
        for line in facts.lines_of(job_id):
            if line.what in WORK:
                by_attempt[line.attempt].append(line)
        for before, after in pairwise(sorted(by_attempt)):
            last, first = by_attempt[before][-1], by_attempt[after][0]
            late = last.at - first.at
            if late > TOLERANCE and not _stood_still(facts, last, first.at):
                what = f"attempt {before} on {last.worker} was at {last.what!r} {late:.3f} s"
                yield job_id, f"{what} after attempt {after} had begun on {first.worker}"


def _stood_still(facts: Facts, line: Line, since: float) -> bool:
    """Whether a line's worker, or the machine, stood still around the moment when another took its job over."""
    life = facts.life(line.worker)
    span = facts.plan.form.lease
    stopped = life is not None and any(begun <= since and until >= since - span for begun, until in life.stops)
    return stopped or facts.paused(since - span, line.at) > 0


@promise
def claimed_is_begun(facts: Facts) -> Iterator[Finding]:
    """What is claimed is begun: an attempt is lost unbegun only where something befell its worker or the store.

    Where its worker waited for the store most of the lease, it may not be begun any more.
    """
    begun = {(line.job_id, line.attempt) for line in facts.lines if line.what == "started"}
    for job_id, kept in facts.kept.items():
        for claimed, after in pairwise(kept.history):
            if claimed.state is not JobState.RUNNING or after.reason != LAPSED:
                continue
            span = claimed.at.timestamp(), after.at.timestamp()
            if (job_id, claimed.attempt) in begun or _befallen(facts, claimed.worker, span[0] - BEFORE, span[1]):
                continue
            if _waited(facts, claimed.worker, job_id, *span) < facts.plan.form.lease / 2:
                yield job_id, f"attempt {claimed.attempt} was claimed by {claimed.worker}, and never begun"


def _waited(facts: Facts, worker: str, job_id: str, claimed: float, lost: float) -> float:
    """Return the seconds that a worker waited for the answer to a claim, and for the messages that it then reads."""
    waited = 0.0
    for line in facts.lines:
        if line.what == "waited" and line.worker == worker:
            asked = line.at - line.value
            if line.job_id == job_id:
                waited += max(min(line.at, lost) - max(asked, claimed), 0.0)
            elif not line.job_id and asked - TOLERANCE <= claimed <= line.at:
                waited += line.value
    return waited


@promise
def cancellations_are_heard(facts: Facts) -> Iterator[Finding]:
    """An executor that is cancelled from elsewhere ends soon, unless something befell its worker or the store.

    A deaf worker hears nothing of a job that it has lost.
    """
    bound = facts.plan.form.lease / ROUNDS + CLINGS + SLACK
    for one in facts.cancellations:
        lines = [line for line in facts.lines_of(one.job_id) if one.accepted and line.what != "waited"]
        if facts.plan.deaf and (kept := facts.kept.get(one.job_id)) is not None:
            lines = [line for line in lines if line.attempt == kept.record.attempt]
        if lines and lines[-1].at > one.answered + bound:
            last = lines[-1]
            if not _befallen(facts, last.worker, one.answered, one.answered + bound):
                yield (
                    one.job_id,
                    f"{last.worker} was at {last.what!r} {last.at - one.answered:.3f} s after its cancellation",
                )


def _befallen(facts: Facts, worker: str, since: float, until: float) -> bool:
    """Whether something went wrong with a worker, or for all, in this time."""
    targets = {worker.partition(".")[0], "server"}
    return facts.paused(since - AFTER, until) > 0 or any(
        one.fault.target in targets and one.began <= until and one.ended >= since - AFTER for one in facts.happenings
    )


@promise
def limits_hold(facts: Facts) -> Iterator[Finding]:
    """No more jobs of a limited queue run at once, over all workers, than may."""
    changes = []
    for job_id, kept in facts.kept.items():
        for step in kept.history:
            if step.state is JobState.RUNNING:
                changes.append((step.at, 1, job_id))
            elif step.previous is JobState.RUNNING:
                changes.append((step.at, -1, job_id))
    running: Counter[str] = Counter()
    for at, change, job_id in sorted(changes):
        queue = facts.kept[job_id].record.queue
        running[queue] += change
        if change > 0 and running[queue] > limit_of(queue):
            yield job_id, f"it made {running[queue]} jobs of {queue}, which may run {limit_of(queue)}, at {at}"


@promise
def rates_hold(facts: Facts) -> Iterator[Finding]:
    """No more jobs of a queue start in a time, over all workers, than may."""
    starts: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for job_id, kept in facts.kept.items():
        queue = kept.record.queue
        starts[queue] += [(step.at.timestamp(), job_id) for step in kept.history if step.state is JobState.RUNNING]
    for queue, made in starts.items():
        if (limit := rate_of(queue)) is None:
            continue
        made.sort()
        for n, (later, job_id) in enumerate(made[limit.burst :]):
            sooner, _ = made[n]
            if later - sooner < limit.interval - ROUNDED:
                yield job_id, f"it was started at {later}, as number {limit.burst + 1} of {queue} since {sooner}"
