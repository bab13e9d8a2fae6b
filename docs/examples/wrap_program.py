"""An executor of your own around `run_command`: how its program is called, and what the exit code means."""

import sys
from typing import Any

import trio

import jobtrio
from jobtrio.executors import run_command

LINTER = "import sys; print(f'{sys.argv[1]}, line 7: unused'); raise SystemExit(3)"  # stands for a program

executors = jobtrio.Executors()


def to_check(file: str) -> dict[str, Any]:
    """Return the payload that has `check` look at a file."""
    return {"argv": [sys.executable, "-c", LINTER, file], "env": {"NO_COLOR": "1"}, "grace": 2}


@executors.register("check", time_limit=300, queue="builds")
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
        job = await registry.submit("check", to_check("main.c"))
        async for token in job.tokens():
            print(token)
        print(await job.result())


if __name__ == "__main__":
    trio.run(main)
