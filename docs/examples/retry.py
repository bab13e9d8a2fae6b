"""A job that fails twice and succeeds with the third attempt, and one whose time is up."""

import trio

import jobtrio


async def download(job: jobtrio.JobContext) -> str:
    await job.send(f"connecting, attempt {job.attempt}")
    if job.attempt < 3:
        raise ConnectionError("the server hung up")
    return "1,024 bytes"


async def search(job: jobtrio.JobContext) -> None:
    await job.send("2 hits so far")
    await trio.sleep_forever()


async def watch(job: jobtrio.Job) -> None:
    async with job.subscribe() as messages:
        async for message in messages:
            match message:
                case jobtrio.Token(value=value):
                    print(value)
                case jobtrio.Restart(error=error, delay=delay):
                    print(f"  {error}; again in {delay:g} s")
                case jobtrio.End(outcome=outcome):
                    print(f"  {outcome}")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        policy = jobtrio.RetryPolicy(max_attempts=5, initial=0.5, jitter=0)
        await watch(await registry.submit(download, retry=policy))
        await watch(await registry.submit(search, time_limit=2))


if __name__ == "__main__":
    trio.run(main)
