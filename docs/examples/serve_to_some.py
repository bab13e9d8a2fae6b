"""Clients that see their own jobs alone: each job has its owner's name as a tag."""

from functools import partial

import trio

import jobtrio
from jobtrio.websocket import Action, Handshake, ServerRefusedError, open_client, serve

TOKENS = {"ann's": "ann", "bob's": "bob"}

executors = jobtrio.Executors()


@executors.register("greet", expose=True)
async def greet(job: jobtrio.JobContext) -> str:
    return f"hello, {job.tags['owner']}"


async def authenticate(handshake: Handshake) -> str | None:
    return TOKENS.get(handshake.token or "")


async def authorize(user: str, action: Action, job: jobtrio.JobSpec | jobtrio.JobRecord) -> bool:
    is_owner = (job.tags or {}).get("owner") == user
    return is_owner and action != "traceback"


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry, trio.open_nursery() as nursery:
        start = partial(serve, registry, port=0, authenticate=authenticate, authorize=authorize)
        server = await nursery.start(start)
        async with open_client(server.url, token="ann's") as ann, open_client(server.url, token="bob's") as bob:
            job = await ann.submit("greet", tags={"owner": "ann"})
            print(await job.result())
            try:
                await bob.get(job.id)
            except jobtrio.UnknownJobError:
                print("bob sees no such job")
            try:
                await bob.submit("greet", tags={"owner": "ann"})
            except ServerRefusedError as exc:
                print("bob:", exc.code)
            print(len(await ann.find()), "of ann's,", len(await bob.find()), "of bob's")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
