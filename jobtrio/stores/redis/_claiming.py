"""Claiming ready jobs, and keeping the claims: what the scripts are given, and what their answers mean.

It must not know how the scripts are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobtrio._patterns import Limits
from jobtrio.abc import Claim, LeaseReport
from jobtrio.stores._claims import report
from jobtrio.stores._pace import first_wait
from jobtrio.stores._salvage import Salvage
from jobtrio.stores.redis._rows import entry_of
from jobtrio.stores.redis._scripts import Run, run
from jobtrio.stores.redis._texts import cancel_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobtrio._policies import RateLimits
    from jobtrio.stores._claims import Renewal, Wanted
    from jobtrio.stores.redis._link import Argument
    from jobtrio.stores.redis._session import Session

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of payloads, saved states, errors and histories beyond which one call claims no more jobs."""

MOST_JOBS: Final = 1000
"""Jobs that one call claims, or renews the claims of, at most: the server answers nobody else meanwhile."""


def claim(session: Session, wanted: Wanted) -> Run:
    """Return the call that starts ready jobs."""
    call = (wanted.claim_id, min(wanted.limit, MOST_JOBS), repr(wanted.lease), session.worker, session.name, MOST_BYTES)
    room, room_patterns = _lists(None if wanted.room is None else Limits.of(wanted.room))
    totals, total_patterns = _lists(session.totals or None)
    lists = (*room, *_names(wanted.executors), *totals, *room_patterns, *total_patterns, *_rates(session.rates))
    return run("claim", *call, session.answered, *lists)


def claimed(session: Session, wanted: Wanted, answer: list[Any]) -> list[Claim]:
    """Return what was claimed, and tell of it."""
    claim_id = wanted.claim_id
    is_news, more, rows, at = answer
    if is_news:
        session.claimed_at = at
    entries = [entry_of(row) for row in rows]
    announcer = session.announcer
    if is_news or claim_id not in session.claimed:  # the first answer may have been lost
        announcer.changed(entries)
    session.claimed.add(claim_id)
    if entries:
        announcer.falls_due_in(wanted.lease)
    if more or len(rows) >= MOST_JOBS:
        announcer.listener.work_ready()
    return [Claim(entry, claim_id, entry.attempt) for entry in entries]


def next_start(session: Session, room: Mapping[str, int] | None, answer: list[bytes]) -> float:
    """Return the seconds until a job may start that a rate limit held back."""
    starts = zip(answer[::2], answer[1::2], strict=True)
    return first_wait(session.rates, room, ((queue.decode(errors="replace"), float(left)) for queue, left in starts))


def slices(claims: Sequence[Claim]) -> list[Sequence[Claim]]:
    """Return claims in as many parts as one call each may renew; one part where there are none, for who is there."""
    return [claims[at : at + MOST_JOBS] for at in range(0, len(claims), MOST_JOBS)] or [claims]


def renew(session: Session, claims: Sequence[Claim], lease: float) -> Run:
    """Return the call that lets claims last."""
    held = [part for each in claims for part in (each.entry.id, each.id, each.attempt)]
    return run("renew", repr(lease), session.name, session.worker, *held)


def renewed(claims: Sequence[Claim], answer: list[Any]) -> list[LeaseReport]:
    """Return what became of the claims."""
    until, reports = answer
    return report(claims, [_renewal(held, cancel, float(until)) for held, cancel in reports])


def _renewal(held: int, cancel: bytes | None, until: float) -> Renewal:
    if not held:
        return None
    return until, None if cancel is None else Salvage().part("request", cancel_of, cancel, None)


def _lists(limits: Limits | None) -> tuple[list[Argument], list[Argument]]:
    """Return limits as a script takes them: those of single queues, and those of patterns, if there are any."""
    if limits is None:
        return [-1], [-1]
    single, patterns = limits.split()
    return _pairs(single), _pairs(patterns) if patterns else [-1]


def _rates(limits: RateLimits) -> list[Argument]:
    """Return limits on starts in the same way, each with its interval and how far a burst reaches back."""
    if not limits:
        return [-1, -1]
    given: list[Argument] = []
    for rates in limits.split():
        given.append(len(rates))
        for name, rate in rates:
            given += name, repr(rate.interval), repr(rate.reach)
    return given


def _pairs(numbers: Sequence[tuple[str, int]]) -> list[Argument]:
    return [len(numbers), *(part for pair in numbers for part in pair)]


def _names(names: Collection[str] | None) -> list[Argument]:
    if names is None:
        return [-1]
    given = [*names]  # once: of a registry's executors there may be more a moment later
    return [len(given), *given]
