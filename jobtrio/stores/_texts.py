"""Parts of a job to and from text, as JSON, for stores that keep jobs as rows of text.

It owns how each part is written. It must not know rows, nor where they are kept.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from jobtrio._checks import check_seconds, clean_text
from jobtrio._codec import decode_value, encode_value
from jobtrio._entry import CancelRequest, JobEntry, Plan
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError
from jobtrio._state import FINAL_STATES, JobState, counts_by_queue
from jobtrio.stores._salvage import STATES, Salvage, check_finite, check_time, checked_steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobtrio._records import Outcome

HELD: Final = ""
"""The executor of a job that has none yet: a text, since NULL can't be compared."""

PARTS: Final = (
    *("id", "plan", "payload", "created_at", "submission", "state", "tags", "metadata", "key", "run_at", "delay"),
    *("expires_in", "seq", "ticket", "attempt", "started_at", "finished_at", "worker", "claim", "lease_until"),
    *("losses", "failures", "due", "expires", "cancel", "error", "result", "saved_state", "history"),
    *("executor", "queue", "priority"),
)
"""What is kept of a job: what stands for the fields of a `JobEntry`, in their order, and for the rest of a plan."""


@attrs.frozen
class _PlanRest:
    time_limit: float | None
    retry: RetryPolicy | None
    worker: str


_metadata_decoder = msgspec.json.Decoder(dict[str, Any] | None)
_tags_decoder = msgspec.json.Decoder(dict[str, str] | None)
_plan_decoder = msgspec.json.Decoder(_PlanRest)
_error_decoder = msgspec.json.Decoder(JobError)
_cancel_decoder = msgspec.json.Decoder(CancelRequest)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# -- encoding


def text_of(name: str, value: Any) -> str:
    """Return a user's value as JSON, or raise `PayloadError`."""
    return encode_value(name, value).decode()


def plain_text(value: Any) -> bytes:
    """Return a value of jobtrio's own as JSON; text in it, as an exception's message, may be what UTF-8 can't hold."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, JobError):
        return JobError(value.kind, *map(clean_text, (value.type, value.message, value.traceback)))
    if isinstance(value, (list, tuple)):
        return [_cleaned(part) for part in value]
    return clean_text(value) if isinstance(value, str) else value


def plan_text(plan: Plan) -> str:
    """Return what a plan has no columns for."""
    return _rest_text(plan.time_limit, plan.retry, plan.worker)


@lru_cache(maxsize=64)
def _rest_text(time_limit: float | None, retry: RetryPolicy | None, worker: str) -> str:
    # Not by the plan: with its function, all that an executor refers to would outlive the registry.
    return _encode(_PlanRest(stored_limit(time_limit), retry, worker)).decode()


def stored_limit(time_limit: float | None) -> float | None:
    """Return a time limit as it is stored: JSON has no number for an infinite one, and no other is 0."""
    return 0.0 if time_limit == inf else time_limit


def error_text(error: JobError | None) -> str | None:
    """Return an error as text."""
    return None if error is None else plain_text(error).decode()


def history_text(entry: JobEntry) -> str:
    """Return a job's changes behind the first, which its other columns tell."""
    return plain_text(entry.steps or []).decode()


def line_text(at: float, state: JobState, attempt: int, worker: str) -> str:
    """Return one more change as it is put behind those that are stored: a job that runs has some."""
    return f",{plain_text([at, state, attempt, worker, None]).decode()[1:]}"


def cancel_text(cancel: CancelRequest | None) -> str | None:
    """Return a request to cancel as text."""
    return None if cancel is None else plain_text(cancel).decode()


# -- decoding


def cancel_of(text: str | None) -> CancelRequest | None:
    """Return a request to cancel."""
    if text is None:
        return None
    request = _cancel_decoder.decode(text)
    check_time(request.at)
    check_seconds("grace", request.grace)
    return request


def limit_of(stored: float | None) -> float | None:
    """Return a time limit that was stored."""
    return inf if stored == 0 else stored


def value_of(text: str | bytes | None) -> Any:
    """Return a user's value."""
    return None if text is None else decode_value(text)


def error_of(text: str | bytes) -> JobError:
    """Return an error."""
    return _error_decoder.decode(text)


def readable_tags(text: str | None) -> dict[str, str]:
    """Return a job's tags; none where they can't be read."""
    return Salvage().part("tags", _tags_of, text, None) or {}


def readable_cancel(text: str | None) -> CancelRequest | None:
    """Return a request to cancel; none where it can't be read."""
    return Salvage().part("request", cancel_of, text, None)


def state_of(text: str) -> JobState:
    """Return a state; for one that nobody knows, what jobs are said to be that can't be read."""
    return STATES.get(text, JobState.FAILED)


def counts_in(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[JobState, int]]:
    """Return how many jobs of each queue are in each state, of rows that each say it of one queue and one state."""
    return counts_by_queue((queue, state_of(state), count) for queue, state, count in rows)


