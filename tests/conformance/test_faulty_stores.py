"""The checks find what is wrong with a store: each of these breaks one rule of the contract."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import asynccontextmanager
from copy import copy
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from jobtrio import Cancelled, End, JobError, JobState, Token
from jobtrio._codec import encode_value
from jobtrio.abc import Backlog, CancelReply, CancelRequest, JobEntry, JobQuery, Plan, key_for
from jobtrio.stores._pauses import Pauses
from jobtrio.stores._timers import Timer
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._check_entries import BY_ITS_CLOCK, OF_ONE_PROCESS
from jobtrio.testing._workers import Heard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trio.testing import MockClock

    from jobtrio import JobPriority, JobRecord, Message, Outcome
    from jobtrio.abc import Claim, LeaseReport, StoreSettings

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


class AnswersWithItsOwn(MemoryJobStore):
    """Finds by the mark of a repeated call what that had stored, and not what had a key already."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        is_repeated = any(entry.submission == submission for entry in self._jobs.values())
        answer = await super().insert(entries, submission)
        return [entry for entry in answer if entry.submission == submission] if is_repeated else answer


class CountsAnew(MemoryJobStore):
    """Goes on counting behind what it still has when it is opened."""

    durable = True

    def _use(self, settings: StoreSettings) -> None:
        super()._use(settings)
        self._numbers = count(1 + max((entry.order for entry in self._jobs.values()), default=0))


class DoesAHundred(MemoryJobStore):
    """Does no more than so much in one go, and forgets to say that there is more."""

    async def advance(self) -> float:
        most = sorted(entry.due for entry in self._jobs.values() if entry.state is JobState.SCHEDULED)[:100]
        if not most or most[-1] > trio.current_time():
            return await super().advance()
        for _ in most:
            found = self._timers.pop(most[-1])
            if found is not None:
                self._requeue(found[1], None)
        return inf


class RemovesAHundred(MemoryJobStore):
    """Removes no more than so many in one go, and forgets to say that there are more."""

    async def prune(self) -> float:
        past = time.time() - self.settings.retention.finished_for
        for entry in [entry for entry in self._jobs.values() if entry.finished_at and entry.finished_at < past][:100]:
            self._shelf.remove(entry)
        return inf

    async def counts(self) -> dict[str, dict[JobState, int]]:
        return self._index.counts()


class FailsAtTheThirdLoss(MemoryJobStore):
    """Counts leases before it looks whether somebody has asked to cancel."""

    def _lapse(self, entry: JobEntry) -> None:
        if entry.losses == 2:
            entry.cancel = None
        super()._lapse(entry)


class WritesTheEndLater(MemoryJobStore):
    """Writes the state in one step, and the `End` in another."""

    _ending: str | None = None

    async def finish(
        self, claim: Claim, outcome: Outcome, *, error: JobError | None = None, messages: Sequence[Message] = ()
    ) -> bool:
        finished = await super().finish(claim, outcome, error=error, messages=messages)
        self._ending = claim.entry.id
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self._ending = None
        return finished

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        messages = await super().read_messages(job_id, after, limit)
        is_ending = messages is not None and job_id == self._ending
        return [each for each in messages or () if not isinstance(each, End)] if is_ending else messages


class WritesTheEndFirst(WritesTheEndLater):
    """Writes the `End` in one step, and the state in another."""

    async def load(self, job_id: str) -> JobEntry | None:
        entry = await super().load(job_id)
        return attrs.evolve(entry, outcome=None) if entry is not None and job_id == self._ending else entry

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        return await MemoryJobStore.read_messages(self, job_id, after, limit)


class LooksBeforeItReads(MemoryJobStore):
    """Gives those who follow a job what that was before its messages were read."""

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        entry = copy(self.peek(job_id))
        await trio.lowlevel.checkpoint()
        return await self.read_messages(job_id, after, limit), entry


class LeavesOneOut(MemoryJobStore):
    """Gives those who follow a job one message less than there is room for."""

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        messages, entry = await super().follow(job_id, after, limit)
        return messages and messages[: max(limit - 1, 1)], entry


class CancelsWhatItRead(MemoryJobStore):
    """Ends a job that was waiting when it looked."""

    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        read = copy(self.peek(job_id))
        await trio.lowlevel.checkpoint()
        entry = self.peek(job_id)
        if read is None or entry is None or read.state is entry.state:
            return await super().request_cancel(job_id, reason, grace)
        entry.cancel = CancelRequest(time.time(), reason, grace)
        self._end(entry, Cancelled(reason), None)
        return CancelReply(entry, accepted=True)


