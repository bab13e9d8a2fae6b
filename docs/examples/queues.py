"""Queues with limits of their own, priorities, delays, and an end to waiting."""

import trio

import jobtrio
from jobtrio import JobPriority


async def train(job: jobtrio.JobContext) -> None:
    print(f"{job.payload}, in queue {job.queue}")
    await trio.sleep(2)


async def main() -> None:
    async with jobtrio.open_registry(max_running=8, queues={"gpu": 1, "default": 8}) as registry:
        await registry.submit(train, "first", queue="gpu")
        await trio.sleep(0.5)
        await registry.submit(train, "second", queue="gpu")
        await registry.submit(train, "urgent", queue="gpu", priority=JobPriority.HIGH)
        await registry.submit(train, "later", delay=1)
        hasty = await registry.submit(train, "hasty", queue="gpu", expires_in=3)
        print(await hasty.wait())


if __name__ == "__main__":
    trio.run(main)
