"""The checks of the chaos tests find what they are for: facts of a run that went well, with one thing changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from chaos.facts import Cancellation, Change, Facts, Happening, Kept, Life, Line, Submission, Watch
from chaos.plan import CUSTOMERS, LIMITED_QUEUE, SHORT, TOTALS, Fault, JobPlan, Plan
from chaos.trace import tell
from chaos.verdict import CHECKS, judge

from jobtrio import Completed, End, Gap, JobError, JobPriority, JobRecord, JobState, Restart, Token, Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.facts import Wish

    from jobtrio import Message

START = 1_000_000.0
S = JobState
LOST = JobError("lost", "LeaseLost", "worker 'w0.1' did not renew its lease")


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def good_facts(job_id: str = "a") -> Facts:
    """Return a run of one job that was lost once, by a kill, and then completed, watched by one."""
    payload = {"tokens": 2, "pause": 0.1, "ending": "return", "fails": 0, "saves": True, "padding": 0}
    plan = JobPlan(0.0, job_id, payload, {"key": "k", "priority": JobPriority.NORMAL}, None, (0.0,), 1000)
    fault = Fault(1.0, "kill", "w0", 0.5)
    facts = Facts(Plan(1, SHORT, (plan,), (fault,), {}, deaf=False), began=START)
    facts.submissions[job_id] = Submission(plan, [(START, 0.01)], "accepted", job_id)
    facts.happenings = [Happening(fault, START + 1.0, START + 1.5)]
    facts.lives = [
        Life("w0.1", START - 1, START + 1, "killed", -9, True),
        Life("w1.1", START - 1, START + 9, "drained", 0, True),
    ]
    facts.lines = good_lines(job_id)
    facts.kept[job_id] = good_kept(job_id, payload)
    facts.watches = [Watch(job_id, 0, list(facts.kept[job_id].messages), ended=True)]
    return facts


def good_lines(job_id: str) -> list[Line]:
    return [
        Line(START + 0.1, "w0.1", "started", job_id, 1),
        Line(START + 0.3, "w0.1", "saved", job_id, 1, [1, 0]),
        Line(START + 2.1, "w1.1", "started", job_id, 2, [1, 0]),
        Line(START + 2.3, "w1.1", "sent", job_id, 2, 2),
        Line(START + 2.4, "w1.1", "returned", job_id, 2),
    ]


def good_kept(job_id: str, payload: dict[str, Any]) -> Kept:
    history = [
        Transition(job_id, at(0.0), None, S.QUEUED, 0, "submitter", None),
        Transition(job_id, at(0.1), S.QUEUED, S.RUNNING, 1, "w0.1", None),
        Transition(job_id, at(2.0), S.RUNNING, S.QUEUED, 1, "w1.1", "lost lease"),
        Transition(job_id, at(2.1), S.QUEUED, S.RUNNING, 2, "w1.1", None),
        Transition(job_id, at(2.5), S.RUNNING, S.COMPLETED, 2, "w1.1", None),
    ]
    messages: list[Message] = [
        Token(1, 1, [1, 0, "w0.1", ""]),
        Restart(2, 1, LOST, 0.0),
        Token(3, 2, [2, 0, "w1.1", ""]),
        Token(4, 2, [2, 1, "w1.1", ""]),
        End(5, Completed([2, "w1.1"])),
    ]
    record = JobRecord(
        id=job_id, executor="work", payload=payload, queue=LIMITED_QUEUE, priority=JobPriority.NORMAL, tags={},
        metadata={}, key="k", state=S.COMPLETED, attempt=2, max_attempts=4, created_at=at(0.0), run_at=None,
        started_at=at(2.1), finished_at=at(2.5), worker="w1.1", cancel_requested_at=None, cancel_reason=None,
        error=LOST, result=[2, "w1.1"],
    )  # fmt: skip
    return Kept(record, history, messages)


def change_kept(facts: Facts, job_id: str = "a", **changes: Any) -> None:
    """Have the store keep something else of a job: of its record, or its history or messages as a whole."""
    kept = facts.kept[job_id]
    whole = {name: changes.pop(name) for name in ("history", "messages") if name in changes}
    facts.kept[job_id] = attrs.evolve(kept, record=attrs.evolve(kept.record, **changes), **whole)


def test_good() -> None:
    """Nothing is found where nothing is wrong."""
    assert judge(good_facts()) == []


def test_start_behind_a_pause() -> None:
    """An attempt that begins once a pause for a time is over was not held back."""
    facts = good_facts()
    facts.changes = [attrs.evolve(asked_at(1.0, LIMITED_QUEUE, "pause"), lasts=1.04)]
    facts.lines.append(Line(START + 2.1, "w1.1", "claimed", "a", 2, [START + 2.05, JobPriority.NORMAL]))
    assert judge(facts) == []


# -- one thing changed


def lose(facts: Facts) -> None:
    facts.kept.clear()


def add_stranger(facts: Facts) -> None:
    facts.kept["b"] = good_kept("b", facts.plan.jobs[0].payload)


def end_never(facts: Facts) -> None:
    kept = facts.kept["a"]
    change_kept(facts, history=kept.history[:-1], messages=kept.messages[:-1], state=S.RUNNING)


def end_twice(facts: Facts) -> None:
    history = facts.kept["a"].history
    change_kept(facts, history=[*history, attrs.evolve(history[-1], previous=S.COMPLETED)])


def skip_a_state(facts: Facts) -> None:
    history = facts.kept["a"].history
    change_kept(facts, history=[history[0], *history[2:]])


def fail_oddly(facts: Facts) -> None:
    change_kept(facts, state=S.FAILED)


def ignore_cancellation(facts: Facts) -> None:
    facts.cancellations.append(Cancellation("a", START, START + 0.05, accepted=True))


def refuse_cancellation(facts: Facts) -> None:
    facts.cancellations.append(Cancellation("a", START, START + 0.05, accepted=False))


def cancel_unasked(facts: Facts) -> None:
    change_kept(facts, state=S.CANCELLED)


def start_cancelled(facts: Facts) -> None:
    change_kept(facts, cancel_requested_at=at(0.01))


def start_early(facts: Facts) -> None:
    facts.plan.jobs[0].options["delay"] = 0.5


def start_expired(facts: Facts) -> None:
    facts.plan.jobs[0].options["expires_in"] = 0.01


def lose_a_message(facts: Facts) -> None:
    messages = facts.kept["a"].messages
    change_kept(facts, messages=[messages[0], *messages[2:]])


def end_the_stream_otherwise(facts: Facts) -> None:
    change_kept(facts, messages=[*facts.kept["a"].messages[:-1], End(5, Completed(None))])


def leave_out_restart(facts: Facts) -> None:
    messages = facts.kept["a"].messages
    change_kept(facts, messages=[messages[0], *map(moved_up, messages[2:])])


def moved_up(message: Message) -> Message:
    assert not isinstance(message, Gap)
    return attrs.evolve(message, seq=message.seq - 1)


def let_the_lost_send(facts: Facts) -> None:
    messages = list(facts.kept["a"].messages)
    messages[3] = Token(4, 2, [1, 1, "w0.1", ""])
    change_kept(facts, messages=messages)


def let_the_lost_send_late(facts: Facts) -> None:
    messages = list(facts.kept["a"].messages)
    messages[3] = Token(4, 1, [1, 1, "w0.1", ""])
    change_kept(facts, messages=messages)


def lose_the_last_token(facts: Facts) -> None:
    messages = facts.kept["a"].messages
    change_kept(facts, messages=[*messages[:3], moved_up(messages[4])])


def show_something_else(facts: Facts) -> None:
    facts.watches[0].messages[2] = Token(3, 2, "else")


def end_a_watch_without_end(facts: Facts) -> None:
    del facts.watches[0].messages[-1]


def begin_twice(facts: Facts) -> None:
    facts.lines.insert(3, attrs.evolve(facts.lines[2]))


def begin_elsewhere(facts: Facts) -> None:
    facts.lines[2] = attrs.evolve(facts.lines[2], worker="w2.1")


def run_unstarted(facts: Facts) -> None:
    change_kept(facts, attempt=0)


def end_by_the_lost(facts: Facts) -> None:
    history = facts.kept["a"].history
    change_kept(facts, history=[*history[:-1], attrs.evolve(history[-1], worker="w0.1")])


def end_unreturned(facts: Facts) -> None:
    del facts.lines[-1]


def give_the_wrong_result(facts: Facts) -> None:
    change_kept(facts, result=[1, "w0.1"])


def forget_a_state(facts: Facts) -> None:
    facts.lines[2] = attrs.evolve(facts.lines[2], value=None)


def run_on_though_lost(facts: Facts) -> None:
    facts.lines.insert(3, Line(START + 2.3, "w0.1", "token", "a", 1, 1))


def begin_never(facts: Facts) -> None:
    del facts.lines[:2]
    facts.lines[0] = attrs.evolve(facts.lines[0], value=None)
    facts.happenings.clear()


def hear_no_cancellation(facts: Facts) -> None:
    facts.cancellations.append(Cancellation("a", START - 20, START - 19, accepted=True))


def run_too_many(facts: Facts) -> None:
    for n in range(TOTALS[LIMITED_QUEUE]):
        facts.kept[f"b{n}"] = good_kept(f"b{n}", facts.plan.jobs[0].payload)


def run_too_many_of_a_customer(facts: Facts) -> None:
    run_too_many(facts)
    for n, job_id in enumerate(facts.kept):
        change_kept(facts, job_id, queue=CUSTOMERS[n // 3])


def start_too_many_of_a_customer(facts: Facts) -> None:
    facts.kept["b"] = good_kept("b", facts.plan.jobs[0].payload)
    for job_id in facts.kept:
        change_kept(facts, job_id, queue="customer:bob")


def start_though_paused(facts: Facts) -> None:
    facts.changes = [asked_at(2.0, LIMITED_QUEUE, "pause"), asked_at(2.3, LIMITED_QUEUE, "resume")]
    facts.lines.append(Line(START + 2.1, "w1.1", "claimed", "a", 2, [START + 2.05, JobPriority.NORMAL]))


def start_though_paused_for_a_time(facts: Facts) -> None:
    facts.changes = [attrs.evolve(asked_at(2.0, LIMITED_QUEUE, "pause"), lasts=0.3)]
    facts.lines.append(Line(START + 2.1, "w1.1", "claimed", "a", 2, [START + 2.05, JobPriority.NORMAL]))


def asked_at(seconds: float, subject: str, wish: Wish, accepted: bool | None = True) -> Change:
    return Change(subject, wish, START + seconds, START + seconds + 0.01, accepted)


def pause_for_ever(facts: Facts) -> None:
    facts.paused_late.add(LIMITED_QUEUE)


def forget_a_priority(facts: Facts) -> None:
    facts.changes.append(asked_at(2.0, "a", JobPriority.HIGH))


def claim_by_an_old_priority(facts: Facts) -> None:
    facts.changes = [asked_at(0.0, "a", JobPriority.HIGH), asked_at(2.02, "a", JobPriority.NORMAL)]
    facts.lines.append(Line(START + 0.1, "w0.1", "claimed", "a", 1, [START + 0.1, JobPriority.NORMAL]))


def prioritize_what_runs(facts: Facts) -> None:
    facts.changes.append(asked_at(1.0, "a", JobPriority.NORMAL))


def refuse_to_prioritize(facts: Facts) -> None:
    history = facts.kept["a"].history
    change_kept(facts, history=[attrs.evolve(history[0], at=at(-9.0)), *history[1:]])
    facts.changes.append(asked_at(-5.0, "a", JobPriority.NORMAL, accepted=False))


def complain(facts: Facts) -> None:
    facts.complaints.append(("a", "it lived on"))


def fall(facts: Facts) -> None:
    facts.lives[1].end = None


def end_badly(facts: Facts) -> None:
    facts.lives[1].code = 1


def write_a_traceback(facts: Facts) -> None:
    facts.lives[0].said = "Traceback (most recent call last)"


def keep_waiting(facts: Facts) -> None:
    facts.submissions["a"].tries.append((START, 60.0))


def omit_a_fault(facts: Facts) -> None:
    facts.happenings.clear()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lose, "acknowledged_is_kept"),
        (add_stranger, "nobody_else_submits"),
        (end_never, "ends_once"),
        (end_twice, "ends_once"),
        (skip_a_state, "changes_are_legal"),
        (fail_oddly, "ends_as_planned"),
        (ignore_cancellation, "cancelled_as_asked"),
        (refuse_cancellation, "cancelled_as_asked"),
        (cancel_unasked, "cancelled_as_asked"),
        (start_cancelled, "cancelled_as_asked"),
        (start_early, "starts_in_time"),
        (start_expired, "starts_in_time"),
        (lose_a_message, "streams_are_dense"),
        (end_the_stream_otherwise, "streams_are_dense"),
        (leave_out_restart, "restarts_are_between_attempts"),
        (let_the_lost_send, "tokens_are_the_attempts"),
        (let_the_lost_send_late, "restarts_are_between_attempts"),
        (lose_the_last_token, "tokens_are_the_attempts"),
        (show_something_else, "watchers_see_what_is_kept"),
        (end_a_watch_without_end, "watchers_see_what_is_kept"),
        (begin_twice, "attempts_run_once"),
        (begin_elsewhere, "attempts_run_once"),
        (run_unstarted, "never_started_never_ran"),
        (end_by_the_lost, "ends_are_the_holders"),
        (end_unreturned, "ends_are_the_holders"),
        (give_the_wrong_result, "ends_are_the_holders"),
        (forget_a_state, "states_go_forward"),
        (run_on_though_lost, "lost_attempts_stop"),
        (begin_never, "claimed_is_begun"),
        (hear_no_cancellation, "cancellations_are_heard"),
        (run_too_many, "limits_hold"),
        (run_too_many_of_a_customer, "limits_hold"),
        (start_too_many_of_a_customer, "rates_hold"),
        (start_though_paused, "paused_queues_rest"),
        (start_though_paused_for_a_time, "paused_queues_rest"),
        (pause_for_ever, "resumed_queues_stay_so"),
        (forget_a_priority, "priorities_are_as_asked"),
        (claim_by_an_old_priority, "priorities_are_as_asked"),
        (prioritize_what_runs, "priorities_change_while_jobs_wait"),
        (refuse_to_prioritize, "priorities_change_while_jobs_wait"),
        (complain, "the_run_went_well"),
        (fall, "workers_outlive_outages"),
        (end_badly, "workers_outlive_outages"),
        (write_a_traceback, "workers_outlive_outages"),
        (keep_waiting, "submissions_are_answered"),
        (omit_a_fault, "faults_were_carried_out"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_found(change: Callable[[Facts], None], check: str) -> None:
    """One thing that is not as promised is found by the check that is for it, and told with the job's story."""
    facts = good_facts()
    change(facts)
    violations = judge(facts)
    assert check in {violation.check for violation in violations}
    assert check in tell(facts, violations)


