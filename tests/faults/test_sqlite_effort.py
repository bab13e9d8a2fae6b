"""What is stored besides costs nothing: queries use their indices, and very many ended jobs don't slow the others."""

from __future__ import annotations

import random
import re
from contextlib import closing
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jobtrio import Completed, JobPriority, JobState, Retention, RetryPolicy
from jobtrio.abc import Claim, JobQuery
from jobtrio.stores import _settling as settling
from jobtrio.stores._chunks import encoded
from jobtrio.stores._claims import Wanted
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _advancing as advancing
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _finding as finding
from jobtrio.stores.sqlite import _finishing as finishing
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite import _pruning as pruning
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._statements import SQL
from jobtrio.stores.sqlite._transaction import Transaction, load_by_id
from jobtrio.testing._workers import ERROR, new_entry, tokens

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jobtrio._entry import JobEntry

PARTS = {"tagged", "grouped", "has_tag"}
"""What is no statement by itself."""

ENDED = 20_000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty file of jobs."""
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        yield connection


ADD_ENDED = """
INSERT INTO jobs (
    seq, id, submission, executor, queue, priority, state, ticket, attempt, plan, payload, tags, created_at, delay, due,
    finished_at, result, history
)
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
SELECT
    i, 'ended ' || i, 's', 'work', 'default', 1, 'COMPLETED', i, 1, '{"time_limit":null,"retry":null,"worker":"w"}',
    'null', '{"user":"ann"}', i, 0, 0, i, 'null', '[1,"RUNNING",1,"w",null,1,"COMPLETED",1,"w",null]'
