"""``rerun`` of jobs by their ids, and of all that match."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from one_page import OnePage

import jobtrio
from jobtrio import JobPriority, JobSpec, JobState, RetryPolicy, StoreError
from jobtrio.cli import _advance, build_parser, programs
from jobtrio.cli._endings import plural
from jobtrio.cli._rerun import AT_ONCE, PROGRAMS, rerun, rerun_at_server
from jobtrio.cli._screen import ERASE
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from typing import LiteralString

    from jobtrio._entry import JobEntry
    from jobtrio.websocket import JobClient

executors = jobtrio.Executors()


@executors.register("work", time_limit=30, retry=RetryPolicy(max_attempts=2))
async def work(job: jobtrio.JobContext) -> None:
    """Fail, unless the payload says otherwise."""
    if job.payload != "good":
        raise jobtrio.GiveUp("bad")


@executors.register("other")
async def other(job: jobtrio.JobContext) -> None:
    """Fail."""
    raise ValueError("bad")


def specs(count: int) -> list[JobSpec]:
    """Return jobs of which every third is ann's and every seventh completes; all others fail."""
    return [
        JobSpec(
            "work" if n % 2 else "other",
            "good" if n % 7 == 0 and n % 2 else n,
            job_id=str(n),
            tags={"user": "bob" if n % 3 else "ann"},
            queue=f"q{n % 5}",
            key=f"k{n}",
        )
        for n in range(count)
    ]


async def run_all(path: Path, *jobs: JobSpec) -> None:
    """Run all jobs of a store, and perhaps some more, to their ends."""
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
        await registry.submit_many(jobs)
        await registry.drain()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a file with 80 jobs that have ended."""
    await run_all(tmp_path / "jobs.db", *specs(80))
    return tmp_path / "jobs.db"


@pytest.fixture
async def registry(path: Path) -> AsyncIterator[jobtrio.JobRegistry]:
    """Return a registry on the file, which runs nothing."""
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        yield registry


async def ask(path: Path, *args: str, store: SqliteJobStore | None = None) -> int:
    """Run the command in this process."""
    options = build_parser().parse_args(["rerun", *args])
    options.known = executors if options.executors else None
    return await rerun(options, SqliteJobStore(path) if store is None else store)


async def again_of(registry: jobtrio.JobRegistry) -> dict[str, str]:
    """Return the ids of the new jobs, by those of the old ones."""
    return {r.metadata["again"]: r.id async for r in registry.find_all() if "again" in r.metadata}


@pytest.mark.parametrize(
    ("args", "matches"),
    [
        (("--tag", "user=ann"), lambda n: n % 3 == 0 and not (n % 7 == 0 and n % 2)),
        (("--queue", "q1", "--executor", "other"), lambda n: (n % 5, n % 2) == (1, 0)),
        (("--key", "k8"), lambda n: n == 8),
        (("--state", "failed"), lambda n: not (n % 7 == 0 and n % 2)),
        (("--state", "completed,cancelled"), lambda n: n % 7 == 0 and n % 2),
    ],
)
async def test_all_that_match(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], matches: Any
) -> None:
    """All that have failed and match are submitted again, in order, or those in the states that are asked for."""
    expected = [str(n) for n in range(80) if matches(n)]
    assert await ask(path, *args) == 0
    again = await again_of(registry)
    assert list(again) == expected
    lines = [f"{old} is run again as {again[old]}\n" for old in expected]
    assert capsys.readouterr() == ("".join(lines) + f"submitted {plural(len(expected), 'job')}\n", "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--tag", "user=eve"), "no failed job matches\n"),
        (("--tag", "user=eve", "--state", "failed,cancelled"), "no failed or cancelled job matches\n"),
    ],
)
async def test_none_that_matches(
    path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str
) -> None:
    """Where none matches, that is said, with the states that were looked for."""
    assert await ask(path, *args) == 0
    assert capsys.readouterr() == (said, "")


@pytest.mark.parametrize("registered", [True, False])
async def test_what_the_new_job_is_given(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str], registered: bool
) -> None:
    """It is what the old one was given, with its id; limit and retries may be those of the registration instead."""
    retry = RetryPolicy(max_attempts=5, initial=7.0)
    await run_all(
        path,
        JobSpec(
            "work",
            {"a": [1]},
            job_id="old",
            key="k",
            queue="elsewhere",
            priority=JobPriority.HIGH,
            time_limit=12.0,
            retry=retry,
            expires_in=900.0,
            tags={"user": "eve"},
            metadata={"trace": 7, "again": "older"},
        ),
    )
    assert await ask(path, "old", *["--executors", "app:executors"] * registered) == 0
    (new,) = [record async for record in registry.find_all(tags={"user": "eve"}, state=JobState.QUEUED)]
    assert capsys.readouterr() == (f"old is run again as {new.id}\n", "")
    assert (new.executor, new.payload, new.queue, new.priority) == ("work", {"a": [1]}, "elsewhere", JobPriority.HIGH)
    old = (await registry.get("old")).record
    key = f"again:old:{old.created_at.isoformat()}"
    assert (new.key, new.metadata) == (key, {"trace": 7, "again": "old"})
    given = (30, RetryPolicy(max_attempts=2)) if registered else (12.0, retry)
    assert (new.time_limit, new.retry) == given
    assert new.expires_in == 900.0


async def test_again_and_again(registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each job is run again once: where the new one fails as well, that is run again, and the old one is told of."""
    for turn in range(3):
        assert await ask(path, "--queue", "q1", "--executor", "other") == 0
        lines = capsys.readouterr().out.splitlines()
        before = f"; run again before: {8 * turn}" if turn else ""
        assert (len(lines), lines[-1]) == (9, f"submitted 8 jobs{before}")
        await run_all(path)
    assert await ask(path, "1", "6", "7") == 0
    assert await ask(path, "6", "6", "7", "1") == 0
    again = await again_of(registry)
    assert capsys.readouterr().out == (
        f"1 is run again as {again['1']}\n7 is run again as {again['7']}\n6 was run again before, as {again['6']}\n"
        f"6 was run again before, as {again['6']}\n7 was run again before, as {again['7']}\n"
        f"1 was run again before, as {again['1']}\n"
    )
    assert await ask(path, "--queue", "q1", "--state", "completed") == 0
    assert await ask(path, "--queue", "q1", "--state", "completed") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "submitted 0 jobs; run again before: 1"