class StartsWhatItRead(MemoryJobStore):
    """Starts a job that was held when it looked."""

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        entry = self.peek(job_id)
        if entry is None or not entry.is_held:
            return False
        await trio.lowlevel.checkpoint()
        await super().start_held(job_id, plan)
        return True


class StartsWithWhatItIsGiven(MemoryJobStore):
    """Starts a held job with the whole plan."""

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        entry = self.peek(job_id)
        if entry is not None and entry.is_held:
            entry.plan = entry.plan.with_priority(plan.priority)
        return await super().start_held(job_id, plan)


class ChangesWhatItRead(MemoryJobStore):
    """Gives a job another priority that was waiting when it looked."""

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        read = copy(self.peek(job_id))
        await trio.lowlevel.checkpoint()
        entry = await super().set_priority(job_id, priority)
        if read is not None and entry is not None and read.state is JobState.QUEUED:
            entry.plan = entry.plan.with_priority(priority)
        return entry


class ChangesTheRecordAlone(MemoryJobStore):
    """Leaves a job whose priority has changed where it stands."""

    def _prioritize(self, entry: JobEntry, priority: JobPriority) -> None:
        entry.plan, entry.ticket = entry.plan.with_priority(priority), next(self._numbers)


class SendsAllToTheEnd(MemoryJobStore):
    """Gives a job a new place also where its priority stays what it is."""

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        entry = self.peek(job_id)
        if entry is not None and entry.state is JobState.QUEUED:
            self._prioritize(entry, priority)
        return entry


class KeepsThePlace(MemoryJobStore):
    """Has jobs stand by their age in the line of their new priority."""

    async def claim(self, claim_id: str, **options: Any) -> list[Claim]:
        claims = await super().claim(claim_id, **options)
        return sorted(claims, key=lambda claim: (-claim.entry.plan.priority, claim.entry.order))


class NumbersOnlyWhatIsReady(MemoryJobStore):
    """Gives a new ticket to what stands in line alone."""

    def _prioritize(self, entry: JobEntry, priority: JobPriority) -> None:
        if entry.state is JobState.QUEUED and not entry.is_held:
            super()._prioritize(entry, priority)
        else:
            entry.plan = entry.plan.with_priority(priority)


class AppendsToWhatItRead(MemoryJobStore):
    """Appends to a job that the claim held when it looked."""

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        is_held = self._holds(claim)
        await trio.lowlevel.checkpoint()
        if is_held:
            self._append(claim, messages)
        return is_held


class ForgetsPatientRequests(MemoryJobStore):
    """Heeds a request to cancel behind a failure only where it has no grace."""

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        cancel = claim.entry.cancel
        if cancel is not None and cancel.grace:
            claim.entry.cancel = None
        return await super().retry(claim, error, delay, counts=counts, messages=messages)


class RemovesMore(MemoryJobStore):
    """Keeps a tenth less, so as not to have to remove anything soon again."""

    def _use(self, settings: StoreSettings) -> None:
        kept = settings.retention.finished_jobs * 9 // 10
        super()._use(attrs.evolve(settings, retention=attrs.evolve(settings.retention, finished_jobs=kept)))


class PrunesWhatRetries(MemoryJobStore):
    """Takes a job that waits for its next attempt for an ended one, when it looks for those."""

    async def prune(self) -> float:
        for entry in [*self._jobs.values()]:
            if entry.state is JobState.RETRYING:
                self._shelf.remove(entry)
        return await super().prune()


class ForgetsWhatItTookOut(MemoryJobStore):
    """Takes out what is due, and does it afterwards, unless it is cancelled in between."""

    async def advance(self) -> float:
        now = trio.current_time()
        taken = []
        while found := self._timers.pop(now):
            taken.append(found)
        await trio.lowlevel.checkpoint()
        for timer, entry in taken:
            self._timers.add(now, timer, entry)
        return await super().advance()


class GoesOnBehindAMatch(MemoryJobStore):
    """Looks for the last job of a page only among those that match."""

    async def find(self, query: JobQuery) -> list[JobRecord]:
        if query.after is not None:
            matching = await super().find(attrs.evolve(query, after=None, limit=len(self._jobs)))
            if query.after not in [record.id for record in matching]:
                return matching[: query.limit]
        return await super().find(query)


