"""Progress from what a program prints: the executor reads the lines of its own job."""

import re
import sys

import trio

import jobtrio
from jobtrio.executors import run_command

PROGRAM = "for n in range(1, 4): print(f'[{n}/3] compiling {n}.c')"  # stands for a program that counts its steps

STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")

executors = jobtrio.Executors()


async def count_steps(job: jobtrio.JobContext, messages: jobtrio.Subscription) -> None:
    async for message in messages:
        match message:
            case jobtrio.Token(attempt=job.attempt, value={"stdout": line}) if step := STEP.match(line):
                job.progress(int(step[1]), int(step[2]), note=step[3])
            case jobtrio.Token(attempt=job.attempt, value={"exit": _}):
                return


@executors.register("build", time_limit=300)
async def build(job: jobtrio.JobContext) -> int:
    itself = await job.registry.get(job.id)
    job.nursery.start_soon(count_steps, job, itself.subscribe(on_gap="yield"))
    code = await run_command(job)
    await job.send({"exit": code})
    return code


async def main() -> None:
    async with jobtrio.open_registry(executors) as registry:
        job = await registry.submit("build", {"argv": [sys.executable, "-u", "-c", PROGRAM]})
        async with job.subscribe() as messages:
            async for message in messages:
                if isinstance(message, jobtrio.Progress):
                    print(f"{message.done} of {message.total}: {message.note}")
        print(await job.wait())


if __name__ == "__main__":
    trio.run(main)
