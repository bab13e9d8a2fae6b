"""A window whose loop has the main thread, with Trio as its guest: buttons start jobs, Ctrl-C closes the window."""

import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import outcome
import trio

import jobtrio


class Window:
    """Stands for a toolkit's loop: it calls one thing after the other, and any thread may have it call something."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None

    def call_soon(self, call: Callable[[], object]) -> None:
        self._calls.put(call)

    def quit(self, ended: outcome.Outcome[None]) -> None:
        self._ended = ended

    def run(self) -> None:
        while self._ended is None:
            self._calls.get()()
        self._ended.unwrap()  # raises what Trio's run has raised


class Application:
    def __init__(self, window: Window) -> None:
        self.window = window
        self.closing = trio.Event()

    async def main(self) -> None:
        async with jobtrio.open_registry() as self.registry, trio.open_nursery() as self.nursery:
            self.window.call_soon(self.press_start)  # the user does so, from now on
            await self.closing.wait()
            await self.registry.shutdown(grace=10)

    def press_start(self) -> None:
        if not self.closing.is_set():
            self.nursery.start_soon(self.show_job)

    def press_close(self, *_: Any) -> None:
        self.closing.set()

    async def show_job(self) -> None:
        with suppress(trio.ClosedResourceError):  # it was closed before the job was submitted
            job = await self.registry.submit(count)
            async with job.subscribe() as messages:
                async for message in messages:
                    print(message)
                    if message == jobtrio.Token(seq=2, attempt=1, value=2):
                        signal.raise_signal(signal.SIGINT)  # as Ctrl-C in the terminal would


async def count(job: jobtrio.JobContext) -> None:
    n = 0
    while not job.stopping.is_set():
        n += 1
        await job.send(n)
        await trio.sleep(0.2)


def main() -> None:
    window = Window()
    application = Application(window)
    signal.signal(signal.SIGINT, lambda *_: window.call_soon(application.press_close))
    trio.lowlevel.start_guest_run(
        application.main, run_sync_soon_threadsafe=window.call_soon, done_callback=window.quit
    )
    window.run()


if __name__ == "__main__":
    main()