async def test_an_id_that_is_used_anew(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job whose id another one had before was not run again by what the other one was run again as."""
    assert await ask(path, "4") == 0
    first = (await again_of(registry))["4"]
    await registry.remove("4")
    await run_all(path, JobSpec("other", job_id="4"))
    capsys.readouterr()
    assert await ask(path, "4") == 0
    out = capsys.readouterr().out
    assert out == f"4 is run again as {(await again_of(registry))['4']}\n"
    assert first not in out


async def test_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has `jobtrio run` run a program needs no worker, but needs one to run it again: that is said, once."""
    async with jobtrio.open_registry(programs, store=SqliteJobStore(path)) as registry:
        given = [JobSpec("run_command", {"argv": ["false"]}, job_id=f"run-{n}") for n in range(3)]
        for job in await registry.submit_many(given):
            await job.wait()
    assert await ask(path, "run-0", "run-1", "4") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err == f"jobtrio rerun: {PROGRAMS}\n"
    assert await ask(path, "run-0", "5") == 0
    assert capsys.readouterr().err == ""
    assert await ask(path, "run-2", "--json") == 0
    out, err = capsys.readouterr()
    assert ([*json.loads(out)["submitted"]], err) == (["run-2"], "")


async def test_the_longest_ids(registry: jobtrio.JobRegistry, path: Path) -> None:
    """An id may be as long as a key: it is run again, once, and not for another one that begins alike."""
    ids = ["x" * 199 + last for last in "ab"]
    await run_all(path, *(JobSpec("other", job_id=job_id) for job_id in ids))
    for _ in range(2):
        assert await ask(path, *ids) == 0
    assert [record.metadata["again"] async for record in registry.find_all(state=JobState.QUEUED)] == ids


async def test_for_scripts(registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the ids of the new jobs by those of the old ones."""
    assert await ask(path, "2", "--json") == 0
    again = await again_of(registry)
    assert json.loads(capsys.readouterr().out) == {"submitted": again, "already": {}}
    assert await ask(path, "4", "2", "--json") == 0
    again = await again_of(registry)
    assert json.loads(capsys.readouterr().out) == {"submitted": {"4": again["4"]}, "already": {"2": again["2"]}}
    assert await ask(path, "--tag", "user=eve", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"submitted": {}, "already": {}}


async def test_what_can_not_be_run_again(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told of with its reason, the others are run again, and the exit code is 1."""
    held = await registry.create_job(job_id="held")
    await held.cancel()
    await registry.submit("work", job_id="lives")
    assert await ask(path, "none", "lives", "held", "4") == 1
    again = await again_of(registry)
    out, err = capsys.readouterr()
    assert out == f"4 is run again as {again['4']}\n"
    assert err.splitlines() == [
        "jobtrio rerun: no job has the id 'none': it never existed or is no longer kept",
        "jobtrio rerun: job 'lives' is not run again: it has not ended, it is queued",
        "jobtrio rerun: job 'held' is not run again: it never had an executor",
    ]
    assert await ask(path, "--state", "cancelled") == 1
    assert capsys.readouterr() == ("", "jobtrio rerun: job 'held' is not run again: it never had an executor\n")


async def test_an_executor_that_is_not_registered(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is said what is registered, jobs of other executors are not run again; else any name will do."""
    few = jobtrio.Executors()
    few.register("work")(work)
    options = build_parser().parse_args(["rerun", "4", "5", "--executors", "app:executors"])
    options.known = few
    assert await rerun(options, SqliteJobStore(path)) == 1
    again = await again_of(registry)
    reason = "no executor is registered as 'other'; registered: 'work'"
    assert capsys.readouterr() == (
        f"5 is run again as {again['5']}\n",
        f"jobtrio rerun: job '4' is not run again: {reason}\n",
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("payload = '{'", "its payload can't be read: "),
        ("queue = ''", "queue must be text of 1 to 200 printable characters; got ''"),
        ("""metadata = '{"": 1}'""", "a key of metadata must be text of 1 to 200 printable characters; got ''"),
    ],
)
async def test_a_job_that_can_not_be_read(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str], damage: LiteralString, reason: str
) -> None:
    """A job that is damaged is not run again with something else, and keeps none of the others from that."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE jobs SET {damage} WHERE id = '4'")
    connection.close()
    assert await ask(path, "4", "6") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err.startswith(f"jobtrio rerun: job '4' is not run again: {reason}")


class Fails(SqliteJobStore):
    """A store that fails at one job's turn, or has it removed by then."""

    at = ""
    failure: BaseException = StoreError("damaged")

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, or fail."""
        if any((entry.key or "").startswith(f"again:{self.at}:") for entry in entries):
            raise self.failure
        return await super().insert(entries, submission)

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or none."""
        return None if self.at == f"gone:{job_id}" else await super().load(job_id)


@pytest.mark.parametrize("failure", [StoreError("damaged"), KeyboardInterrupt()])
@pytest.mark.parametrize("json_too", [False, True])
async def test_a_store_that_fails_on_the_way(
    registry: jobtrio.JobRegistry,
    path: Path,
    capsys: pytest.CaptureFixture[str],
    json_too: bool,
    failure: BaseException,
) -> None:
    """It is told which were submitted before, and that to ask again does no harm."""
    store = Fails(path)
    store.at, store.failure = "70", failure
    with pytest.raises(type(failure)):
        await ask(path, "--state", "failed", *["--json"] * json_too, store=store)
    again = await again_of(registry)
    assert len(again) == 2 * AT_ONCE
    out, err = capsys.readouterr()
    if json_too:
        assert json.loads(out) == {"submitted": again, "already": {}}
    else:
        lines = [f"{old} is run again as {new}" for old, new in again.items()]
        assert out.splitlines() == [*lines, f"submitted {len(again)} jobs"]
    assert err == "jobtrio rerun: not all were submitted; to ask again submits none twice\n"


async def test_a_store_that_fails_at_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where none was submitted, nothing is said of them but that."""
    store = Fails(path)
    store.at = "0"
    with pytest.raises(StoreError):
        await ask(path, "--state", "failed", store=store)
    assert capsys.readouterr().out == ""


async def test_a_look_that_fails(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are found before any is submitted: where the next page can't be read, none was."""
    monkeypatch.setattr("jobtrio._registry.PAGE", 10)
    with pytest.raises(StoreError):
        await ask(path, "--state", "failed", store=OnePage(path))
    assert capsys.readouterr() == ("", "")
    assert await again_of(registry) == {}


async def test_a_job_that_goes_meanwhile(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that is removed before it is run again is told of as unknown."""
    store = Fails(path)
    store.at = "gone:4"
    assert await ask(path, "4", store=store) == 1
    assert capsys.readouterr() == (
        "",
        "jobtrio rerun: no job has the id '4': it never existed or is no longer kept\n",
    )


async def test_how_far_it_is(
    registry: jobtrio.JobRegistry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows how many jobs of a server are looked up and submitted; what is said of one has its own line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(_advance, "PAUSE", 0.0)
    monkeypatch.setattr(_advance, "open_bar", lambda: None)
    jobs = [str(n) for n in range(AT_ONCE + 1)]
    options = build_parser().parse_args(["rerun", "none", *jobs])
    assert await rerun_at_server(options, cast("JobClient", registry)) == 1
    drawn = [line for line in capsys.readouterr().err.split(ERASE) if line]
    unknown = "jobtrio rerun: no job has the id 'none': it never existed or is no longer kept\n"
    assert [line.partition(" (")[0] for line in drawn] == [
        f"0 of {len(jobs) + 1}",
        unknown,
        *(f"{n} of {len(jobs) + 1}" for n in range(1, len(jobs) + 2)),
        *(f"{n} of {len(jobs)}" for n in range(len(jobs) + 1)),
    ]
    assert [line.partition("), ")[2] for line in (drawn[-1], drawn[2])] == ["submitting", "looking"]


class Failing:
    """A server that fails at one submission, and perhaps for good."""

    def __init__(self, registry: jobtrio.JobRegistry, at: int, failure: BaseException, *, is_gone: bool) -> None:
        self.count, self.at, self.failure, self.is_gone = 0, at, failure, is_gone
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def submit(self, *args: Any, **given: Any) -> jobtrio.Job:
        """Submit a job, or fail."""
        if self.count == self.at:
            raise self.failure
        self.count += 1
        return await self._registry.submit(*args, **given)

    async def find(self, **filters: Any) -> list[jobtrio.JobRecord]:
        """Find jobs, or fail."""
        if self.count == self.at and self.is_gone:
            await trio.sleep_forever()
        return await self._registry.find(**filters)


@pytest.mark.parametrize("failure", [jobtrio.QueueFullError(1), KeyboardInterrupt()])
@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_server_that_fails_on_the_way(
    registry: jobtrio.JobRegistry,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    is_gone: bool,
) -> None:
    """What had been run again before is told apart also then, or it is said of which jobs that can't be told."""
    monkeypatch.setattr("jobtrio.cli._rerun.LAST_LOOK", 60 if not is_gone else 0.01)
    parse = build_parser().parse_args
    assert await rerun_at_server(parse(["rerun", "--json", "2", "4"]), cast("JobClient", registry)) == 0
    before = json.loads(capsys.readouterr().out)["submitted"]
    server = cast("JobClient", Failing(registry, 3, failure, is_gone=is_gone))
    with pytest.raises(type(failure)):
        await rerun_at_server(parse(["rerun", "--json", "1", "2", "4", "5"]), server)
    out, err = capsys.readouterr()
    *lines, last = err.splitlines()
    assert last == "jobtrio rerun: not all were submitted; to ask again submits none twice"
    one = (await again_of(registry))["1"]
    if is_gone:
        untold = f"1 as {one}, 2 as {before['2']}, 4 as {before['4']}"
        assert lines == [f"jobtrio rerun: run again, now or before, which the server can't tell any more: {untold}"]
        assert out == ""
    else:
        assert (lines, json.loads(out)) == ([], {"submitted": {"1": one}, "already": before})


async def test_limits_at_a_server(registry: jobtrio.JobRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """A job of a server is run again with the old one's time limit and retries, else with those of its executor."""
    old = await registry.submit("work", time_limit=7, retry=RetryPolicy(5, 9), expires_in=3600, queue="other")
    plain = await registry.submit("other")
    for job in (old, plain):
        await job.cancel()
    options = build_parser().parse_args(["rerun", old.id, plain.id])
    assert await rerun_at_server(options, cast("JobClient", registry)) == 0
    again = await again_of(registry)
    first, second = [(await registry.get(again[job.id])).record for job in (old, plain)]
    assert (first.time_limit, first.retry, first.expires_in, first.queue) == (7, RetryPolicy(5, 9), 3600, "other")
    assert (second.time_limit, second.retry, second.expires_in) == (None, None, None)


async def test_two_that_ask_at_once(
    registry: jobtrio.JobRegistry, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each job is run again once by both together."""
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, path, "--state", "failed", "--json")
    out = capsys.readouterr().out
    first, rest = json.JSONDecoder().raw_decode(out)
    second = json.loads(out[rest:])
    again = await again_of(registry)
    assert first["submitted"] | second["submitted"] == again
    assert not first["submitted"].keys() & second["submitted"].keys()
    assert first["submitted"] | first["already"] == second["submitted"] | second["already"] == again
