"""The reader: jobs by their ids and their messages, for all who ask at the same time.

Whoever watches many jobs asks for each of them; together that is one trip. It must not know who waits for the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from jobtrio._messages import End
from jobtrio.stores import _chunks as chunks
from jobtrio.stores.postgres._arrays import MOST, array, arrays
from jobtrio.stores.postgres._rows import WIDTH, entry_of

if TYPE_CHECKING:
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
class ReadMessages:
    """Messages to be read.

    Attributes:
        job_id: The job.
        after: Behind which number.
        limit: How many at most.
    """

    job_id: str
    after: int
    limit: int


Reading: TypeAlias = Load | ReadMessages


class Reader:
    """Carries out groups of readings.

    Args:
        connections: The way to the server.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def carry_out(self, calls: list[Call[Reading]]) -> None:
        """Carry out a group of readings, and answer them.

        Cancellation: nothing has changed.
        """
        loads = [(call, call.work) for call in calls if isinstance(call.work, Load)]
        reads = [(call, call.work) for call in calls if isinstance(call.work, ReadMessages)]

        async def read(link: Link) -> tuple[dict[bool, Rows], Rows]:
            loaded = {}
            for light, statement in ((False, "by_ids"), (True, "light_by_ids")):
                ids = {load.job_id for _, load in loads if load.light is light}
                loaded[light] = await link.fetch(statement, array(ids)) if ids else []
            return loaded, await _fetch_messages(link, [reading for _, reading in reads]) if reads else []

        loaded, found = await self._connections.use(read)
        rows = {(row[0], light): row for light, some in loaded.items() for row in some}
        for call, load in loads:
            row = rows.get((load.job_id, load.light))
            call.succeed(None if row is None else entry_of(row))
        places = {row[WIDTH]: row for row in found}
        for place, (call, reading) in enumerate(reads, 1):
            row = places.get(place)
            call.succeed(None if row is None else _messages_of(row, reading))


async def _fetch_messages(link: Link, readings: list[ReadMessages]) -> Rows:
    wanted = arrays(((reading.job_id, reading.after, min(reading.limit, MOST)) for reading in readings), 3)
    return await link.fetch("messages", *wanted, str(chunks.READ_TEXT // len(readings)))


def _messages_of(row: Row, reading: ReadMessages) -> list[Message]:
    """Return kept messages, with the `End` behind the last."""
    after, limit = reading.after, reading.limit
    last, *parts = row[WIDTH + 1 :]
    messages: list[Message] = []
    if parts[0] is not None:
        messages = chunks.read(zip(*parts, strict=True), after, limit)
    entry = entry_of(row)
    if entry.outcome is not None and len(messages) < limit:
        last = last or 0
        if chunks.reached(messages, after) == last:
            messages.append(End(last + 1, entry.outcome))
    return messages
