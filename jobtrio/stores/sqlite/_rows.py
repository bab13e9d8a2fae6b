"""Jobs to and from rows: what is in which column, and as which text.

It owns the encoding of a row, and which values are kept aside because they are large. It must not know when
rows are read or written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from jobtrio._codec import decode_value, encode_value
from jobtrio._entry import CancelRequest, JobEntry, Plan
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.stores.sqlite._statements import ENTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobtrio._records import Outcome

Row = tuple[Any, ...]

ASIDE: Final = 2000
"""Characters beyond which a value is not kept in its job's row, which is copied at every change."""

HELD: Final = ""
"""The executor of a job that has none yet: a text, since NULL can't be compared."""

_SEQ = ENTRY.index("seq")
_PRIORITY = ENTRY.index("priority")
_TICKET = ENTRY.index("ticket")
_ASIDES = ENTRY.index("asides")
_STATES: Final[dict[str, JobState]] = {str(state): state for state in JobState}
_FIELD_OF: Final = {"result": "outcome"}  # where a column kept aside and its field have different names
_STEP = 5


@attrs.frozen
class _PlanRest:
    time_limit: float | None
    retry: RetryPolicy | None
    worker: str


_plan_decoder = msgspec.json.Decoder(_PlanRest)
_error_decoder = msgspec.json.Decoder(JobError)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# -- encoding


@attrs.frozen
class NewJob:
    """A job that is to be stored: its entry, and what of it is text.

    Attributes:
        entry: The job, as given; what is stored of it does not change meanwhile.
        plan: The rest of its plan.
        values: Payload, metadata and tags, in the order of their columns.
        asides: Those of them that are too large for the row, by name.
    """

    entry: JobEntry
    plan: str
    values: tuple[str | None, str | None, str | None]
    asides: dict[str, str]


def new_job(entry: JobEntry) -> NewJob:
    """Encode a job that is to be stored.

    Raises:
        PayloadError: Its payload, metadata or another of its texts can't be stored.
    """
    asides: dict[str, str] = {}
    values = (
        _split("payload", text_of("payload", entry.payload), asides),
        None if entry.metadata is None else _split("metadata", text_of("metadata", entry.metadata), asides),
        None if entry.tags is None else _split("tags", text_of("tags", entry.tags), asides),
    )
    return NewJob(entry, plan_text(entry.plan), values, asides)


def text_of(name: str, value: Any) -> str:
    """Return a user's value as JSON, or raise `PayloadError`."""
    return "null" if value is None else encode_value(name, value).decode()


@lru_cache(maxsize=64)
def plan_text(plan: Plan) -> str:
    """Return what a plan has no columns for."""
    return _encode(_PlanRest(plan.time_limit, plan.retry, plan.worker)).decode()


def error_text(error: JobError | None) -> str | None:
    """Return an error as text; an exception's message may hold what UTF-8 can't."""
    if error is None:
        return None
    try:
        return _encode(error).decode()
    except UnicodeEncodeError:
        scrubbed = JobError(error.kind, *map(scrub, (error.type, error.message, error.traceback)))
        return _encode(scrubbed).decode()


def history_text(entry: JobEntry) -> str:
    """Return a job's changes behind the first, which its other columns tell."""
    steps = entry.steps or []
    try:
        return _encode(steps).decode()
    except UnicodeEncodeError:
        return _encode([scrub(part) if isinstance(part, str) else part for part in steps]).decode()


def step_text(entry: JobEntry) -> str:
    """Return a job's changes as they are put behind those that are stored: a job that runs has some."""
    return f",{history_text(entry)[1:]}"


def cancel_text(cancel: CancelRequest | None) -> str | None:
    """Return a request to cancel as text."""
    if cancel is None:
        return None
    try:
        return _encode(cancel).decode()
    except UnicodeEncodeError:
        return _encode(cancel._replace(reason=scrub(cancel.reason or ""))).decode()


def scrub(text: str) -> str:
    """Return text that UTF-8 can hold, with backslash escapes where it could not."""
    return text.encode(errors="backslashreplace").decode()


def _split(name: str, text: str, asides: dict[str, str]) -> str | None:
    """Put a large value aside; return what its column holds."""
    if len(text) <= ASIDE:
        return text
    asides[name] = text
    return None


# -- decoding


def seq_of(row: Row) -> int:
    """Return a row's number, the job's ``order``."""
    seq: int = row[_SEQ]
    return seq


def rank_of(row: Row) -> tuple[int, int]:
    """Return what ready jobs are sorted by."""
    return -row[_PRIORITY], row[_TICKET]


def cancel_of(text: str | None) -> CancelRequest | None:
    """Return a request to cancel."""
    return None if text is None else CancelRequest(*_decode(text))


def has_asides(row: Row) -> bool:
    """Whether some of a row's values are kept aside."""
    return bool(row[_ASIDES])


def entry_of(row: Row, asides: Mapping[str, str], *, light: bool = False) -> JobEntry:
    """Return a row as an entry.

    Args:
        row: The columns `ENTRY`.
        asides: The values kept aside, by their columns' names.
        light: Whether to leave out what users gave: payload, metadata, tags, saved state.
    """
    *fields, executor, queue, priority, _ = row
    entry = JobEntry(*fields)  # most columns hold what their fields do; the others are decoded now
    for name, text in asides.items():
        setattr(entry, _FIELD_OF.get(name, name), text)
    raw: Any = entry
    entry.plan = _plan_of(executor, queue, priority, raw.plan)
    entry.state = _STATES[entry.state]
    entry.steps = _steps(raw.steps)
    if raw.cancel is not None:
        entry.cancel = cancel_of(raw.cancel)
    if raw.error is not None:
        entry.error = _error_decoder.decode(raw.error)
    if entry.state in FINAL_STATES:
        entry.outcome = _outcome(entry, raw.outcome)
    if light:
        entry.payload = entry.metadata = entry.tags = entry.saved_state = None
    else:
        entry.payload, entry.metadata = value_of(raw.payload), value_of(raw.metadata)
        entry.tags, entry.saved_state = value_of(raw.tags), value_of(raw.saved_state)
    return entry


def _steps(history: str) -> list[Any] | None:
    if history == "[]":
        return None
    steps: list[Any] = _decode(history)
    steps[1::_STEP] = [_STATES[state] for state in steps[1::_STEP]]
    return steps


def _outcome(entry: JobEntry, result: str | None) -> Outcome:
    """Return an ended job's outcome, which its other columns tell."""
    if entry.state is JobState.COMPLETED:
        return Completed(value_of(result))
    if entry.state is JobState.FAILED:
        assert entry.error is not None  # it is stored with the state
        return Failed(entry.error)
    return Cancelled(entry.steps[-1] if entry.steps else None)


def value_of(text: str | None) -> Any:
    """Return a user's value."""
    return None if text is None or text == "null" else decode_value(text)


@lru_cache(maxsize=256)
def _plan_of(executor: str, queue: str, priority: int, rest: str) -> Plan:
    """Return a plan; jobs submitted alike share one."""
    more = _plan_decoder.decode(rest)
    return Plan(executor or None, None, queue, JobPriority(priority), more.time_limit, more.retry, more.worker)
