"""An order that is charged once, although its worker is killed twice, each time in the middle."""

import os
import signal
import sys
from pathlib import Path

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()


class Bank:
    """Stands for a service that takes a key with each request, and does nothing for one that it has seen."""

    def __init__(self) -> None:
        self._charges = Path("charges")
        self._charges.mkdir(exist_ok=True)

    def charge(self, key: str, amount: int) -> None:
        try:
            with (self._charges / key).open("x") as charge:
                charge.write(str(amount))
        except FileExistsError:
            print("the bank knows this charge", flush=True)

    def charged(self) -> int:
        return sum(int(charge.read_text()) for charge in self._charges.iterdir())


@executors.register("order")
async def order(job: jobtrio.JobContext) -> str:
    done = job.saved_state or "nothing"
    print(f"attempt {job.attempt} begins with: {done}", flush=True)
    if done == "nothing":
        Bank().charge(key=f"order-{job.id}", amount=job.payload["amount"])
        if job.attempt == 1:
            die()  # charged, but that is not saved: the next attempt asks the bank again
        done = "charged"
        await job.save_state(done)
    if job.attempt == 2:
        die()  # charged, and that is saved: the next attempt goes on from here
    return "charged, and sent"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def work(job_id: str) -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db")) as registry:
        await (await registry.get(job_id)).wait()


async def main() -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), queues={}) as registry:
        job = await registry.submit("order", {"amount": 30}, key="cart-1042")
        for _ in range(3):
            argv = [sys.executable, __file__, job.id]
            worker = await trio.run_process(argv, capture_stdout=True, check=False)
            print(worker.stdout.decode(), end="")
        print(await job.wait(), "in all:", Bank().charged())


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(work, sys.argv[1])
    else:
        trio.run(main)
