"""Many jobs in one go, with a policy of what to keep."""

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

DAY = 24 * 3600

executors = jobtrio.Executors()


@executors.register("resize")
async def resize(job: jobtrio.JobContext) -> str:
    return f"{job.payload}.small"


async def main() -> None:
    store = SqliteJobStore("jobs.db", synchronous="NORMAL")
    keep = jobtrio.Retention(finished_jobs=100_000, finished_for=7 * DAY, tokens_per_job=1_000)
    async with jobtrio.open_registry(executors, store=store, retention=keep, max_running=20) as registry:
        specs = [jobtrio.JobSpec("resize", f"{n}.png", key=f"resize-{n}") for n in range(500)]
        jobs = await registry.submit_many(specs)
        await registry.drain()
        print(len(jobs), "jobs, the last:", await jobs[-1].result())


if __name__ == "__main__":
    trio.run(main)
