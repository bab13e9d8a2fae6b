"""A cluster of Redis: one slot holds a store, and the store finds who has it, wherever it moves."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from redis_gate import open_gate
from redis_invariants import check_jobs
from until_answered import until_answered
from valkey_server import DURABLE, ValkeyServer

from jobtrio import Completed
from jobtrio.stores.redis import RedisJobStore
from jobtrio.testing._workers import new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS = (*DURABLE, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")


@contextmanager
def two_nodes() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """Two nodes of one cluster; all slots are the second one's."""
    with ValkeyServer(*OPTIONS) as first, ValkeyServer(*OPTIONS) as second:
        second.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        second.ask("CLUSTER", "SET-CONFIG-EPOCH", 2)
        first.ask("CLUSTER", "MEET", "127.0.0.1", second.port)
        yield first, second


async def _well(*nodes: ValkeyServer) -> None:
    """Wait until nodes agree that all is well."""
    with trio.fail_after(60):
        for node in nodes:
            while "cluster_state:ok" not in str(node.ask("CLUSTER", "INFO")):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.02)


async def test_the_other_node_has_the_keys() -> None:
    """A node that has not got the keys says who has, and the store goes there."""
    with two_nodes() as (first, second):
        await _well(first, second)
        async with open_gate(first.url, outage_limit=9.0) as gate:
            gate.opened.set()
            job = await gate.registry.submit("wait")
            assert await job.wait() == Completed(job.id)
        assert first.ask("DBSIZE") == 0
        check_jobs(second, "gate", [job.id])


async def test_the_slot_moves() -> None:
    """When the slot moves to another node, the store follows it, and its jobs go on there."""
    with two_nodes() as (first, second):
        await _well(first, second)
        async with open_gate(second.url, outage_limit=9.0) as gate:
            job = await gate.start()
            _move_slot(second, first)
            gate.opened.set()
            await gate.check_recovery(job)
            with trio.fail_after(60):  # hints are heard there as well
                while first.ask("PUBSUB", "SHARDNUMSUB", "{gate}:hints") != ["{gate}:hints", 1]:  # noqa: ASYNC110
                    await trio.sleep(0.02)
        check_jobs(first, "gate", [job.id])


def _move_slot(source: ValkeyServer, target: ValkeyServer) -> None:
    """Move the store's slot and all its keys, as an administrator's tool does."""
    slot = int(str(source.ask("CLUSTER", "KEYSLOT", "{gate}:")))
    source_id, target_id = (str(node.ask("CLUSTER", "MYID")) for node in (source, target))
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while True:
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        assert isinstance(keys, list)
        if not keys:
            break
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)


async def test_the_cluster_is_down() -> None:
    """A cluster that does not serve all its slots is a store that is away until it does."""
    with ValkeyServer(*OPTIONS) as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await _well(server)
        async with open_gate(server.url) as gate:
            job = await gate.start()
            server.ask("CLUSTER", "DELSLOTSRANGE", 0, 16383)
            await gate.check_outage(job, "CLUSTERDOWN")
            server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await _well(server)
            await gate.check_recovery(job)
        check_jobs(server, "gate", [job.id])


async def test_a_node_that_has_lost_its_cluster() -> None:
    """A node that says so is left for another that is named, which may have taken over from it."""
    with ValkeyServer(*OPTIONS) as lost, ValkeyServer(*OPTIONS) as other:
        for node in (lost, other):
            node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await _well(lost, other)
        hosts = f"{lost.url},127.0.0.1:{other.port}"
        async with open_worker(lambda: RedisJobStore(hosts, outage_limit=9.0)) as worker:
            await worker.insert(new_entry())
            lost.ask("CLUSTER", "DELSLOTSRANGE", 0, 16383)
            entry = new_entry()
            await until_answered(partial(worker.store.insert, [entry], "mark"))
        assert set(check_jobs(other, "jobtrio")) == {entry.id}


@pytest.mark.parametrize("prefix", ["jobs", "a b", "é"])
async def test_one_slot(prefix: str) -> None:
    """All keys of a prefix, also one with blanks and letters beyond ASCII, are in one slot."""
    with ValkeyServer(*OPTIONS) as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await _well(server)
        async with open_gate(server.url, prefix=prefix) as gate:
            gate.opened.set()
            job = await gate.registry.submit("wait", tags={"a": "b"}, key="key", queue="other", delay=0.01)
            assert await job.wait() == Completed(job.id)
        keys = server.ask("KEYS", "*")
        assert isinstance(keys, list)
        assert len({server.ask("CLUSTER", "KEYSLOT", key) for key in keys}) == 1
        check_jobs(server, prefix, [job.id])
