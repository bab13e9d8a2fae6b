"""A nursery for background tasks whose body's own exception comes out bare; and the tasks above a task.

A plain nursery wraps the body's exception in a group, since it can't tell it from its tasks'. Here the body is
the user's code and the tasks are jobtrio's: the user gets back what the user raised.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from jobtrio._errors import StoreError
from jobtrio._exceptions import is_all, leaves, lone_leaf, parted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the body is left, however it is left.

    An exception of a task comes out as it is where it is the only one, else in a group. That a store can't be used any
    more is one exception, however many tasks learn of it.

    Cancellation: the tasks are cancelled, and have ended when this is left.
    """
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                body = exc
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        body = _told(group, body)
    if body is not None:
        context = body.__context__
        try:
            raise body
        finally:
            body.__context__ = context  # what it was raised behind, rather than what is handled here
            body = context = None


def _told(group: BaseExceptionGroup[BaseException], body: BaseException | None) -> BaseException:
    """Return what to raise for the exceptions that came out of a nursery and that of the body, the latter first."""
    exceptions = [lone_leaf(own) for exc in group.exceptions if (own := parted(exc, trio.Cancelled)[1]) is not None]
    if body is not None and (own := parted(body, trio.Cancelled)[1]) is not None:
        exceptions.insert(0, own)
    match exceptions:
        case []:  # all of it is a cancellation
            told = next(leaves(group)) if body is None else body
        case [only]:
            told = only
        case _:
            told = BaseExceptionGroup(group.message, exceptions)
    lost = [leaf for leaf in leaves(group) if isinstance(leaf, StoreError)]
    return lost[0] if lost and is_all(told, StoreError) else told


def lineage(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    """Give a task, the one whose nursery it is in, and so on up to Trio's own."""
    while task is not None:
        yield task
        task = task.parent_nursery and task.parent_nursery.parent_task
