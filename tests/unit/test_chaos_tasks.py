"""What the tasks of a program are at can be told."""

from __future__ import annotations

import trio
from chaos.tasks import tell_tasks
from trio.testing import wait_all_tasks_blocked


async def wait_here() -> None:
    await trio.sleep_forever()


async def wait_there() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_here)


async def test_tree() -> None:
    """Each task stands below the one that owns its nursery, with the lines that it waits at, the innermost first."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_there)
        await wait_all_tasks_blocked()
        lines = tell_tasks().splitlines()
        nursery.cancel_scope.cancel()
    (outer,) = (n for n, line in enumerate(lines) if line.strip().startswith("wait_there: "))
    assert lines[outer + 1].strip().startswith("wait_here: ")
    assert "wait_here < " not in lines[outer]
    assert lines[outer + 1].endswith(" wait_here")
    assert lines[outer + 1].index("wait_here") > lines[outer].index("wait_there")


def test_no_program() -> None:
    """Where no Trio runs there is nothing to tell."""
    assert tell_tasks() == ""
