"""What became of claims that were to be renewed, and how their entries learn of it, for stores that keep jobs as rows.

It must not know how a store finds that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from jobtrio.abc import LeaseReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobtrio._entry import CancelRequest, JobEntry
    from jobtrio.abc import Claim


@attrs.frozen
class Renewal:
    """What became of a claim that was to be renewed.

    Attributes:
        kept: Until when it lasts now, and the request to cancel its job if there is one; None where it holds none.
        entry: The job as it is now, where the claim does not hold it.
    """

    kept: tuple[float, CancelRequest | None] | None
    entry: JobEntry | None = None


def report(claims: Sequence[Claim], found: Iterable[Renewal]) -> list[LeaseReport]:
    """Bring the claims' entries to what was found, in the same order, and report on each."""
    return [_report(claim, renewal) for claim, renewal in zip(claims, found, strict=True)]


def _report(claim: Claim, renewal: Renewal) -> LeaseReport:
    entry = claim.entry
    if renewal.kept is None:
        return LeaseReport(False, renewal.entry or entry)
    entry.lease_until, cancel = renewal.kept
    if cancel is not None:  # else the answer may be older than a request that is known by now
        entry.cancel = cancel
    return LeaseReport(True, entry)
