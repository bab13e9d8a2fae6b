"""An executor of your own around `run_command`: it makes the payload's argv, and reads the result."""

import sys

import trio

import jobtrio
from jobtrio.executors import run_command

executors = jobtrio.Executors()


@executors.register("check", time_limit=300, queue="builds", retry_on=(OSError,))
async def check(job: jobtrio.JobContext) -> str:
    job.progress(0, 1, note="checking")
    try:
        await run_command(job)
    except jobtrio.CommandFailedError as exc:
        if exc.returncode == 3:
            return "checked, with warnings"
        raise
    return "checked"


async def main() -> None:
    async with jobtrio.open_registry(executors, queues={"builds": 2}) as registry:
        program = [sys.executable, "-c", "print('line 7: unused'); raise SystemExit(3)"]
        job = await registry.submit("check", {"argv": program, "env": {"NO_COLOR": "1"}, "grace": 2})
        async for token in job.tokens():
            print(token)
        print(await job.result())


if __name__ == "__main__":
    trio.run(main)
