"""A job's inside: the steps of its life, its history, its record."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from jobtrio import Cancelled, Completed, Failed, IllegalTransitionError, JobError, JobPriority, JobState, RetryPolicy
from jobtrio import _entry as steps
from jobtrio._checks import LATEST
from jobtrio._entry import CancelRequest, JobEntry, Plan
from jobtrio._known import refresh
from jobtrio._records import JobRecord, moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ERROR = JobError("exception", "ValueError", "no")


def make(executor: str | None = "work", retry: RetryPolicy | None = None, **options: Any) -> JobEntry:
    """Return a new job of a worker called "front"."""
    plan = Plan(executor, None, "default", JobPriority.NORMAL, 3.0, retry, "front")
    return JobEntry("id", plan, {"a": 1}, 100.0, **options)


def started(**options: Any) -> JobEntry:
    """Return a job that runs."""
    entry = make(**options)
    steps.start(entry, claim="c", worker="back", now=101.0)
    return entry


def history(entry: JobEntry) -> list[tuple[float, str | None, str, int, str, str | None]]:
    """Return a job's history as plain tuples."""
    return [(t.at.timestamp(), t.previous, t.state, t.attempt, t.worker, t.reason) for t in entry.history()]


def test_a_whole_life() -> None:
    """Each step adds a line to the history: when, from, to, attempt, worker, why."""
    entry = make(delay=5.0, state=JobState.SCHEDULED)
    assert entry.last_transition() == entry.history()[0]
    steps.become_ready(entry, worker="back", now=105.0)
    steps.start(entry, claim="c", worker="back", now=106.0)
    steps.retry(entry, ERROR, worker="back", now=107.0)
    steps.become_ready(entry, worker="other", now=108.0, reason="again")
    steps.start(entry, claim="d", worker="other", now=109.0)
    steps.finish(entry, Completed(3), worker="other", now=110.0)
    assert history(entry) == [
        (100.0, None, "SCHEDULED", 0, "front", None),
        (105.0, "SCHEDULED", "QUEUED", 0, "back", None),
        (106.0, "QUEUED", "RUNNING", 1, "back", None),
        (107.0, "RUNNING", "RETRYING", 1, "back", "ValueError: no"),
        (108.0, "RETRYING", "QUEUED", 1, "other", "again"),
        (109.0, "QUEUED", "RUNNING", 2, "other", None),
        (110.0, "RUNNING", "COMPLETED", 2, "other", None),
    ]
    assert entry.last_transition() == entry.history()[-1]
    assert {t.job_id for t in entry.history()} == {"id"}
    assert all(t.at.tzinfo is UTC for t in entry.history())


def test_start_counts_attempts() -> None:
    """A start takes the claim, the worker and the time, and the next attempt's number."""
    entry = make()
    assert entry.never_started
    steps.start(entry, claim="c", worker="back", now=101.0)
    assert (entry.attempt, entry.claim, entry.worker, entry.started_at) == (1, "c", "back", 101.0)
    assert not entry.never_started


def test_retry_forgets_losses() -> None:
    """A failed attempt is no lost lease: the count of losses in a row begins anew, and the failure is counted."""
    entry = started()
    entry.losses = 2
    steps.retry(entry, ERROR, worker="back", now=102.0)
    assert (entry.losses, entry.failures, entry.error) == (0, 1, ERROR)


def test_last_attempt() -> None:
    """Failures use up the attempts of a policy, lost leases do not; without a policy there is one."""
    assert make().is_last_attempt
    entry = make(retry=RetryPolicy(max_attempts=2))
    assert not entry.is_last_attempt
    steps.start(entry, claim="c", worker="back", now=101.0)
    steps.become_ready(entry, worker="back", now=102.0, reason="lost lease")
    steps.start(entry, claim="d", worker="back", now=103.0)
    assert not entry.is_last_attempt
    steps.retry(entry, ERROR, worker="back", now=104.0)
    assert entry.is_last_attempt


