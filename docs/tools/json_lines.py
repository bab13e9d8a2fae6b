"""What the command prints with ``--json``, made by what prints it.

It owns the examples. It must not know the page.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jobtrio
from jobtrio.cli._json import change_line, message_line, record_fields, submitted_line, to_json

JOB = "4f0c7d0e2a5b4b7f9c1d8e6a3b2f5c90"
WORKER = "build-1:4711:0a1b2c3d"
BEGAN = datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
ENDED = BEGAN + timedelta(seconds=1.5)


def shown(what: str) -> str:
    """Return lines of one kind: ``messages``, ``changes`` or ``record``.

    Raises:
        KeyError: There is no such kind.
    """
    return {"messages": _messages, "changes": _changes, "record": _record}[what]()


def _messages() -> str:
    """One of each kind."""
    error = jobtrio.JobError("exception", "CommandFailedError", "'make' exited with 2")
    messages = (
        jobtrio.Token(1, 1, {"stdout": "compiling"}),
        jobtrio.Progress(2, 1, 3, 12, "compiling"),
        jobtrio.Restart(3, 1, error, 1.0),
        jobtrio.Gap(4, 7),
        jobtrio.End(8, jobtrio.Completed(0)),
        jobtrio.End(8, jobtrio.Failed(error)),
        jobtrio.End(8, jobtrio.Cancelled("Ctrl-C")),
    )
    return submitted_line(JOB)[1] + "".join(message_line(message)[1] for message in messages)


def _changes() -> str:
    states = jobtrio.JobState
    begun = jobtrio.Transition(JOB, BEGAN, states.QUEUED, states.RUNNING, 1, WORKER, None)
    failed = jobtrio.Transition(JOB, ENDED, states.RUNNING, states.FAILED, 1, WORKER, "ValueError: row 2")
    return "".join(change_line(change, "import")[1] for change in (begun, failed))


def _record() -> str:
    record = jobtrio.JobRecord(
        id=JOB,
        executor="import",
        payload={"file": "orders.csv"},
        queue="default",
        priority=jobtrio.JobPriority.NORMAL,
        tags={"user": "ann"},
        metadata={},
        key=None,
        state=jobtrio.JobState.FAILED,
        attempt=1,
        max_attempts=1,
        created_at=BEGAN - timedelta(seconds=0.25),
        started_at=BEGAN,
        finished_at=ENDED,
        worker=WORKER,
        error=jobtrio.JobError("exception", "ValueError", "row 2"),
    )
    return to_json(record_fields(record))
