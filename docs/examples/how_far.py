"""How far each running job is, as an overview shows it, without reading what the jobs have sent."""

import trio

import jobtrio


async def download(job: jobtrio.JobContext) -> None:
    """Stands for a download that has stalled."""
    for part in range(1, job.payload["parts_there"] + 1):
        await job.send(f"part {part}")
        job.progress(part, 1000)
    await trio.sleep_forever()


async def overview(registry: jobtrio.JobRegistry) -> list[str]:
    lines = []
    async for record in registry.find_all(state=jobtrio.JobState.RUNNING):
        job = await registry.get(record.id)
        progress = (await job.span()).progress
        how_far = "nothing yet" if progress is None else f"{progress.done} of {progress.total}"
        lines.append(f"{record.tags['file']}: {how_far}")
    return lines


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        for file, parts in (("a.iso", 850), ("b.iso", 0), ("c.iso", 20)):
            await registry.submit(download, {"parts_there": parts}, tags={"file": file})
        await trio.sleep(1)
        print(*await overview(registry), sep="\n")
        await registry.shutdown()


if __name__ == "__main__":
    trio.run(main)
