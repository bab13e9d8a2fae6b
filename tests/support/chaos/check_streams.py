"""Checks of streams: as they are kept, and as watchers saw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.facts import number
from chaos.verdict import promise
from jobtrio import Cancelled, Completed, End, Failed, JobState, Restart, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.facts import Facts, Kept
    from chaos.verdict import Finding


@promise
def streams_are_dense(facts: Facts) -> Iterator[Finding]:
    """Messages are numbered from 1 without holes, and one `End` with the job's outcome is the last."""
    for job_id, kept in facts.kept.items():
        numbers = [number(message) for message in kept.messages]
        if numbers != [*range(1, len(numbers) + 1)]:
            yield job_id, f"its messages have the numbers {_ranges(numbers)}"
        ends = [message for message in kept.messages if isinstance(message, End)]
        if kept.record.state.is_final and (len(ends) != 1 or kept.messages[-1] is not ends[0]):
            yield job_id, f"{len(ends)} ends in its stream"
        elif ends and not _fits(ends[0], kept):
            yield job_id, f"its stream ends with {ends[0].outcome}, its record with {kept.record.state}"


def _fits(end: End, kept: Kept) -> bool:
    record = kept.record
    match end.outcome:
        case Completed(result=result):
            return record.state is JobState.COMPLETED and record.result == result
        case Failed(error=error):
            return record.state is JobState.FAILED and record.error == error
        case Cancelled(reason=reason):
            return record.state is JobState.CANCELLED and record.cancel_reason == reason


def _ranges(numbers: list[int]) -> str:
    """Return numbers in short: ``1…4, 7…9``."""
    parts: list[list[int]] = []
    for each in numbers:
        if parts and each == parts[-1][1] + 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    return ", ".join(f"{first}…{last}" for first, last in parts)


@promise
def restarts_are_between_attempts(facts: Facts) -> Iterator[Finding]:
    """Each attempt that another follows leaves one `Restart`, behind all that it sent."""
    for job_id, kept in facts.kept.items():
        left = [step.attempt for step in kept.history if step.previous is JobState.RUNNING and not step.state.is_final]
        restarts = [message.attempt for message in kept.messages if isinstance(message, Restart)]
        if left != restarts:
            yield job_id, f"attempts {left} were followed by others, and its stream has Restart for {restarts}"
        current = 1
        for message in kept.messages:
            if isinstance(message, Token) and message.attempt != current:
                yield job_id, f"message {message.seq} is of attempt {message.attempt}, amid those of {current}"
                break
            if isinstance(message, Restart):
                current = message.attempt + 1


@promise
def tokens_are_the_attempts(facts: Facts) -> Iterator[Finding]:
    """The tokens of an attempt are what its own worker sent, in order; all of them where it ended by itself."""
    for job_id, kept in facts.kept.items():
        workers = {step.attempt: step.worker for step in kept.history if step.state is JobState.RUNNING}
        sent: dict[int, int] = dict.fromkeys(workers, 0)
        for message in kept.messages:
            if not isinstance(message, Token):
                continue
            attempt, count, worker, _ = message.value
            if attempt != message.attempt or worker != workers.get(attempt):
                yield (
                    job_id,
                    f"message {message.seq}, of attempt {message.attempt}, was sent by attempt {attempt} of {worker}",
                )
                break
            if count != sent[attempt]:
                yield job_id, f"attempt {attempt} sent {count} behind {sent[attempt] - 1}"
                break
            sent[attempt] += 1
        yield from ((job_id, text) for text in _incomplete(kept, sent))


def _incomplete(kept: Kept, sent: dict[int, int]) -> Iterator[str]:
    for step in kept.history:
        of_its_own = step.state in (JobState.COMPLETED, JobState.RETRYING)
        if of_its_own and not _is_timeout(step.reason) and sent.get(step.attempt) != kept.record.payload["tokens"]:
            yield f"attempt {step.attempt} is {step.state} with {sent.get(step.attempt)} of its tokens"


def _is_timeout(reason: str | None) -> bool:
    return reason is not None and reason.startswith("TimedOut")


@promise
def watchers_see_what_is_kept(facts: Facts) -> Iterator[Finding]:
    """A watcher received what is kept, number for number, and nothing else; and the end, unless it still waits."""
    for watch in facts.watches:
        kept = facts.kept.get(watch.job_id)
        if kept is None:
            continue
        expected = kept.messages[watch.after : watch.after + len(watch.messages)]
        if watch.messages != expected:
            at = next(
                (n for n, pair in enumerate(zip(watch.messages, expected, strict=False)) if pair[0] != pair[1]),
                len(expected),
            )
            yield watch.job_id, f"a watcher received {watch.messages[at]}, and kept is {expected[at : at + 1]}"
        elif watch.ended and not (watch.messages and isinstance(watch.messages[-1], End)):
            yield watch.job_id, f"a watcher's stream ended without an End behind {len(watch.messages)} messages"
