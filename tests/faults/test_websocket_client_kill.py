"""A server that is killed and started again: clients go on, whether it ran the job itself or another process did."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from jobtrio import Completed, End, JobRecord, Message, Restart, Token
from jobtrio.websocket import RemoteJob, ServerUnavailableError, open_client

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Command, Shell

SECRET = "open-sesame"
LIMIT = 60.0

pytestmark = [pytest.mark.once, pytest.mark.timeout(540), pytest.mark.usefixtures("short_pauses")]


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(shell: Shell, port: int, *args: str) -> Command:
    """Start a server and wait until clients can connect."""
    command = shell.start(
        "serve", "store_jobs:executors", "--port", str(port), *args, variables={"JOBTRIO_TOKEN": SECRET}
    )
    command.error_with("jobtrio: serves ")
    return command


def kill(command: Command) -> None:
    command.process.kill()
    command.process.wait()


class Steps:
    """Lets the job ``paced`` send its next token."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.payload = str(folder / "step")

    def allow(self, number: int) -> None:
        (self._folder / f"step.{number}").touch()


async def collect(job: RemoteJob, seen: list[Message]) -> None:
    with trio.fail_after(LIMIT):
        async for message in job.subscribe():
            seen.append(message)


async def until(seen: list[Message], count: int) -> None:
    with trio.fail_after(LIMIT):
        while len(seen) < count:  # noqa: ASYNC110 - it depends on another process
            await trio.sleep(0.01)


async def test_server_beside_the_worker(shell: Shell, port: int, tmp_path: Path) -> None:
    """Where another process runs the job, killing the server is no more than a pause: nothing is missing or twice."""
    steps = Steps(tmp_path)
    shell.worker("--queue", "work")
    server = serve(shell, port, "--queue", "none")
    seen: list[Message] = []
    async with open_client(f"ws://127.0.0.1:{port}", token=SECRET) as client:
        job = await client.submit("paced", [steps.payload, 12], queue="work")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, job, seen)
            for number in range(1, 13):
                steps.allow(number)
                if number % 4 == 0:
                    kill(server)
                    steps.allow(number + 1)
                    server = serve(shell, port, "--queue", "none")
                await until(seen, number)
        record: JobRecord = await job.refresh()
    assert seen == [*(Token(n, 1, n) for n in range(1, 13)), End(13, Completed(12))]
    assert record.attempt == 1


async def test_server_that_runs_the_job(shell: Shell, port: int, tmp_path: Path) -> None:
    """Where the server ran the job, the stream goes on with its restart, and each number means the same as before."""
    steps = Steps(tmp_path)
    server = serve(shell, port)
    seen: list[Message] = []
    async with open_client(f"ws://127.0.0.1:{port}", token=SECRET) as client:
        job = await client.submit("paced", [steps.payload, 6])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, job, seen)
            for number in range(1, 4):
                steps.allow(number)
            await until(seen, 3)
            kill(server)
            for number in range(4, 7):
                steps.allow(number)
            server = serve(shell, port)
    assert [type(message).__name__ for message in seen].count("Restart") == 1
    restart = next(message for message in seen if isinstance(message, Restart))
    assert (restart.error.kind, restart.attempt) == ("lost", 1)
    assert seen[: restart.seq - 1] == [Token(n, 1, n) for n in range(1, restart.seq)]
    assert seen[restart.seq :] == [
        *(Token(restart.seq + n, 2, n) for n in range(1, 7)),
        End(restart.seq + 7, Completed(6)),
    ]
    shown = shell.run("watch", job.id, "--json")[1].splitlines()
    assert [json.loads(line)["seq"] for line in shown] == [message.seq for message in seen]  # type: ignore[union-attr]


async def test_submissions_beside_a_kill(shell: Shell, port: int) -> None:
    """What was acknowledged is there after the kill, and what was under way is made once or not at all."""
    server = serve(shell, port)
    acknowledged: dict[int, str] = {}
    async with open_client(f"ws://127.0.0.1:{port}", token=SECRET, outage_limit=LIMIT) as client:

        async def submit(number: int) -> None:
            acknowledged[number] = (await client.submit("echo", number, tags={"n": str(number)})).id

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(submit, number)
                if number == 15:
                    await trio.sleep(0.05)
                    kill(server)
                    server = serve(shell, port)
        for number, job_id in acknowledged.items():
            assert await RemoteJob(job_id, client).result() == number
        assert len(await client.find(limit=1000)) == len(acknowledged) == 30


async def test_server_that_stays_away(shell: Shell, port: int) -> None:
    """While the server is away calls fail after the limit, and subscriptions wait."""
    server = serve(shell, port)
    async with open_client(f"ws://127.0.0.1:{port}", token=SECRET, outage_limit=1.0) as client:
        job = await client.submit("echo", 1)
        await job.wait()
        kill(server)
        with pytest.raises(ServerUnavailableError, match=r"was away for 1 s: no connection"):
            await client.get(job.id)
        with trio.move_on_after(0.1) as scope:
            await job.wait()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            outcomes: list[object] = []

            async def wait() -> None:
                outcomes.append(await job.wait())

            nursery.start_soon(wait)
            server = serve(shell, port)
        assert outcomes == [Completed(1)]
