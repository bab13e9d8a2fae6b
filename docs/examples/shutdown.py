"""An application that ends in order when it gets SIGTERM."""

import signal

import trio

import jobtrio


async def work(job: jobtrio.JobContext) -> int:
    done = 0
    while not job.stopping.is_set():
        await trio.sleep(0.01)  # one piece of the work
        done += 1
    return done


async def stop_on_signal(registry: jobtrio.JobRegistry, application: trio.CancelScope) -> None:
    async def stop(grace: float) -> None:
        await registry.shutdown(grace)
        application.cancel()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            is_stopping = False
            async for number in signals:
                print(f"got {signal.Signals(number).name}")
                # Whoever types Ctrl-C then does not want to wait. SIGTERM may come twice, as `timeout` sends it.
                nursery.start_soon(stop, 0 if is_stopping and number == signal.SIGINT else 10)
                is_stopping = True


async def serve(registry: jobtrio.JobRegistry) -> None:
    """Stands for what the application does: it takes requests and submits jobs."""
    running = await registry.submit(work)
    waiting = await registry.submit(work, delay=3600)
    try:
        await trio.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()
    finally:
        print(running.outcome, waiting.outcome)


async def main() -> None:
    async with jobtrio.open_registry() as registry:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, registry, nursery.cancel_scope)
            await serve(registry)


if __name__ == "__main__":
    trio.run(main)
