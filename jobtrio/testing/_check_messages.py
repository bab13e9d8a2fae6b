"""Store checks: a job's messages are numbered without holes, kept in order, read in pieces, and end once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jobtrio._messages import End, Gap, Message, Progress, Restart, Token
from jobtrio._policies import Retention, RetryPolicy
from jobtrio._records import Completed, Failed
from jobtrio.testing._check_inserting import RICH, as_json
from jobtrio.testing._workers import ERROR, new_entry, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio._records import Outcome
    from jobtrio.testing._workers import OpenStore, Worker


EMPTY: tuple[Any, ...] = (None, 0, 0.0, False, "", [], {})
"""What counts as nothing where only that is asked."""


async def check_append_and_read(open_store: OpenStore) -> None:
    """Messages of each kind are kept as they were given, and other processes read them."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        sent: list[Message] = [
            Token(1, 1, RICH),
            Progress(2, 1, 0.5, None, "é"),
            Progress(3, 1, 1, 2),
            *(Token(seq, 1, value) for seq, value in enumerate(EMPTY, 4)),
        ]
        assert await b.stream(claim.entry.id) == []
        assert await a.store.append_messages(claim, sent[:1])
        assert await b.stream(claim.entry.id) == sent[:1]
        assert await a.store.append_messages(claim, sent[1:])
        assert await a.store.append_messages(claim, [])
        read = await b.stream(claim.entry.id)
        assert read == sent
        values = [each.value for each in read if isinstance(each, Token)]
        assert as_json(values) == as_json([RICH, *EMPTY])  # 0 equals False, but is another value


async def check_known_messages_are_passed_over(open_store: OpenStore) -> None:
    """Messages that are stored already are passed over, in every write that brings them."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()))
        job_id = claim.entry.id
        for first, last in ((1, 3), (1, 3), (2, 5), (4, 4), (1, 6)):
            assert await worker.store.append_messages(claim, tokens(first, last))
        assert await worker.stream(job_id) == tokens(1, 6)
        assert await worker.store.retry(claim, ERROR, 0.0, messages=tokens(5, 7))
        await worker.pass_time(0)
        second = await worker.claim_one()
        await worker.store.append_messages(second, tokens(9, 10, attempt=2))
        await worker.store.finish(second, Completed(), messages=tokens(10, 11, attempt=2))
        rest: list[Message] = [Restart(8, 1, ERROR, 0.0), *tokens(9, 11, attempt=2), End(12, Completed())]
        assert await worker.stream(job_id) == [*tokens(1, 7), *rest]


async def check_reading_in_pieces(open_store: OpenStore) -> None:
    """Reading begins behind any number and gives as many messages as asked for; behind the last there is nothing."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim, other = await a.start(), await a.start()
        for n in range(1, 10):  # in other pieces than the messages of the first
            await a.store.append_messages(other, tokens(n, n))
        await a.store.finish(claim, Completed("done"), messages=tokens(1, 9))
        whole = [*tokens(1, 9), End(10, Completed("done"))]
        for size in (1, 3, 9, 10, 11):
            pieces: list[Message] = []
            while piece := await b.stream(claim.entry.id, len(pieces), size):
                assert len(piece) <= size
                pieces += piece
            assert pieces == whole
        assert await b.stream(claim.entry.id, 9) == whole[9:]
        assert await b.stream(claim.entry.id, 10) == []