def test_finish_completed() -> None:
    """A completed job has its result; the error of an attempt before stays to be read."""
    entry = started()
    entry.error = ERROR
    steps.finish(entry, Completed([1]), worker="back", now=102.0)
    record = entry.record()
    assert (record.state, record.result, record.error) == ("COMPLETED", [1], ERROR)
    assert record.duration == 1.0


def test_finish_failed() -> None:
    """A failed job's error is its outcome's, whatever else is given."""
    entry = started()
    other = JobError("exception", "KeyError", "other")
    steps.finish(entry, Failed(ERROR), worker="back", now=102.0, error=other)
    assert entry.record().error == ERROR
    assert entry.last_transition().reason == "ValueError: no"


def test_finish_cancelled() -> None:
    """A cancelled job keeps the reason, and what its clean-up raised."""
    entry = started()
    steps.finish(entry, Cancelled("enough"), worker="back", now=102.0, error=ERROR)
    assert (entry.state, entry.last_transition().reason, entry.record().error) == ("CANCELLED", "enough", ERROR)
    assert entry.record().result is None


def test_wall_time_may_step_back() -> None:
    """A clock that is set back makes no negative duration."""
    entry = started()
    steps.finish(entry, Completed(), worker="back", now=50.0)
    assert entry.finished_at == 101.0
    assert entry.record().duration == 0.0


def test_never_started_has_no_duration() -> None:
    """A job that ended in the queue has an end and no duration."""
    entry = make()
    steps.finish(entry, Cancelled(), worker="back", now=50.0)
    record = entry.record()
    assert (record.finished_at, record.duration, entry.never_started) == (moment(50.0), None, False)


@pytest.mark.parametrize("outcome", [Completed(), Failed(ERROR), Cancelled()])
def test_nothing_follows_an_end(outcome: Any) -> None:
    """After its end no step of a job is legal, and none leaves a trace."""
    entry = started()
    steps.finish(entry, outcome, worker="back", now=102.0)
    before = (entry.record(), entry.history())
    with pytest.raises(IllegalTransitionError):
        steps.start(entry, claim="d", worker="x", now=103.0)
    with pytest.raises(IllegalTransitionError):
        steps.become_ready(entry, worker="x", now=103.0)
    with pytest.raises(IllegalTransitionError):
        steps.retry(entry, ERROR, worker="x", now=103.0)
    for other in (Completed(1), Failed(ERROR), Cancelled("x")):
        with pytest.raises(IllegalTransitionError):
            steps.finish(entry, other, worker="x", now=103.0)
    assert (entry.record(), entry.history()) == before


def test_illegal_steps_change_nothing() -> None:
    """A step that the table does not have raises before anything is touched."""
    entry = make()
    with pytest.raises(IllegalTransitionError):
        steps.retry(entry, ERROR, worker="x", now=1.0)
    with pytest.raises(IllegalTransitionError):
        steps.finish(entry, Completed(), worker="x", now=1.0)
    assert (entry.error, entry.outcome, entry.steps, entry.attempt) == (None, None, None, 0)


def test_record_is_a_snapshot() -> None:
    """A record says all, with copies of what could be changed, and does not change with the job."""
    entry = make(
        tags={"user": "ann"},
        metadata={"m": 1},
        key="k",
        run_at=99.0,
        retry=RetryPolicy(max_attempts=4),
        expires_in=60.0,
        cancel=CancelRequest(100.5, "why", 2.0),
    )
    record = entry.record()
    assert entry.tags is not None
    entry.tags["user"] = "bob"
    steps.start(entry, claim="c", worker="back", now=101.0)
    assert (record.id, record.executor, record.payload, record.queue) == ("id", "work", {"a": 1}, "default")
    assert (record.tags, record.metadata, record.key) == ({"user": "ann"}, {"m": 1}, "k")
    assert (record.state, record.attempt, record.max_attempts) == ("QUEUED", 0, 4)
    assert (record.time_limit, record.retry, record.expires_in) == (3.0, RetryPolicy(max_attempts=4), 60.0)
    assert record.created_at == datetime.fromtimestamp(100.0, UTC)
    assert record.run_at == datetime.fromtimestamp(99.0, UTC)
    assert (record.started_at, record.finished_at, record.worker, record.duration) == (None, None, None, None)
    assert (record.cancel_requested_at, record.cancel_reason) == (moment(100.5), "why")
    assert entry.record().started_at == moment(101.0)
    assert entry.record().worker == "back"