class PassesOverKeys(MemoryJobStore):
    """Does not know of finding by a key."""

    async def find(self, query: JobQuery) -> list[JobRecord]:
        return await super().find(attrs.evolve(query, key=None))


class LooksAtTheKeyAlone(MemoryJobStore):
    """Finds whatever has the key."""

    async def find(self, query: JobQuery) -> list[JobRecord]:
        return await super().find(attrs.evolve(query, states=None, tags=None, queue=None, executor=None))


class CountsAll(MemoryJobStore):
    """Counts each failure, also one that is not to count."""

    async def retry(self, *args: Any, **options: Any) -> bool:
        return await super().retry(*args, **{**options, "counts": True})


class CountsByOneTag(MemoryJobStore):
    """Counts whatever has the first of the tags."""

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        return await super().counts_of(dict([*tags.items()][:1]))


class CountsOnePage(MemoryJobStore):
    """Counts what it finds at first."""

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        found: dict[str, dict[JobState, int]] = {}
        for record in await self.find(JobQuery(tags=tags)):
            found.setdefault(record.queue, dict.fromkeys(JobState, 0))[record.state] += 1
        return found


class CutsTexts(MemoryJobStore):
    """Keeps errors in columns of a fixed length."""

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        cut = attrs.evolve(error, message=error.message[:1000])
        return await super().retry(claim, cut, delay, counts=counts, messages=messages)


class CountsIn32Bits(MemoryJobStore):
    """Keeps numbers in columns of a fixed length."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        for entry in entries:
            if entry.plan.retry is not None:
                most = min(entry.plan.retry.max_attempts, 2**31 - 1)
                entry.plan = attrs.evolve(entry.plan, retry=attrs.evolve(entry.plan.retry, max_attempts=most))
        return await super().insert(entries, submission)


class TellsOfAllThatWasDue(MemoryJobStore):
    """Tells of each job that was due when it looked, whoever was at it meanwhile."""

    async def advance(self) -> float:
        due = [job for job in self._jobs.values() if job.state is JobState.SCHEDULED and job.due <= trio.current_time()]
        await trio.lowlevel.checkpoint()
        seconds = await super().advance()
        for entry in due:
            self._changed(entry)
        return seconds


class KeepsObjects(MemoryJobStore):
    """Keeps what it is given, as if that were JSON."""

    durable = True


class ChecksOnTheWay(MemoryJobStore):
    """Says that it checks what it is given, and does so when a part of it is stored."""

    checks_values = True

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        answer = []
        for entry in entries:
            encode_value("payload", [entry.payload, entry.metadata])
            answer += await super().insert([entry], submission)
        return answer


class ChecksNothing(MemoryJobStore):
    """Only says that it checks what it is given."""

    checks_values = True


class DropsWhatIsEmpty(MemoryJobStore):
    """Takes an empty value for none."""

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        kept = [Token(each.seq, 1, each.value or None) if isinstance(each, Token) else each for each in messages]
        return await super().append_messages(claim, kept)


class BlamesTheReleased(MemoryJobStore):
    """Takes a job that was given back for one that has failed."""

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        released = await super().release(claim, reason, messages=messages)
        claim.entry.error = JobError("lost", "Released", reason)
        return released


class ForgivesTheReleased(MemoryJobStore):
    """Forgets what an earlier attempt failed with when a later one is given back."""

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        released = await super().release(claim, reason, messages=messages)
        claim.entry.error = None
        return released


class KeepsTheLostClaim(MemoryJobStore):
    """Still names the claim whose lease has lapsed."""

    def _lapse(self, entry: JobEntry) -> None:
        lost = entry.claim
        super()._lapse(entry)
        entry.claim = lost


class LooksAway(MemoryJobStore):
    """Leaves out what went wrong when it is looked at."""

    async def look(self, job_id: str) -> JobEntry | None:
        entry = self.peek(job_id)
        return None if entry is None else attrs.evolve(entry, error=None)


class CallsNobody(MemoryJobStore):
    """Calls nobody, and says that nobody has to look."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        listener = self.settings.listener
        self.settings = attrs.evolve(self.settings, listener=_Deaf())
        try:
            return await super().insert(entries, submission)
        finally:
            self.settings = attrs.evolve(self.settings, listener=listener)