async def check_end_comes_with_the_state(open_store: OpenStore) -> None:
    """At no moment is a job ended without its `End`, or the `End` there before the job has ended."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        await a.store.append_messages(claim, tokens(1, 2))
        assert await b.stream(claim.entry.id) == tokens(1, 2)
        assert (await b.load(claim.entry.id)).outcome is None
        await a.store.finish(claim, Failed(ERROR), messages=tokens(2, 3))
        assert (await b.load(claim.entry.id)).outcome == Failed(ERROR)
        assert await b.stream(claim.entry.id, 2) == [*tokens(3, 3), End(4, Failed(ERROR))]


async def check_dropped_messages_leave_a_gap(open_store: OpenStore) -> None:
    """The newest messages of each job are kept, a bounded number; a reader of older ones is told by a `Gap`."""
    async with open_workers(open_store, "a", "b", retention=Retention(tokens_per_job=5)) as (a, b):
        claim, other = await a.start(), await a.start()
        for n in range(1, 6):
            await a.store.append_messages(other, tokens(n, n))
        for first in range(1, 200, 20):
            await a.store.append_messages(claim, tokens(first, first + 19))
            assert (await b.stream(claim.entry.id))[-5:] == tokens(first + 15, first + 19)
        await a.store.append_messages(claim, tokens(201, 202))
        assert (await b.stream(claim.entry.id))[-5:] == tokens(198, 202)
        await a.store.finish(claim, Failed(ERROR), messages=tokens(203, 203))
        gap, *kept = await b.stream(claim.entry.id)
        assert isinstance(gap, Gap)
        assert (gap.first, gap.last) == (1, 203 - len(kept) + 1)
        assert kept == [*tokens(gap.last + 1, 203), End(204, Failed(ERROR))]
        assert 5 <= len(kept) - 1 <= 50
        assert await b.stream(claim.entry.id, 100) == [Gap(101, gap.last), *kept]
        for limit in (1, 2, 3):  # it counts as one of them
            assert await b.stream(claim.entry.id, 100, limit) == [Gap(101, gap.last), *kept][:limit]
        assert await b.stream(claim.entry.id, 201) == [*tokens(202, 203), End(204, Failed(ERROR))]
        assert await b.stream(other.entry.id) == tokens(1, 5)


async def check_a_hole_is_a_gap(open_store: OpenStore) -> None:
    """Where a worker no longer had some messages, readers are told of a gap, and later numbers stay right."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for with_end in (False, True):
            claim = await a.start()
            await a.store.append_messages(claim, tokens(1, 3))
            if not with_end:
                await a.store.append_messages(claim, tokens(8, 9))
            await a.store.finish(claim, Completed(), messages=tokens(8, 9) if with_end else ())
            *before, gap, eight, nine, end = await b.stream(claim.entry.id)
            assert [eight, nine, end] == [*tokens(8, 9), End(10, Completed())]
            assert gap == Gap(len(before) + 1, 7)  # what comes before a hole may be dropped with it
            assert before == tokens(1, len(before))
            assert await b.stream(claim.entry.id, 3) == [Gap(4, 7), eight, nine, end]


async def check_following(open_store: OpenStore) -> None:
    """Following a job gives its messages as reading them does, and with them the job as looking at it does."""
    async with open_workers(open_store, "a", "b", retention=Retention(tokens_per_job=5)) as (a, b):
        assert await b.store.follow("unknown", 0, 10) == (None, None)
        claim = await a.start()
        job_id = claim.entry.id
        assert await _followed(b, job_id) == ([], None)
        await a.store.append_messages(claim, tokens(1, 3))
        assert await _followed(b, job_id) == (tokens(1, 3), None)
        assert await _followed(b, job_id, after=1, limit=1) == (tokens(2, 2), None)
        assert await _followed(b, job_id, after=3) == ([], None)
        await a.store.append_messages(claim, tokens(6, 6))
        assert await _followed(b, job_id, after=3) == ([Gap(4, 5), *tokens(6, 6)], None)
        for first in range(7, 187, 20):
            await a.store.append_messages(claim, tokens(first, first + 19))
        await a.store.finish(claim, Failed(ERROR), messages=tokens(187, 187))
        (gap, *kept), outcome = await _followed(b, job_id)
        assert isinstance(gap, Gap)
        assert kept == [*tokens(gap.last + 1, 187), End(188, Failed(ERROR))]
        assert outcome == Failed(ERROR)
        for after, piece in ((186, kept[-2:-1]), (187, kept[-1:]), (188, [])):
            assert await _followed(b, job_id, after, limit=1) == (piece, Failed(ERROR))
        for limit in (1, 2, 3):
            assert await _followed(b, job_id, limit=limit) == ([gap, *kept][:limit], Failed(ERROR))
        (entry,) = await a.insert(new_entry())
        assert await _followed(b, entry.id) == ([], None)
        await a.store.delete(job_id)
        assert await b.store.follow(job_id, 0, 10) == (None, None)


