"""Reading jobs by their ids and their messages, for all who ask at the same time.

Whoever watches many jobs asks for each of them; together that is one trip. It must not know who waits for the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from jobtrio._messages import End
from jobtrio.stores import _chunks as chunks
from jobtrio.stores.postgres._arrays import ANSWERED, MOST, array, arrays
from jobtrio.stores.postgres._rows import WIDTH, entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio.stores.postgres._calls import Call
    from jobtrio.stores.postgres._connections import Connections, Link, Rows
    from jobtrio.stores.postgres._rows import Row


@attrs.frozen(eq=False)
class Load:
    """A job to be loaded.

    Attributes:
        job_id: Its id.
        light: Whether to leave out what its user gave.
    """

    job_id: str
    light: bool


@attrs.frozen(eq=False)
class Follow:
    """Messages to be read, and the job without what never changes.

    Attributes:
        job_id: The job.
        after: Behind which number.
        limit: How many at most.
    """

    job_id: str
    after: int
    limit: int


Reading: TypeAlias = Load | Follow


async def carry_out(connections: Connections, calls: list[Call[Reading]]) -> list[Call[Reading]]:
    """Carry out a group of readings, and answer them; return those of jobs that are too large to come with others.

    Cancellation: nothing has changed.
    """
    calls = sorted(calls, key=lambda call: not call.is_late)  # those first that did not come with others before
    whole = [(call, call.work) for call in calls if isinstance(call.work, Load) and not call.work.light]
    light = [(call, call.work) for call in calls if isinstance(call.work, Load) and call.work.light]
    reads = [(call, call.work) for call in calls if isinstance(call.work, Follow)]

    share = str(ANSWERED // sum(map(bool, (whole, light, reads))))  # all of it has to come in time

    async def read(link: Link) -> tuple[Rows, Rows, Rows]:
        return (
            await link.fetch("some_by_ids", _ids(whole), share) if whole else [],
            await link.fetch("some_light_by_ids", _ids(light), share) if light else [],
            await _fetch_messages(link, [reading for _, reading in reads], share) if reads else [],
        )

    entries, lights, streams = await connections.use(read)
    by_id, light_by_id = {row[0]: row for row in entries}, {row[0]: row for row in lights}
    by_place = {row[WIDTH + 1]: row for row in streams}
    return _answer(
        [
            *((call, by_id.get(load.job_id)) for call, load in whole),
            *((call, light_by_id.get(load.job_id)) for call, load in light),
            *((call, by_place.get(place)) for place, (call, _) in enumerate(reads, 1)),
        ]
    )


def _ids(loads: list[tuple[Call[Reading], Load]]) -> str:
    return array(list(dict.fromkeys(load.job_id for _, load in loads)))


def _answer(found: Iterable[tuple[Call[Reading], Row | None]]) -> list[Call[Reading]]:
    """Answer calls with what was found for each; return those whose job did not come."""
    others = []
    for call, row in found:
        if row is None:
            call.succeed(None)
        elif not row[WIDTH]:
            others.append(call)
        else:
            entry = entry_of(row)
            call.succeed((_messages_of(row, entry, call.work), entry) if isinstance(call.work, Follow) else entry)
    return others


async def _fetch_messages(link: Link, readings: list[Follow], share: str) -> Rows:
    wanted = arrays(((reading.job_id, reading.after, min(reading.limit, MOST)) for reading in readings), 3)
    return await link.fetch("messages", *wanted, str(chunks.READ_TEXT // len(readings)), share)


def _messages_of(row: Row, entry: JobEntry, reading: Follow) -> list[Message]:
    """Return kept messages, with the `End` behind the last."""
    after, limit = reading.after, reading.limit
    last, *parts = row[WIDTH + 2 :]
    messages: list[Message] = []
    if parts[0] is not None:
        messages = chunks.read(zip(*parts, strict=True), after, limit)
    if entry.outcome is not None and len(messages) < limit:
        last = last or 0
        if chunks.reached(messages, after) == last:
            messages.append(End(last + 1, entry.outcome))
    return messages
