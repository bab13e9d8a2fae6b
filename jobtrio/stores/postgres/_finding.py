"""Finding and counting jobs.

Candidates come from whichever of the tags and the groups (queue, state, executor) has the fewest, and are then held
against the rest of the query; where a key is wanted, from the index of keys. It must not know how rows are written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobtrio._errors import UnknownJobError
from jobtrio._patterns import is_pattern
from jobtrio._records import WorkerReport, moment
from jobtrio._state import JobState
from jobtrio.abc import Backlog, JobQuery
from jobtrio.stores._rules import COUNTED, can_match, found_by_key
from jobtrio.stores._texts import counts_in
from jobtrio.stores.postgres._arrays import ANSWERED, BIGGEST, array, arrays
from jobtrio.stores.postgres._rows import WIDTH, entry_of
from jobtrio.stores.postgres._statements import NEWEST_FIRST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from jobtrio._records import JobRecord
    from jobtrio.stores.postgres._connections import Link, Step

TOGETHER: Final = 1000
"""Jobs that come with one answer at most: to make records of them keeps Trio's thread."""

LOOKED_UP: Final = 200_000
"""Tags looked up for one answer at most: for each job in it, each tag that the query names."""

ENOUGH: Final = 1000
"""Candidates beyond which counting them on tells nothing more."""

COMPARED: Final = 200_000
"""Candidates that are counted in all, where each one that has the rarest tag is going to be looked up."""


# -- finding


@attrs.frozen
class Part:
    """Some of the jobs that match.

    Attributes:
        records: The first of them.
        last: The number of the last of these, where there may be more behind it; else None.
    """

    records: list[JobRecord]
    last: int | None


async def find(
    look: Callable[[Callable[[Link], Awaitable[Part]]], Awaitable[Part]], query: JobQuery
) -> list[JobRecord]:
    """Return the matching jobs, in the order of their submission.

    Args:
        look: Gives a connection to what asks for a part of them, for as long as one piece of work may take. All of what
            is large may take longer.
        query: Which jobs.

    Cancellation: nothing has changed.
    """
    part = await look(partial(_find_part, query=query, last=None))
    records = part.records
    while part.last is not None and len(records) < query.limit:
        left = attrs.evolve(query, limit=query.limit - len(records))
        part = await look(partial(_find_part, query=left, last=part.last))
        records += part.records
    return records


async def _find_part(link: Link, query: JobQuery, last: int | None) -> Part:
    """Return the first of the matching jobs: behind a number, or else where the query says."""
    after = await _after(link, query) if last is None else last
    if not can_match(query):
        return Part([], None)
    if query.key is not None:
        holders = [entry_of(row) for row in await link.fetch("by_keys", array([query.key]))]
        return Part(found_by_key(holders[0] if holders else None, query, after), None)
    most = min(query.limit, TOGETHER, max(LOOKED_UP // max(len(query.tags or {}), 1), 1))
    is_grouped = query.states is not None or query.queue is not None or query.executor is not None
    if not is_grouped and not query.tags:
        rows = await link.fetch(_named("find_all", query), str(after), str(most), str(ANSWERED))
    else:
        rows = await _find_matching(link, query, after, str(most), is_grouped=is_grouped)
    entries = [entry_of(row) for row in rows]
    is_cut = bool(rows) and (len(rows) == most or len(rows) < rows[0][WIDTH])
    return Part([entry.record() for entry in entries], entries[-1].order if is_cut else None)


async def _after(link: Link, query: JobQuery) -> int:
    if query.after is None:
        return BIGGEST if query.newest_first else 0
    rows = await link.fetch("order_of", query.after)
    if not rows:
        raise UnknownJobError(query.after)
    ((after,),) = rows
    return int(after)


async def _find_matching(
    link: Link, query: JobQuery, after: int, most: str, *, is_grouped: bool
) -> list[tuple[Any, ...]]:
    """Return the matching rows, by way of the rarest tag or of the groups, whichever has fewer candidates."""
    tags = list((query.tags or {}).items())
    having, states = arrays(tags, 2), None if query.states is None else array(sorted(query.states))
    group = (query.queue, query.executor, states)
    filters = (*group, *having, str(after))
    rarest = 0
    if len(tags) > 1 or (tags and is_grouped):
        limits = (str(after), str(ENOUGH))
        steps: list[Step] = [(_named("candidates_by_tag", query), *having, *limits)]
        if is_grouped:
            steps.append((_named("candidates_in_groups", query), *group, *limits))
        by_tag, *by_group = await link.fetch_all(steps)
        rarest = by_tag.index(min(by_tag))
        if by_group and by_group[0][0] < by_tag[rarest]:
            tags = []
    if not tags:
        return await link.fetch(_named("find_in_groups", query), *filters, most, str(ANSWERED))
    return await link.fetch(_named("find_by_tag", query), *filters, most, *tags[rarest], str(ANSWERED))


def _named(statement: str, query: JobQuery) -> str:
    return f"{statement}_{NEWEST_FIRST}" if query.newest_first else statement


# -- counting


async def counts(link: Link) -> dict[str, dict[JobState, int]]:
    """Return, for each queue that has jobs, how many are in each state.

    Cancellation: nothing has changed.
    """
    return counts_in(await link.fetch("counts"))


async def counts_of(link: Link, wanted: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
    """Return the same of the jobs that have all of these tags.

    Cancellation: nothing has changed.
    """
    if not can_match(JobQuery(tags=wanted)):
        return {}
    tags = list(wanted.items())
    rarest = 0
    if len(tags) > 1:
        by_tag = await link.fetch("candidates_by_tag", *arrays(tags, 2), "0", str(max(COMPARED // len(tags), ENOUGH)))
        rarest = by_tag.index(min(by_tag))
    return counts_in(await link.fetch("counts_of", *tags.pop(rarest), *arrays(tags, 2)))


async def workers(link: Link) -> list[WorkerReport]:
    """Return the workers that are there, by name.

    Cancellation: nothing has changed.
    """
    rows = await link.fetch("workers")
    return [WorkerReport(name, moment(started), moment(seen), running) for name, started, seen, running in rows]


async def paused(link: Link) -> dict[str, float]:
    """Return the queues that are paused, by name, in order, and for how many seconds more.

    Cancellation: nothing has changed.
    """
    return dict(await link.fetch("paused"))


async def backlog(link: Link, queues: Collection[str] | None, executors: Collection[str] | None) -> Backlog:
    """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`.

    Cancellation: nothing has changed.
    """
    named = prefixes = None
    if queues is not None:
        named = array([key for key in queues if not is_pattern(key)])
        prefixes = array([key[:-1] for key in queues if is_pattern(key)])
    rows = await link.fetch("backlog", named, None if executors is None else array(list(executors)), prefixes)
    found = {JobState(state): count for state, count in rows}
    return Backlog(*(found.get(state, 0) for state in COUNTED))
