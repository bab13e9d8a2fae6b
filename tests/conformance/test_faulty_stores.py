"""The checks find what is wrong with a store: each of these breaks one rule of the contract."""

from __future__ import annotations

import subprocess
import sys
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from jobtrio import JobState
from jobtrio.stores._timers import Timer
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from jobtrio.abc import Claim, JobEntry, LeaseReport, Plan, StoreSettings

CHECKS = {check.__name__: check for check in STORE_CHECKS}


class LowersTags(MemoryJobStore):
    """Keeps tags as it likes them, and brings the entry to that."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        for entry in entries:
            entry.tags = {name.lower(): value for name, value in (entry.tags or {}).items()}
        return await super().insert(entries, submission)


class IgnoresCase(MemoryJobStore):
    """Takes one id for another, as a database does whose texts are compared that way."""

    def peek(self, job_id: str) -> JobEntry | None:
        return super().peek(job_id.lower())


class StoresOneByOne(MemoryJobStore):
    """Stores what comes in one call apart."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        answer = []
        for entry in entries:
            answer += await super().insert([entry], submission)
            await trio.lowlevel.checkpoint()
        return answer


class RemovesWhatRetries(MemoryJobStore):
    """Takes a job that waits for its next attempt for an ended one."""

    async def delete(self, job_id: str) -> bool:
        entry = self.peek(job_id)
        if entry is not None and entry.state is JobState.RETRYING:
            self._shelf.remove(entry)
            return True
        return await super().delete(job_id)


class SavesBehindTheAttempt(MemoryJobStore):
    """Looks at the claim alone, not at whether it still holds its job."""

    async def save_state(self, claim: Claim, value: Any) -> bool:
        entry = self._jobs.get(claim.entry.id)
        if entry is None or entry.claim != claim.id or entry.state in (JobState.COMPLETED, JobState.FAILED):
            return False
        entry.saved_state = value
        return True


class SavesAllThatItRead(MemoryJobStore):
    """Reads a job, and writes all of it again later."""

    async def save_state(self, claim: Claim, value: Any) -> bool:
        read = self._jobs[claim.entry.id].cancel
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        saved = await super().save_state(claim, value)
        self._jobs[claim.entry.id].cancel = read
        return saved


class NeverShortens(MemoryJobStore):
    """Keeps the later of two ends of a lease."""

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        before = [claim.entry.lease_until for claim in claims]
        reports = await super().renew(claims, lease)
        for report, until in zip(reports, before, strict=True):
            report.entry.lease_until = max(until, report.entry.lease_until)
        return reports


class RenewsWhateverRuns(MemoryJobStore):
    """Renews a job's lease for whoever asks."""

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        reports = await super().renew(claims, lease)
        for report in reports:
            if report.entry.state is JobState.RUNNING:
                report.entry.lease_until = trio.current_time() + lease
                self._add_timer(report.entry.lease_until, Timer.LEASE, report.entry)
        return reports


class CountsFromTheStart(MemoryJobStore):
    """Lets a held job wait anew when it is started."""

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        started = await super().start_held(job_id, plan)
        entry = self._jobs[job_id]
        if started and entry.expires_in is not None:
            entry.expires = trio.current_time() + entry.expires_in
            self._add_timer(entry.expires, Timer.EXPIRY, entry)
        return started


class HoldsForEver(MemoryJobStore):
    """Lets jobs be held for as long as nobody says otherwise."""

    def _use(self, settings: StoreSettings) -> None:
        super()._use(attrs.evolve(settings, retention=attrs.evolve(settings.retention, held_for=inf)))


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (LowersTags, "check_insert_returns_what_is_stored"),
        (IgnoresCase, "check_names_are_told_apart"),
        (StoresOneByOne, "check_full_queue"),
        (StoresOneByOne, "check_calls_cut_off"),
        (RemovesWhatRetries, "check_delete"),
        (SavesBehindTheAttempt, "check_nothing_behind_the_end"),
        (SavesAllThatItRead, "check_race_of_cancel_and_other_writes"),
        (NeverShortens, "check_renewals_that_shorten"),
        (RenewsWhateverRuns, "check_report_of_a_lost_claim_beside_its_successor"),
        (HoldsForEver, "check_held_as_its_submitter_says"),
        (CountsFromTheStart, "check_started_elsewhere_in_time"),
    ],
)
async def test_a_fault_is_found(autojump_clock: MockClock, kind: type[MemoryJobStore], check: str) -> None:
    """The check of the rule that a store breaks says so."""
    store = kind()
    with pytest.raises(AssertionError):
        await CHECKS[check](lambda: store)


def test_without_assert_statements() -> None:
    """Where Python leaves out what the checks are made of, they say so, rather than pass or wait for ever."""
    program = (
        "import trio; from jobtrio.testing import STORE_CHECKS; from jobtrio.stores.memory import MemoryJobStore\n"
        "for check in STORE_CHECKS:\n"
        "    try: trio.run(check, MemoryJobStore)\n"
        "    except RuntimeError as exc: print(check.__name__, exc)"
    )
    run = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, check=True)
    names, texts = zip(*(line.split(maxsplit=1) for line in run.stdout.splitlines()), strict=True)
    assert names == tuple(CHECKS)
    assert all("assert statements" in text for text in texts)
