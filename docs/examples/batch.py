"""How far a batch of jobs is, until all of it has ended, and how many of them have failed."""

import trio

import jobtrio

executors = jobtrio.Executors()


@executors.register("convert")
async def convert(job: jobtrio.JobContext) -> None:
    await trio.sleep(0.9 + job.payload % 3)
    if job.payload % 10 == 7:
        raise ValueError("no such format")


async def watch_batch(registry: jobtrio.JobRegistry, batch: str) -> None:
    left = True
    while left:
        await trio.sleep(1)
        queues = await registry.counts(tags={"batch": batch})
        states = {state: sum(counts[state] for counts in queues.values()) for state in jobtrio.JobState}
        ended = sum(count for state, count in states.items() if state.is_final)
        left = ended < sum(states.values())
        print(f"{ended} of {sum(states.values())}, {states[jobtrio.JobState.FAILED]} failed")


async def main() -> None:
    async with jobtrio.open_registry(executors, max_running=10) as registry:
        batch = [jobtrio.JobSpec("convert", n, tags={"batch": "scans"}) for n in range(30)]
        await registry.submit_many(batch)
        await watch_batch(registry, "scans")


if __name__ == "__main__":
    trio.run(main)