def _metadata_of(text: str | None) -> dict[str, Any] | None:
    return None if text is None else _metadata_decoder.decode(text)


def _tags_of(text: str | None) -> dict[str, str] | None:
    return None if text is None else _tags_decoder.decode(text)


def decode_entry(entry: JobEntry, executor: str, queue: str, priority: int, *, light: bool) -> JobEntry:
    """Return an entry whose fields hold what is stored for them, having decoded those that are text.

    Where some of it can't be decoded, the entry says so, and has the rest.

    Args:
        entry: The entry: its plan is the rest of one, its outcome the text of the result.
        executor: The executor's name, or `HELD`.
        queue: The queue.
        priority: The priority.
        light: Whether to leave out what users gave: payload, metadata, tags, saved state.
    """
    raw: Any = entry
    if light:
        raw.payload = raw.metadata = raw.tags = raw.saved_state = None
    try:
        plan, state = _plan_of(executor, queue, priority, raw.plan), STATES[raw.state]
        steps, cancel = _steps(raw.steps), cancel_of(raw.cancel)
        _check_times(entry)
        error = None if raw.error is None else error_of(raw.error)
        outcome = ended_as(state, error, steps, raw.outcome) if state in FINAL_STATES else None
        given = (value_of(raw.payload), _metadata_of(raw.metadata), _tags_of(raw.tags), value_of(raw.saved_state))
    except Exception:  # whoever has written this, it is one job's trouble
        return _salvaged(entry, executor, queue, priority)
    entry.plan, entry.state, entry.steps, entry.cancel = plan, state, steps, cancel
    entry.error, entry.outcome = error, outcome
    entry.payload, entry.metadata, entry.tags, entry.saved_state = given
    return entry


def _check_times(entry: JobEntry) -> None:
    check_time(entry.created_at)
    for at in (entry.run_at, entry.started_at, entry.finished_at):
        if at is not None:
            check_time(at)
    check_finite(entry.due + entry.delay + (entry.expires or 0.0) + (entry.expires_in or 0.0))


_OPTIONAL: Final = (
    *(("run_at", check_time), ("started_at", check_time), ("finished_at", check_time)),
    *(("expires", check_finite), ("expires_in", check_finite)),
)
"""Times that a job may have, and how each is checked."""


def _salvaged(entry: JobEntry, executor: str, queue: str, priority: int) -> JobEntry:
    """Return an entry that `decode_entry` can't decode, with what can be read of it."""
    raw: Any = entry
    salvage = Salvage()
    entry.created_at = salvage.part("created_at", check_time, raw.created_at, 0.0)
    entry.due = salvage.part("due", check_finite, raw.due, 0.0)
    entry.delay = salvage.part("delay", check_finite, raw.delay, 0.0)
    for name, check in _OPTIONAL:
        if getattr(raw, name) is not None:
            setattr(entry, name, salvage.part(name, check, getattr(raw, name), None))
    rest = salvage.part("plan", _plan_decoder.decode, raw.plan, _PlanRest(None, None, ""))
    level = salvage.part("priority", JobPriority, priority, JobPriority.NORMAL)
    entry.plan = Plan(executor or None, None, queue, level, limit_of(rest.time_limit), rest.retry, rest.worker)
    entry.state = salvage.part("state", STATES.__getitem__, raw.state, JobState.FAILED)
    entry.steps = salvage.part("history", _steps, raw.steps, None)
    entry.cancel = salvage.part("request to cancel", cancel_of, raw.cancel, None)
    entry.error = None if raw.error is None else salvage.part("error", error_of, raw.error, None)
    entry.payload = salvage.part("payload", value_of, raw.payload, None)
    entry.metadata = salvage.part("metadata", _metadata_of, raw.metadata, None)
    entry.tags = salvage.part("tags", _tags_of, raw.tags, None)
    entry.saved_state = salvage.part("saved state", value_of, raw.saved_state, None)
    result, raw.outcome = raw.outcome, None
    if entry.state in FINAL_STATES:
        outcome = partial(ended_as, entry.state, entry.error, entry.steps)
        entry.outcome = salvage.part("outcome", outcome, result, None)
    return salvage.note(entry)


def _steps(history: str) -> list[Any] | None:
    return None if history == "[]" else checked_steps(_decode(history))


def ended_as(state: JobState, error: JobError | None, steps: list[Any] | None, result: str | bytes | None) -> Outcome:
    """Return an ended job's outcome, which its other parts tell."""
    if state is JobState.COMPLETED:
        return Completed(value_of(result))
    if state is JobState.FAILED:
        assert error is not None  # it is stored with the state
        return Failed(error)
    return Cancelled(steps[-1] if steps else None)


@lru_cache(maxsize=256)
def _plan_of(executor: str, queue: str, priority: int, rest: str) -> Plan:
    """Return a plan; jobs submitted alike share one."""
    more = _plan_decoder.decode(rest)
    limit = limit_of(more.time_limit)
    return Plan(executor or None, None, queue, JobPriority(priority), limit, more.retry, more.worker)
