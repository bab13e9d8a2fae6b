"""A queue that is paused while what its jobs need is away; the other queues go on."""

import trio

import jobtrio


async def generate(job: jobtrio.JobContext) -> None:
    print(f"{job.payload} begins")
    await trio.sleep(1)
    print(f"{job.payload} is done")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        await registry.submit(generate, "a picture", queue="gpu")
        await trio.sleep(0.5)
        await registry.pause("gpu")
        another = await registry.submit(generate, "another picture", queue="gpu")
        await registry.submit(generate, "a report")
        await registry.drain()
        print("paused:", await registry.paused(), "- another picture is", another.state)
        await registry.resume("gpu")


if __name__ == "__main__":
    trio.run(main)
