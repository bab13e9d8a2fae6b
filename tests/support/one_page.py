"""`OnePage`: a store of which only the first page of what matches can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio import StoreError
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    import jobtrio
    from jobtrio.abc import JobQuery


class OnePage(SqliteJobStore):
    """An SQLite file, damaged behind that page."""

    async def find(self, query: JobQuery) -> list[jobtrio.JobRecord]:
        """Return the first page, or fail."""
        if query.after is not None:
            raise StoreError("damaged")
        return await super().find(query)
