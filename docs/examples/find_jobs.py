"""Finding jobs by their tags and states, cancelling what is found, and following all changes."""

import trio

import jobtrio


async def render(job: jobtrio.JobContext) -> None:
    await trio.sleep(job.payload)


async def audit(registry: jobtrio.JobRegistry, *, task_status: trio.TaskStatus[None]) -> None:
    with registry.subscribe_events() as events:
        task_status.started()
        async for change in events:
            print(f"{change.previous or '(new)'} -> {change.state}, attempt {change.attempt}, {change.reason}")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        for seconds in (0.1, 0.2, 60):
            await registry.submit(render, seconds, tags={"user": "ann", "kind": "render"})
        await trio.sleep(0.5)

        async for record in registry.find_all(tags={"user": "ann"}):
            print(f"{record.executor}({record.payload}) is {record.state}")

        [running] = await registry.find(state=jobtrio.JobState.RUNNING, limit=1)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: audit(registry, task_status=task_status))
            async for record in registry.find_all(tags={"user": "ann"}):
                await registry.cancel(record.id, "ann logged out")  # those that have ended stay as they are
            await registry.drain()
            nursery.cancel_scope.cancel()

        for change in await registry.history(running.id):
            print(f"{change.state}: {change.reason}")


if __name__ == "__main__":
    trio.run(main)
