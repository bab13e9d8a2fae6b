"""Everything that a consumer can receive, and what each means."""

import trio

import jobtrio


async def import_rows(job: jobtrio.JobContext) -> int:
    rows = job.payload
    for done, row in enumerate(rows, 1):
        await job.send(f"imported {row}")
        job.progress(done, len(rows))
        await trio.sleep(0.5)
    return len(rows)


def show(message: jobtrio.Message) -> None:
    match message:
        case jobtrio.Token(value=value):
            print(value)
        case jobtrio.Progress(done=done, total=total):
            print(f"{done:g} of {total:g} done")
        case jobtrio.Restart(error=error, delay=delay):
            print(f"attempt failed ({error}), again in {delay:g} s")
        case jobtrio.Gap(first, last):
            print(f"messages {first} to {last} are no longer kept")
        case jobtrio.End(outcome=jobtrio.Completed(result)):
            print(f"completed: {result}")
        case jobtrio.End(outcome=jobtrio.Failed(error)):
            print(f"failed: {error}")
        case jobtrio.End(outcome=jobtrio.Cancelled(reason)):
            print(f"cancelled: {reason}")


async def watch(job: jobtrio.Job) -> None:
    async with job.subscribe() as messages:
        async for message in messages:
            show(message)


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(import_rows, ["ann", "bob"])
        await watch(job)


if __name__ == "__main__":
    trio.run(main)
