"""A job that sends what a generator yields, and leaves it when it has enough."""

from collections.abc import AsyncGenerator

import trio

import jobtrio


@trio.as_safe_channel
async def complete(prompt: str) -> AsyncGenerator[str, None]:
    """Stands for the client of a language model, which reads ahead in a task of its own."""
    send, receive = trio.open_memory_channel[str](8)

    async def read() -> None:
        async with send:
            for word in f"{prompt} that is the question".split():
                await trio.sleep(0.1)
                await send.send(word)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async for word in receive:
            yield word


async def answer(job: jobtrio.JobContext) -> int:
    count = 0
    async with complete(job.payload["prompt"]) as words:
        async for word in words:
            await job.send(word)
            count += 1
            if count == job.payload["most"]:
                break
    return count


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(answer, {"prompt": "to be or not to be", "most": 8}, time_limit=60)
        async for word in job.tokens():
            print(word)
        print(await job.wait())


if __name__ == "__main__":
    trio.run(main)
