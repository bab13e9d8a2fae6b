"""Several processes on one SQLite file hear of each other wherever the file is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from store_worker import open_worker
from worker_process import journal_of, make_executors

import jobtrio
from jobtrio import Completed, JobState, Restart
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite._writer import Writer
from jobtrio.testing import _workers as store_workers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


async def test_without_doorbells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sockets can't be had, work and tokens are found by looking."""
    path = tmp_path / ("x" * 60) / ("y" * 60) / "jobs.db"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("jobtrio.stores.sqlite._wakeup.Doorbell._bind", _refuse)
    executors = make_executors(str(journal_of(path)))
    async with (
        jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as submitter,
        jobtrio.open_registry(executors, store=SqliteJobStore(path)),
    ):
        job = await submitter.submit("send", {"tokens": 3})
        with trio.fail_after(60):
            assert await job.wait() == Completed(3)


async def test_a_long_path(tmp_path: Path) -> None:
    """A path that no socket address has room for has doorbells all the same."""
    path = tmp_path / ("x" * 100) / ("y" * 100) / "jobs.db"
    path.parent.mkdir(parents=True)
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as submitter:
        async with open_worker(f"sqlite:///{path}", path, lease=600.0) as worker:
            job = await submitter.submit("hang")
            with trio.fail_after(60), job.subscribe() as messages:
                await messages.receive()
                await worker.kill()
        async with open_worker(f"sqlite:///{path}", path, lease=600.0):
            with trio.fail_after(60), job.subscribe() as messages:
                while not isinstance(await messages.receive(), Restart):
                    pass
        await submitter.cancel(job.id)


@pytest.mark.parametrize("way", ["wakes", "looks"])
async def test_one_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """That a process is gone shows to one that tries to wake it, and to one that looks now and then for such."""
    path = tmp_path / "jobs.db"
    monkeypatch.setattr(Writer, "_idle", lambda _: None)  # else it looks where others have written
    store = SqliteJobStore(path)
    store.poll_interval = 0.05 if way == "looks" else 600.0
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=store, queues={}) as registry:
        async with store_workers.open_worker(lambda: SqliteJobStore(path)) as gone:
            claim = await gone.start(lease=600.0)
        if way == "wakes":
            await registry.submit("hang")
        with trio.fail_after(60):
            while (await registry.get(claim.entry.id)).state is not JobState.QUEUED:  # noqa: ASYNC110 - it is not told here
                await trio.sleep(0.01)


def _refuse(_: object) -> None:
    raise OSError("no sockets here")
