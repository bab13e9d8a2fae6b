"""A worker that gets SIGTERM: what can be finished is finished, the rest goes back for the next worker."""

import signal

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()


@executors.register("long")
async def long(job: jobtrio.JobContext) -> int:
    rows = job.saved_state or 0
    while rows < 100 and not job.stopping.is_set():
        await trio.sleep(0.01)  # one row
        rows += 1
        job.progress(rows, 100)
    await job.save_state(rows)
    return rows


@executors.register("short")
async def short(job: jobtrio.JobContext) -> str:
    await job.send("begun")
    await trio.sleep(0.3)
    return "done"


async def worker(name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), worker=name) as registry:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                print(f"{name} got {signal.Signals(number).name}")
                await registry.shutdown(grace=20)
                break


async def first_message(job: jobtrio.Job) -> None:
    async with job.subscribe() as messages:
        await messages.receive()


async def main() -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), queues={}) as registry:
        jobs = [await registry.submit(name) for name in ("long", "short")]
        async with trio.open_nursery() as nursery:
            await nursery.start(worker, "evening")
            for job in jobs:
                await first_message(job)
            signal.raise_signal(signal.SIGTERM)  # as the system's supervisor would send it
        async with trio.open_nursery() as nursery:
            await nursery.start(worker, "morning")
            for job in jobs:
                await job.wait()
            signal.raise_signal(signal.SIGTERM)
        for job in jobs:
            print(job.record.executor, job.outcome)
            for change in await registry.history(job.id):
                if change.reason == "shutdown" or change.state == "RUNNING":
                    print(f"  {change.state} {change.worker}", change.reason or "")


if __name__ == "__main__":
    trio.run(main)