class _Deaf(Heard):
    def work_ready(self) -> None:
        """Hear nothing."""


class PausesWhatItHas(MemoryJobStore):
    """Pauses the jobs of a queue, rather than the queue."""

    async def claim(self, *args: Any, **options: Any) -> list[Claim]:
        for queue in [*self._pauses.now()]:
            if not self._index.waiting(JobState.QUEUED, {queue}):
                self._pauses.end(queue)
        return await super().claim(*args, **options)


class CountsWhatIsPaused(MemoryJobStore):
    """Takes what waits in a paused queue for work to come."""

    async def backlog(self, *args: Any) -> Backlog:
        pauses, self._pauses = self._pauses, Pauses()
        try:
            return await super().backlog(*args)
        finally:
            self._pauses = pauses


class CountsNothingPaused(MemoryJobStore):
    """Leaves what waits for a pause to be over out of the work to come."""

    async def backlog(self, *args: Any) -> Backlog:
        pauses, self._pauses = self._pauses, Pauses()
        for queue in pauses.now():
            self._pauses.begin(queue, inf)
        try:
            return await super().backlog(*args)
        finally:
            self._pauses = pauses


class ResumesInSilence(MemoryJobStore):
    """Has a paused queue go on, and nobody look."""

    async def resume(self, queue: str) -> None:
        self._pauses.end(queue)


class PausesForGood(MemoryJobStore):
    """Ends no pause by itself."""

    async def pause(self, queue: str, seconds: float = inf) -> None:
        await super().pause(queue, inf if seconds else 0.0)


class PausesAnew(MemoryJobStore):
    """Lets the newest pause of a queue count."""

    async def pause(self, queue: str, seconds: float = inf) -> None:
        self._pauses.end(queue)
        await super().pause(queue, seconds)


class GoesOnInSilence(MemoryJobStore):
    """Tells nobody that a pause is over."""

    async def advance(self) -> float:
        self._pauses.fall_due()
        return await super().advance()


class KeepsPausesToItself(MemoryJobStore):
    """Does not say when a pause will be over."""

    async def pause(self, queue: str, seconds: float = inf) -> None:
        self._pauses.begin(queue, seconds)


class ForgetsWhatIsFull(MemoryJobStore):
    """Takes a queue without room for one that is not named."""

    async def claim(self, *args: Any, room: Mapping[str, int] | None = None, **options: Any) -> list[Claim]:
        left = None if room is None else {key: most for key, most in room.items() if most}
        return await super().claim(*args, room=left, **options)


class SharesALimit(MemoryJobStore):
    """Has one limit for all queues of a pattern."""

    def _running(self, queue: str) -> int:
        queues = [each for each in self._index.counts() if key_for(each, self._totals) == key_for(queue, self._totals)]
        return sum(map(super()._running, queues))


