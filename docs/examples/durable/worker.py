"""Runs the jobs in jobs.db until it is stopped.

python worker.py NAME
"""

import sys

import trio
from tasks import executors

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore


async def main() -> None:
    name = sys.argv[1]
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), worker=name):
        print(f"{name} is ready", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
