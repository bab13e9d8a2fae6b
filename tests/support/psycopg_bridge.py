"""What several tests of the PostgreSQL bridge ask: of a connection, and of the server about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import trio
from psycopg import pq

if TYPE_CHECKING:
    from jobtrio.psycopg_trio import TrioConnection

IDLE = pq.TransactionStatus.IDLE

SLOW_COMMIT = """
CREATE TABLE t (a int);
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(NEW.a / 1000.0); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep();
"""
"""A table whose rows make the commit last as many milliseconds as they say."""


async def scalar(connection: TrioConnection[Any], statement: LiteralString, *parameters: object) -> Any:
    """Return the first value of the first row."""
    row = await (await connection.execute(statement, parameters or None)).fetchone()
    return None if row is None else row[0]


async def check_at_rest(connection: TrioConnection[Any]) -> None:
    """Check that a connection is idle and answers what it was asked."""
    assert not connection.closed
    assert connection.info.transaction_status == IDLE
    assert connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
    for number in range(3):
        assert await scalar(connection, "SELECT %s::int", number) == number
    if not connection.autocommit:
        await connection.rollback()


def sessions(conninfo: str) -> list[tuple[str, str]]:
    """Return state and last statement of all other sessions of this database, as the server sees them."""
    with psycopg.connect(conninfo, autocommit=True, application_name="observer") as observer:
        return observer.execute(
            "SELECT state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'observer'"
        ).fetchall()


async def wait_for_session(conninfo: str, state: str, statement: str) -> None:
    """Wait until the server sees a session in this state, with a statement that begins so."""
    with trio.fail_after(60):
        while not any(seen == state and query.startswith(statement) for seen, query in sessions(conninfo)):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def wait_for_sessions(conninfo: str, most: int) -> None:
    """Wait until the server has no more than so many other sessions of this database."""
    with trio.fail_after(60):
        while len(sessions(conninfo)) > most:  # noqa: ASYNC110
            await trio.sleep(0.01)
