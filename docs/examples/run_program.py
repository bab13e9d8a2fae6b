"""A program as a job: its lines are tokens, its exit code decides how the job ends."""

import trio

import jobtrio
from jobtrio.executors import run_command

SCRIPT = "echo compiling; sleep 0.3; echo 'main.c: no such file' >&2; exit 2"


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, {"argv": ["sh", "-c", SCRIPT]}, time_limit=60)
        async with job.subscribe() as messages:
            async for message in messages:
                match message:
                    case jobtrio.Token(value={"stdout": line}):
                        print(f"   out: {line}")
                    case jobtrio.Token(value={"stderr": line}):
                        print(f"   err: {line}")
                    case jobtrio.End(outcome=jobtrio.Failed(error)):
                        print(f"failed: {error.message}")
                    case jobtrio.End(outcome=outcome):
                        print(outcome)


if __name__ == "__main__":
    trio.run(main)