class OpensANursery(MemoryJobStore):
    """Has a task in the background, by a plain nursery."""

    @asynccontextmanager
    async def open(self, settings: StoreSettings) -> AsyncIterator[None]:
        async with super().open(settings), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield
            nursery.cancel_scope.cancel()


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
        (AnswersWithItsOwn, "check_repeated_insert"),
        (CountsAnew, "check_order_over_a_restart"),
        (DoesAHundred, "check_much_falls_due_at_once"),
        (RemovesAHundred, "check_much_falls_due_at_once"),
        (FailsAtTheThirdLoss, "check_three_losses_in_a_row"),
        (WritesTheEndLater, "check_end_and_state_come_at_once"),
        (WritesTheEndFirst, "check_end_and_state_come_at_once"),
        (LooksBeforeItReads, "check_following_to_the_end"),
        (LeavesOneOut, "check_following"),
        (CancelsWhatItRead, "check_race_of_cancel_and_claim"),
        (StartsWhatItRead, "check_race_of_starts"),
        (StartsWithWhatItIsGiven, "check_priority_of_started_jobs"),
        (StartsWithWhatItIsGiven, "check_priority_of_a_start"),
        (ChangesWhatItRead, "check_race_of_priority_and_claim"),
        (ChangesTheRecordAlone, "check_changed_priorities"),
        (SendsAllToTheEnd, "check_same_priority_stays"),
        (KeepsThePlace, "check_changed_priorities"),
        (NumbersOnlyWhatIsReady, "check_priority_places_rise"),
        (AppendsToWhatItRead, "check_race_of_writes_and_release"),
        (ForgetsPatientRequests, "check_cancel_wins"),
        (RemovesMore, "check_prune_by_count"),
        (PrunesWhatRetries, "check_prune_by_age"),
        (ForgetsWhatItTookOut, "check_calls_without_a_mark_cut_off"),
        (GoesOnBehindAMatch, "check_find_in_pages"),
        (PassesOverKeys, "check_find_by_key"),
        (LooksAtTheKeyAlone, "check_find_by_key"),
        (CutsTexts, "check_large_values_are_kept_whole"),
        (CountsIn32Bits, "check_numbers_of_any_size"),
        (TellsOfAllThatWasDue, "check_race_of_advances"),
        (KeepsObjects, "check_values_are_kept_as_json"),
        (ChecksOnTheWay, "check_values_that_are_refused"),
        (ChecksNothing, "check_values_that_are_refused"),
        (DropsWhatIsEmpty, "check_append_and_read"),
        (BlamesTheReleased, "check_release"),
        (ForgivesTheReleased, "check_release"),
        (KeepsTheLostClaim, "check_lapse"),
        (LooksAway, "check_look"),
        (CallsNobody, "check_work_is_announced_to_others"),
        (PausesWhatItHas, "check_running_jobs_of_paused_queues"),
        (CountsWhatIsPaused, "check_backlog_of_paused_queues"),
        (CountsAll, "check_retry_that_does_not_count"),
        (CountsByOneTag, "check_counts_of_tags"),
        (CountsOnePage, "check_counts_of_tags"),
        (ResumesInSilence, "check_resume_wakes"),
        (CountsNothingPaused, "check_backlog_of_paused_queues"),
        (PausesForGood, "check_pause_for_a_time"),
        (PausesAnew, "check_longer_pause_counts"),
        (GoesOnInSilence, "check_pause_for_a_time"),
        (KeepsPausesToItself, "check_earlier_times_are_announced"),
        (ForgetsWhatIsFull, "check_room_by_pattern"),
        (SharesALimit, "check_totals_by_pattern"),
        (OpensANursery, "check_errors_leave_as_they_came"),
    ],
)
async def test_a_fault_is_found(autojump_clock: MockClock, kind: type[MemoryJobStore], check: str) -> None:
    """The check of the rule that a store breaks says so."""
    store = kind()
    with pytest.raises(AssertionError):
        await CHECKS[check](lambda: store)


class LeavesOut(MemoryJobStore):
    """Hands out entries that lack a field: those of one call."""

    def __init__(self, field: str, call: str) -> None:
        super().__init__()
        self._field, self._call = field, call

    def _without(self, entry: JobEntry) -> JobEntry:
        left = copy(entry)
        if self._field.startswith("plan."):
            nothing: dict[str, Any] = {self._field.removeprefix("plan."): None}
            left.plan = attrs.evolve(entry.plan, **nothing)
        else:
            default = getattr(attrs.fields(JobEntry), self._field).default
            setattr(left, self._field, None if default is attrs.NOTHING else default)
        return left

    async def load(self, job_id: str) -> JobEntry | None:
        entry = await super().load(job_id)
        return entry if entry is None or self._call != "load" else self._without(entry)

    async def claim(self, claim_id: str, **options: Any) -> list[Claim]:
        claims = await super().claim(claim_id, **options)
        for claim in claims if self._call == "claim" else ():
            claim.entry = self._without(claim.entry)
        return claims


KEPT = [
    f"{'plan.' if kind is Plan else ''}{field.name}"
    for kind in (Plan, JobEntry)
    for field in attrs.fields(kind)
    if field.name not in OF_ONE_PROCESS | BY_ITS_CLOCK | {"plan"}
]
LEFT_OUT = [(field, "load") for field in KEPT] + [
    (field, "claim") for field in KEPT if field not in ("outcome", "finished_at", "due", "expires")
]


@pytest.mark.once
@pytest.mark.parametrize(("field", "call"), LEFT_OUT)
async def test_a_field_left_out_is_found(autojump_clock: MockClock, field: str, call: str) -> None:
    """Whichever field it is that a call does not hand out."""
    store = LeavesOut(field, call)
    with pytest.raises(AssertionError):
        await CHECKS["check_entries_are_whole"](lambda: store)


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
