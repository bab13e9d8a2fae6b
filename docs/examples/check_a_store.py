"""A store of one's own, and the checks that tell whether it keeps the contract."""

from collections import Counter
from collections.abc import Sequence

import trio
from trio.testing import MockClock

from jobtrio.abc import JobEntry
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS, OpenStore


class MeteredStore(MemoryJobStore):
    """Counts the jobs that callers hand in, by queue. A call that is made again counts again."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_in: Counter[str] = Counter()

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        self.handed_in.update(entry.plan.queue for entry in entries)
        return await super().insert(entries, submission)


def open_one_place() -> OpenStore:
    store = MeteredStore()  # in memory, one object stands for all processes
    return lambda: store


def test_keeps_the_contract() -> None:
    for check in STORE_CHECKS:
        trio.run(check, open_one_place(), clock=MockClock(autojump_threshold=0))
