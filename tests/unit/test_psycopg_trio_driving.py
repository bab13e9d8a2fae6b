"""Generators are driven by the socket they wait for, without keeping others waiting."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
import trio
from psycopg.waiting import Ready, Wait
from trio.testing import wait_all_tasks_blocked

from jobtrio.psycopg_trio._driving import BUSY_LIMIT, Driver, ready_now, wait_for_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def clog(near: socket.socket) -> None:
    """Write until nothing more can be written."""
    with suppress(BlockingIOError):
        while True:
            near.send(b"x" * 65536)


def unclog(far: socket.socket) -> None:
    with suppress(BlockingIOError):
        while far.recv(1 << 20):
            pass


def asking(*wanted: Wait) -> Generator[Wait, Ready | int, list[int]]:
    """Wait for each in turn, and return what was ready each time."""
    got = []
    for one in wanted:
        while not (ready := (yield one)):
            pass
        got.append(int(ready))
    return got


async def test_value() -> None:
    """A generator that waits for nothing gives its value."""
    assert await Driver().drive(asking(), 0) == []


async def test_ready_for() -> None:
    """A generator is told what its socket is ready for, of what it asked for."""
    with pair() as (near, far):
        assert await Driver().drive(asking(Wait.W, Wait.RW), near.fileno()) == [Ready.W, Ready.W]
        far.send(b"x")
        assert await Driver().drive(asking(Wait.R, Wait.RW), near.fileno()) == [Ready.R, Ready.RW]


@pytest.mark.parametrize(
    ("wanted", "change", "told"),
    [(Wait.R, "write", Ready.R), (Wait.W, "read", Ready.W), (Wait.RW, "write", Ready.R), (Wait.RW, "read", Ready.W)],
)
async def test_waits(wanted: Wait, change: str, told: Ready) -> None:
    """A generator waits until what it asked for happens."""
    with pair() as (near, far):
        clog(near)
        got: list[int] = []

        async def drive() -> None:
            got.extend(await Driver().drive(asking(wanted), near.fileno()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive)
            await wait_all_tasks_blocked(0.01)
            assert not got
            if change == "write":
                far.send(b"x")
            else:
                unclog(far)
        assert got == [told]


@pytest.mark.parametrize("wanted", list(Wait))
async def test_interrupted_and_driven_on(wanted: Wait) -> None:
    """A cancelled wait raises one bare `trio.Cancelled`, and the generator can be driven on behind it."""
    with pair() as (near, far):
        clog(near)
        generator = asking(wanted)
        raised: type[BaseException] | None = None
        with trio.move_on_after(0):
            try:
                await Driver().drive(generator, near.fileno())
            except BaseException as exc:
                raised = type(exc)
                raise
        assert raised is trio.Cancelled
        unclog(far)
        far.send(b"x")
        assert await Driver().drive(generator, near.fileno(), begun=True) == [wanted]


@pytest.mark.parametrize("wanted", [Wait.R, Wait.W])
async def test_closed_by_another_task(wanted: Wait) -> None:
    """Whoever waits for a socket that another task closes gets psycopg's error."""
    with pair() as (near, _far):
        clog(near)
        async with trio.open_nursery() as nursery:

            async def drive() -> None:
                with pytest.raises(psycopg.OperationalError, match="closed") as caught:
                    await Driver().drive(asking(wanted), near.fileno())
                assert isinstance(caught.value.__cause__, trio.ClosedResourceError)

            nursery.start_soon(drive)
            await wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(near)


async def test_closed_while_waiting_for_either() -> None:
    """A generator that waits for both directions is sent to find out what became of its socket."""
    with pair() as (near, far):
        got = await sent_behind(near, far.close)
    assert got
    assert got[0] & Ready.R


async def test_closed_by_another_task_while_waiting_for_either() -> None:
    """A generator that waits for both directions is sent to find out, too, that another task has closed its socket."""

    def close() -> None:
        trio.lowlevel.notify_closing(near)
        near.close()

    with pair() as (near, _far):
        assert await sent_behind(near, close) == [Ready.RW]


async def sent_behind(near: socket.socket, close: Callable[[], None]) -> list[int]:
    """Return what a generator that waits for both directions is sent once ``close`` was called."""
    clog(near)
    got: list[int] = []

    async def drive() -> None:
        got.extend(await Driver().drive(asking(Wait.RW), near.fileno()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive)
        await wait_all_tasks_blocked()
        close()
    return got


async def test_bad_socket() -> None:
    """A socket that is none is reported by psycopg's error."""
    with pytest.raises(psycopg.OperationalError) as caught:
        await wait_for_socket(10_000, Wait.R)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EBADF


async def test_broken_socket_is_ready() -> None:
    """A reset connection counts as ready, so that the next use of it finds out."""
    with pair() as (near, far):
        far.close()
        assert ready_now(near.fileno(), Wait.W) == Ready.W


async def test_busy_socket_lets_others_run() -> None:
    """A socket that never blocks does not keep other tasks from running."""
    with pair() as (near, _far):
        others = 0

        def busy() -> Generator[Wait, Ready | int, None]:
            while others < 3:
                yield Wait.W

        async def other() -> None:
            nonlocal others
            while True:
                await trio.lowlevel.checkpoint()
                others += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await Driver().drive(busy(), near.fileno())
            nursery.cancel_scope.cancel()


class Turns(trio.abc.Instrument):
    """Counts how often a task has waited for its turn."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


@pytest.mark.parametrize("wanted", [[Wait.W] * 100, [Wait.W], []])
async def test_a_turn_only_now_and_then(monkeypatch: pytest.MonkeyPatch, wanted: list[Wait]) -> None:
    """What never blocks gives others a turn only now and then, be it one generator or many."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    turns = Turns(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(turns)
    with pair() as (near, _far):
        driver = Driver()
        for now, due in ((0.0, 0), (BUSY_LIMIT, 0), (2 * BUSY_LIMIT, 1), (2.5 * BUSY_LIMIT, 0)):  # noqa: B007
            turns.count = 0
            for _ in range(10):
                await driver.drive(asking(*wanted), near.fileno())
            assert turns.count == due
    trio.lowlevel.remove_instrument(turns)


async def test_busy_socket_can_be_cancelled() -> None:
    """A socket that never blocks does not keep a cancellation waiting for ever."""
    with pair() as (near, _far):

        def busy() -> Generator[Wait, Ready | int, None]:
            while True:
                yield Wait.W

        with trio.move_on_after(0) as scope:
            await Driver().drive(busy(), near.fileno())
        assert scope.cancelled_caught


async def test_many_small_pieces_let_others_run() -> None:
    """Generators that wait for nothing do not keep other tasks from running, and are not cancelled there."""
    driver = Driver()
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        while others < 3:
            await driver.drive(asking(), 0)
        nursery.cancel_scope.cancel()
        time.sleep(BUSY_LIMIT)  # noqa: ASYNC251  # somebody keeps the loop busy
        assert await driver.drive(asking(), 0) == []
