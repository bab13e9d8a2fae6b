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
    _core,
    _entry,
    _events,
    _leases,
    _lines,
    _program_session,
    _settlement,
    _spool,
    _subscription,
    _tail,
    _token_log,
)
from jobtrio.stores import _pruner, _rules
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres import _calls as _postgres_calls
from jobtrio.stores.postgres import _session as _postgres_session
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.redis import _batch as _redis_batch
from jobtrio.stores.redis import _claiming as _redis_claiming
from jobtrio.stores.redis import _inserting as _redis_inserting
from jobtrio.stores.sqlite import SqliteJobStore, _checkpoint, _transaction, _writer
from jobtrio.websocket import (
    Limits,
    _client_feed,
    _client_keeper,
    _client_link,
    _client_times,
    _desk,
    _guard,
    _values,
    open_client,
)
from jobtrio.websocket import server as _server

_OPEN = inspect.signature(jobtrio.open_registry).parameters
_SUBMIT = inspect.signature(jobtrio.JobRegistry.submit).parameters
_RETRY = jobtrio.RetryPolicy()
_KEPT = jobtrio.Retention()
_BRIDGE = Limits()
_CLIENT = inspect.signature(open_client).parameters
_STORE = inspect.signature(SqliteJobStore).parameters
_POSTGRES = inspect.signature(PostgresJobStore).parameters
_REDIS = inspect.signature(RedisJobStore).parameters


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
        ("Jobs of one queue that run at once across all workers", "no limit", registry.format("max_running_total")),
        ("Starts of jobs of one queue in a time, across all workers", "no limit", registry.format("rate_limits")),
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
            "The same, if `Progress` and `Restart` pile up before a lossless consumer that does not read",
            f"{_token_log.OVERHANG} × `tokens_per_job`",
            fixed,
        ),
        ("Changes of state kept of a job, but for a few", _entry.HISTORY, fixed),
        ("Characters of an error in the history", _entry.REASON, fixed),
        ("Messages received between two checkpoints, and in a batch", _subscription.BATCH, fixed),
        ("Events that a consumer may be behind", _events.EVENTS_KEPT, fixed),
        ("Calls of a registry between two full checkpoints, in memory", _calls.YIELD_EVERY, fixed),
        ("Jobs that `find` returns", 100, "`find(limit=…)`"),
        ("Messages in `open_channel`'s channel", 64, "`open_channel(size=…)`"),
        (
            "Characters of an id, key, tag, name in metadata, or name of a queue, executor or worker",
            _checks.NAME_LIMIT,
            fixed,
        ),
        ("Tags of a job, and of a search", _checks.TAGS_LIMIT, fixed),
        ("Characters of a reason or a note", _checks.TEXT_LIMIT, fixed),
        ("Characters kept of an error's message, and of its traceback", _settlement.TEXT_LIMIT, fixed),
        ("Exceptions that a traceback shows; of more, it shows the last alone", _settlement.TOLD, fixed),
        ("Random bits in an id that jobtrio makes", 128, "`submit(job_id=…)`"),
        ("Bytes of a program's line in one token", _kib(_lines.PART_LIMIT), fixed),
        ("From SIGTERM to SIGKILL", _seconds(_command.DEFAULT_GRACE), 'the payload\'s `"grace"`'),
        ("Wait for processes that got SIGKILL", _seconds(_program_session.KILL_LIMIT), fixed),
        ("Wait for what a program left behind, before SIGTERM", _seconds(_command.LINGER), fixed),
        ("A cancelled program's last lines, to a lossless consumer", _seconds(_command.DRAIN_LIMIT), fixed),
    ]


def durable_table() -> str:
    """Return the limits of durable stores as a Markdown table."""
    return _table(_durable_rows())


def bridge_table() -> str:
    """Return the limits of the bridge and of its clients as a Markdown table."""
    return _table(_bridge_rows())


def _bridge_rows() -> list[tuple[str, Any, str]]:
    fixed = "fixed"
    limits = "`Limits({}=…)`"
    bridge = _BRIDGE
    return [
        ("Connections at once", bridge.connections, limits.format("connections")),
        (
            "Descriptors of the process that connections take, of those it may have (`ulimit -n`)",
            f"{1 - 1 / _server.KEPT_BACK:.0%}",
            fixed,
        ),
        ("Connections that were not accepted yet", bridge.handshakes, limits.format("handshakes")),
        ("The opening handshake, hooks included", _seconds(bridge.handshake), limits.format("handshake")),
        ("Request that opens a connection", _kib(bridge.header_bytes), limits.format("header_bytes")),
        ("A client's message", _kib(bridge.message_bytes), limits.format("message_bytes")),
        ("Frames of a client's message", bridge.message_frames, limits.format("message_frames")),
        ("Messages of a client in a second", f"{bridge.messages_per_second:g}", limits.format("messages_per_second")),
        ("Its pings and pongs in a second; those beyond wait, and what follows them", _guard.CONTROLS, fixed),
        ("Subscriptions of a connection", bridge.subscriptions, limits.format("subscriptions")),
        ("Attempts that a client may ask for, or its executor's", bridge.attempts, limits.format("attempts")),
        ("Tokens in a message to a client", bridge.batch_items, limits.format("batch_items")),
        (
            "An `events` or a text to a client, except a single larger token",
            _kib(bridge.batch_bytes),
            limits.format("batch_bytes"),
        ),
        ("Records of a `jobs` to a client, except the last", f"{_desk.PAGE_BYTES // 1024**2} MiB", fixed),
        ("Silence after which a sign of life is sent", _seconds(bridge.heartbeat), limits.format("heartbeat")),
        ("Wait for a client that does not read", _seconds(bridge.send), limits.format("send")),
        ("The closing handshake, and a shutdown", _seconds(bridge.closing), limits.format("closing")),
        ("When clients are told to reconnect, about", _seconds(bridge.retry_after), limits.format("retry_after")),
        ("JSON of a value, beyond which its `repr` is sent instead", f"{_values.VALUE_LIMIT // 1024**2} MiB", fixed),
        ("Nesting of lists and mappings, in a value and in a client's message", _values.DEPTH_LIMIT, fixed),
        ("Characters of a `repr` that stands for a value", _values.REPR_LIMIT, fixed),
        (
            "Opening a client, and its calls, while the server is away",
            _seconds(_CLIENT["outage_limit"].default),
            "`open_client(outage_limit=…)`",
        ),
        (
            "Pause before a client's second try, and at most before any, apart from what a server asks for",
            _client_pauses(),
            fixed,
        ),
        ("Silence after which a server counts as dead", f"{_client_keeper.SILENCES:g} × its heartbeat", fixed),
        ("Wait of a client for a server that does not read", _seconds(_client_link.SENDING_LIMIT), fixed),
        ("Messages that wait for a consumer of a client", _client_feed.MOST, fixed),
        ("Their size", _kib(_client_feed.MOST_BYTES), fixed),
        ("The answer of a server that refuses a client", _kib(_client_link.ANSWER_LIMIT), fixed),
        ("A message of the server", f"{_client_link.MESSAGE_LIMIT // 1024**2} MiB", fixed),
    ]


