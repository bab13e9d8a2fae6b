"""What ``prioritize`` says where its store fails, or jobs move on, meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

import jobtrio
from jobtrio import StoreUnavailableError
from jobtrio.cli import build_parser
from jobtrio.cli._prioritize import prioritize
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from jobtrio import JobPriority
    from jobtrio.abc import JobEntry


class Failing(SqliteJobStore):
    """A store that is away from the second job on, or whose job is gone when it is looked for."""

    removes = False

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        if not self.removes and job_id != "a":
            raise StoreUnavailableError("away")
        return await super().set_priority(job_id, priority)

    async def load(self, job_id: str) -> JobEntry | None:
        return None if self.removes else await super().load(job_id)


def asked(*args: str) -> argparse.Namespace:
    """Return the command's options."""
    return build_parser().parse_args(["prioritize", *args, "--priority", "high"])


async def fill(path: Path) -> None:
    """Put in two jobs."""
    executors = jobtrio.Executors()
    executors.register("work")(jobtrio.executors.run_command)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        for name in "ab":
            await registry.submit("work", job_id=name)


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_store_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """What was done before is told."""
    await fill(tmp_path / "jobs.db")
    store = Failing(tmp_path / "jobs.db", outage_limit=0.1)
    with pytest.raises(StoreUnavailableError):
        await prioritize(asked("a", "b", "c", *["--json"] * as_json), store)
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said) == {"prioritized": ["a"], "refused": {}}
    else:
        assert said == "a has priority high\n"


async def test_nothing_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the store fails at once there is nothing to tell."""
    await fill(tmp_path / "jobs.db")
    with pytest.raises(StoreUnavailableError):
        await prioritize(asked("b", "--json"), Failing(tmp_path / "jobs.db", outage_limit=0.1))
    assert capsys.readouterr().out == ""


async def test_a_job_that_can_not_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that was refused is told of, though it is gone when its state is looked for."""
    path, started = tmp_path / "jobs.db", trio.Event()
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
        job = await registry.submit("work", job_id="job")
        await started.wait()
        store = Failing(path)
        store.removes = True
        assert await prioritize(asked("job", "--json"), store) == 1
        out, err = capsys.readouterr()
        assert json.loads(out) == {"prioritized": [], "refused": {"job": None}}
        assert err == "jobtrio prioritize: job 'job' runs, or has ended\n"
        await job.cancel()
