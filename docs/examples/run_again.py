"""What failed while something else was away, run again: new jobs, with what the old ones were given."""

import trio

import jobtrio

executors = jobtrio.Executors()
is_back = trio.Event()


@executors.register("mail", time_limit=30)
async def mail(job: jobtrio.JobContext) -> str:
    if not is_back.is_set():
        raise ConnectionError("the mail server is away")
    return f"mailed {job.payload}"


async def run_again(registry: jobtrio.JobRegistry, old: jobtrio.JobRecord) -> jobtrio.Job:
    assert old.executor is not None  # what never had one can't have failed in it
    return await registry.submit(
        old.executor,
        old.payload,
        key=f"again:{old.id}:{old.created_at.isoformat()}",
        queue=old.queue,
        priority=old.priority,
        time_limit=old.time_limit,
        retry=old.retry,
        expires_in=old.expires_in,
        tags=old.tags,
        metadata=old.metadata | {"again": old.id},
    )


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry:
        for name in ("ann", "bob"):
            await registry.submit("mail", name, tags={"kind": "welcome"})
        await registry.drain()

        is_back.set()
        failed = [record async for record in registry.find_all(state=jobtrio.JobState.FAILED, executor="mail")]
        for old in failed:
            assert old.error is not None
            job = await run_again(registry, old)
            assert await run_again(registry, old) == job  # asked for twice, it is run once
            print(f"{old.error.message}; then: {await job.result()}")


if __name__ == "__main__":
    trio.run(main)
