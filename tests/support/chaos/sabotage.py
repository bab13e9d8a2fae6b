"""Stores that break what they promise, on purpose, to see that the checks find it.

Each sabotage changes the calls of whichever store a worker uses, within that worker's process.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from chaos.calls import store_at, wrap
from chaos.jobs import JOURNAL
from jobtrio._leases import Leases
from jobtrio.abc import Claim, LeaseReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from jobtrio.abc import JobStore, StoreSettings


def sabotage(names: Collection[str], url: str) -> None:
    """Have all stores of the URL's kind get these of `SABOTAGES` wrong."""
    for name in names:
        SABOTAGES[name](store_at(url))


# -- deafness: who has lost a job does not notice, which the store has to bear


def _deaf(store: type[JobStore]) -> None:
    async def renew(call: Any, self: JobStore, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        reports = await call(self, claims, lease)
        return [report if report.held else LeaseReport(True, claims[n].entry) for n, report in enumerate(reports)]

    async def watch(self: Leases) -> None:
        await trio.sleep_forever()

    def stop_overdue(self: Leases) -> None:
        """Let them run on."""

    wrap(store, "renew", renew)
    Leases._watch = watch  # type: ignore[method-assign]
    Leases._stop_overdue = stop_overdue  # type: ignore[method-assign]


# -- fencing: who has lost a job writes all the same, in the name of who holds it


def _without_fencing(store: type[JobStore]) -> None:
    _deaf(store)  # else those who lost a job seldom come to write
    wrap(store, "claim", _note_claims)
    for name in ("finish", "retry", "release", "append_messages", "save_state"):
        wrap(store, name, _write_anyway)


def _holders() -> Path:
    return Path(os.environ[JOURNAL]).with_name("holders")


async def _note_claims(call: Callable[..., Any], self: JobStore, *args: Any, **options: Any) -> list[Claim]:
    claims: list[Claim] = await call(self, *args, **options)
    _note_holders(claims)
    return claims


def _note_holders(claims: list[Claim]) -> None:
    with open(_holders(), "a") as file:
        file.writelines(json.dumps([claim.entry.id, claim.id, claim.attempt]) + "\n" for claim in claims)


async def _write_anyway(call: Callable[..., Any], self: JobStore, claim: Claim, *args: Any, **options: Any) -> Any:
    if await call(self, claim, *args, **options):
        return True
    for line in reversed(_holders().read_text().splitlines()):
        job_id, claim_id, attempt = json.loads(line)
        if job_id == claim.entry.id:
            return await call(self, Claim(claim.entry, claim_id, attempt), *args, **options)
    return False


# -- leases: they are said to be renewed, and are not


def _without_renewals(store: type[JobStore]) -> None:
    async def renew(call: Any, self: JobStore, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        return [LeaseReport(True, claim.entry) for claim in claims]

    wrap(store, "renew", renew)


# -- repeated calls: they are not recognised


def _without_marks(store: type[JobStore]) -> None:
    """Have the answer to each claim be lost, and its repetition claim other jobs."""

    async def claim(call: Any, self: JobStore, claim_id: str, **options: Any) -> Any:
        await call(self, secrets.token_hex(8), **{**options, "limit": 1})
        return await call(self, claim_id, **options)

    wrap(store, "claim", claim)


# -- streams: a message is lost, or comes twice


def _with_holes(store: type[JobStore]) -> None:
    async def append(call: Any, self: JobStore, claim: Claim, messages: Sequence[Any]) -> Any:
        return True if messages[0].seq % 7 == 0 else await call(self, claim, messages)

    wrap(store, "append_messages", append)


# -- cancellations: they are not heard


def _without_cancellations(store: type[JobStore]) -> None:
    async def renew(call: Any, self: JobStore, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        reports = await call(self, claims, lease)
        for report in reports:
            report.entry.cancel = None
        return list(reports)

    wrap(store, "renew", renew)


# -- limits: those of patterns are forgotten


def _without_patterns(store: type[JobStore]) -> None:
    open_store = store.open

    def open(self: JobStore, settings: StoreSettings) -> AbstractAsyncContextManager[None]:
        totals = {queue: most for queue, most in settings.max_running_total.items() if not queue.endswith("*")}
        return open_store(self, attrs.evolve(settings, max_running_total=totals))

    store.open = open  # type: ignore[method-assign]


# -- pauses: a claim heeds none


def _without_pauses(store: type[JobStore]) -> None:
    async def claim(call: Any, self: JobStore, claim_id: str, **options: Any) -> Any:
        paused = await self.paused()
        for queue in paused:
            await self.resume(queue)
        claims = await call(self, claim_id, **options)
        for queue, left in paused.items():
            await self.pause(queue, left)
        return claims

    wrap(store, "claim", claim)


# -- rates: they are forgotten


def _without_rates(store: type[JobStore]) -> None:
    open_store = store.open

    def open(self: JobStore, settings: StoreSettings) -> AbstractAsyncContextManager[None]:
        return open_store(self, attrs.evolve(settings, rate_limits={}))

    store.open = open  # type: ignore[method-assign]


SABOTAGES: Final[dict[str, Callable[[type[JobStore]], None]]] = {
    "deaf": _deaf,
    "fencing": _without_fencing,
    "leases": _without_renewals,
    "marks": _without_marks,
    "streams": _with_holes,
    "cancellations": _without_cancellations,
    "limits": _without_patterns,
    "pauses": _without_pauses,
    "rates": _without_rates,
}
