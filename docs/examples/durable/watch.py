"""Shows what a job sends, from its beginning to its end, and who ran it.

python watch.py ID
"""

import sys

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore


async def main() -> None:
    async with jobtrio.open_registry(store=SqliteJobStore("jobs.db"), queues={}) as registry:
        job = await registry.get(sys.argv[1])
        async with job.subscribe() as messages:
            async for message in messages:
                show(message)
        for change in await registry.history(job.id):
            if change.state == "RUNNING":
                print(f"attempt {change.attempt} was run by {change.worker}")


def show(message: jobtrio.Message) -> None:
    match message:
        case jobtrio.Token():
            print(message.seq, message.value, flush=True)
        case jobtrio.Restart():
            print(message.seq, f"starts again: {message.error}", flush=True)
        case jobtrio.End():
            print(message.seq, message.outcome, flush=True)


if __name__ == "__main__":
    trio.run(main)
