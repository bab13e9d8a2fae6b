"""Figures for a monitoring system, in the text form that Prometheus reads."""

import json
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()


@executors.register("resize")
async def resize(job: jobtrio.JobContext) -> str:
    if job.payload == "broken.png":
        raise ValueError("no image")
    return f"{job.payload}.small"


async def figures(registry: jobtrio.JobRegistry) -> list[str]:
    lines = []
    for queue, states in (await registry.counts()).items():
        label = json.dumps(queue, ensure_ascii=False)
        lines += [f'jobs{{queue={label},state="{state}"}} {count}' for state, count in states.items() if count]
    workers = await registry.workers()
    lines += [f"workers {len(workers)}", f"jobs_running {sum(worker.running for worker in workers)}"]
    oldest = await registry.find(state=jobtrio.JobState.QUEUED, limit=1)
    waited = [(datetime.now(UTC) - record.created_at).total_seconds() for record in oldest]
    lines.append(f"oldest_queued_seconds {sum(waited):.0f}")
    return lines


async def count_ends(registry: jobtrio.JobRegistry, ended: Counter[str], *, task_status: trio.TaskStatus[None]) -> None:
    with registry.subscribe_events() as changes:
        task_status.started()
        while True:
            with suppress(jobtrio.LaggedError):  # more than 10,000 changes at once: the oldest are missed
                async for change in changes:
                    if change.state.is_final:
                        ended[change.state] += 1
                return


async def main() -> None:
    ended: Counter[str] = Counter()
    store = SqliteJobStore("jobs.db")
    async with jobtrio.open_registry(executors, store=store) as worker, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: count_ends(worker, ended, task_status=task_status))
        for name in ("a.png", "broken.png", "b.png"):
            await worker.submit("resize", name)
        await worker.drain()
        async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), queues={}) as watcher:
            print("\n".join(await figures(watcher)))
        print("\n".join(f'ended_total{{state="{state}"}} {count}' for state, count in sorted(ended.items())))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
