"""A PostgreSQL store's trips to the server fail when a test says so: connections are lost, or conflicts reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import psycopg

from jobtrio.stores.postgres._connections import Link

if TYPE_CHECKING:
    import pytest

When: TypeAlias = Literal["before", "after"]


class Faults:
    """What goes wrong with the trips to the server.

    Attributes:
        count: How many trips there were so far.
        kind: How they fail: the connection is lost, or a deadlock is reported.
        asked: What was asked, in order.
    """

    def __init__(self) -> None:
        self.count = 0
        self.kind: Literal["lost", "deadlock"] = "lost"
        self.asked: list[tuple[str, ...]] = []
        self._at: tuple[int, When] | None = None

    def fail_at(self, n: int, when: When) -> None:
        """Have the n-th trip from now fail, before or after the server has done what it was asked."""
        self._at = (self.count + n, when)

    def never_fail(self) -> None:
        """Have nothing fail any more."""
        self._at = None

    def fault_of_next(self, names: tuple[str, ...]) -> When | None:
        """Count a trip and say whether it fails."""
        self.count += 1
        self.asked.append(names)
        if self._at is not None and self._at[0] == self.count:
            return self._at[1]
        return None

    async def fail(self, link: Link) -> None:
        """Fail."""
        if self.kind == "deadlock":
            raise psycopg.errors.DeadlockDetected("on purpose")
        await link.connection.close()
        raise psycopg.OperationalError("on purpose: the connection is lost")


def install(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Have all trips heed the `Faults` that are returned."""
    faults = Faults()
    originals = {name: getattr(Link, name) for name in ("fetch", "fetch_all")}

    def patched(method: str) -> Any:
        async def trip(link: Link, what: Any, *parameters: Any) -> Any:
            what = list(what) if method == "fetch_all" else what
            names = tuple(step[0] for step in what) if method == "fetch_all" else (what,)
            fault = faults.fault_of_next(names)
            if fault == "before":
                await faults.fail(link)
            answer = await originals[method](link, what, *parameters)
            if fault == "after":
                await faults.fail(link)
            return answer

        return trip

    for method in originals:
        monkeypatch.setattr(Link, method, patched(method))
    return faults
