"""Redis: durable jobs of no work, enqueue and drain apart, and their streams in another process.

The server is a Valkey of the benchmark's own, on the loopback interface, with a log that is synced once a second. With
``--peers``, streaQ on Trio and taskiq take turns with jobtrio on it, each in a database of its own, 100 jobs at once.
What counts is the time on the wall; of many streams it is processor time.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from benchmarks import _disk as disk
from benchmarks._peer_environment import REDIS
from benchmarks._result import at_least
from benchmarks._server_rows import Peer, compare_with_peers, measure_jobs
from benchmarks._servers import open_valkey, pid_of_valkey
from benchmarks._stream_rows import measure_streams, measure_tokens
from benchmarks.fleet.costs import Server

if TYPE_CHECKING:
    from benchmarks._harness import Session

SETTING: Final = "appendfsync=everysec"


async def run(session: Session) -> None:
    """Measure the store, then beside the peers, then streams."""
    logging.getLogger("jobtrio.stores.redis").setLevel(logging.ERROR)
    with open_valkey() as server:
        version = re.search(r"valkey_version:(\S+)", str(server.ask("INFO", "server")))
        disk.note(session, f"Valkey {version[1] if version else '?'}")
        url = f"{server.url}/0"

        def empty() -> None:
            server.ask("FLUSHDB")  # a connection begins in database 0

        await measure_jobs(session, url, empty, SETTING)
        if session.peers:
            await compare_with_peers(session, REDIS, _peers(server.url), url, empty, SETTING)
        empty()
        await measure_tokens(session, url, SETTING)
        await measure_streams(session, url, SETTING, Server(pid_of_valkey(server)).seconds)


def _peers(url: str) -> tuple[Peer, ...]:
    return (
        Peer("streaQ on Trio", "streaq_peer", f"{url}/1", 2_000, ("each", "many", "drain"), at_least(5.0)),
        Peer("taskiq, a stream", "taskiq_redis_peer", f"{url}/2", 2_000, ("each", "drain"), at_least(2.0)),
    )
