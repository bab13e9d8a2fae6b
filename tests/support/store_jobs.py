"""Executors for workers that tests start, as an application's module would have them."""

from __future__ import annotations

from typing import Any

import trio

import jobtrio

executors = jobtrio.Executors()
nothing = jobtrio.Executors()


async def appearance(path: str) -> None:
    """Wait until there is a file."""
    while not await trio.Path(path).exists():  # noqa: ASYNC110 - another process makes it
        await trio.sleep(0.01)


@executors.register("words", queue="texts", time_limit=30.0, expose=True)
async def words(job: jobtrio.JobContext) -> int:
    """Send a text's words, with a space behind each."""
    parts = job.payload.split()
    for part in parts:
        await job.send(f"{part} ")
    return len(parts)


@executors.register("wait", expose=True)
async def wait(job: jobtrio.JobContext) -> str:
    """Say which attempt it is, then wait for a file."""
    await job.send(f"attempt {job.attempt}")
    await appearance(job.payload)
    return "there"


@executors.register("steps", expose=True)
async def steps(job: jobtrio.JobContext) -> None:
    """Tell how far it is, and go on to the next step once a file is there: its name, a dot, the number."""
    for done in range(1, 4):
        job.progress(done, 3, f"step {done}")
        await appearance(f"{job.payload}.{done}")


@executors.register("fail", expose=True)
async def fail(job: jobtrio.JobContext) -> None:
    """Fail on bad data."""
    await job.send({"row": 1})
    raise ValueError("row 2: 'thirty' is not a number")


@executors.register("cling")
async def cling(job: jobtrio.JobContext) -> None:
    """End for nobody."""
    await job.send("clinging")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


@executors.register("paced", expose=True)
async def paced(job: jobtrio.JobContext) -> int:
    """Send numbers, each once a file is there: its name, a dot, the number."""
    path, tokens = job.payload
    for n in range(1, tokens + 1):
        await appearance(f"{path}.{n}")
        await job.send(n)
    return int(tokens)


@executors.register("echo", expose=True)
async def echo(job: jobtrio.JobContext) -> Any:
    """Return the payload."""
    return job.payload


@executors.register("whole")
async def whole(job: jobtrio.JobContext) -> list[Any]:
    """Return what a job for each part of the payload returns."""
    specs = [jobtrio.JobSpec("echo", part, key=f"{job.id}/{part}", tags={"of": job.id}) for part in job.payload]
    return [await part.result() for part in await job.registry.submit_many(specs)]
