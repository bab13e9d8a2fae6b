"""What became of claims that were to be renewed, and how their entries learn of it, for stores that keep jobs as rows.

It must not know how a store finds that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from jobtrio.abc import LeaseReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobtrio._entry import CancelRequest
    from jobtrio.abc import Claim


Renewal: TypeAlias = "tuple[float, CancelRequest | None] | None"
"""Until when a claim lasts now, and the request to cancel its job if there is one; None where it holds none."""


def report(claims: Sequence[Claim], found: Iterable[Renewal]) -> list[LeaseReport]:
    """Bring the claims' entries to what was found, in the same order, and report on each."""
    return [_report(claim, renewal) for claim, renewal in zip(claims, found, strict=True)]


def _report(claim: Claim, renewal: Renewal) -> LeaseReport:
    entry = claim.entry
    if renewal is None:
        return LeaseReport(False, entry)
    entry.lease_until, cancel = renewal
    if cancel is not None:  # else the answer may be older than a request that is known by now
        entry.cancel = cancel
    return LeaseReport(True, entry)
