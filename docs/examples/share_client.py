"""One client for all jobs of a process, opened before them and closed behind them: a parameter, or in the context."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial

import trio

import jobtrio

executors = jobtrio.Executors()


class Client:
    """Stands for what is dear to open and may be used by many: an HTTP client, a pool of database connections."""

    async def get(self, name: str) -> str:
        await trio.sleep(0.1)
        return f"all about {name}"


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    print("opened")
    try:
        yield Client()
    finally:
        print("closed")


async def fetch(client: Client, job: jobtrio.JobContext) -> str:
    return await client.get(job.payload)


current_client: ContextVar[Client] = ContextVar("current_client")


@executors.register("look up")
async def look_up(job: jobtrio.JobContext) -> str:
    return await current_client.get().get(job.payload)


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    async with open_client() as client:
        current_client.set(client)
        executors.register("fetch")(partial(fetch, client))
        yield


async def main() -> None:
    async with lifespan(), jobtrio.open_registry(executors) as registry:
        for executor, name in (("fetch", "ann"), ("look up", "bob")):
            job = await registry.submit(executor, name)
            print(await job.result())


if __name__ == "__main__":
    trio.run(main)
