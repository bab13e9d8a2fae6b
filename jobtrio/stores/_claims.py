"""What is asked for with a claim, which calls were made, and what became of claims that were to be renewed.

For durable stores. It must not know how a store claims, nor how it finds out what became of a claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

import attrs

from jobtrio.abc import LeaseReport

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jobtrio._entry import CancelRequest
    from jobtrio.abc import Claim

K = TypeVar("K")

KEPT: Final = 1000
"""Calls of a kind that are remembered."""


@attrs.frozen
class Wanted:
    """What `claim` was asked for; see `jobtrio.abc.JobStore.claim`."""

    claim_id: str
    limit: int
    lease: float
    room: Mapping[str, int] | None
    executors: Collection[str] | None

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing that could be claimed."""
        return self.limit <= 0 or self.room == {} or (self.executors is not None and not self.executors)

    def takes(self, executor: str) -> bool:
        """Whether jobs of an executor are wanted."""
        return self.executors is None or executor in self.executors


class Recent(Generic[K]):
    """Remembers the things that were added last."""

    def __init__(self) -> None:
        self._kept: dict[K, None] = {}

    def add(self, thing: K) -> None:
        """Remember a thing, and forget the oldest beyond a thousand."""
        self._kept[thing] = None
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def discard(self, thing: K) -> None:
        """Forget a thing."""
        self._kept.pop(thing, None)

    def __contains__(self, thing: K) -> bool:
        return thing in self._kept


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