@pytest.mark.parametrize(("delay", "start"), [(30.5, moment(130.5)), (1e300, moment(LATEST)), (0.0, None)])
def test_record_of_a_delay(delay: float, start: datetime | None) -> None:
    """A delay ends so much later than the submission, and never beyond what a record can hold."""
    assert make(delay=delay).record().run_at == start


def test_plain_record() -> None:
    """A job without options has empty tags and metadata, one attempt, and no request."""
    record = make().record()
    assert (record.time_limit, record.retry, record.expires_in) == (3.0, None, None)
    assert (record.tags, record.metadata, record.max_attempts) == ({}, {}, 1)
    assert (record.run_at, record.cancel_requested_at, record.cancel_reason) == (None, None, None)


def test_held_jobs_have_no_executor() -> None:
    """A job is held while nothing says what to run."""
    assert make(executor=None).is_held
    assert not make().is_held


def test_final_state() -> None:
    """Each outcome stands for one final state."""
    assert [steps.final_state(o) for o in (Completed(), Failed(ERROR), Cancelled())] == [
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    ]


def run_again(entry: JobEntry, times: int) -> None:
    """Have a job that runs be returned to its queue and started, so many times."""
    for _ in range(times):
        steps.become_ready(entry, worker="back", now=102.0)
        steps.start(entry, claim="c", worker="back", now=103.0)