def test_all_checks_are_tested() -> None:
    """No check goes without a case above."""
    cases = {case[1] for case in test_found.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert cases == set(CHECKS)


def test_deaf_workers_may_run_on() -> None:
    """Where workers do not notice that they lost a job, its executor may run on beside the next attempt's."""
    facts = good_facts()
    run_on_though_lost(facts)
    facts.plan = attrs.evolve(facts.plan, deaf=True)
    assert judge(facts) == []


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("attempt", [1, 2])
def test_who_hears_a_cancellation(attempt: int, *, deaf: bool) -> None:
    """The attempt that has the job ends when it is cancelled; one that has lost it does where it notices that."""
    facts = good_facts()
    facts.plan = attrs.evolve(facts.plan, deaf=deaf)
    facts.cancellations.append(Cancellation("a", START + 2.3, START + 2.4, accepted=True))
    facts.lines.append(Line(START + 90, "w1.1", "cancelled", "a", attempt))
    found = "cancellations_are_heard" in {violation.check for violation in judge(facts)}
    assert found == (attempt == 2 or not deaf)


@pytest.mark.parametrize(
    ("waits", "found"),
    [
        ([(0.7, "w0.1", "", 0.65)], False),
        ([(0.7, "w0.1", "", 0.4)], True),
        ([(0.08, "w0.1", "", 0.65)], True),
        ([(0.7, "w1.1", "", 0.65)], True),
        ([(0.9, "w0.1", "a", 0.65)], False),
        ([(0.5, "w0.1", "", 0.45), (0.9, "w0.1", "a", 0.35)], False),
        ([(0.9, "w0.1", "a", 0.4)], True),
        ([(0.9, "w0.1", "b", 0.65)], True),
        ([(0.9, "w1.1", "a", 0.65)], True),
        ([(2.4, "w0.1", "a", 0.65)], True),
    ],
)
def test_a_claim_that_is_held_up(waits: list[tuple[float, str, str, float]], found: bool) -> None:
    """What was claimed and not begun is excused by how long its worker waited for that claim and that job's messages.

    Nothing else excuses it: another claim, another job's messages, or another worker's.
    """
    facts = good_facts()
    begin_never(facts)
    for answered, worker, job_id, waited in waits:
        facts.lines.append(Line(START + answered, worker, "waited", job_id, 0, waited))
    assert ("claimed_is_begun" in {violation.check for violation in judge(facts)}) == found


def test_late_answers_are_no_work() -> None:
    """An answer that comes long after a job's cancellation does not say that its executor still runs."""
    facts = good_facts()
    facts.cancellations.append(Cancellation("a", START + 2.3, START + 2.35, accepted=True))
    facts.lines.append(Line(START + 90, "w1.1", "waited", "a", 0, 0.5))
    assert "cancellations_are_heard" not in {violation.check for violation in judge(facts)}
