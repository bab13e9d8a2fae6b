"""What is printed with ``--json``, and what the page of the command line says of it: the same."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import store_jobs
import trio
from patience import wait_until

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from store_shell import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")

OPEN = {"value", "result", "payload", "metadata", "tags", "queues"}
"""Fields whose values are the jobs' own."""


def section(heading: str) -> str:
    """Return what stands under a heading of the page, up to the next."""
    (text,) = re.findall(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def described(heading: str) -> list[Any]:
    """Return the lines of JSON under a heading."""
    blocks = re.findall(r"```json\n(.*?)```", section(heading), re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def shape(value: Any) -> Any:
    """Return the names of an object's fields, those of the objects in it included, and of what type it is."""
    if not isinstance(value, dict):
        return "..."
    fields = tuple((name, "..." if name in OPEN else shape(part)) for name, part in sorted(value.items()))
    return (value.get("type") if "seq" in value or "job" in value or "first" in value else None, fields)


def lines(text: str) -> list[Any]:
    """Return the lines of a command's output."""
    return [json.loads(line) for line in text.splitlines()]


async def run_words(path: Path) -> str:
    """Run a job of whose messages only the last is kept, and return its id."""
    retention = jobtrio.Retention(tokens_per_job=1)
    async with jobtrio.open_registry(store_jobs.executors, store=SqliteJobStore(path), retention=retention) as registry:
        job = await registry.submit("words", "to be or not")
        await job.wait()
    return job.id


def printed(shell: Shell) -> Iterable[Any]:
    """Yield lines of all kinds that commands which watch a job print."""
    short = trio.run(run_words, shell.folder / "jobs.db")
    cancelled = shell.submit("echo", "--delay", "3600")
    shell.ask("cancel", cancelled)
    shell.worker()
    gate = shell.folder / "gate"
    for step in range(1, 4):
        (shell.folder / f"gate.{step}").touch()
    for command, *args in (
        ("submit", "steps", json.dumps(str(gate)), "--watch"),
        ("submit", "fail", "--retry", "1", "--watch"),
        ("watch", cancelled),
        ("watch", short),
        ("run", "--", "sh", "-c", "echo out; echo err >&2"),
    ):
        yield from lines(shell.run(command, "--json", *args)[1])


def test_messages(shell: Shell) -> None:
    """Each line that tells a message looks as the page says, and no other is on the page."""
    page = {shape(line) for line in described("### Messages")}
    assert {shape(line) for line in printed(shell)} == page


def test_every_kind_of_message() -> None:
    """The page has every kind of message that there is, and every kind of outcome."""
    page = described("### Messages")
    kinds = {kind.__name__.lower() for kind in get_args(jobtrio.Message)}
    assert {line["type"] for line in page} == {*kinds, "submitted"}
    outcomes = {kind.__name__.lower() for kind in get_args(jobtrio.Outcome)}
    assert {line["outcome"]["type"] for line in page if line["type"] == "end"} == outcomes


def test_changes(shell: Shell) -> None:
    """Each line of a worker's looks as the page says."""
    worker = shell.worker("--json")
    for args in (("fail", "--retry", "1"), ("echo",)):
        shell.ask("submit", *args, "--watch")
    worker.send(signal.SIGTERM)
    code, out, _ = worker.end()
    assert code == 0
    assert {shape(line) for line in lines(out)} == {shape(line) for line in described("### Changes")}


def test_records(shell: Shell) -> None:
    """Each record looks as the page says, and no field is missing there."""
    (page,) = described("### Documents")
    worker = shell.worker()
    job = shell.value("submit", "echo")["id"]
    assert shell.ask("watch", job)[0] == 0
    shell.ask("submit", "fail", "--watch")
    done, failed = shell.value("list")
    assert shape(done) == shape({**page, "error": None})
    assert shape(failed) == shape(page)
    found = shell.value("show", failed["id"])["job"]
    assert "ValueError: row 2" in found["error"].pop("traceback")
    assert found == failed
    worker.send(signal.SIGTERM)
    assert worker.end()[0] == 0


@pytest.mark.parametrize(
    "command",
    [
        *("submit", "list", "show", "cancel", "cancel --tag …", "rerun", "pause", "resume", "stats", "remove"),
        *("prioritize", "prune"),
    ],
)
def test_documents(shell: Shell, command: str) -> None:
    """The page names each field of each document, and no other."""
    job = shell.submit("echo")
    if command in {"rerun", "remove"}:
        shell.ask("cancel", job)
    name, *args = command.replace("…", "user=ann").split()
    args += {
        "submit": ("echo",),
        "prune": ("--keep", "1"),
        **dict.fromkeys(("show", "cancel", "rerun", "remove"), (job,)),
        **dict.fromkeys(("pause", "resume"), ("default",)),
        "prioritize": (job, "--priority", "high"),
    }.get(command, ())
    (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", section("### Documents"), re.MULTILINE)
    document = shell.value(name, *args)
    fields = set(document) if isinstance(document, dict) else set()
    record = set(described("### Documents")[0])
    assert set(re.findall(r"`(\w+)`", row)) == (set() if fields == record else fields)
    worker = {"name", "started_at", "seen_at", "running"}
    if command == "stats":
        shell.worker()
        wait_until(lambda: shell.value("stats")["workers"])  # it says that it works as the store is told
        assert set(shell.value("stats")["workers"][0]) == worker
        assert worker <= set(re.findall(r"`(\w+)`", section("### Documents")))
