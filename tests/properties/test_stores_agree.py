"""Random programs of store calls: every store answers, keeps and tells what the memory store does.

A seed makes a program, whose calls name jobs and claims by numbers. It is run on a memory store and on another one, and
what each call came to is compared, with what is kept in the end. Times are compared only by whether they are there.
Nothing in a program falls due by itself, so that no answer depends on how long a call takes.
"""

from __future__ import annotations

import random
import time
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from store_urls import STORES, new_url

from jobtrio import Cancelled, Completed, End, Failed, JobState, JobtrioError, Progress, RetryPolicy, Token
from jobtrio._entry import JobEntry
from jobtrio._policies import JobPriority
from jobtrio._records import JobError
from jobtrio.abc import Claim, JobQuery
from jobtrio.stores._url import parse_store_url
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing._workers import LEASE, new_plan, open_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio import JobRecord, Transition
    from jobtrio._messages import Message
    from jobtrio.testing._workers import Worker

CALLS = 60
SEEDS = range(6)

IDS = ["one", "two", "a:b", "é", "e\u0301", "😀", '"\\', "{x}", "x" * 200]
NO_IDS = ["", "\0", "\ud800", "line\nbreak", "unknown", "y" * 5000]
NAMES = ["a", "b", "a:b", "é", "e\u0301", "😀", "A", "'", '"', "\\", "%", "_", "{}", "1:a", "null", "x" * 200]
KEYS = [None, None, None, "k", "é", "e\u0301"]
QUEUES = ["default", "q", "q:1"]
EXECUTORS = ["work", "1:work", "é"]
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**53 + 1, 2**63, -(2**63), 2**64 - 1, 0.1, -0.0, 1.0, 1e308, 5e-324),
    *("", "a\0b", "é", "e\u0301", "😀", "\x7f\u2028", "null", "[DONE]", "\\u0000", "x" * 3000),
    *([], {}, [None], {"": {}}, {"k\0": ["\u2028"]}, {"a": None}, [[[[[[[[[[]]]]]]]]]]),
]
REASONS = [None, "", "why", "a\0b", "😀", ",1,", "null", '"', "x" * 3000]
ERRORS = [
    JobError("exception", "E", "m"),
    JobError("timeout", "T", ""),
    JobError("gave_up", "G", "a\0b", "Traceback\n  😀"),
    JobError("lost", "L", "x" * 3000, "y" * 5000),
]
POLICIES = [None, RetryPolicy(), RetryPolicy(max_attempts=2**62, multiplier=1e308, max_delay=1e308)]
TIMES = ("created_at", "run_at", "started_at", "finished_at", "duration", "cancel_requested_at")

LOOKING = {"find": 8, "count": 2, "load": 4, "read": 6}
ENDING = {"finish": 7, "retry": 5, "release": 5, "settle_again": 4, "cancel": 6, "delete": 4}
PAUSING = {"pause": 1, "resume": 2}
RUNNING = {"start_held": 4, "set_priority": 6, "claim": 12, "claim_again": 3, "renew": 3, "append": 8, "save_state": 3}
WEIGHTS = {"insert": 14, "insert_again": 3} | PAUSING | RUNNING | ENDING | LOOKING
"""Calls, and how often each is made."""


