"""Two ways to end a job in order: it stops by itself when asked, and it cleans up when cancelled."""

import trio

import jobtrio


class Upload:
    """Stands for a connection that wants to be closed politely."""

    async def write(self, row: int) -> None:
        await trio.sleep(1)

    async def aclose(self) -> None:
        await trio.sleep(0.5)
        print("  connection closed")


async def export(job: jobtrio.JobContext) -> int:
    upload = Upload()
    row = 0
    try:
        while not job.stopping.is_set():
            row += 1
            await upload.write(row)
        print(f"  stopped behind row {row}")
        return row
    finally:
        with trio.move_on_after(5, shield=True):
            await upload.aclose()


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        for grace in (10, 0):
            job = await registry.submit(export)
            await trio.sleep(2.5)
            print(f"cancel with grace={grace}")
            await job.cancel("deployment", grace=grace)
            print(f"  {await job.wait()}")


if __name__ == "__main__":
    trio.run(main)
