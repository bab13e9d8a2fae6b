"""Removing what `Retention` no longer keeps, in slices.

It owns what goes first. It must not know when it is called.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from jobtrio.stores._texts import readable_tags
from jobtrio.stores.postgres._arrays import BIGGEST, MOST, array
from jobtrio.stores.postgres._connections import COMMIT
from jobtrio.stores.postgres._transaction import removing_steps

if TYPE_CHECKING:
    from jobtrio._policies import Retention
    from jobtrio.stores.postgres._connections import Link

SLICE: Final = 200
"""Jobs removed in one go."""

CHUNKS: Final = 2000
"""Chunks of messages removed in one go, beyond which the jobs that they are of have to wait."""

Limit: TypeAlias = tuple[float, int]
"""When the newest job ended that is not kept any more, and its number."""


async def limit(link: Link, retention: Retention) -> Limit:
    """Return up to which job those that ended are not kept any more.

    Cancellation: nothing has changed.
    """
    age = -1.0 if retention.finished_for == inf else retention.finished_for
    ((oldest, too_many),) = await link.fetch("ended_limit", str(age), str(min(retention.finished_jobs, MOST)))
    too_old: Limit = (-inf if age < 0 else oldest, BIGGEST)
    return too_old if too_many is None else max(too_old, (too_many[0], int(too_many[1])))


async def prune(link: Link, until: Limit) -> bool:
    """Remove a slice; return whether there may be more.

    Cancellation: it may have been removed.
    """
    moment, number = until
    if moment == -inf:
        return False
    (rows,) = await link.begin(("lock_ended", str(moment), str(number), str(SLICE)))
    jobs = [(job, readable_tags(tags)) for job, tags in rows]
    # Until a job goes, who reads it has to find how far it went.
    dropped = await link.fetch("drop_all_but_last", array([job for job, _ in jobs]), str(CHUNKS)) if jobs else []
    if len(dropped) >= CHUNKS:
        await link.fetch_all([COMMIT])
        return True
    await link.fetch_all([*removing_steps(jobs), COMMIT])
    return len(jobs) == SLICE


async def left(link: Link, retention: Retention) -> float:
    """Return in how many seconds the oldest job left is too old; inf for never.

    Cancellation: nothing has changed.
    """
    _, ((oldest,),) = await link.fetch_all([("forget_workers",), ("oldest_end",)])
    is_known = oldest is not None and oldest < inf  # nor is it NaN
    return max(oldest + retention.finished_for, 0.0) if is_known else inf