def _client_pauses() -> str:
    return f"{_seconds(_client_times.FIRST)}, {_seconds(_client_times.LONGEST)}"


def _durable_rows() -> list[tuple[str, Any, str]]:
    fixed = "fixed"
    store = "`SqliteJobStore({}=…)`"
    return [
        (
            "JSON of one payload, token, result or saved state, or of a job's metadata",
            f"{_codec.SIZE_LIMIT // 1024**2} MiB",
            fixed,
        ),
        ("Nesting of lists and mappings in one of these", _codec.DEPTH_LIMIT, fixed),
        ("Lease of a running job", _seconds(_OPEN["lease"].default), "`open_registry(lease=…)`, at least 1 s"),
        ("Renewals within the length of a lease", _leases.ROUNDS, fixed),
        ("Answer to a renewal, within", f"{_leases.ANSWER_WITHIN:.0%} of the lease", fixed),
        ("From the stop of an attempt that could not renew to the lease's end", f"{_leases.MARGIN:.0%} of it", fixed),
        ("Leases lost in a row, after which a job fails", _rules.LOSSES, fixed),
        (
            "Ended jobs kept beyond `finished_jobs` until they are removed, for each process",
            f"{1 / _pruner.SHARE:.0%} of it, at least {_pruner.LEAST}",
            fixed,
        ),
        (
            "The time that they are kept beyond `finished_for`",
            f"{_core.PRUNE_AFTER:.1%} of it, at most {_seconds(_core.PRUNE_AT_MOST)}",
            fixed,
        ),
        (
            "Wait of a call for a store that is away",
            _seconds(_STORE["outage_limit"].default),
            "the store's `outage_limit=…`",
        ),
        (
            "When a commit in an SQLite file counts as done",
            f"`{_STORE['synchronous'].default}`",
            store.format("synchronous"),
        ),
        ("Time in which messages are collected for one batch", f"{1000 * _spool.WINDOW:g} ms", fixed),
        ("Messages in one batch", _spool.BATCH, fixed),
        (
            "Poll for the first messages of a job that may come to run in this process, after",
            _seconds(_tail.LOOK_FIRST),
            fixed,
        ),
        (
            "Poll for new messages if no wake-up came, after",
            f"{_seconds(_tail.LOOK_AFTER)}, doubled up to {_seconds(_tail.LOOK_AT_LEAST)} while there are none",
            fixed,
        ),
        (
            "Pause between two looks at new messages in another process that nobody reads, where the end is waited for",
            f"{_tail.LONGER:.1%} of the time waited so far, at most {_seconds(_tail.LOOK_FOR_END)}",
            fixed,
        ),
        ("Polls for new messages per second, if no wake-up came, for all streams", _tail.LOOKS_A_SECOND, fixed),
        ("Poll for work if no wake-up came, after", _seconds(SqliteJobStore.poll_interval), fixed),
        ("The same, in an SQLite file to which others have written", _seconds(_writer.LOOK_AFTER), fixed),
        ("The same, on PostgreSQL if no notifications arrive", _seconds(_postgres_session.LOOK_OFTEN), fixed),
        ("Calls in one transaction of an SQLite file", _writer.GROUP, fixed),
        ("Time after which such a transaction takes no more calls", _seconds(_transaction.LONGEST), fixed),
        ("Size of SQLite's log from which it is copied at once", f"{_checkpoint.LARGEST // 1024**2} MiB", fixed),
        (
            "Connections of a process to PostgreSQL, in addition to the one that listens",
            _POSTGRES["pool_size"].default,
            "`PostgresJobStore(pool_size=…)`",
        ),
        ("Calls in one statement of PostgreSQL", _postgres_calls.GROUP, fixed),
        ("Connections of a process to Redis", 2, fixed),
        (
            "Replicas that must have what a call wrote to Redis",
            _REDIS["replicas"].default,
            "`RedisJobStore(replicas=…)`",
        ),
        ("Calls in one script of Redis", _redis_batch.GROUP_CALLS, fixed),
        ("Jobs claimed in one, and claims renewed", _redis_claiming.MOST_JOBS, fixed),
        ("Jobs of one call to Redis", _redis_inserting.MOST_JOBS, fixed),
        ("Their size", f"{_redis_inserting.MOST_BYTES // 1024**2} MiB", fixed),
    ]
