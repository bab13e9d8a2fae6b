"""A worker is killed at the worst moment: when the work is done, and before that is noted."""

import os
import signal
import sys
from pathlib import Path

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

OUTBOX = Path("outbox.txt")

executors = jobtrio.Executors()


@executors.register("welcome")
def welcome(job: jobtrio.ThreadJobContext) -> str:
    with OUTBOX.open("a") as outbox:
        outbox.write(f"attempt {job.attempt}: welcome, {job.payload}\n")
    if job.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "sent"


def show() -> None:
    print(OUTBOX.read_text(), end="")


async def work(job_id: str) -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db")) as registry:
        await (await registry.get(job_id)).wait()


async def main() -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), queues={}) as registry:
        job = await registry.submit("welcome", "ann")
        for _ in range(2):
            worker = await trio.run_process([sys.executable, __file__, job.id], check=False)
            print("a worker ended with", worker.returncode)
        print(await job.wait())
        show()


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(work, sys.argv[1])
    else:
        trio.run(main)
