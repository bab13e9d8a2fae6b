"""A thread that Trio has not started, as a GUI's or a web server's, submits a job and watches how it goes."""

import threading
from functools import partial

import trio

import jobtrio


async def double(job: jobtrio.JobContext) -> int:
    return 2 * int(job.payload)


def foreign(registry: jobtrio.JobRegistry, token: trio.lowlevel.TrioToken) -> None:
    call = partial(trio.from_thread.run, trio_token=token)  # async methods
    call_plain = partial(trio.from_thread.run_sync, trio_token=token)  # plain ones

    job = call(partial(registry.submit, double, 21, time_limit=30))
    print("result:", call(job.result))
    print("state:", job.state)  # readable anywhere
    print("ended:", call_plain(registry.stats).states[jobtrio.JobState.COMPLETED])


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=foreign, args=(registry, token))
        thread.start()
        await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
