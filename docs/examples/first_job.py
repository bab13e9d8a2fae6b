"""A job, one consumer that is there from the beginning, and one that comes late."""

import trio

import jobtrio


async def count_words(job: jobtrio.JobContext) -> int:
    words = job.payload.split()
    for word in words:
        await job.send(word)
        await trio.sleep(0.1)
    return len(words)


async def watch(name: str, job: jobtrio.Job) -> None:
    async with job.subscribe() as messages:
        async for message in messages:
            print(f"{name}: {message}")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count_words, "to be or not", time_limit=30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, "early", job)
            await job.wait()
            nursery.start_soon(watch, "late", job)


if __name__ == "__main__":
    trio.run(main)
