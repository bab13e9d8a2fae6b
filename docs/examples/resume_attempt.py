"""An import that goes on where the attempt before it stopped."""

import trio

import jobtrio

executors = jobtrio.Executors()


@executors.register("import", retry=jobtrio.RetryPolicy(max_attempts=4, jitter=0), retry_on=(OSError,))
async def import_rows(job: jobtrio.JobContext) -> int:
    done = job.saved_state or 0
    for row in job.payload[done:]:
        await job.send(f"attempt {job.attempt}: {row}")
        done += 1
        await job.save_state(done)
        if job.attempt == 1 and done == 2:
            raise OSError("the connection broke")
    return done


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry:
        job = await registry.submit("import", ["ann", "bob", "cyd"])
        async for line in job.tokens():
            print(line)
        print(await job.result())


if __name__ == "__main__":
    trio.run(main)
