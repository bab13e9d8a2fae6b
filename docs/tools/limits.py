"""The table of limits and defaults, with the figures that the code has."""

from __future__ import annotations

import inspect
from typing import Any

import jobtrio
from jobtrio import (
    _calls,
    _checks,
    _codec,
    _command,
    _events,
    _leases,
    _lines,
    _process_group,
    _settlement,
    _spool,
    _subscription,
    _tail,
    _token_log,
)
from jobtrio.stores import _rules
from jobtrio.stores.sqlite import SqliteJobStore, _checkpoint, _writer

_OPEN = inspect.signature(jobtrio.open_registry).parameters
_SUBMIT = inspect.signature(jobtrio.JobRegistry.submit).parameters
_RETRY = jobtrio.RetryPolicy()
_KEPT = jobtrio.Retention()
_STORE = inspect.signature(SqliteJobStore).parameters


def table() -> str:
    """Return the limits as a Markdown table."""
    return _table(_rows())


def _table(limits: list[tuple[str, Any, str]]) -> str:
    rows = ["| what | default | where to change it |", "|---|---|---|"]
    rows += [f"| {what} | {_show(value)} | {where} |" for what, value, where in limits]
    return "\n".join(rows)


def _show(value: Any) -> str:
    if value is None:
        return "no limit"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _seconds(value: float) -> str:
    return f"{value:g} s"


def _kib(value: int) -> str:
    return f"{value // 1024} KiB"


def _rows() -> list[tuple[str, Any, str]]:
    fixed = "fixed"
    registry = "`open_registry({}=…)`"
    retention = "`Retention({}=…)`"
    return [
        ("Jobs that run at once", _OPEN["max_running"].default, registry.format("max_running")),
        ("Jobs of one queue that run at once", _OPEN["queues"].default, registry.format("queues")),
        ("Jobs that wait for their first start, in memory", _OPEN["max_queued"].default, registry.format("max_queued")),
        ("Threads for executors that are plain functions", "`max_running`", registry.format("max_running")),
        ("Time limit of an attempt", _SUBMIT["time_limit"].default, "`time_limit` of `submit` or `register`"),
        ("Wait for the first start", _SUBMIT["expires_in"].default, "`submit(expires_in=…)`"),
        ("Wait of a held job for its execution", _seconds(_KEPT.held_for), retention.format("held_for")),
        ("Attempts without a policy", 1, "`retry` of `submit` or `register`"),
        ("Attempts with the default policy", _RETRY.max_attempts, "`RetryPolicy(max_attempts=…)`"),
        ("First delay of that policy", _seconds(_RETRY.initial), "`RetryPolicy(initial=…)`"),
        ("Factor from one delay to the next", _RETRY.multiplier, "`RetryPolicy(multiplier=…)`"),
        ("Longest delay, before the jitter", _seconds(_RETRY.max_delay), "`RetryPolicy(max_delay=…)`"),
        ("Jitter, of the delay", f"± {_RETRY.jitter:.0%}", "`RetryPolicy(jitter=…)`"),
        ("Ended jobs that are kept", _KEPT.finished_jobs, retention.format("finished_jobs")),
        ("How long they are kept", _seconds(_KEPT.finished_for), retention.format("finished_for")),
        ("Messages kept of a job, `End` not counted", _KEPT.tokens_per_job, retention.format("tokens_per_job")),
        (
            "The same, where `Progress` and `Restart` pile up before a lossless consumer that does not read",
            f"{_token_log.OVERHANG} × `tokens_per_job`",
            fixed,
        ),
        ("Messages received between two checkpoints, and in a batch", _subscription.BATCH, fixed),
        ("Events that a consumer may be behind", _events.EVENTS_KEPT, fixed),
        ("Calls of a registry between two full checkpoints, in memory", _calls.YIELD_EVERY, fixed),
        ("Jobs that `find` returns", 100, "`find(limit=…)`"),
        ("Messages in `open_channel`'s channel", 64, "`open_channel(size=…)`"),
        ("Characters of an id, key, tag, or name of a queue or executor", _checks.NAME_LIMIT, fixed),
        ("Characters of a reason or a note", _checks.TEXT_LIMIT, fixed),
        ("Characters kept of an error's message, and of its traceback", _settlement.TEXT_LIMIT, fixed),
        ("Random bits in an id that jobtrio makes", 128, "`submit(job_id=…)`"),
        ("Bytes of a program's line in one token", _kib(_lines.PART_LIMIT), fixed),
        ("From SIGTERM to SIGKILL", _seconds(_command.DEFAULT_GRACE), 'the payload\'s `"grace"`'),
        ("Wait for processes that got SIGKILL", _seconds(_process_group.KILL_LIMIT), fixed),
        ("Wait for what a program left behind, before SIGTERM", _seconds(_command.LINGER), fixed),
        ("A cancelled program's last lines, to a lossless consumer", _seconds(_command.DRAIN_LIMIT), fixed),
    ]


def durable_table() -> str:
    """Return the limits of durable stores as a Markdown table."""
    return _table(_durable_rows())


def _durable_rows() -> list[tuple[str, Any, str]]:
    fixed = "fixed"
    store = "`SqliteJobStore({}=…)`"
    return [
        (
            "JSON of one payload, token, result or saved state, or of a job's metadata",
            f"{_codec.SIZE_LIMIT // 1024**2} MiB",
            fixed,
        ),
        ("Lease of a running job", _seconds(_OPEN["lease"].default), "`open_registry(lease=…)`, at least 1 s"),
        ("Renewals in the time of a lease", _leases.ROUNDS, fixed),
        ("From the stop of an attempt that could not renew to the lease's end", f"{_leases.MARGIN:.0%} of it", fixed),
        ("Leases lost in a row, after which a job fails", _rules.LOSSES, fixed),
        (
            "Wait of a call for a store that is away",
            _seconds(_STORE["outage_limit"].default),
            store.format("outage_limit"),
        ),
        ("When a commit counts as done", f"`{_STORE['synchronous'].default}`", store.format("synchronous")),
        ("Time in which messages are collected for one batch", f"{1000 * _spool.WINDOW:g} ms", fixed),
        ("Messages in one batch", _spool.BATCH, fixed),
        ("Look for new messages where no wake-up came, after", _seconds(_tail.LOOK_AFTER), fixed),
        ("Look for work where no wake-up came, after", _seconds(SqliteJobStore.poll_interval), fixed),
        ("Calls in one transaction", _writer.GROUP, fixed),
        ("Size of SQLite's log, from which on it is copied at once", f"{_checkpoint.LARGEST // 1024**2} MiB", fixed),
    ]
