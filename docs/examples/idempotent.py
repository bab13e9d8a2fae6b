"""The same request twice makes one job."""

import trio

import jobtrio


async def charge(job: jobtrio.JobContext) -> str:
    await trio.sleep(1)
    return f"charged {job.payload['amount']}"


async def handle(registry: jobtrio.JobRegistry, order: str, amount: int) -> jobtrio.Job:
    return await registry.submit(charge, {"amount": amount}, key=f"charge-{order}")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        first = await handle(registry, "1042", 30)
        second = await handle(registry, "1042", 30)  # the client did not see our answer, and asked again
        other = await handle(registry, "1043", 12)
        print(first == second, first == other)
        print(await second.result())
        [record] = await registry.find(key="charge-1042")
        print(record.id == first.id, record.state)


if __name__ == "__main__":
    trio.run(main)
