"""From jobtrio's values to what goes over the wire, and back: messages, outcomes, records.

It owns which field becomes which. Both directions are here, for the server and the client. It must not know
about connections.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

import msgspec
from msgspec.structs import asdict

from jobtrio._checks import clean_text
from jobtrio._messages import End, Gap, Progress, Restart, Token
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError, JobRecord
from jobtrio.websocket._replies import (
    Ended,
    Events,
    GapFound,
    ProgressMade,
    Restarted,
    WireCancelled,
    WireCompleted,
    WireError,
    WireFailed,
    WireRecord,
)
from jobtrio.websocket._requests import WireRetry
from jobtrio.websocket._values import value_json

if TYPE_CHECKING:
    from jobtrio._messages import Message
    from jobtrio._records import Outcome
    from jobtrio.websocket._replies import WireOutcome

JobStreamReply: TypeAlias = Events | ProgressMade | Restarted | GapFound | Ended
"""What carries messages of a job's stream."""


def messages_of(reply: JobStreamReply) -> list[Message]:
    """Return the messages that a reply carries, in order."""
    match reply:
        case Events(seq=seq, attempt=attempt, items=items):
            return [Token(n, attempt, value) for n, value in enumerate(items, seq)]
        case ProgressMade():
            return [progress_of(reply)]
        case Restarted():
            return [Restart(reply.seq, reply.attempt, error_of(reply.error), reply.delay)]
        case GapFound():
            return [Gap(reply.first, reply.last)]
        case Ended():
            return [End(reply.seq, outcome_of(reply.outcome))]
        case _:
            assert_never(reply)


def progress_of(reply: ProgressMade) -> Progress:
    """Return the `Progress` that came over the wire."""
    return Progress(reply.seq, reply.attempt, reply.done, reply.total, reply.note)


def reply_to(message: Message, sub: int | None = None, *, tracebacks: bool = False) -> JobStreamReply:
    """Return the reply that carries one message.

    Args:
        message: The message.
        sub: The subscription's number; None on a tail.
        tracebacks: Whether tracebacks may be seen.
    """
    match message:
        case Token(seq, attempt, value):
            return Events(sub=sub, seq=seq, attempt=attempt, items=[value])
        case Progress():
            return progress_made(message, sub)
        case Restart(seq, attempt, error, delay):
            return Restarted(sub=sub, seq=seq, attempt=attempt, error=wire_error(error, tracebacks), delay=delay)
        case Gap(first, last):
            return GapFound(sub=sub, first=first, last=last)
        case End(seq, outcome):
            return Ended(sub=sub, seq=seq, outcome=wire_outcome(outcome, tracebacks))
        case _:
            assert_never(message)


def progress_made(message: Progress, sub: int | None = None) -> ProgressMade:
    """Return a `Progress` for the wire."""
    note = None if message.note is None else clean_text(message.note)
    return ProgressMade(
        sub=sub, seq=message.seq, attempt=message.attempt, done=message.done, total=message.total, note=note
    )


def wire_outcome(outcome: Outcome, tracebacks: bool) -> WireOutcome:
    """Return an outcome for the wire."""
    match outcome:
        case Completed(result):
            return WireCompleted(result=result)
        case Failed(error):
            return WireFailed(error=wire_error(error, tracebacks))
        case Cancelled(reason):
            return WireCancelled(reason=None if reason is None else clean_text(reason))
        case _:
            assert_never(outcome)


def outcome_of(outcome: WireOutcome) -> Outcome:
    """Return the outcome that came over the wire."""
    match outcome:
        case WireCompleted(result=result):
            return Completed(result)
        case WireFailed(error=error):
            return Failed(error_of(error))
        case WireCancelled(reason=reason):
            return Cancelled(reason)
        case _:
            assert_never(outcome)


def wire_error(error: JobError, tracebacks: bool) -> WireError:
    """Return an error for the wire, with its traceback or without."""
    return WireError(
        kind=error.kind,
        type=clean_text(error.type),
        message=clean_text(error.message),
        traceback=clean_text(error.traceback) if tracebacks else "",
    )


def error_of(error: WireError) -> JobError:
    """Return the error that came over the wire."""
    return JobError(error.kind, error.type, error.message, error.traceback)


_FIELDS: Final = WireRecord.__struct_fields__
_fields_of = attrgetter(*_FIELDS)


def wire_record(record: JobRecord) -> WireRecord:
    """Return a record for the wire, with its error's traceback; its values are JSON already."""
    fields: dict[str, Any] = dict(zip(_FIELDS, _fields_of(record), strict=True))
    for name in ("payload", "metadata", "result"):
        fields[name] = msgspec.Raw(value_json(fields[name]))
    fields["priority"] = record.priority.name
    if record.cancel_reason is not None:
        fields["cancel_reason"] = clean_text(record.cancel_reason)
    if record.error is not None:
        fields["error"] = wire_error(record.error, tracebacks=True)
    fields["retry"] = wire_retry(record.retry)
    return WireRecord(**fields)


def record_of(record: WireRecord) -> JobRecord:
    """Return the record that came over the wire."""
    fields = asdict(record)
    del fields["duration"]  # which the others tell
    fields["priority"] = JobPriority[record.priority]
    if record.error is not None:
        fields["error"] = error_of(record.error)
    fields["retry"] = retry_of(record.retry)
    return JobRecord(**fields)


def wire_retry(retry: RetryPolicy | None) -> WireRetry | None:
    """Return a retry policy for the wire."""
    if retry is None:
        return None
    return WireRetry(**{name: getattr(retry, name) for name in WireRetry.__struct_fields__})


def retry_of(retry: WireRetry | None) -> RetryPolicy | None:
    """Return the retry policy that came over the wire."""
    return None if retry is None else RetryPolicy(**asdict(retry))
