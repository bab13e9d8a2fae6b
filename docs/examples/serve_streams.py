"""A server that shows its jobs to clients, and a client that submits one and watches it."""

from functools import partial

import trio

import jobtrio
from jobtrio.websocket import Handshake, open_client, serve

executors = jobtrio.Executors()


@executors.register("generate", expose=True)  # clients may submit it; without expose they may not
async def generate(job: jobtrio.JobContext) -> int:
    words = job.payload["text"].split()
    for word in words:
        await job.send(word)
        await trio.sleep(0.05)
    return len(words)


async def authenticate(handshake: Handshake) -> str | None:
    return {"open-sesame": "ann"}.get(handshake.token or "")


async def client(url: str) -> None:
    async with open_client(url, token="open-sesame") as server:
        job = await server.submit("generate", {"text": "to be or not"}, tags={"from": "afar"})
        async with job.subscribe() as messages:
            async for message in messages:
                print(message)
        for record in await server.find(tags={"from": "afar"}):
            print(record.executor, record.state)


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0, authenticate=authenticate))
        await client(server.url)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