@attrs.define(eq=False)
class Run:
    """One program on one store: the same seed draws the same, as long as the answers are the same."""

    worker: Worker
    rng: random.Random
    claims: list[Claim] = attrs.Factory(list)
    inserted: tuple[list[JobEntry], str] | None = None
    claimed: tuple[str, dict[str, Any]] | None = None
    settled: tuple[str, Claim, dict[str, Any]] | None = None

    async def step(self, n: int) -> Any:
        """Make one call, and return what it came to."""
        name = self.rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        if name not in LOOKING and name != "claim_again":
            self.claimed = None  # a claim is asked for again before anything is made of it
        for _ in range(3):
            await self.worker.store.advance()  # jobs that are tried again at once are ready from here on
        try:
            return name, await getattr(self, name)(f"call {n}")
        except JobtrioError as exc:
            return name, type(exc), str(exc)

    async def outcome(self) -> Any:
        """Return all that is kept."""
        entries = [await self.worker.store.load(job_id) for job_id in IDS]
        streams = [await self.worker.store.read_messages(job_id, 0, 10_000) for job_id in IDS]
        records = await self.worker.store.find(JobQuery())
        return [seen(entry) for entry in entries], streams, [plain(record) for record in records]

    # -- putting in and taking out

    async def insert(self, call: str) -> Any:
        self.inserted = [self.new_entry() for _ in range(self.rng.choice([1, 1, 1, 2, 4]))], call
        return [seen(entry) for entry in await self.insert_now()]

    async def insert_again(self, _: str) -> Any:
        # Its submitter has the plan, and attempts what they have saved: a repetition need not bring either.
        return [(entry.id, entry.state, lines(entry.history())) for entry in await self.insert_now()]

    async def insert_now(self) -> list[JobEntry]:
        if self.inserted is None:
            return []
        (entries, submission), self.inserted = self.inserted, None
        answer = await self.worker.store.insert(entries, submission)
        self.inserted = entries, submission
        return answer

    def new_entry(self) -> JobEntry:
        pick = self.rng.choice
        plan = new_plan(
            pick([None, *EXECUTORS]), pick(QUEUES), pick([*JobPriority]), pick([None, 3.0, inf]), pick(POLICIES)
        )
        delay = pick([0.0, 0.0, 0.0, LEASE])
        return JobEntry(
            pick(IDS),
            plan,
            pick(VALUES),
            time.time(),
            tags=self.tags(),
            metadata=pick([None, {}, {"é": pick(VALUES)}]),
            key=pick(KEYS),
            run_at=time.time() + delay if delay else None,
            delay=delay,
            expires_in=pick([None, None, 2 * LEASE, 1e9]),
        )

    def tags(self) -> dict[str, str] | None:
        pick = self.rng.choice
        return pick([None, {}, {pick(NAMES): pick(NAMES)}, {pick(NAMES): pick(NAMES) for _ in range(3)}])

    async def delete(self, _: str) -> Any:
        return await self.worker.store.delete(self.an_id())

    def an_id(self) -> str:
        return self.rng.choice(IDS if self.rng.random() < 0.8 else NO_IDS)

    # -- running

    async def start_held(self, _: str) -> Any:
        pick = self.rng.choice
        plan = new_plan(pick(EXECUTORS), pick(QUEUES), pick([*JobPriority]), retry=pick(POLICIES))
        return await self.worker.store.start_held(self.an_id(), plan)

    async def set_priority(self, _: str) -> Any:
        return seen(await self.worker.store.set_priority(self.an_id(), self.rng.choice([*JobPriority])))

    async def claim(self, call: str) -> Any:
        pick = self.rng.choice
        keys = pick([[], QUEUES[:2], QUEUES[:2], ["*"], ["q*", "q"], ["q:*", "*", "default"]])
        room = pick([None, {queue: pick([0, 1, 2, -1]) for queue in keys}])
        self.claimed = (
            call,
            {"limit": pick([0, 1, 1, 2, 100]), "room": room, "executors": pick([None, None, [], ["é"]])},
        )
        claims = await self.claims_of(*self.claimed)
        self.claims += claims
        if not claims:
            self.claimed = None
        return [(seen(claim.entry), claim.attempt) for claim in claims]

    async def claim_again(self, _: str) -> Any:
        if self.claimed is None:
            return None
        return sorted(claim.entry.id for claim in await self.claims_of(*self.claimed))

    async def claims_of(self, call: str, options: dict[str, Any]) -> list[Claim]:
        return await self.worker.store.claim(call, lease=LEASE, **options)

    async def pause(self, _: str) -> Any:
        await self.worker.store.pause(self.rng.choice(QUEUES), self.rng.choice([inf, inf, LEASE, 1e9, 0.0]))
        return await self.pauses()

    async def resume(self, _: str) -> Any:
        await self.worker.store.resume(self.rng.choice(QUEUES))
        return await self.pauses()

    async def pauses(self) -> list[tuple[str, float]]:
        paused = await self.worker.store.paused()
        return [(queue, left if left == inf else round(left, -3)) for queue, left in paused.items()]

    async def renew(self, _: str) -> Any:
        claims = self.rng.sample(self.claims, min(len(self.claims), 4))
        return [report.held for report in await self.worker.store.renew(claims, LEASE)]

    async def append(self, _: str) -> Any:
        if (claim := self.a_claim()) is None:
            return None
        return await self.worker.store.append_messages(
            claim, await self.messages(claim, self.rng.choice([0, 1, 5, 300]))
        )

    async def save_state(self, _: str) -> Any:
        value = self.rng.choice(VALUES)
        return (claim := self.a_claim()) and await self.worker.store.save_state(claim, value)

    def a_claim(self) -> Claim | None:
        """Return a claim, the newest ones more often."""
        return self.claims[-1 - int(self.rng.random() ** 2 * len(self.claims))] if self.claims else None

    async def messages(self, claim: Claim, count: int) -> list[Message]:
        """Return messages that go on from what is stored, or overlap with it."""
        stored = await self.worker.store.read_messages(claim.entry.id, 0, 10_000) or []
        first = max(1, 1 + sum(not isinstance(message, End) for message in stored) - self.rng.choice([0, 0, 1, 5, 400]))
        return [self.message(seq, claim.attempt) for seq in range(first, first + count)]

    def message(self, seq: int, attempt: int) -> Message:
        pick = self.rng.choice
        if self.rng.random() < 0.8:
            return Token(seq, attempt, pick(VALUES))
        return Progress(seq, attempt, pick([0, 0.5, 1e308, 2**63]), pick([None, 3, 2.5]), pick([None, "", "é\0"]))

    # -- ending

    async def finish(self, _: str) -> Any:
        pick = self.rng.choice
        outcomes = [Completed(pick(VALUES)), Completed(pick(VALUES)), Failed(pick(ERRORS)), Cancelled(pick(REASONS))]
        return await self.settle("finish", outcome=pick(outcomes), error=pick([None, None, pick(ERRORS)]))

    async def retry(self, _: str) -> Any:
        pick = self.rng.choice
        return await self.settle("retry", error=pick(ERRORS), delay=pick([0.0, LEASE]), counts=pick([True, False]))

    async def release(self, _: str) -> Any:
        return await self.settle("release", reason=self.rng.choice(REASONS) or "")

    async def settle(self, how: str, **options: Any) -> Any:
        if (claim := self.a_claim()) is None:
            return None
        messages = await self.messages(claim, self.rng.choice([0, 0, 1, 3]))
        self.settled = how, claim, {"messages": messages, **options}
        return await self.settle_again("")

    async def settle_again(self, _: str) -> Any:
        if self.settled is None:
            return None
        how, claim, options = self.settled
        done = await getattr(self.worker.store, how)(claim, **options)
        return how, done, seen(claim.entry) if done else None, seen(await self.worker.store.load(claim.entry.id))

    async def cancel(self, _: str) -> Any:
        reason, grace = self.rng.choice(REASONS), self.rng.choice([0.0, 5.0, 1e308, 1e-9])
        claim = self.a_claim()
        job_id = self.an_id() if claim is None or self.rng.random() < 0.3 else claim.entry.id
        reply = await self.worker.store.request_cancel(job_id, reason, grace)
        return reply and (reply.accepted, seen(reply.entry))

    # -- looking

    async def find(self, _: str) -> Any:
        pick = self.rng.choice
        query = JobQuery(
            states=pick([None, None, frozenset(), frozenset(self.rng.sample([*JobState], 3))]),
            tags=self.tags(),
            queue=pick([None, None, "none", *QUEUES]),
            executor=pick([None, None, "none", *EXECUTORS]),
            key=pick([None, None, "none", *KEYS]),
            limit=pick([1, 2, 100, 2**62]),
            after=pick([None, None, self.an_id()]),
            newest_first=pick([False, True]),
        )
        return [plain(record) for record in await self.worker.store.find(query)]

    async def count(self, _: str) -> Any:
        queues = self.rng.choice([None, [], QUEUES[:2], ["q*"], ["q:1", "*"]])
        executors = self.rng.choice([None, [], EXECUTORS[:2]])
        store, tags = self.worker.store, self.tags() or {}
        of_tags = await store.counts_of(tags) if tags else {}
        return sorted((await store.counts()).items()), sorted(of_tags.items()), await store.backlog(queues, executors)

    async def load(self, _: str) -> Any:
        return seen(await self.worker.store.load(self.an_id()))

    async def read(self, _: str) -> Any:
        job_id, after, limit = self.an_id(), self.rng.choice([0, 1, 3, 299, 2**60]), self.rng.choice([1, 3, 256, 2**62])
        return await self.worker.store.read_messages(job_id, after, limit)


