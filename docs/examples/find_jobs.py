"""Finding jobs by their tags and states, page by page, and following all changes."""

import trio

import jobtrio


async def render(job: jobtrio.JobContext) -> None:
    await trio.sleep(job.payload)


async def audit(registry: jobtrio.JobRegistry, *, task_status: trio.TaskStatus[None]) -> None:
    with registry.subscribe_events() as events:
        task_status.started()
        async for change in events:
            print(f"{change.previous or '(new)'} -> {change.state}, attempt {change.attempt}, {change.reason}")


async def all_of(registry: jobtrio.JobRegistry, user: str) -> list[jobtrio.JobRecord]:
    found: list[jobtrio.JobRecord] = []
    while page := await registry.find(tags={"user": user}, limit=2, after=found[-1].id if found else None):
        found += page
    return found


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        for seconds in (0.1, 0.2, 60):
            await registry.submit(render, seconds, tags={"user": "ann", "kind": "render"})
        await trio.sleep(0.5)

        for record in await all_of(registry, "ann"):
            print(f"{record.executor}({record.payload}) is {record.state}")

        [running] = await registry.find(state=jobtrio.JobState.RUNNING, tags={"user": "ann"})
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: audit(registry, task_status=task_status))
            await registry.cancel(running.id, "ann logged out")
            await registry.drain()
            nursery.cancel_scope.cancel()

        for change in await registry.history(running.id):
            print(f"{change.state}: {change.reason}")


if __name__ == "__main__":
    trio.run(main)