def test_long_history() -> None:
    """Of very many attempts the newest are kept, whole ones, behind the submission."""
    entry = started(retry=RetryPolicy(max_attempts=10_000))
    run_again(entry, steps.HISTORY // 2 - 1)
    assert len(entry.history()) == steps.HISTORY
    run_again(entry, 1)
    first, second, *_, last = entry.history()
    assert len(entry.history()) == steps.HISTORY
    assert first.state == "QUEUED"
    assert (second.previous, second.state, second.attempt) == ("QUEUED", "RUNNING", 2)
    assert last == entry.last_transition()
    assert last.attempt == steps.HISTORY // 2 + 1
    steps.retry(entry, ERROR, worker="back", now=104.0)
    assert len(entry.history()) == steps.HISTORY - 1  # the second attempt is gone with both of its changes
    assert [line.attempt for line in entry.history()[:3]] == [0, 3, 3]


def test_refresh_with_a_long_history() -> None:
    """Which of two entries is the newer, is told also where both have as many changes."""
    known, fresh, older = (started(retry=RetryPolicy(max_attempts=10_000)) for _ in range(3))
    run_again(known, steps.HISTORY)
    run_again(fresh, steps.HISTORY + 1)
    run_again(older, steps.HISTORY - 1)
    assert len(known.history()) == len(fresh.history()) == len(older.history())
    fresh.saved_state = "fresh"
    refresh(known, older)
    assert known.attempt == steps.HISTORY + 1
    refresh(known, fresh)
    assert known.attempt == steps.HISTORY + 2
    assert known.saved_state == "fresh"
    assert known.history() == fresh.history()


def test_refresh_while_an_attempt_runs() -> None:
    """An answer of the same moment leaves an attempt what it works with; one of what came after it brings all."""
    known, same, ended = started(), started(), started()
    steps.finish(ended, Completed(3), worker="back", now=102.0)
    for fresh in (same, ended):
        fresh.payload, fresh.saved_state, fresh.lease_until = "stored", "stored", 7.0
    known.payload["a"], known.saved_state = 2, "saved here"
    refresh(known, same)
    assert (known.payload, known.saved_state, known.lease_until) == ({"a": 2}, "saved here", 7.0)
    refresh(known, ended)
    assert (known.payload, known.saved_state, known.outcome) == ("stored", "stored", Completed(3))


def test_what_is_behind_a_change() -> None:
    """Behind each change come those that were made since, within its attempt and in later ones."""
    entry = make(retry=RetryPolicy(max_attempts=10), delay=1.0, state=JobState.SCHEDULED)
    seen = [entry.progress]
    for step in (steps.become_ready, *(steps.start, steps.retry, steps.become_ready) * 2, steps.start):
        given: dict[str, Any] = {"claim": "c"} if step is steps.start else {}
        step(entry, *[ERROR] * (step is steps.retry), worker="back", now=101.0, **given)
        seen.append(entry.progress)
    assert seen == sorted(set(seen))
    assert [entry.history_behind(told) for told in seen] == [entry.history()[n:] for n in range(1, len(seen) + 1)]


def test_what_is_behind_a_change_that_is_kept_no_more() -> None:
    """Behind a change that a long history has no more come all that it has but for the first."""
    entry = started(retry=RetryPolicy(max_attempts=10_000))
    told = entry.progress
    run_again(entry, steps.HISTORY)
    assert entry.history_behind(told) == entry.history()[1:]


@pytest.mark.parametrize("ends", [False, True])
def test_long_reason(ends: bool) -> None:
    """What is kept of an error in the history is short; the record has it whole."""
    entry = started(retry=RetryPolicy())
    error = JobError("exception", "ValueError", "x" * 5_000)
    if ends:
        steps.finish(entry, Failed(error), worker="back", now=102.0)
    else:
        steps.retry(entry, error, worker="back", now=102.0)
    reason = entry.last_transition().reason
    assert reason == "ValueError: " + "x" * (steps.REASON - 13) + "…"
    assert entry.record().error == error


def at_line(
    number: int, of: Callable[..., Any], act: Callable[[], object], call: Callable[[], Any]
) -> tuple[Any, bool]:
    """Call something and act within it, before the given line of a function; return what it returns, and if it acted.

    This is how another thread may come in between.
    """
    seen = itertools.count()
    acted = False

    def look(frame: FrameType, event: str, _: object) -> Any:
        nonlocal acted
        if frame.f_code is of.__code__ and event == "line" and next(seen) == number:
            sys.settrace(None)
            act()
            acted = True
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        return call(), acted
    finally:
        sys.settrace(before)


def is_whole(record: JobRecord) -> bool:
    """Whether a record tells of an end with all that belongs to it, or of none."""
    end = (record.result, record.finished_at)
    return end == ((3, moment(102.0)) if record.state is JobState.COMPLETED else (None, None))


@pytest.mark.parametrize("how", ["finish", "refresh"])
@pytest.mark.parametrize("within", [JobEntry.record, steps.finish, steps._move, refresh])
def test_a_record_that_another_thread_reads_meanwhile(within: Callable[..., Any], how: str) -> None:
    """A job that ends while another thread reads its record has ended there with its result, or not at all."""
    fresh = started()
    steps.finish(fresh, Completed(3), worker="back", now=102.0)
    for line in itertools.count():
        entry = started()
        end = partial(refresh, entry, fresh)
        if how == "finish":
            end = partial(steps.finish, entry, Completed(3), worker="back", now=102.0)
        records: list[JobRecord] = []
        if within is JobEntry.record:
            record, acted = at_line(line, within, end, entry.record)
            records.append(record)
        else:
            _, acted = at_line(line, within, partial(read, entry, records), end)
        assert all(map(is_whole, records))
        if not acted:
            break


def read(entry: JobEntry, to: list[JobRecord]) -> None:
    """Read a record, as another thread."""
    to.append(entry.record())
