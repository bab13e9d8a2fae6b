"""Jobs to and from rows: what is in which column.

It owns the order of the columns, and which values are kept aside because they are large. It must not know when
rows are read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jobtrio._entry import JobEntry
from jobtrio.stores._texts import decode_entry, plan_text, text_of
from jobtrio.stores.sqlite._statements import ENTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = tuple[Any, ...]

ASIDE: Final = 2000
"""Characters beyond which a value is not kept in its job's row, which is copied at every change."""

_SEQ = ENTRY.index("seq")
_PRIORITY = ENTRY.index("priority")
_TICKET = ENTRY.index("ticket")
_ASIDES = ENTRY.index("asides")
_FIELD_OF: Final = {"result": "outcome"}  # where a column kept aside and its field have different names


# -- encoding


@attrs.frozen
class NewJob:
    """A job that is to be stored: its entry, and what of it is text.

    Attributes:
        entry: The job, as given; what is stored of it does not change meanwhile.
        plan: The rest of its plan.
        values: Payload, metadata and tags, in the order of their columns.
        asides: Those of them that are too large for the row, by name.
    """

    entry: JobEntry
    plan: str
    values: tuple[str | None, str | None, str | None]
    asides: dict[str, str]


def new_job(entry: JobEntry) -> NewJob:
    """Encode a job that is to be stored.

    Raises:
        PayloadError: Its payload, metadata or another of its texts can't be stored.
    """
    asides: dict[str, str] = {}
    values = (
        _split("payload", text_of("payload", entry.payload), asides),
        None if entry.metadata is None else _split("metadata", text_of("metadata", entry.metadata), asides),
        None if entry.tags is None else _split("tags", text_of("tags", entry.tags), asides),
    )
    return NewJob(entry, plan_text(entry.plan), values, asides)


def _split(name: str, text: str, asides: dict[str, str]) -> str | None:
    """Put a large value aside; return what its column holds."""
    if len(text) <= ASIDE:
        return text
    asides[name] = text
    return None


# -- decoding


def seq_of(row: Row) -> int:
    """Return a row's number, the job's ``order``."""
    seq: int = row[_SEQ]
    return seq


def rank_of(row: Row) -> tuple[int, int]:
    """Return what ready jobs are sorted by."""
    return -row[_PRIORITY], row[_TICKET]


def has_asides(row: Row) -> bool:
    """Whether some of a row's values are kept aside."""
    return bool(row[_ASIDES])


def entry_of(row: Row, asides: Mapping[str, str], *, light: bool = False) -> JobEntry:
    """Return a row as an entry.

    Args:
        row: The columns `ENTRY`.
        asides: The values kept aside, by their columns' names.
        light: Whether to leave out what users gave: payload, metadata, tags, saved state.
    """
    *fields, executor, queue, priority, _ = row
    entry = JobEntry(*fields)  # most columns hold what their fields do; the others are decoded then
    for name, text in asides.items():
        setattr(entry, _FIELD_OF.get(name, name), text)
    return decode_entry(entry, executor, queue, priority, light=light)
