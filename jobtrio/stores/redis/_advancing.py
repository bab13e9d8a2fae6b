"""Doing what has fallen due: starts, retries, expiries, leases that lapsed; and removing what is not kept any more.

All times are the server's. What has fallen due is found by one script, in slices; the verdict on a job that has
expired or was lost is `_rules`', and is carried out only if it is still true. It must not know when it is called.
"""

from __future__ import annotations

from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobtrio.stores import _rules as rules
from jobtrio.stores._chunks import restart_text
from jobtrio.stores._texts import plain_text
from jobtrio.stores.redis._rows import entry_of
from jobtrio.stores.redis._scripts import MOST, run

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio._policies import Retention
    from jobtrio.stores.redis._rows import Row
    from jobtrio.stores.redis._scripts import Run

SLICE: Final = 100
"""Jobs changed or removed in one go, so that the server answers others in between."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of what jobs have beyond which one look brings back no more of them: they have to come in time."""


@attrs.frozen
class Due:
    """What has fallen due.

    Attributes:
        changed: The jobs that are ready now, as that left them.
        expired: Jobs that were not started in time.
        lapsed: Jobs whose lease is over.
        next: Seconds until there is more to do; 0 where there is already, inf for nothing known.
    """

    changed: list[JobEntry]
    expired: list[JobEntry]
    lapsed: list[JobEntry]
    next: float


def look(worker: bytes) -> Run:
    """Return the call that finds what is due; `found` reads its answer."""
    return run("advance", worker, SLICE, MOST_BYTES)


def found(answer: list[Any]) -> Due:
    """Return what is due."""
    ready, expired, lapsed, following = answer
    return Due(_entries(ready), _entries(expired), _entries(lapsed), float(following or inf))


def _entries(rows: list[Row]) -> list[JobEntry]:
    return [entry_of(row) for row in rows]


def verdicts(due: Due, worker: bytes, retention: Retention) -> list[Run]:
    """Return the calls that end, or return to their queue, jobs that have expired or were lost.

    Each answers with the row that it has changed, or with nothing where that was not due any more.
    """
    calls = []
    for entry in due.expired:
        error = rules.expired(entry, retention)
        calls.append(run("expire", entry.id, worker, plain_text(str(error)), plain_text(error)))
    for entry in due.lapsed:
        error = rules.lost(entry)
        calls.append(
            run(
                *("lapse", entry.id, _claim_of(entry), entry.attempt, worker, retention.tokens_per_job),
                *(rules.LOSSES, plain_text(error), plain_text(str(error)), restart_text(entry.attempt, error, 0.0)),
            )
        )
    return calls


def _claim_of(entry: JobEntry) -> bytes:
    """Return a claim as it is stored, whoever has written it."""
    return (entry.claim or "").encode(errors="surrogateescape")


def prune(retention: Retention) -> Run:
    """Return the call that removes a slice; `pruned` reads its answer."""
    seconds = b"inf" if isinf(retention.finished_for) else repr(retention.finished_for)
    return run("prune", min(retention.finished_jobs, MOST), seconds, SLICE)


def pruned(answer: list[Any]) -> tuple[bool, float]:
    """Return whether there may be more to remove, and in how many seconds the oldest job left is too old."""
    more, following = answer
    return bool(more), float(following or inf)
