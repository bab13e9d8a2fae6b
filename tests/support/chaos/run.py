"""One run of a plan, from the first job to the last look into the store.

It owns the order: everybody is there before the first fault, the faults end before anybody waits for the jobs, and the
workers are gone before the store is read. It must not judge.
"""

from __future__ import annotations

import time
import traceback
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

import jobtrio
from chaos.clients import KEEP_ALL, NAMES, Clients, open_clients
from chaos.facts import Facts, Happening, Kept, Line, number
from chaos.fleet import open_fleet
from chaos.jobs import executors, read_journal
from chaos.plan import OF_PROCESSES, draw_plan
from chaos.rig import for_patience, make_store, open_rig
from chaos.tasks import tell_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from chaos.fleet import Fleet
    from chaos.plan import Fault, Form
    from chaos.rig import Rig
    from jobtrio import JobRecord, Message
    from jobtrio.abc import JobStore

TICK: Final = 0.05
LATE: Final = 0.2
"""Seconds between two looks at the clock, and how late one is where the machine is too busy."""

AFTERMATH: Final = 0.7
"""Seconds from the end of a fault to the next at the same place: what it did must have time to show."""

TROUBLED: Final = 60.0
"""Seconds that the last submission and the last fault may take beyond the plan."""

STARTING: Final = 30.0
DRAINING: Final = 30.0
"""Seconds until all workers work, and until they have ended when told to."""

PAGE: Final = 500


async def carry_out(seed: int, form: Form, store: str, folder: Path, sabotage: str = "") -> Facts:
    """Carry out the plan of a seed on a store; return what was seen.

    *Cancellation*: all processes are gone.
    """
    async with open_rig(store, folder) as rig:
        facts = Facts(draw_plan(seed, form, rig.faults))
        wrong = (*(("deaf",) if facts.plan.deaf else ()), *((sabotage,) if sabotage else ()))
        async with open_fleet(folder, form.lease, wrong) as fleet:
            try:
                await _play(facts, rig, fleet)
            except Exception:
                facts.complaints.append((None, f"the run itself failed\n{traceback.format_exc()}"))
                await rig.heal()
        facts.lives = fleet.lives()
        facts.lines = [Line(*line) for line in read_journal(fleet.journal)]
        await _look(facts, rig)
    return facts


async def _play(facts: Facts, rig: Rig, fleet: Fleet) -> None:
    ways = {name: await rig.way_of(name) for name in (*NAMES, *facts.plan.workers)}
    async with open_clients(facts, ways) as clients:
        with trio.fail_after(STARTING):
            for name in facts.plan.workers:
                fleet.add(name, ways[name])
            await fleet.serving()
        facts.began = time.time()
        async with _supervised(facts, fleet), trio.open_nursery() as watchers:
            with trio.move_on_after(facts.plan.form.seconds + TROUBLED) as scope:
                async with trio.open_nursery() as troubled:
                    troubled.start_soon(clients.submit_all, watchers)
                    troubled.start_soon(clients.pause_all)
                    troubled.start_soon(_befall, facts, rig, fleet)
            if scope.cancelled_caught:
                told = f"here:\n{tell_tasks()}\n{await fleet.tell_tasks()}"
                facts.complaints.append((None, f"submissions and faults did not come to their end\n{told}"))
            await rig.heal()
            if await _settle(facts, rig, clients, watchers):
                told = f"here:\n{tell_tasks()}\n{await fleet.tell_tasks()}"
                facts.complaints.append((None, f"what tasks were at when it took too long:\n{told}"))
            watchers.cancel_scope.cancel()
        await _drain(facts, fleet)


@asynccontextmanager
async def _supervised(facts: Facts, fleet: Fleet) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.watch)
        nursery.start_soon(_note_pauses, facts)
        yield
        nursery.cancel_scope.cancel()


async def _note_pauses(facts: Facts) -> None:
    """Note when the machine is so busy that nothing can be expected to be in time."""
    while True:
        before = time.time()
        await trio.sleep(TICK)
        if time.time() - before > TICK + LATE:
            facts.pauses.append((before, time.time()))


