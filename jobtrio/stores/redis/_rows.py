"""Jobs to and from rows: what is in which field of a job's hash.

It owns what a job that is to be stored is sent as, and what entry a row stands for. It must not know when rows are
read or written.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from jobtrio._codec import encode_value
from jobtrio._entry import STEP, JobEntry, Plan
from jobtrio._policies import JobPriority
from jobtrio._records import Failed
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.stores._salvage import Salvage, check_time, checked_steps
from jobtrio.stores._texts import ended_as, error_of, plain_text, value_of
from jobtrio.stores.redis._scripts import FIELDS, LIGHT
from jobtrio.stores.redis._texts import (
    cancel_of,
    count_of,
    parts_of,
    plan_of,
    plan_text,
    tags_of,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._records import Outcome
    from jobtrio.stores.redis._link import Argument

Row: TypeAlias = "list[Any]"
"""The fields `FIELDS` of a job, bytes or None each, and its id."""

_STATES: Final[dict[bytes, JobState]] = {str(state).encode(): state for state in JobState}
_NO_BODY: Final = [None, None, None, 0.0, 0.0]
_NO_BODY_TEXT: Final = b"[null,null,null,0.0,0.0]"
_NO_PLAN: Final = Plan("", None, "", JobPriority.NORMAL, None, None, "")
"""What stands for parts of a job that can't be read."""

T = TypeVar("T")


def new_job(entry: JobEntry) -> list[Argument]:
    """Return a job as the script ``insert`` takes it.

    Raises:
        PayloadError: Its payload, metadata or another of its texts can't be stored.
    """
    plan = entry.plan
    times = map(plain_text, (entry.run_at, entry.delay, entry.expires_in))
    given = encode_value("payload", entry.payload), encode_value("metadata", entry.metadata)
    return [
        *(entry.id, entry.key or b"", plan.queue, plan.executor or b"", int(plan.priority), plan_text(plan)),
        *(b"[%b]" % b",".join([*given, *times]), encode_value("tags", entry.tags) if entry.tags else b""),
        repr(entry.delay),
        b"" if entry.expires_in is None else repr(entry.expires_in),
    ]


def whole_row(light: Row) -> Row:
    """Return fields `LIGHT` as `FIELDS` of a job whose user gave nothing."""
    # Where there is something else in a job's place, the row is shorter, and no job either.
    known = dict(zip(LIGHT, light, strict=False)) | {"body": _NO_BODY_TEXT}
    return [known.get(name) for name in FIELDS]


def entry_of(row: Row) -> JobEntry:
    """Return a row as an entry. Where some of it can't be decoded, the entry says so, and has the rest."""
    try:
        return _entry(row, _decode)
    except Exception:  # whoever has written this, it is one job's trouble
        salvage = Salvage()
        return salvage.note(_entry(row, salvage.part))


def _decode(_: str, decode: Callable[[Any], T], stored: Any, instead: T) -> T:
    return decode(stored)


def _entry(row: Row, part: Callable[..., Any]) -> JobEntry:
    state, order, created, submission, key, plan, body, tags, attempt, claim, losses = row[:11]
    failures, cancel, error, result, saved, history, ticket, job_id = row[11:]
    payload, metadata, run_at, delay, expires_in = part("body", _body_of, body, _NO_BODY)
    entry = JobEntry(
        job_id.decode(errors="backslashreplace"),
        part("plan", plan_of, plan, _NO_PLAN),
        payload,
        part("creation", time_of, created, 0.0),
        part("submission", bytes.decode, submission, ""),
        part("state", _STATES.__getitem__, state, JobState.FAILED),
        None if tags is None else part("tags", tags_of, tags, None),
        metadata,
        None if key is None else part("key", bytes.decode, key, None),
        run_at,
        delay,
        expires_in,
        part("order", count_of, order, 0),
    )
    entry.ticket = entry.order if ticket is None else part("ticket", count_of, ticket, 0)
    entry.attempt = part("attempt", count_of, attempt, 0)
    entry.claim = None if claim is None else claim.decode(errors="surrogateescape")
    entry.losses = 0 if losses is None else part("losses", count_of, losses, 0)
    entry.failures = 0 if failures is None else part("failures", count_of, failures, 0)
    entry.cancel = None if cancel is None else part("request to cancel", cancel_of, cancel, None)
    entry.error = None if error is None else part("error", error_of, error, None)
    entry.saved_state = part("saved state", value_of, saved, None)
    if history:
        part("history", partial(_recount, entry), history, None)
    if entry.state in FINAL_STATES:
        outcome = partial(ended_as, entry.state, entry.error, entry.steps)
        entry.outcome = part("outcome", outcome, result, None)
    return entry


def outcome_of(state: bytes, error: bytes | None, result: bytes | None, history: bytes) -> Outcome:
    """Return an ended job's outcome; one that can't be read is a failure."""
    salvage = Salvage()

    def decode(result: bytes | None) -> Outcome:
        failure = error_of(error) if state == b"FAILED" and error is not None else None
        steps = _steps(history) if state == b"CANCELLED" else None
        return ended_as(_STATES[state], failure, steps, result)

    return salvage.part("outcome", decode, result, None) or Failed(salvage.error())


def _body_of(text: bytes) -> list[Any]:
    """Return payload, metadata, start time, delay and expiry."""
    parts = parts_of(text)
    _, metadata, run_at, delay, expires_in = parts
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError("its metadata are no mapping")
    if run_at is not None:
        check_time(run_at)
    if not (0 <= delay < inf and 0 <= (expires_in or 0) < inf):
        raise ValueError("its times are no numbers of seconds")
    return parts


def _steps(history: bytes) -> list[Any]:
    """Return a history: the stored one has a comma before each of its parts."""
    return parts_of(b"[%b]" % history[1:])


def _recount(entry: JobEntry, history: bytes) -> None:
    """Give an entry its history, and what that tells."""
    entry.steps = steps = checked_steps(_steps(history))
    for at in range(len(steps) - STEP, -1, -STEP):
        if steps[at + 1] is JobState.RUNNING:
            entry.started_at, entry.worker = steps[at], steps[at + 3]
            break
    if entry.state in FINAL_STATES:
        entry.finished_at = steps[-STEP]
