"""The executors, in a module of their own: whoever runs jobs or submits them imports it."""

import trio

import jobtrio

executors = jobtrio.Executors()


@executors.register("count")
async def count(job: jobtrio.JobContext) -> int:
    steps: int = job.payload["steps"]
    for n in range(1, steps + 1):
        await trio.sleep(1)  # the work of one step
        await job.send(f"step {n} of {steps}")
    return steps


@executors.register("count-on")
async def count_on(job: jobtrio.JobContext) -> int:
    steps: int = job.payload["steps"]
    done = job.saved_state or 0
    for n in range(done + 1, steps + 1):
        await trio.sleep(1)
        await job.send(f"step {n} of {steps}")
        await job.save_state(n)
    return steps