def plain(record: JobRecord) -> Any:
    """Return a record whose times only say whether they are there."""
    fields = attrs.asdict(record, recurse=False)
    return [(name, value is not None if name in TIMES else value) for name, value in fields.items()]


def seen(entry: JobEntry | None) -> Any:
    """Return what is to be the same of a job's entry."""
    if entry is None:
        return None
    cancel = entry.cancel and entry.cancel[1:]
    counted = (entry.claim, entry.losses, entry.failures, entry.progress, entry.unreadable)
    return plain(entry.record()), lines(entry.history()), counted, cancel, entry.outcome, entry.saved_state


def lines(history: Sequence[Transition]) -> Any:
    """Return a history without its times."""
    return [(line.previous, line.state, line.attempt, line.worker, line.reason) for line in history]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", STORES)
async def test_same_as_in_memory(request: pytest.FixtureRequest, kind: str, seed: int) -> None:
    """What a program comes to, call by call, is the same in a durable store as in memory."""
    store = parse_store_url(new_url(kind, request)).make_store()
    async with open_worker(MemoryJobStore) as memory, open_worker(lambda: store) as durable:
        runs = [Run(worker, random.Random(seed)) for worker in (memory, durable)]
        for n in range(CALLS):
            expected, got = [await run.step(n) for run in runs]
            assert repr(got) == repr(expected), f"call {n}"  # by their texts: 1 is not 1.0, nor 0.0 -0.0
        expected, got = [await run.outcome() for run in runs]
        assert repr(got) == repr(expected)
