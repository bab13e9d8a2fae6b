"""Jobs that are cancelled when no client of the bridge has watched them for a while."""

from contextlib import suppress
from functools import partial

import trio

import jobtrio
from jobtrio.websocket import Server, open_client, serve

executors = jobtrio.Executors()


@executors.register("generate")
async def generate(job: jobtrio.JobContext) -> None:
    for n in range(1, 1001):
        await job.send(n)
        await trio.sleep(1)


async def cancel_unwatched(registry: jobtrio.JobRegistry, server: Server, patience: float) -> None:
    last_watched: dict[str, float] = {}
    while True:
        running = [record.id async for record in registry.find_all(state=jobtrio.JobState.RUNNING)]
        now, watched = trio.current_time(), server.watched()
        last_watched = {job_id: now if job_id in watched else last_watched.get(job_id, now) for job_id in running}
        for job_id, moment in last_watched.items():
            if now - moment > patience:
                with suppress(jobtrio.UnknownJobError):  # it has ended, and is no longer kept
                    await registry.cancel(job_id, "nobody watches")
        await trio.sleep(patience / 4)


async def watch(name: str, url: str, job_id: str, up_to: int) -> None:
    async with open_client(url) as client, client.subscribe(job_id) as messages:
        async for message in messages:
            print(f"{name}: {message}")
            if isinstance(message, jobtrio.Token) and message.seq == up_to:
                break
    print(f"{name} leaves")


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0))
        nursery.start_soon(cancel_unwatched, registry, server, 3)
        job = await registry.submit("generate")
        await watch("ann", server.url, job.id, 1)
        await trio.sleep(0.5)
        await watch("bob", server.url, job.id, 3)
        print(await job.wait())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
