"""Puts a job into jobs.db.

python submit.py ID EXECUTOR STEPS
"""

import sys

import trio
from tasks import executors

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore


async def main() -> None:
    job_id, executor, steps = sys.argv[1:]
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), queues={}) as registry:
        job = await registry.submit(executor, {"steps": int(steps)}, job_id=job_id)
        print(f"{job.id} is kept")


if __name__ == "__main__":
    trio.run(main)