# -- faults


async def _befall(facts: Facts, rig: Rig, fleet: Fleet) -> None:
    """Carry out all faults in their time; those of one target one after the other."""
    started = trio.current_time()
    locks = {fault.target: trio.StrictFIFOLock() for fault in facts.plan.faults}
    async with trio.open_nursery() as nursery:
        for fault in facts.plan.faults:
            await trio.sleep_until(started + fault.at)
            nursery.start_soon(_befall_once, facts, rig, fleet, fault, locks[fault.target])


async def _befall_once(facts: Facts, rig: Rig, fleet: Fleet, fault: Fault, lock: trio.StrictFIFOLock) -> None:
    async with lock:
        began = time.time()
        if fault.kind in OF_PROCESSES:
            worker = fleet.workers[fault.target]
            deeds = {"kill": worker.kill, "stop": worker.stand_still, "drain": worker.drain}
            await deeds[fault.kind](fault.seconds)
        else:
            await rig.befall(fault)
        facts.happenings.append(Happening(fault, began, time.time()))
        await trio.sleep(AFTERMATH)


# -- the end


async def _settle(facts: Facts, rig: Rig, clients: Clients, watchers: trio.Nursery) -> bool:
    """Wait until all jobs have ended, and all who watch have seen it; complain and tell where that takes too long."""
    limit = facts.plan.form.settling
    living: list[str] = []
    with trio.move_on_after(limit) as scope:
        async with _open_reader(rig) as (registry, _):
            while living := [record.id for record in await _all_records(registry) if not record.state.is_final]:
                for job_id in living:
                    if facts.submissions[job_id].answer == "unavailable":  # stored all the same, and perhaps to hang
                        await clients.try_to_cancel(registry, job_id)
                for queue in await registry.paused():
                    facts.paused_late.add(queue)
                    await registry.resume(queue)
                await trio.sleep(0.1)
        while watchers.child_tasks:  # noqa: ASYNC110 - tasks of many
            await trio.sleep(0.05)
    if scope.cancelled_caught:
        facts.complaints += [(job_id, f"it lived {limit:g} s after the last fault") for job_id in living]
        waiting = {watch.job_id for watch in facts.watches if not watch.ended}.difference(living)
        facts.complaints += [(job_id, f"a watcher waited {limit:g} s after the last fault") for job_id in waiting]
    return scope.cancelled_caught


async def _drain(facts: Facts, fleet: Fleet) -> None:
    with trio.move_on_after(DRAINING) as scope:
        await fleet.drain()
    if scope.cancelled_caught:
        alive = ", ".join(worker.life.name for worker in fleet.workers.values() if worker.is_alive())
        told = await fleet.tell_tasks()
        facts.complaints.append((None, f"{DRAINING:g} s after SIGTERM these workers had not ended: {alive}\n{told}"))


async def _look(facts: Facts, rig: Rig) -> None:
    """Read all that the store has."""
    async with _open_reader(rig) as (registry, store):
        for record in await _all_records(registry):
            history = await registry.history(record.id)
            facts.kept[record.id] = Kept(record, history, await _all_messages(store, record.id))


@asynccontextmanager
async def _open_reader(rig: Rig) -> AsyncIterator[tuple[jobtrio.JobRegistry, JobStore]]:
    store = make_store(for_patience(rig.url, TROUBLED))  # a server that has just been started may be slow
    async with jobtrio.open_registry(
        executors, store=store, queues={}, retention=KEEP_ALL, worker="reader"
    ) as registry:
        yield registry, store


async def _all_records(registry: jobtrio.JobRegistry) -> list[JobRecord]:
    records: list[JobRecord] = []
    find = partial(registry.find, limit=PAGE)
    while page := await find(after=records[-1].id if records else None):
        records += page
    return records


async def _all_messages(store: JobStore, job_id: str) -> list[Message]:
    messages: list[Message] = []
    while page := await store.read_messages(job_id, number(messages[-1]) if messages else 0, PAGE):
        messages += page
    return messages
