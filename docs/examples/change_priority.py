"""Jobs whose priority changes while they wait: one is urgent by now, the others can let it pass."""

import trio

import jobtrio
from jobtrio import JobPriority


async def render(job: jobtrio.JobContext) -> None:
    print(f"{job.payload}, with priority {job.priority.name}")
    await trio.sleep(1)


async def main() -> None:
    async with jobtrio.open_registry(max_running=1) as registry:
        running = await registry.submit(render, "page 1")
        pages = [await registry.submit(render, f"page {n}") for n in range(2, 5)]
        await trio.sleep(0.5)
        print("page 4 first:", await pages[2].set_priority(JobPriority.HIGH))
        print("page 2 last:", await registry.set_priority(pages[0].id, JobPriority.LOW))
        print("page 1 waits:", await running.set_priority(JobPriority.LOW))


if __name__ == "__main__":
    trio.run(main)
