"""A job that submits others, all at once, and cancels those that it waits for where it is cancelled itself."""

import trio

import jobtrio

executors = jobtrio.Executors()


@executors.register("step", queue="steps")
async def step(job: jobtrio.JobContext) -> str:
    await trio.sleep(job.payload["seconds"])
    return f"{job.payload['name']} is done"


@executors.register("build", queue="builds")
async def build(job: jobtrio.JobContext) -> None:
    for payload in job.payload:
        part = await job.registry.submit("step", payload, key=f"{job.id}/{payload['name']}")
        job.nursery.start_soon(follow, job, part)


async def follow(job: jobtrio.JobContext, part: jobtrio.Job) -> None:
    try:
        await job.send(await part.result())
    except trio.Cancelled:
        with trio.move_on_after(5, shield=True):
            if (await job.registry.get(job.id)).record.cancel_requested_at is not None:
                await part.cancel("its build was cancelled")
                await part.wait()
        raise


async def main() -> None:
    queues = {"builds": 4, "steps": 6}
    async with jobtrio.open_registry(executors, max_running=10, queues=queues) as registry:
        quick = await registry.submit("build", [{"name": "compile", "seconds": 0.1}, {"name": "check", "seconds": 0.2}])
        async for line in quick.tokens():
            print(line)
        slow = await registry.submit("build", [{"name": "compile", "seconds": 60}, {"name": "check", "seconds": 60}])
        await trio.sleep(1)
        await slow.cancel("no longer wanted")
        print(await slow.wait())
        for record in await registry.find(executor="step"):
            print(record.payload["name"], record.state, record.cancel_reason or "")


if __name__ == "__main__":
    trio.run(main)
