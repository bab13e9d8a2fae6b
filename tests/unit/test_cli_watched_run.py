"""A program's run on a store that is away when its user has seen enough, and one whose output can't be written."""

from __future__ import annotations

import errno
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from remote_store import RemoteStore, Server

from jobtrio._errors import UnknownJobError
from jobtrio._messages import Token
from jobtrio._state import JobState
from jobtrio.cli._output import LAST_WORD, STDOUT, Output
from jobtrio.cli._watched_run import AT_ONCE, RunPlan, WatchedRun

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio.testing import MockClock

    from jobtrio import Job
    from jobtrio.cli._output import Piece


async def perform(*argv: str, grace: float = 5.0, store: RemoteStore | None = None) -> int:
    """Run a program, or one that would never end; return the exit code."""
    payload: dict[str, Any] = {"argv": argv or ("sleep", "1000"), "cwd": None, "env": {}, "grace": grace}
    plan = RunPlan(payload, queue=None, time_limit=None, retries=0, as_json=False, store=store)
    return await WatchedRun(plan).perform()


async def test_told_to_stop_while_it_is_stored(autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the store is away, the run is over soon after the first signal, however many follow, and names the job."""
    store = RemoteStore(Server())
    store.outage_limit = 3600
    store.network.failing = {"insert"}
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(5)
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
                await trio.sleep(AT_ONCE / 4)

        nursery.start_soon(stop)
        assert await perform(store=store) == 143
    assert trio.current_time() - begun == pytest.approx(5 + AT_ONCE)
    assert "jobtrio: SIGTERM: ends before the program was started; job " in capfd.readouterr().err


@pytest.mark.parametrize("calls", [set(), {"request_cancel"}])
async def test_stored_after_it_was_told_to_stop(autojump_clock: MockClock, calls: set[str]) -> None:
    """A job that is stored all the same is cancelled, however long that takes, rather than left for others to run."""
    store = RemoteStore(server := Server())
    store.outage_limit = 3600
    store.network.failing = {"insert"}
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(1)
            signal.raise_signal(signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
            store.network.failing = calls
            await trio.sleep(2 * AT_ONCE)
            store.network.failing = set()

        nursery.start_soon(stop)
        assert await perform(store=store) == 143
    assert server.store.tally()[JobState.CANCELLED] == 1


@pytest.mark.parametrize("command", ["echo x", "echo x; exit 3"])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EPIPE, 141)])
async def test_output_that_fails_behind_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str, number: int, code: int
) -> None:
    """What could not be written is told, also where the program has ended by then: its exit code is not passed on."""

    async def follow(registry: Any, job: Job, show: Any, *, lossless: bool) -> None:
        await job.wait()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("jobtrio.cli._watched_run.follow", follow)
    assert await perform("sh", "-c", command) == code
    told = "jobtrio: the output can't be written: No space left on device\n" if number == errno.ENOSPC else ""
    assert capfd.readouterr().err == told


async def test_interrupt_behind_the_end(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a program that has ended it isn't said that it has time to do so: its exit code is passed on."""

    async def follow(registry: Any, job: Job, show: Any, *, lossless: bool) -> None:
        await job.wait()
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()

    monkeypatch.setattr("jobtrio.cli._watched_run.follow", follow)
    assert await perform("sh", "-c", "exit 3") == 3
    assert re.fullmatch(
        r"jobtrio: failed with exit code 3 after [0-9.]+ s, 1 attempt, 0 lines\n", capfd.readouterr().err
    )


async def test_output_that_is_shown_late(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mock_clock: MockClock
) -> None:
    """A program is said to have taken as long as it ran, not as long as its reader took."""
    mock_clock.rate = 1.0

    async def follow(registry: Any, job: Job, show: Any, *, lossless: bool) -> None:
        await job.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3 * 3600)

    monkeypatch.setattr("jobtrio.cli._watched_run.follow", follow)
    assert await perform("true") == 0
    assert re.fullmatch(r"jobtrio: completed in [0-9.]+ s, 1 attempt, 0 lines\n", capfd.readouterr().err)


async def test_summary_that_is_read_late(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who takes his time reads the last line as well: as long as nobody hurries, it is waited for."""
    written: list[Piece] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        shown = list(pieces)
        await trio.sleep(60 * LAST_WORD)
        written.extend(shown)

    monkeypatch.setattr(Output, "write", write)
    assert await perform("true") == 0
    assert written[-1][1].startswith("jobtrio: completed in ")


async def test_farewell_that_nobody_reads(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program answers waits a moment for a line of our own that stalls, and what follows that does not."""
    shown: list[float] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        for fd, text in pieces:
            if fd == STDOUT:
                shown.append(trio.current_time())
            elif "to end; Ctrl-C" in text:
                await trio.sleep_forever()

    async def follow(registry: Any, job: Job, show: Any, *, lossless: bool) -> None:
        signal.raise_signal(signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        with trio.fail_after(60 * LAST_WORD):
            for n in range(1, 4):
                await show([Token(n, 1, {"stdout": "bye"})])
        shown[:] = [at - begun for at in shown]
        scope.cancel()  # there is nobody left to kill it

    monkeypatch.setattr(Output, "write", write)
    monkeypatch.setattr("jobtrio.cli._watched_run.follow", follow)
    with trio.CancelScope() as scope:
        await perform(grace=0.0)
    assert shown == pytest.approx([LAST_WORD] * 3)


async def test_cancel_that_does_not_get_through(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store can't be told that the job is cancelled, it is said what is left to do."""
    store = RemoteStore(Server())
    store.outage_limit = 1.0
    store.network.failing = {"request_cancel"}
    said: list[str] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:  # without a thread, which the clock overtakes
        said.extend(text for _, text in pieces)
        if len(said) == 2:
            scope.cancel()

    monkeypatch.setattr(Output, "write", write)
    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.sleep(1)
                signal.raise_signal(signal.SIGTERM)

            nursery.start_soon(stop)
            await perform(store=store)
    farewell, failure = said
    assert farewell == "jobtrio: SIGTERM: the program has 5 s to end; Ctrl-C kills it\n"
    assert failure.startswith("jobtrio: the job could not be cancelled: ")
    assert failure.endswith("; Ctrl-C kills it\n")


async def test_job_that_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the job is gone is told as such, whichever part of the run learns of it first."""

    async def wait(job: Job) -> None:
        raise trio.BrokenResourceError

    async def follow(registry: Any, job: Job, show: Any, *, lossless: bool) -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise UnknownJobError(job.id)

    monkeypatch.setattr("jobtrio.Job.wait", wait)
    monkeypatch.setattr("jobtrio.cli._watched_run.follow", follow)
    with pytest.raises(UnknownJobError):
        await perform("true")
