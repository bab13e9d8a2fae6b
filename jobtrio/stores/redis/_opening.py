"""Checking a server before it is used: whether it is one that will do, whose the data is, and how safe they are there.

It must not know what is stored.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from jobtrio._checks import show
from jobtrio._errors import StoreError, StoreVersionError
from jobtrio.stores.redis._address import place_text
from jobtrio.stores.redis._batch import Batch, pick
from jobtrio.stores.redis._calls import load_scripts
from jobtrio.stores.redis._link import Command, LinkError, RedisError
from jobtrio.stores.redis._scripts import VERSION, run

if TYPE_CHECKING:
    from jobtrio.stores.redis._link import Link

OLDEST: Final = 7
"""The first version of Redis that will do. What Valkey says it stands for is newer."""

LIMITS: Final = ("proto-max-bulk-len", "client-query-buffer-limit")
"""The settings that limit how long an argument of a command may be."""

ROOM: Final = 16 * 1024 * 1024
"""Bytes that the server has to take as one argument of a command: more than the largest value and what is beside it."""

_NUMBER: Final = re.compile(rb"[1-9][0-9]{0,8}")

log: Final = logging.getLogger("jobtrio.stores.redis")


async def prepare(link: Link, prefix: str, *, creates: bool = True) -> None:
    """Give the server the scripts, and check what is under the prefix, or make it this store's own.

    Raises:
        StoreVersionError: The format is newer than this version knows.
        StoreError: The server is too old, or what is there is not the store's, or nothing is and the store is not to
            be made; nothing was written.

    Cancellation: it may have been made.
    """
    if int(link.version.partition(".")[0]) < OLDEST:
        raise StoreError(f"{place_text(link.place)}: version {link.version} is too old: it takes Redis 7 or Valkey 8")
    await load_scripts(link)
    batch = Batch(prefix)
    places = batch.add([run("open", VERSION, int(creates))])
    (version,) = pick(await link.send(batch.commands()).wait(), places)
    if isinstance(version, BaseException):
        raise version
    check_version(version, place_text(link.place), prefix)


def check_version(version: bytes | int | None, place: str, prefix: str) -> None:
    """Raise `StoreError` unless what was found is of this version."""
    where = f"what is under {prefix!r} at {place}"
    if isinstance(version, int):
        raise StoreError(f"there are no jobs under {prefix!r} at {place}")
    if version is None:
        raise StoreError(f"{where} is not jobtrio's, or is damaged: choose another prefix, or another database")
    if not _NUMBER.fullmatch(version):
        raise StoreError(f"{where} is not jobtrio's: its version is {show(version)}")
    if int(version) > VERSION:
        raise StoreVersionError(f"{where} has format {int(version)}; this version of jobtrio knows {VERSION}")


async def warn_of_losses(link: Link) -> None:
    """Log what would make the server lose jobs that it has acknowledged, or let them never end, as far as it says.

    Cancellation: the link is closed.
    """
    settings = await _settings(link)
    for warning in [*losses(settings), *narrow_limits(settings)]:
        log.warning("%s: %s", place_text(link.place), warning)


def losses(settings: dict[str, str]) -> list[str]:
    """Return what would make a server with these settings lose jobs."""
    found = []
    if settings.get("aof_enabled") == "0":
        if settings.get("save") == "":
            found.append("nothing is kept on disk (appendonly no, save ''): a restart loses all jobs")
        else:
            found.append("appendonly is off: a crash loses the jobs since the last snapshot")
    elif settings.get("appendfsync") == "no":
        found.append("appendfsync is no: a power cut may lose the last half minute and more")
    elif settings.get("no-appendfsync-on-rewrite") == "yes":
        found.append(
            "no-appendfsync-on-rewrite is yes: a power cut while the file is rewritten may lose the last half minute"
        )
    policy = settings.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        found.append(
            f"maxmemory-policy is {policy}: the server may drop jobs for want of memory; noeviction refuses new ones"
        )
    return found


def narrow_limits(settings: dict[str, str]) -> list[str]:
    """Return which limits have a server with these settings refuse large values, even results of jobs that have run."""
    found = []
    for name in LIMITS:
        limit = settings.get(name, "")
        if limit.isdecimal() and 0 < int(limit) < ROOM:
            found.append(f"{name} is {limit}: a job that sends or returns more at once can't end; {ROOM} is enough")
    return found


async def _settings(link: Link) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (b"persistence", b"memory"):
        text = await _ask(link, b"INFO", part)
        lines = (text or b"").decode().splitlines()
        found.update(line.split(":", 1) for line in lines if ":" in line)  # type: ignore[misc]
    for name in ("save", "appendfsync", "no-appendfsync-on-rewrite", *LIMITS):  # where the server lets them be read
        answer = await _ask(link, b"CONFIG GET", name.encode()) or {}
        found.update({key.decode(): value.decode() for key, value in answer.items()})
    return found


async def _ask(link: Link, name: bytes, argument: bytes) -> Any:
    try:
        return await link.command(Command(name, (argument,)))
    except LinkError:
        raise
    except RedisError:
        return None  # it is not allowed
