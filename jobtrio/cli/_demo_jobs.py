"""The jobs of ``jobtrio demo``, and what every consumer of each must see.

A job that goes wrong here is meant to. The expected lines are those that `describe` makes of the messages.
This module uses jobtrio's public names alone, as an application would, and prints nothing.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

import jobtrio

PAUSE = 0.15
"""Seconds between two steps of a job: slow enough to be watched."""


async def story(job: jobtrio.JobContext) -> str:
    """Send some words, one at a time."""
    words = job.payload.split()
    for word in words:
        await trio.sleep(PAUSE)
        await job.send(word)
    return f"{len(words)} words"


async def backup(job: jobtrio.JobContext) -> str:
    """Tell how far it is."""
    for done in range(1, job.payload + 1):
        await trio.sleep(PAUSE * 1.4)
        job.progress(done, job.payload, "files saved")
    return f"{job.payload} files"


async def upload(job: jobtrio.JobContext) -> str:
    """Fail once, then succeed."""
    await job.send("connecting")
    await trio.sleep(PAUSE)
    if job.attempt == 1:
        raise ConnectionError("the server hung up")
    await job.send("connected")
    return "uploaded"


async def search(job: jobtrio.JobContext) -> None:
    """Find something soon, and then never end."""
    await job.send("2 hits so far")
    await trio.sleep_forever()


async def report(job: jobtrio.JobContext) -> None:
    """Write pages until somebody has had enough."""
    for page in (1, 2):
        await trio.sleep(PAUSE)
        await job.send(f"page {page}")
    await trio.sleep_forever()


async def invoice(job: jobtrio.JobContext) -> None:
    """Fail on bad data."""
    await job.send("row 1: 30.00")
    await trio.sleep(PAUSE)
    raise ValueError("row 2: 'thirty' is not a number")


@attrs.frozen
class Part:
    """One job of the demo.

    Attributes:
        executor: What it runs; its name is the job's.
        expected: The lines that each of its consumers sees, the ending last.
        options: More for `submit`.
        cancel: The reason with which it is cancelled once it has sent something twice; None: it isn't.
    """

    executor: Any
    expected: tuple[str, ...]
    options: dict[str, Any] = attrs.field(factory=dict)
    cancel: str | None = None

    @property
    def name(self) -> str:
        """The job's id."""
        return str(self.executor.__name__)


@attrs.frozen
class Act:
    """Jobs that run at the same time, and what they show."""

    title: str
    parts: tuple[Part, ...]


ACTS = (
    Act(
        "Two jobs at once. Each has a stream, and every consumer gets all of it.",
        (
            Part(
                story,
                ("token: Once", "token: upon", "token: a", "token: time", "end: completed, 4 words"),
                {"payload": "Once upon a time"},
            ),
            Part(
                backup,
                (
                    "progress: 1 of 3 files saved",
                    "progress: 2 of 3 files saved",
                    "progress: 3 of 3 files saved",
                    "end: completed, 3 files",
                ),
                {"payload": 3},
            ),
        ),
    ),
    Act(
        "A job fails and is tried again. Consumers see the restart, and can drop what they showed.",
        (
            Part(
                upload,
                (
                    "token: connecting",
                    "restart: attempt 1 failed, ConnectionError: the server hung up; again in 0.3 s",
                    "token: connecting",
                    "token: connected",
                    "end: completed, uploaded",
                ),
                {"retry": jobtrio.RetryPolicy(max_attempts=2, initial=0.3, jitter=0)},
            ),
        ),
    ),
    Act(
        "A job that would never end has half a second.",
        (Part(search, ("token: 2 hits so far", "end: timed out"), {"time_limit": 0.5}),),
    ),
    Act(
        "A job is cancelled, and its consumers are told why.",
        (
            Part(
                report,
                ("token: page 1", "token: page 2", "end: cancelled, nobody reads it"),
                cancel="nobody reads it",
            ),
        ),
    ),
    Act(
        "A job fails for good, and its ending says why.",
        (
            Part(
                invoice,
                ("token: row 1: 30.00", "end: failed, ValueError: row 2: 'thirty' is not a number"),
            ),
        ),
    ),
)


def describe(message: jobtrio.Message) -> str:
    """Return a message as a line: what kind it is, a colon, and what it says."""
    match message:
        case jobtrio.Token():
            return f"token: {message.value}"
        case jobtrio.Progress():
            return f"progress: {message.done} of {message.total} {message.note}"
        case jobtrio.Restart():
            return f"restart: attempt {message.attempt} failed, {message.error}; again in {message.delay:g} s"
        case jobtrio.Gap():
            return f"gap: messages {message.first} to {message.last} are gone"
        case jobtrio.End():
            return f"end: {describe_outcome(message.outcome)}"


def describe_outcome(outcome: jobtrio.Outcome) -> str:
    """Return an outcome in a few words."""
    match outcome:
        case jobtrio.Completed():
            return f"completed, {outcome.result}"
        case jobtrio.Failed() if outcome.error.kind == "timeout":
            return "timed out"
        case jobtrio.Failed():
            return f"failed, {outcome.error}"
        case jobtrio.Cancelled():
            return f"cancelled, {outcome.reason}"
