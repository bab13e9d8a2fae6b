"""A consumer that goes away, comes back, and gets each message once."""

import trio

import jobtrio


async def count(job: jobtrio.JobContext) -> None:
    for n in range(1, 6):
        await job.send(f"line {n}")
        await trio.sleep(1)


class Viewer:
    """Remembers the number of the last message that it has dealt with."""

    def __init__(self) -> None:
        self.seen = 0

    async def watch(self, job: jobtrio.Job) -> None:
        async with job.subscribe(after=self.seen) as messages:
            async for message in messages:
                print(message)
                if isinstance(message, jobtrio.Gap):
                    self.seen = message.last
                else:
                    self.seen = message.seq


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count)
        viewer = Viewer()
        with trio.move_on_after(2.5):
            await viewer.watch(job)
        print("away")
        await trio.sleep(1)
        await viewer.watch(await registry.get(job.id))


if __name__ == "__main__":
    trio.run(main)
