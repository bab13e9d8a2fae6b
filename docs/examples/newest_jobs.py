"""What a page of the newest jobs shows each second: how far they are, and the last line of each."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio

import jobtrio


@dataclass
class Row:
    record: jobtrio.JobRecord
    messages: jobtrio.Subscription | None = None
    progress: jobtrio.Progress | None = None
    line: Any = None
    is_complete: bool = False

    def catch_up(self) -> None:
        while self.messages is not None:
            try:
                message = self.messages.receive_nowait()
            except trio.WouldBlock:
                return
            except (trio.BrokenResourceError, jobtrio.StoreUnavailableError):
                self.messages = None  # it was cut off: the next refresh subscribes again
                return
            match message:
                case jobtrio.Token(value=line):
                    self.line = line
                case jobtrio.Progress():
                    self.progress = message
                case jobtrio.Restart():
                    self.progress = self.line = None
                case jobtrio.End():
                    self.messages, self.is_complete = None, True


class Overview:
    def __init__(self, registry: jobtrio.JobRegistry) -> None:
        self._registry = registry
        self._rows: dict[Any, Row] = {}

    async def refresh(self) -> list[Row]:
        records = await self._registry.find(newest_first=True, limit=200)
        known, self._rows = self._rows, {}
        async with trio.open_nursery() as nursery:
            for record in records:
                which = record.id, record.created_at  # once a job is removed, another one may have its id
                row = self._rows[which] = known.get(which, Row(record))
                row.record = record
                if row.messages is None and not row.is_complete:
                    nursery.start_soon(self._subscribe, row)
        for row in self._rows.values():
            row.catch_up()
        return list(self._rows.values())

    async def _subscribe(self, row: Row) -> None:
        with suppress(jobtrio.UnknownJobError, jobtrio.StoreUnavailableError):  # it is tried again, if it is still kept
            row.messages = (await self._registry.get(row.record.id)).subscribe(on_gap="yield")


async def build(job: jobtrio.JobContext) -> None:
    for n in range(1, job.payload["files"] + 1):
        job.progress(n, job.payload["files"])
        await job.send(f"compiling {n}.c")
        await trio.sleep(0.6)


async def main() -> None:
    async with jobtrio.open_registry(max_running=2) as registry:
        for name, files in (("editor", 2), ("kernel", 9), ("shell", 4)):
            await registry.submit(build, {"files": files}, tags={"name": name})
        overview = Overview(registry)
        for seconds in (1, 2):
            await trio.sleep(1)
            print(f"after {seconds} s")
            for row in await overview.refresh():
                how_far = f"{row.progress.done} of {row.progress.total}" if row.progress else "-"
                print(f"  {row.record.tags['name']:6}  {row.record.state:9}  {how_far:6}  {row.line or ''}".rstrip())


if __name__ == "__main__":
    trio.run(main)
