"""What ``remove`` says of a job that lives."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

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