FROM n
"""

ADD_CHUNKS = """
INSERT INTO messages (job, first, last, body)
WITH RECURSIVE n (i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
SELECT 900, i, i, '[[0,1,1]]' FROM n
"""


def add_ended(connection: sqlite3.Connection, count: int) -> None:
    """Add ended jobs, with tags and messages, in the queues and of the executors that living ones have."""
    connection.execute("BEGIN")
    connection.execute(ADD_ENDED, (count,))
    connection.execute("INSERT INTO tags (name, value, job) SELECT 'user', 'ann', seq FROM jobs")
    connection.execute("INSERT INTO messages (job, first, last, body) SELECT seq, 1, 1, '[[0,1,1]]' FROM jobs")
    connection.execute("UPDATE numbers SET last = ?", (count,))
    connection.execute("COMMIT")


def plan_of(connection: sqlite3.Connection, statement: str) -> list[str]:
    """Return the steps by which SQLite carries a statement out."""
    parameters = (1,) * statement.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


# -- plans


@pytest.mark.parametrize("name", sorted(SQL.keys() - PARTS))
def test_plans(connection: sqlite3.Connection, name: str) -> None:
    """No statement looks at all rows of a table, nor sorts."""
    for step in plan_of(connection, SQL[name]):
        assert "TEMP B-TREE" not in step, step
        assert not re.match(r"SCAN (jobs|next|job|messages|tags|asides)\b(?!.*USING.*INDEX)", step), step


def test_every_statement_is_used() -> None:
    """No statement is left over."""
    from importlib import resources

    sources = resources.files("jobtrio.stores.sqlite")
    text = "".join(file.read_text() for file in sources.iterdir() if file.name.endswith(".py"))
    assert {name for name in SQL if f'"{name}"' not in text and f"SQL['{name}']" not in text} == set()


@pytest.mark.parametrize(
    "query",
    [
        JobQuery(tags={"user": "ann"}),
        JobQuery(tags={"user": "ann", "other": "x"}, queue="default", executor="work"),
        JobQuery(states=frozenset({JobState.QUEUED, JobState.FAILED})),
        JobQuery(queue="default"),
        JobQuery(executor="work", states=frozenset({JobState.RUNNING}), tags={"user": "ann"}),
        JobQuery(key="k"),
        JobQuery(key="k", queue="default", tags={"user": "ann"}, states=frozenset({JobState.QUEUED})),
        JobQuery(),
    ],
)
@pytest.mark.parametrize("newest_first", [False, True])
def test_plans_of_searches(connection: sqlite3.Connection, query: JobQuery, newest_first: bool) -> None:
    """Searches go by an index, whatever is asked for."""
    add_ended(connection, 10)
    executed: list[str] = []
    connection.set_trace_callback(executed.append)
    finding.find(connection, attrs.evolve(query, newest_first=newest_first))
    connection.set_trace_callback(None)
    assert executed
    for statement in executed:
        for step in plan_of(connection, statement):
            assert not is_scan(step), step
            assert "TEMP B-TREE" not in step, step


def test_plans_of_counting(connection: sqlite3.Connection) -> None:
    """Jobs that have tags are looked up by the rarest, and only their counts are sorted."""
    add_ended(connection, 10)
    connection.execute("INSERT INTO tags (name, value, job) VALUES ('rare', 'y', 3)")
    executed: list[str] = []
    connection.set_trace_callback(executed.append)
    counts = finding.counts_of(connection, {"user": "ann", "rare": "y"})
    connection.set_trace_callback(None)
    assert counts == {"default": dict.fromkeys(JobState, 0) | {JobState.COMPLETED: 1}}
    assert "tag.name = 'rare'" in executed[-1]
    for statement in executed:
        for step in plan_of(connection, statement):
            assert not is_scan(step), step


def is_scan(step: str) -> bool:
    """Whether a step looks at all rows of a table."""
    return step.startswith(("SCAN jobs", "SCAN job ", "SCAN tag")) and "USING COVERING INDEX" not in step


# -- effort


class Effort:
    """Counts the steps of SQLite's virtual machine: the same work takes the same number, on any machine."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._steps = 0

    def of(self, work: Callable[[], Any]) -> int:
        """Return how many steps it takes."""
        self._steps = 0
        self._connection.set_progress_handler(self._count, 1)
        work()
        self._connection.set_progress_handler(None, 0)
        return self._steps

    def _count(self) -> int:
        self._steps += 1
        return 0


def _efforts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return what each of a living job's operations takes."""
    tx = Transaction(connection, Identity("w", "session", Retention(finished_jobs=10**9, finished_for=10**12)), "path")
    effort = Effort(connection)
    efforts: dict[str, int] = {}
    entries = [new_entry(retry=RetryPolicy(), tags={"user": "bob"}, job_id=f"job {n}", key=f"k{n}") for n in range(8)]
    held: list[JobEntry] = []

    def claim() -> None:
        held[:] = claiming.claim(tx, Wanted("c", 8, 60.0, {"default": 9}, frozenset({"work"}))).entries

    efforts["insert"] = effort.of(lambda: inserting.insert(tx, [new_job(entry) for entry in entries], "mark"))
    efforts["claim"] = effort.of(claim)
    claims = [Claim(entry, "c", entry.attempt) for entry in held]
    assert len(claims) == 8
    efforts["append"] = effort.of(lambda: settling.append(tx, claims[0], encoded(tokens(1, 9))))
    efforts["renew"] = effort.of(lambda: claiming.renew(tx, claims, 60.0, 1.0))
    efforts["finish"] = effort.of(
        lambda: finishing.finish(tx, claims[0], finishing.Ending(Completed(), None, "null"), ())
    )
    efforts["retry"] = effort.of(lambda: settling.retry(tx, claims[1], ERROR, 0.0, True, ()))
    efforts["release"] = effort.of(lambda: settling.release(tx, claims[2], "shutdown", ()))
    efforts["cancel"] = effort.of(lambda: settling.request_cancel(tx, "job 3", "why", 0.0))
    efforts["advance"] = effort.of(lambda: advancing.advance(tx, ()))
    efforts["prune"] = effort.of(lambda: pruning.prune(tx, (0.0, 0)))
    for name, query in {
        "running": JobQuery(states=frozenset({JobState.RUNNING})),
        "queued": JobQuery(states=frozenset({JobState.QUEUED}), queue="default", executor="work"),
        "failed": JobQuery(states=frozenset({JobState.FAILED}), executor="work"),
        "by tag": JobQuery(tags={"user": "bob"}),
        "by tag and state": JobQuery(states=frozenset({JobState.RUNNING}), tags={"user": "bob"}),
        "by key": JobQuery(key="k4"),
        "by key and tag": JobQuery(key="k4", tags={"user": "bob"}, queue="default"),
        "newest": JobQuery(newest_first=True, limit=8),
        "newest failed": JobQuery(states=frozenset({JobState.FAILED}), newest_first=True),
        "newest by tag": JobQuery(tags={"user": "bob"}, newest_first=True),
    }.items():
        efforts[name] = effort.of(lambda query=query: finding.find(connection, query))  # type: ignore[misc]
    efforts["load"] = effort.of(lambda: load_by_id(connection, "job 4"))
    efforts["stream"] = effort.of(lambda: finding.follow(connection, "job 0", 0, 100))
    efforts["backlog"] = effort.of(lambda: finding.backlog(connection, {"default"}, None))
    return efforts


def test_ended_jobs_cost_nothing(tmp_path: Path) -> None:
    """Every operation takes as many steps beside a great many ended jobs as without them, within 30 %."""
    efforts = []
    for ended in (1, ENDED):
        location = Location(str(tmp_path / f"{ended}.db"), "NORMAL")
        location.prepare()
        with closing(location.connect()) as connection:
            add_ended(connection, ended)
            connection.execute("BEGIN IMMEDIATE")
            efforts.append(_efforts(connection))
    without, beside = efforts
    worst = {name: (without[name], steps) for name, steps in beside.items() if steps > 1.3 * without[name] + 20}
    assert not worst


@pytest.mark.parametrize(
    "backlog", [{"executor": "theirs"}, {"queue": "full"}, {"queue": "paused"}, {"priority": JobPriority.LOW}]
)
def test_a_backlog_costs_nothing(tmp_path: Path, backlog: dict[str, Any]) -> None:
    """Jobs that others are to run, or that wait in a paused queue, or come later, don't slow claiming."""
    efforts = []
    for count in (1, 5000):
        location = Location(str(tmp_path / f"{count}.db"), "NORMAL")
        location.prepare()
        with closing(location.connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            tx = Transaction(connection, Identity("w", "session", Retention()), "path")
            inserting.insert(tx, [new_job(new_entry(**backlog)) for _ in range(count)], "first")
            inserting.insert(tx, [new_job(new_entry(job_id=f"job {n}")) for n in range(8)], "second")
            claiming.pause(tx, "paused", inf)
            wanted = Wanted("c", 8, 60.0, {"default": 9, "full": 0, "paused": 9}, frozenset({"work"}))
            claimed: list[JobEntry] = []
            effort = Effort(connection)
            efforts.append(effort.of(lambda: claimed.extend(claiming.claim(tx, wanted).entries)))  # noqa: B023
            assert [entry.id for entry in claimed] == [f"job {n}" for n in range(8)]
    assert efforts[1] <= 1.3 * efforts[0] + 20


def test_a_claim_reads_what_it_takes(connection: sqlite3.Connection) -> None:
    """A claim reads as many jobs of a long line as it takes, in one go."""
    connection.execute("BEGIN IMMEDIATE")
    tx = Transaction(connection, Identity("w", "session", Retention()), "path")
    inserting.insert(tx, [new_job(new_entry(job_id=f"{n:04}")) for n in range(1000)], "mark")
    executed: list[str] = []
    connection.set_trace_callback(executed.append)
    entries = claiming.claim(tx, Wanted("c", 100, 60.0, None, None)).entries
    connection.set_trace_callback(None)
    assert [entry.id for entry in entries] == [f"{n:04}" for n in range(100)]
    assert sum("LIMIT 100 OFFSET" in statement for statement in executed) == 1
    assert "LIMIT 100 OFFSET 0" in " ".join(executed)


@pytest.mark.parametrize("seed", range(30))
def test_the_order_of_lines(connection: sqlite3.Connection, seed: int) -> None:
    """Whatever lines the jobs stand in, those are claimed that come first and that there is room for, in order."""
    chance = random.Random(seed)
    connection.execute("BEGIN IMMEDIATE")
    tx = Transaction(connection, Identity("w", "session", Retention()), "path")
    levels, queues, executors = list(JobPriority), "abc", ("x", "y")
    entries = [
        new_entry(
            queue=chance.choice(queues),
            executor=chance.choice(executors),
            priority=chance.choice(levels),
            expires_in=chance.choice((None, None, 60.0, 1e-9)),
        )
        for _ in range(chance.randrange(1, 40))
    ]
    inserting.insert(tx, [new_job(entry) for entry in entries], "mark")
    ready = [entry for entry in entries if entry.expires_in != 1e-9]
    ready.sort(key=lambda entry: -entry.plan.priority)
    calls = 0
    while calls < 100:
        room = None if chance.random() < 0.3 else {queue: chance.randrange(4) for queue in queues}
        wanted = None if chance.random() < 0.5 else set(executors[: chance.randrange(3)])
        limit, left = chance.randrange(1, 12), dict(room or dict.fromkeys(queues, 100))
        expected: list[str] = []
        for entry in list(ready):
            queue, executor = entry.plan.queue, entry.plan.executor
            if len(expected) < limit and left[queue] and (wanted is None or executor in wanted):
                left[queue] -= 1
                expected.append(entry.id)
                ready.remove(entry)
        calls += 1
        found = claiming.claim(tx, Wanted(f"c{calls}", limit, 60.0, room, wanted)).entries
        assert [entry.id for entry in found] == expected


def test_reading_on_costs_nothing(connection: sqlite3.Connection) -> None:
    """Who has read most of a long stream does not look at that again to read on."""
    add_ended(connection, 1000)
    connection.execute(ADD_CHUNKS)
    effort = Effort(connection)
    first, last = (
        effort.of(lambda: finding.follow(connection, "ended 900", after, 100))  # noqa: B023
        for after in (0, 4800)
    )
    assert last <= 1.3 * first + 20


def test_pruning_goes_in_slices(connection: sqlite3.Connection) -> None:
    """However much is to be removed, one go removes a bounded part of it."""
    add_ended(connection, 1000)
    connection.execute(ADD_CHUNKS)
    identity = Identity("w", "session", Retention(finished_jobs=10, finished_for=10**12))
    until = pruning.limit(connection, identity.retention)
    left = []
    more = True
    while more:
        before = connection.total_changes
        connection.execute("BEGIN")
        more, _ = pruning.prune(Transaction(connection, identity, "path"), until)
        connection.execute("COMMIT")
        assert connection.total_changes - before <= pruning.CHUNKS + 5 * pruning.SLICE
        left.append(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
    assert left[-1] == 10
    assert len(left) > 6
    for table in ("messages", "tags"):
        assert connection.execute(f"SELECT count(DISTINCT job) FROM {table}").fetchone()[0] == 10
