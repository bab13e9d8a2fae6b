"""The Redis store keeps the contract, on one server and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis_invariants import check_jobs
from valkey_server import new_prefix, shared_cluster, shared_server

from jobtrio.stores.redis import RedisJobStore
from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_redis_store(check: StoreCheck) -> None:
    """Each instance is a process of its own, as far as the server can tell."""
    prefix = new_prefix()
    await check(lambda: RedisJobStore(shared_server().url, prefix=prefix, outage_limit=60.0))
    check_jobs(shared_server(), prefix)


@pytest.mark.once
@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_redis_store_in_a_cluster(check: StoreCheck) -> None:
    """All keys of a store are in one slot, and the scripts may touch no other."""
    prefix = new_prefix()
    await check(lambda: RedisJobStore(shared_cluster().url, prefix=prefix, outage_limit=60.0))
    check_jobs(shared_cluster(), prefix)
