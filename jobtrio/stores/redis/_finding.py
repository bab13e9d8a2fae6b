"""Finding and counting jobs.

A script finds the ids, a page at a time; the jobs are read one by one, so that the server answers others in between,
and held against the query once more, since they may have changed meanwhile. Where a key is wanted, another script finds
the job and reads it in one step.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from jobtrio._codec import encode_value
from jobtrio._errors import UnknownJobError
from jobtrio._patterns import key_for
from jobtrio._records import WorkerReport, moment
from jobtrio._state import JobState, counts_by_queue
from jobtrio.abc import Backlog, JobQuery
from jobtrio.stores._rules import COUNTED, can_match, found_by_key
from jobtrio.stores._salvage import Salvage
from jobtrio.stores.redis._rows import entry_of
from jobtrio.stores.redis._scripts import STATES, run
from jobtrio.stores.redis._texts import count_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from jobtrio._records import JobRecord
    from jobtrio.stores.redis._calls import Calls
    from jobtrio.stores.redis._link import Command
    from jobtrio.stores.redis._scripts import Run

READ_FIRST: Final = 4
READ_TOGETHER: Final = 32
READ_BYTES: Final = 1024 * 1024
"""Jobs whose rows are asked for in one go, at first and at most; and bytes that these may have, if they are as large as
those before: the others who use the connection wait meanwhile, and each row may have megabytes."""

LOADED: Final = 128 * 1024
"""Bytes that a job which is loaded counts for: it may have megabytes, and all that go together have to come in time."""

LOOKED_AT: Final = 1000
"""Candidates that one call looks at."""


async def find(calls: Calls, query: JobQuery, row_of: Callable[[str], Command]) -> list[JobRecord]:
    """Return the matching jobs, in the order of their submission."""
    after = b"+inf" if query.newest_first else b"0"
    if query.after is not None:
        after = await _number(calls, row_of(query.after), query.after)
    records: list[JobRecord] = []
    if not can_match(query):
        return records
    if query.key is not None:
        row = await calls.make([run("by_key", query.key, brings=LOADED)], lambda answers: answers[0])
        holder = None if row is None or row[0] is None else entry_of(row)
        last = None if query.after is None else Salvage().part("order", count_of, after, 0)
        return found_by_key(holder, query, last)
    while after and len(records) < query.limit:
        page = _page(query, after, query.limit - len(records))
        ids, after = await calls.make([page], lambda answers: answers[0])
        records += [record for record in await _records(calls, ids, row_of) if _matches(record, query)]
    return records


async def _records(calls: Calls, ids: list[bytes], row_of: Callable[[str], Command]) -> list[JobRecord]:
    """Return the records of jobs, of those that are still there."""
    records: list[JobRecord] = []
    together = READ_FIRST
    while ids:
        some, ids = ids[:together], ids[together:]
        rows = await calls.make([row_of(job_id.decode(errors="backslashreplace")) for job_id in some], list)
        found = ((row, job_id) for row, job_id in zip(rows, some, strict=True) if row[0] is not None)
        records += [entry_of([*row, job_id]).record() for row, job_id in found]
        size = sum(len(field) for row in rows for field in row if field)
        together = max(1, min(2 * together, READ_TOGETHER, READ_BYTES * len(some) // (size + 1)))
    return records


async def _number(calls: Calls, command: Command, job_id: str) -> bytes:
    order: bytes | None = None
    if job_id.isprintable():
        state, *rest = await calls.make([command], lambda answers: answers[0])
        order = None if state is None else rest[0]
    if order is None:
        raise UnknownJobError(job_id)
    return order


def _page(query: JobQuery, after: bytes, limit: int) -> Run:
    states = "" if query.states is None else ",".join(query.states) or "-"
    tags = encode_value("tags", dict(query.tags)) if query.tags else b""
    order = "newest first" if query.newest_first else ""
    return run("find", after, limit, LOOKED_AT, query.queue or "", query.executor or "", states, tags, order)


def _matches(record: JobRecord, query: JobQuery) -> bool:
    return query.states is None or record.state in query.states


def counts(rows: list[list[Any]]) -> dict[str, dict[JobState, int]]:
    """Return, for each queue that has jobs, how many are in each state."""
    return _added_up((queue, numbers) for queue, _, *numbers in rows)


async def counts_of(calls: Calls, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
    """Return the same of the jobs that have all of these tags."""
    if not can_match(JobQuery(tags=tags)):
        return {}
    rows: list[list[Any]] = []
    after, wanted = b"0", encode_value("tags", dict(tags))
    while after:
        after, *more = await calls.make([run("tagged", after, LOOKED_AT, wanted)], lambda answers: answers[0])
        rows += more
    return _added_up((queue, numbers) for queue, *numbers in rows)


def _added_up(rows: Iterable[tuple[bytes, list[int]]]) -> dict[str, dict[JobState, int]]:
    return counts_by_queue(
        (queue.decode(errors="backslashreplace"), state, number)
        for queue, numbers in rows
        for state, number in zip(STATES, numbers, strict=True)
    )


def workers(rows: list[list[Any]]) -> list[WorkerReport]:
    """Return the workers that are there, by name."""
    reports = []
    for text, running in rows:
        with suppress(Exception):  # somebody else has written it
            first, last, name = text.split(b",", 2)
            reports.append(WorkerReport(name_of(name), moment(float(first)), moment(float(last)), running))
    return sorted(reports, key=lambda report: (report.name, report.started_at))


def paused(answer: Sequence[bytes]) -> dict[str, float]:
    """Return the queues that are paused, by name, in order, and for how many seconds more."""
    rows = zip(answer[::2], answer[1::2], strict=True)
    return dict(sorted((queue.decode(errors="backslashreplace"), float(left)) for queue, left in rows))


def backlog(answers: list[Any], queues: Collection[str] | None, executors: Collection[str] | None) -> Backlog:
    """Return how many jobs of ``executors`` wait in ``queues``; None for all.

    Held ones are not counted, nor what waits for its queue to be resumed: pauses come before the numbers of jobs.
    """
    pauses, rows = answers
    stopped = {queue for queue, left in zip(pauses[::2], pauses[1::2], strict=True) if float(left) == inf}
    found = dict.fromkeys(STATES, 0)
    for queue, executor, *numbers in rows:
        if executor and _is_served(queue, queues) and _is_in(executor, executors):
            for state, number in zip(STATES, numbers, strict=True):
                if state is JobState.RUNNING or queue not in stopped:
                    found[state] += number
    return Backlog(*(found[state] for state in COUNTED))


def _is_in(name: bytes, names: Collection[str] | None) -> bool:
    return names is None or name.decode(errors="backslashreplace") in names


def _is_served(queue: bytes, keys: Collection[str] | None) -> bool:
    return keys is None or key_for(queue.decode(errors="backslashreplace"), keys) is not None
