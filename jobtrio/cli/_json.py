"""What the command writes as JSON, for scripts: messages, records, changes of state, and documents of these.

It must not know which command writes it.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from jobtrio._messages import End, Restart
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import JobError
from jobtrio.cli._output import STDOUT

if TYPE_CHECKING:
    from jobtrio._messages import Message
    from jobtrio._records import JobRecord, Transition, WorkerReport
    from jobtrio.cli._output import Piece


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON with a line's end behind it. ASCII alone, so that it is the same in every locale."""
    return json.dumps(value, indent=indent, default=repr) + "\n"


def print_document(value: Any) -> None:
    """Print one JSON document."""
    print(to_json(value, indent=2), end="")


def message_line(message: Message, job: str | None = None) -> Piece:
    """Return a message as a line for stdout, with its job's id where that is given."""
    fields = message_fields(message)
    return STDOUT, to_json(fields if job is None else {"type": None, "job": job, **fields})


def submitted_line(job_id: str) -> Piece:
    """Return as a line for stdout which job is watched."""
    return STDOUT, to_json({"type": "submitted", "job": job_id})


def change_line(change: Transition, executor: str | None) -> Piece:
    """Return a change of a job's state as a line for stdout."""
    return STDOUT, to_json({**record_fields(change), "executor": executor})


def message_fields(message: Message) -> dict[str, Any]:
    """Return a message as a mapping that names its ``type`` first. Tracebacks are left out."""
    fields = {"type": type(message).__name__.lower(), **attrs.asdict(message, recurse=False)}
    match message:
        case Restart(error=error):
            fields["error"] = attrs.asdict(error, filter=_is_no_traceback)
        case End(outcome=outcome):
            how = type(outcome).__name__.lower()
            fields["outcome"] = {"type": how, **attrs.asdict(outcome, filter=_is_no_traceback)}
    return fields


def time_field(moment: datetime) -> str:
    """Return a time as ISO 8601 text in UTC."""
    return moment.isoformat().replace("+00:00", "Z")


def record_fields(record: JobRecord | Transition | WorkerReport, *, traceback: bool = False) -> dict[str, Any]:
    """Return a record as JSON can hold it: times as ISO 8601 text in UTC, the priority by its name.

    Args:
        record: Of a job, of a change of state, or of a worker.
        traceback: Whether an error's traceback is part of it.
    """
    fields = attrs.asdict(record, recurse=False)
    return {name: _plain(value, traceback=traceback) for name, value in fields.items()}


def _plain(value: Any, *, traceback: bool) -> Any:
    match value:
        case datetime():
            return time_field(value)
        case JobPriority():
            return value.name
        case RetryPolicy():
            return attrs.asdict(value)
        case math.inf:  # a time limit: there is none
            return None
        case JobError():
            return attrs.asdict(value, filter=None if traceback else _is_no_traceback)
        case _:
            return value


def _is_no_traceback(field: attrs.Attribute[Any], value: object) -> bool:
    return field.name != "traceback"
