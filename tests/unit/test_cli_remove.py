"""What ``remove`` says of a job that lives."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import trio

import jobtrio
from jobtrio.cli._remove import remove
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_how_to_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names the store as this one was told it, and can't take the id for an option."""
    path = tmp_path / "jobs.db"
    executors = jobtrio.Executors()
    executors.register("work")(jobtrio.executors.run_command)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        await registry.submit("work", job_id="-x")
    for url, option in ((None, ""), ("sqlite:///jobs.db", "--store sqlite:///jobs.db ")):
        options = argparse.Namespace(command="remove", id="-x", store=url, json=False)
        assert await remove(options, SqliteJobStore(path)) == 1
        said = f"jobtrio remove: job '-x' lives, it is queued: jobtrio cancel {option}-- -x ends it\n"
        assert capsys.readouterr() == ("", said)


async def test_a_job_that_ends_as_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told in which state the job was when it could not be removed, whatever has become of it since."""
    path, started, goes = tmp_path / "jobs.db", trio.Event(), trio.Event()
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        started.set()
        await goes.wait()

    class Late(SqliteJobStore):
        """One whose answer comes when the job has ended."""

        async def delete(self, job_id: str) -> bool:
            try:
                return await super().delete(job_id)
            finally:
                goes.set()
                await job.wait()

    async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
        job = await registry.submit("work", job_id="job")
        await started.wait()
        options = argparse.Namespace(command="remove", id="job", store=None, json=False)
        assert await remove(options, Late(path)) == 1
    said = "jobtrio remove: job 'job' lives, it is running: jobtrio cancel job ends it\n"
    assert capsys.readouterr() == ("", said)
