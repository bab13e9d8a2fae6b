"""A plain function as an executor: it runs in a worker thread, and can send and be cancelled."""

import hashlib
import time

import trio

import jobtrio


def digest(job: jobtrio.ThreadJobContext) -> str:
    done = hashlib.sha256()
    for n, block in enumerate(job.payload, 1):
        done.update(block)
        job.send(f"block {n}")
    return done.hexdigest()[:8]


def spin(job: jobtrio.ThreadJobContext) -> None:
    job.send("spinning")
    while True:
        time.sleep(0.01)  # stands for a call that knows nothing of Trio
        job.check_cancelled()


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(digest, [b"to be", b"or not"])
        async for token in job.tokens():
            print(token)
        print(await job.result())

        job = await registry.submit(spin)
        async with job.subscribe() as messages:
            print((await messages.receive()).value)  # type: ignore[union-attr]
        await job.cancel("seen enough")
        print(await job.wait())


if __name__ == "__main__":
    trio.run(main)
