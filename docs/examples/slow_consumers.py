"""Three consumers that are too slow for their job, each with another answer to that."""

import trio

import jobtrio


async def count(job: jobtrio.JobContext) -> None:
    for n in range(1, 9):
        await job.send(n)
        await trio.sleep(0.1)


async def told_by_exception(job: jobtrio.Job) -> None:
    async with job.subscribe() as messages:
        await job.wait()  # too busy to read
        while True:
            try:
                message = await messages.receive()
            except jobtrio.LaggedError as exc:
                print(f"missed {exc.first} to {exc.last}")
            except trio.EndOfChannel:
                break
            else:
                print(message)


async def told_by_message(job: jobtrio.Job) -> None:
    async with job.subscribe(on_gap="yield") as messages:
        await job.wait()
        async for message in messages:
            print(message)


async def waited_for(job: jobtrio.Job) -> None:
    async with job.subscribe(lossless=True) as messages:
        received = []
        async for message in messages:
            await trio.sleep(0.5)
            if isinstance(message, jobtrio.Token):
                received.append(message.value)
        print(f"received {received}")


async def main() -> None:
    retention = jobtrio.Retention(tokens_per_job=3)
    async with jobtrio.open_registry(retention=retention) as registry:
        for watch in (told_by_exception, told_by_message, waited_for):
            print(watch.__name__)
            await watch(await registry.submit(count))


if __name__ == "__main__":
    trio.run(main)