async def _followed(
    worker: Worker, job_id: str, after: int = 0, limit: int = 10_000
) -> tuple[list[Message], Outcome | None]:
    """Follow a job that nobody changes meanwhile; return its messages and its outcome."""
    messages, entry = await worker.store.follow(job_id, after, limit)
    assert messages == await worker.stream(job_id, after, limit)
    seen = await worker.store.look(job_id)
    assert entry is not None
    assert seen is not None
    for name in ("id", "order", "ticket", "state", "attempt", "steps", "error", "outcome"):
        assert getattr(entry, name) == getattr(seen, name), name
    return messages, entry.outcome


async def check_following_to_the_end(open_store: OpenStore) -> None:
    """Whoever follows a job while it is ending never finds its `End` with the job as it was before."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for _ in range(20):
            claim = await a.start()
            seen: list[tuple[list[Message] | None, JobEntry | None]] = []

            async def watch(
                job_id: str = claim.entry.id, seen: list[tuple[list[Message] | None, JobEntry | None]] = seen
            ) -> None:
                while not seen or not seen[-1][0]:
                    seen.append(await b.store.follow(job_id, 2, 10))
                    await trio.lowlevel.checkpoint()  # not every store's calls are one

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.lowlevel.checkpoint()
                await a.store.finish(claim, Completed(), messages=tokens(1, 2))
            messages, entry = seen[-1]
            assert messages == [End(3, Completed())]
            assert entry is not None
            assert entry.outcome == Completed()


async def check_streams_of_jobs_that_never_ran(open_store: OpenStore) -> None:
    """A job that never ran has an empty stream, and one that nobody has stored has none."""
    async with open_worker(open_store) as worker:
        (entry,) = await worker.insert(new_entry())
        assert await worker.stream(entry.id) == []
        assert await worker.store.read_messages("unknown", 0, 10) is None


async def check_many_messages(open_store: OpenStore) -> None:
    """A thousand messages in batches of all sizes come back whole, beside those of another job."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(), new_entry())
        one, two = await worker.claim()
        last = 0
        for size in (*range(1, 30), 256, 309):
            for claim in (one, two):
                await worker.store.append_messages(claim, tokens(last + 1, last + size))
            last += size
        for claim in (one, two):
            assert await worker.stream(claim.entry.id) == tokens(1, 1000)


async def check_end_and_state_come_at_once(open_store: OpenStore) -> None:
    """Whoever looks while a job is ending finds neither an `End` of a job that lives, nor an ended job without it."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for _ in range(10):
            claim = await a.start()
            seen: list[tuple[list[Message], bool]] = []

            async def watch(job_id: str = claim.entry.id, seen: list[tuple[list[Message], bool]] = seen) -> None:
                while not seen or not seen[-1][1]:
                    await trio.lowlevel.checkpoint()  # not every store's calls are one
                    messages = await b.stream(job_id)
                    seen.append((messages, (await b.load(job_id)).outcome is not None))
                seen.append((await b.stream(job_id), True))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.lowlevel.checkpoint()
                await a.store.finish(claim, Completed(), messages=tokens(1, 3))
            whole = [*tokens(1, 3), End(4, Completed())]
            assert [messages for messages, has_ended in seen if messages == whole and not has_ended] == []
            assert seen[-1][0] == whole
