"""A Redis behind TLS: its certificate is checked, and connections that are lost are lost like others."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from redis_invariants import check_jobs
from valkey_server import new_prefix, shared_server

from jobtrio import StoreUnavailableError
from jobtrio.stores.redis import RedisJobStore
from jobtrio.testing._workers import ids, new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jobtrio._entry import JobEntry


class TlsWay:
    """The way to the shared server, by TLS.

    Attributes:
        port: Where it begins.
    """

    port: int

    def __init__(self) -> None:
        self._connections: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """End all connections, with no word of TLS."""
        for scope in self._connections:
            scope.cancel()

    async def carry(self, client: trio.SSLStream[trio.SocketStream]) -> None:
        """Carry what one client and the server say."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                async with await trio.open_tcp_stream("127.0.0.1", shared_server().port) as server:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_carry, client, server)
                        nursery.start_soon(_carry, server, client)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._connections.discard(scope)
                await trio.aclose_forcefully(client)


async def _carry(source: trio.abc.ReceiveStream, target: trio.abc.SendStream) -> None:
    while data := await source.receive_some(65536):
        await target.send_all(data)
    await target.aclose()


@asynccontextmanager
async def open_way(authority: trustme.CA) -> AsyncIterator[TlsWay]:
    """Open a way whose certificate is for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    way = TlsWay()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, https_compatible=True)
        (listener,) = await nursery.start(partial(serve, way.carry, 0, context, host="127.0.0.1"))
        way.port = listener.transport_listener.socket.getsockname()[1]
        yield way
        nursery.cancel_scope.cancel()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Who is trusted to issue certificates."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    return authority


async def test_cut_off_at_random(authority: trustme.CA) -> None:
    """However often connections are cut off, whoever calls is told of an outage at most, and all is stored once."""
    prefix = new_prefix()
    entries: list[JobEntry] = []
    async with open_way(authority) as way:
        url = f"rediss://localhost:{way.port}"
        async with open_worker(lambda: RedisJobStore(url, prefix=prefix, outage_limit=9.0)) as worker:
            done = trio.Event()

            async def insert() -> None:
                while not done.is_set():
                    entry = new_entry()
                    entries.append(entry)
                    await again(entry)

            async def again(entry: JobEntry) -> None:
                while True:
                    try:
                        await worker.store.insert([entry], entry.id)
                        return
                    except StoreUnavailableError:
                        await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(insert)
                for _ in range(20):
                    await trio.sleep(0.1)
                    way.cut()
                done.set()
    assert set(check_jobs(shared_server(), prefix)) == set(ids(entries))


@pytest.mark.parametrize("who", ["another name", "another authority"])
async def test_who_is_not_to_be_trusted(authority: trustme.CA, who: str) -> None:
    """A server with a certificate for another name, or by somebody unknown, is not talked to."""
    async with open_way(authority if who == "another name" else trustme.CA()) as way:
        host = "127.0.0.1" if who == "another name" else "localhost"
        with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            async with open_worker(lambda: RedisJobStore(f"rediss://{host}:{way.port}", outage_limit=3.0)):
                raise AssertionError("it was trusted")
