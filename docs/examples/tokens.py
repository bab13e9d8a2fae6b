"""The short way to a job's tokens: the bare values, and an exception where the job does not succeed."""

import trio

import jobtrio


async def answer(job: jobtrio.JobContext) -> None:
    for word in job.payload.split():
        await job.send(word)
    raise ValueError("the model ran out of words")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(answer, "to be or not")
        try:
            async for word in job.tokens():
                print(word)
        except jobtrio.JobFailedError as exc:
            print(f"failed: {exc.error.message}")


if __name__ == "__main__":
    trio.run(main)
