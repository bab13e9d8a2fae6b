"""PostgreSQL: durable jobs of no work, enqueue and drain apart, and their streams in another process.

The server is one of the benchmark's own, on the loopback interface, as PostgreSQL is by default: each commit waits for
the disk. With ``--peers``, PgQueuer, Oban and Procrastinate take turns with jobtrio on it, each in a database of its
own, 100 jobs at once. What counts is the time on the wall; of many streams it is processor time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from benchmarks import _disk as disk
from benchmarks._peer_environment import POSTGRES
from benchmarks._result import at_least
from benchmarks._server_rows import Peer, compare_with_peers, measure_jobs
from benchmarks._servers import new_database, open_postgres
from benchmarks._stream_rows import measure_streams, measure_tokens
from benchmarks.fleet.costs import Server

if TYPE_CHECKING:
    from postgres_server import PostgresServer

    from benchmarks._harness import Session

SETTING: Final = "synchronous_commit=on"


async def run(session: Session) -> None:
    """Measure the store, then beside the peers, then streams."""
    logging.getLogger("jobtrio.stores.postgres").setLevel(logging.ERROR)
    with open_postgres() as server:
        (version,) = server.execute("SHOW server_version")[0]
        disk.note(session, f"PostgreSQL {version}")
        url = new_database(server)

        def empty() -> None:
            server.execute("DROP SCHEMA IF EXISTS jobtrio CASCADE", database=url.rpartition("/")[2])

        await measure_jobs(session, url, empty, SETTING)
        if session.peers:
            await compare_with_peers(session, POSTGRES, _peers(server), url, empty, SETTING)
        empty()
        await measure_tokens(session, url, SETTING)
        await measure_streams(session, url, SETTING, Server(server.pid).seconds)


def _peers(server: PostgresServer) -> tuple[Peer, ...]:
    parts = ("each", "many", "drain")
    return (
        Peer("PgQueuer, no results", "pgqueuer_peer", new_database(server), 5_000, parts, at_least(1.0)),
        Peer("Oban, no results", "oban_peer", new_database(server), 2_000, parts, at_least(4.0)),
        Peer("Procrastinate, no results", "procrastinate_peer", new_database(server), 500, parts, at_least(15.0)),
    )
