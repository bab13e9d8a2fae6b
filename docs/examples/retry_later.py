"""An executor that decides for itself: try again when the server says, or give up."""

import trio

import jobtrio

ANSWERS = iter([(503, 1), (503, 2), (404, None)])


async def fetch(job: jobtrio.JobContext) -> None:
    status, retry_after = next(ANSWERS)
    if retry_after is not None:
        raise jobtrio.RetryLater(retry_after, f"status {status}")
    if status == 404:
        raise jobtrio.GiveUp("there is no such page")


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fetch)
        start = trio.current_time()
        outcome = await job.wait()
        assert isinstance(outcome, jobtrio.Failed)
        print(f"{outcome.error.kind}: {outcome.error.message}")
        print(f"{job.record.attempt} attempts, {trio.current_time() - start:.0f} s")


if __name__ == "__main__":
    trio.run(main)
