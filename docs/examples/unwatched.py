"""A job that is cancelled when the last of those who watch it has left, unless somebody comes back in time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

import jobtrio


async def generate(job: jobtrio.JobContext) -> None:
    for n in range(1, 1001):
        await job.send(n)
        await trio.sleep(1)


class Audience:
    """Counts who watches each job, and cancels a job that nobody has watched for a while."""

    def __init__(self, nursery: trio.Nursery, patience: float) -> None:
        self._nursery = nursery
        self._patience = patience
        self._viewers: Counter[str] = Counter()
        self._waits: dict[str, trio.CancelScope] = {}

    @contextmanager
    def watching(self, job: jobtrio.Job) -> Iterator[None]:
        self._viewers[job.id] += 1
        if wait := self._waits.pop(job.id, None):
            wait.cancel()
        try:
            yield
        finally:
            self._viewers[job.id] -= 1
            if not self._viewers[job.id]:
                del self._viewers[job.id]
                wait = self._waits[job.id] = trio.CancelScope()
                self._nursery.start_soon(self._cancel_later, job, wait)

    async def _cancel_later(self, job: jobtrio.Job, wait: trio.CancelScope) -> None:
        with wait:
            await trio.sleep(self._patience)
            del self._waits[job.id]
            if job.outcome is None:
                await job.cancel("nobody watches")


async def watch(name: str, audience: Audience, job: jobtrio.Job, seconds: float) -> None:
    with audience.watching(job), trio.move_on_after(seconds):
        async with job.subscribe() as messages:
            async for message in messages:
                print(f"{name}: {message}")
    print(f"{name} leaves")


async def main() -> None:
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        audience = Audience(nursery, patience=2)
        job = await registry.submit(generate)
        nursery.start_soon(watch, "ann", audience, job, 0.5)
        await trio.sleep(1.5)
        nursery.start_soon(watch, "bob", audience, job, 1)
        print(await job.wait())


if __name__ == "__main__":
    trio.run(main)
