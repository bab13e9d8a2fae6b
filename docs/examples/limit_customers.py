"""A queue for each customer, each with a limit of its own: one with many jobs holds up no other."""

import trio

import jobtrio


async def render(job: jobtrio.JobContext) -> None:
    print(f"{job.queue}: {job.payload} starts")
    await trio.sleep(2)


async def main() -> None:
    async with jobtrio.open_registry(queues={"default": 8, "user:*": 2, "user:big": 3}) as registry:
        for user, jobs in (("ann", 3), ("big", 4), ("bob", 1)):
            for n in range(1, jobs + 1):
                await registry.submit(render, f"page {n}", queue=f"user:{user}")
            await trio.sleep(0.5)


if __name__ == "__main__":
    trio.run(main)
