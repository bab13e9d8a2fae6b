"""Claiming ready jobs, and keeping the claims.

It owns what the two calls ask of the server, and what they make of the answers. It must not know who runs the jobs.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import psycopg
import trio

from jobtrio._patterns import Limits, limited_by
from jobtrio._policies import LONGEST_PERIOD
from jobtrio._state import JobState
from jobtrio.stores._hints import Hints
from jobtrio.stores._texts import readable_cancel
from jobtrio.stores.postgres._arrays import ANSWERED, MOST, array, arrays
from jobtrio.stores.postgres._connections import BEGIN, COMMIT, WAIT
from jobtrio.stores.postgres._notices import payloads_of
from jobtrio.stores.postgres._rows import WIDTH, entry_of, line_end, rank_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobtrio._entry import CancelRequest, JobEntry
    from jobtrio._policies import RateLimit
    from jobtrio.abc import Claim
    from jobtrio.stores._claims import Renewal, Wanted
    from jobtrio.stores._settling import Identity
    from jobtrio.stores.postgres._connections import Link, Rows, Step
    from jobtrio.stores.postgres._notices import Notices

Kept: TypeAlias = "dict[tuple[int, str], tuple[float, CancelRequest | None]]"
"""What was renewed, by job and claim: until when, and the request to cancel the job if there is one."""

WAITED: Final = 0.1
"""How long a renewal waits for jobs that others have locked, as a share of the lease, or of the time that one piece of
work may take, if that is less."""


@attrs.frozen
class Claimed:
    """What a call has claimed.

    Attributes:
        entries: The jobs, as claimed by this call or by the one that it repeats.
        now: The server's time; None where there are none.
        begun: The server's time before it looked for them, where it took locks for that; else None.
        hints: When something falls due by it.
        missed: Whether there may be more: some were locked at that moment, or were too large to come with the others.
    """

    entries: list[JobEntry]
    now: float | None
    begun: float | None
    hints: Hints
    missed: bool


async def claim(link: Link, wanted: Wanted, identity: Identity, notices: Notices, *, alone: bool) -> Claimed:
    """Start ready jobs, by priority, then in the order in which they became ready.

    Args:
        link: The connection.
        wanted: What is asked for.
        identity: Who asks.
        notices: What other processes are told.
        alone: Whether to wait for a call with the same id, which may be under way though it was cut off.

    Cancellation: jobs may have been claimed; the call finds them when it is repeated.
    """
    names = [f"queue {key}" for key in limited_by(identity.totals, wanted.room)]
    names += [f"rate {key}" for key in limited_by(identity.rates, wanted.room)]
    names += [f"claim {wanted.claim_id}"] if alone else []
    hints = Hints()
    hints.falls_due(time.monotonic() + wanted.lease)
    step = _claim_step(wanted, identity, notices.telling(hints))
    begun: float | None = None
    if names:
        # What is counted behind the locks is what those who held them before have left.
        *_, locked, rows, _ = await link.fetch_all([BEGIN, link.limit, ("lock_names", array(names)), step, COMMIT])
        begun = locked[-1][1]
    else:
        rows = await link.fetch(*step)
    found = [row for row in rows if row[0] is not None]
    missed = alone or len(found) < len(rows)  # the answer that was lost may have said so
    if not found:
        return Claimed([], None, begun, Hints(), missed)
    entries = sorted(map(entry_of, found), key=rank_of)
    return Claimed(entries, found[0][WIDTH], begun, hints, missed)


def _claim_step(wanted: Wanted, identity: Identity, telling: Step) -> Step:
    room = room_patterns = (None, None)
    if wanted.room is not None:
        room, room_patterns = _lists(Limits.of(wanted.room))
    executors = None if wanted.executors is None else array(list(wanted.executors))
    totals, total_patterns = _lists(identity.totals)
    rates, rate_patterns = identity.rates.split()
    return (
        *("claim", wanted.claim_id, identity.session, identity.worker, line_end(identity.worker), str(wanted.lease)),
        *(str(min(wanted.limit, MOST)), *room, executors, *totals, *telling, str(ANSWERED)),
        *(*room_patterns, *total_patterns, *_rates(rates), *_rates(rate_patterns)),
    )


def _rates(limits: Sequence[tuple[str, RateLimit]]) -> Step:
    """Return limits of single queues, or of patterns, if there are any: keys, intervals, how far bursts reach back."""
    if not limits:
        return (None, None, None)
    return tuple(arrays(((key, limit.interval, limit.reach) for key, limit in limits), 3))


def _lists(limits: Limits) -> tuple[Step, Step]:
    """Return limits as the statement takes them: those of single queues, and those of patterns, if there are any."""
    single, patterns = limits.split()
    return tuple(arrays(_cut(single), 2)), tuple(arrays(_cut(patterns), 2)) if patterns else (None, None)


def _cut(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(key, min(most, MOST)) for key, most in counts]


async def pause(link: Link, queue: str, seconds: float, hints: Hints, notices: Notices) -> None:
    """Have no claim start a job of a queue, for some seconds at least, and tell other processes when they end.

    Cancellation: none may do so.
    """
    await link.fetch_all([("pause", queue, str(seconds)), *notices.steps(hints)])


async def resume(link: Link, queue: str, hints: Hints, notices: Notices) -> None:
    """Have claims start jobs of a queue again, and tell other processes.

    Cancellation: they may do so.
    """
    await link.fetch_all([("resume", queue), *notices.steps(hints), ("confirm",)])


async def next_starts(link: Link, moment: float) -> Rows:
    """Return the queues that could not start a job at a moment, and how far it is to when they may.

    Cancellation: nothing has changed.
    """
    return await link.fetch("next_starts", str(moment))


async def renew(
    link: Link, claims: Sequence[Claim], lease: float, identity: Identity, notices: Notices
) -> list[Renewal]:
    """Let claims last from now, and report on each, in order; note that this worker is there for as long.

    Cancellation: they may have been renewed.
    """
    steps: list[Step] = [("be_there", identity.session, identity.worker, str(lease))]
    if identity.rates:
        steps += [("forget_rates", str(LONGEST_PERIOD))]
    if not claims:
        await link.fetch_all(steps)
        return []
    *_, renewed = await link.fetch_all([link.limit, *steps, _renewal_step(claims, lease, identity)])
    kept = _kept(renewed)
    give_up_at = trio.current_time() + WAITED * min(lease, link.patience)
    for n in count():
        others = [claim for claim in claims if _name_of(claim) not in kept]
        rows = await link.fetch("by_seqs", array([claim.entry.order for claim in others])) if others else []
        known = {entry.id: entry for entry in map(entry_of, rows)}
        locked = [claim for claim in others if _held(claim, known) is not None]
        if not locked or trio.current_time() >= give_up_at:
            break
        kept |= _kept(await _renew_behind(link, locked[n % len(locked)], locked, lease, identity))
    if any(entry.state is JobState.QUEUED for entry in known.values()):
        # Who claims may have passed over it, while it was locked for this. This process hears of it only by the notice.
        await link.fetch("notify", notices.channel, array(payloads_of(Hints(ready=True), "", notices.clock)))
    return [_renewal(claim, kept, known) for claim in claims]


def _renewal_step(claims: Sequence[Claim], lease: float, identity: Identity) -> Step:
    rows = sorted((claim.entry.order, claim.entry.id, claim.id, claim.attempt) for claim in claims)
    return ("renew", *arrays(rows, 4), str(lease), identity.session)


def _kept(renewed: Rows) -> Kept:
    return {(seq, held_by): (until, readable_cancel(cancel)) for seq, held_by, until, cancel in renewed}


async def _renew_behind(link: Link, first: Claim, claims: Sequence[Claim], lease: float, identity: Identity) -> Rows:
    """Wait a moment for one job that is locked; renew its claim then, with all of those that are free.

    Most were locked by one transaction: of messages that this very process appends.
    """
    wait: Step = ("wait_for", str(first.entry.order))
    renewal = _renewal_step(claims, lease, identity)
    try:
        *_, renewed, _ = await link.fetch_all([BEGIN, link.limit, ("limit_waits", WAIT), wait, renewal, COMMIT])
    except psycopg.errors.LockNotAvailable:
        await link.fetch_all([("ROLLBACK",)])
        return []
    return renewed


def _name_of(claim: Claim) -> tuple[int, str]:
    """Return what tells a claim from others, also of the same job."""
    return claim.entry.order, claim.id


def _held(claim: Claim, known: Mapping[str, JobEntry]) -> JobEntry | None:
    """Return the job that a claim holds, as far as is known."""
    entry = known.get(claim.entry.id)
    is_held = (
        entry is not None
        and entry.state is JobState.RUNNING
        and (entry.claim, entry.attempt) == (claim.id, claim.attempt)
    )
    return entry if is_held else None


def _renewal(claim: Claim, kept: Kept, known: Mapping[str, JobEntry]) -> Renewal:
    renewed = kept.get(_name_of(claim))
    if renewed is None and (entry := _held(claim, known)) is not None:
        # Somebody keeps it locked: until he lets it go nobody can take it, though its lease may be over by then.
        renewed = entry.lease_until, entry.cancel
    return renewed
