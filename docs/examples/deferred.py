"""One request creates the job, a second one opens its stream, and only then does it run."""

import trio

import jobtrio


async def generate(job: jobtrio.JobContext) -> None:
    for word in job.payload["prompt"].split():
        await job.send(word)


async def handle_post(registry: jobtrio.JobRegistry, prompt: str) -> str:
    job = await registry.create_job({"prompt": prompt}, tags={"source": "web"})
    return job.id


async def handle_stream(registry: jobtrio.JobRegistry, job_id: str) -> None:
    async with registry.execute_and_stream(job_id, generate, time_limit=60) as lines:
        async for line in lines:
            print(f"data: {line}")


async def main() -> None:
    async with jobtrio.open_registry(retention=jobtrio.Retention(held_for=2)) as registry:
        job_id = await handle_post(registry, "to be or not")
        await handle_stream(registry, job_id)
        await handle_stream(registry, job_id)  # a reload joins, and sees the same

        forgotten = await handle_post(registry, "never streamed")
        await trio.sleep(2.5)
        print((await registry.get(forgotten)).outcome)


if __name__ == "__main__":
    trio.run(main)
