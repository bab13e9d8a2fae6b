"""``jobtrio show``: all that is known of one job."""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from jobtrio._horizon import Horizon
from jobtrio._messages import End
from jobtrio._state import JobState
from jobtrio.cli import _options
from jobtrio.cli._bridge import job_of_store
from jobtrio.cli._endings import brief, duration, one_line, plural, printable
from jobtrio.cli._json import message_fields, print_document, record_fields
from jobtrio.cli._program import exit_code
from jobtrio.cli._records import attempt_text, moment_text, tags_text, took_text
from jobtrio.cli._screen import message_text
from jobtrio.cli._store import EXIT_CODES, add_store_options, open_client, run_with_store
from jobtrio.cli._table import render_table
from jobtrio.stores._chunks import reached

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from jobtrio._messages import Message
    from jobtrio._policies import RetryPolicy
    from jobtrio._records import JobError, JobRecord, Transition
    from jobtrio.abc import JobStore

PAGE = 1024
"""Messages read at once."""

HELP = "show all that is known about a job"

DESCRIPTION = """\
Show a job: its record, its error with the traceback, its history, and its last
messages.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio show 4f0c…
  jobtrio show --messages 100 4f0c…
  jobtrio show --json 4f0c… | jq .job.result
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("id", metavar="ID", type=job_of_store, help="the job's id")
    parser.add_argument(
        "--messages",
        metavar="N",
        type=_options.count,
        default=10,
        help="how many of its last messages (default: 10)",
    )
    add_store_options(parser, json="print one JSON object: job, history, messages")


async def show(options: argparse.Namespace, store: JobStore) -> int:
    """Print all that is known of the job.

    *Cancellation*: nothing has changed.
    """
    async with open_client(store) as registry:
        record = (await registry.get(options.id)).record
        history = await registry.history(options.id)
        messages = await _last_messages(store, options.id, options.messages)
    if options.json:
        print_document(
            {
                "job": record_fields(record, traceback=True),
                "history": [record_fields(transition) for transition in history],
                "messages": [message_fields(message) for message in messages],
            }
        )
    else:
        print("".join(_text(record, history, messages)), end="")
    return 0


async def _last_messages(store: JobStore, job_id: str, most: int) -> list[Message]:
    """Return the last of a job's messages that are kept now."""
    last: deque[Message] = deque(maxlen=most)
    after = 0
    horizon = Horizon(partial(store.read_messages, job_id))
    while most and (page := await store.read_messages(job_id, after, PAGE)):
        last += page
        after = reached(page, after)
        if isinstance(page[-1], End) or await horizon.is_reached(after):
            break
    return list(last)


def _text(record: JobRecord, history: Iterable[Transition], messages: list[Message]) -> Iterator[str]:
    yield from (f"{name:<10} {printable(value)}\n" for name, value in _fields(record) if value is not None)
    if record.error is not None and record.state is not JobState.COMPLETED and (more := _more(record.error)):
        yield f"\n{printable(more, lines=True)}\n"
    yield "\n" + render_table(
        ("AT", "STATE", "ATTEMPT", "WORKER", "REASON"),
        [
            (
                moment_text(each.at),
                each.state,
                str(each.attempt),
                each.worker,
                brief(each.reason, 80) if each.reason else "-",
            )
            for each in history
        ],
        right=("ATTEMPT",),
    )
    if messages:
        yield "\n" + render_table(
            ("SEQ", "ATTEMPT", "MESSAGE"), [message_text(each) for each in messages], right=("SEQ",)
        )


def _fields(record: JobRecord) -> Iterator[tuple[str, str | None]]:
    yield "id", record.id
    yield "state", record.state
    yield "executor", record.executor
    yield "payload", _shown(record.payload)
    yield "queue", f"{record.queue}, priority {record.priority.name.lower()}"
    yield "tags", tags_text(record) or None
    yield "metadata", _shown(record.metadata or None)
    yield "key", record.key
    yield "attempt", attempt_text(record)
    yield "submitted", moment_text(record.created_at)
    yield "due", _time(record.run_at)
    if record.expires_in is not None:
        yield "expires", f"if not started within {duration(record.expires_in)}"
    if record.time_limit is not None:
        yield "time limit", "none" if record.time_limit == inf else duration(record.time_limit)
    if record.retry is not None:
        yield "retries", _policy(record.retry)
    yield "started", _time(record.started_at)
    if record.finished_at is not None:
        took = "" if record.duration is None else f", after {took_text(record)}"
        yield "ended", moment_text(record.finished_at) + took
    yield "worker", record.worker
    if record.cancel_requested_at is not None:
        why = f": {one_line(record.cancel_reason)}" if record.cancel_reason else ""
        yield "cancelled", f"asked for at {moment_text(record.cancel_requested_at)}{why}"
    if record.error is not None:
        name = "last error" if record.state is JobState.COMPLETED else "error"  # that of an earlier attempt
        yield name, f"{one_line(str(record.error))} ({record.error.kind})"
    yield "result", _shown(record.result)


def _more(error: JobError) -> str:
    """Return what the record's line does not tell of an error: its traceback, but not that of a program's failure."""
    trace = "" if exit_code(error) is not None else error.traceback.rstrip()
    text = trace or str(error)
    return "" if text == one_line(text) else text


def _policy(retry: RetryPolicy) -> str:
    if retry.max_attempts == 1:
        return "none"
    delays = f"{duration(retry.initial)}, {retry.multiplier:g} times as long each, at most {duration(retry.max_delay)}"
    return f"{plural(retry.max_attempts, 'attempt')}, after {delays}, ± {retry.jitter:.0%}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment_text(moment)


def _shown(value: Any) -> str | None:
    return None if value is None else one_line(json.dumps(value, ensure_ascii=False), 1000)


run = partial(run_with_store, work=show)
