"""``jobtrio demo``: a few jobs that show what jobtrio does, and a check that it did.

It plays the acts of `_demo_jobs` one after the other, prints what every consumer sees while it sees it, and
compares that with what the act set out to show. It knows the jobs only as data.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, TextIO

import trio

import jobtrio
from jobtrio.cli._demo_jobs import ACTS, PAUSE, Act, Part, describe, describe_outcome
from jobtrio.cli._output import can_draw
from jobtrio.cli._store import complain
from jobtrio.cli._table import render_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

HELP = "see what a job can do, in a few seconds"

DESCRIPTION = """\
Show what a job can do: a handful of small jobs, each watched by two
consumers, in a few seconds.
"""

WATCHERS = ("ann", "bob")
LATE_WATCHER = "cyd"

TIME_LIMIT = 60.0
"""Seconds after which something is wrong; the whole takes about four."""

NEXT = """\
Try next:
  {command} run -- sh -c 'for n in 1 2 3; do echo line $n; sleep 1; done'
  {command} run --time-limit 2 -- sleep 60
  {command} run --retry 2 -- sh -c 'echo trying; exit 3'
"""

COLOURS = {"completed": "32", "timed": "33", "failed": "31", "cancelled": "35", "title": "1"}
"""The codes of the terminal's colours, by what is said."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: it always shows the same."""


def run(options: argparse.Namespace) -> int:
    """Play the demo on stdout and return the exit code: 1 where something was not as it should be."""
    # Nothing here needs cleaning up: end as any tool does when its reader leaves (`jobtrio demo | head`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    play = Play(sys.stdout or io.StringIO())  # none where it was closed before the start
    trio.run(play.perform, ACTS)
    if play.unwritten is not None:
        complain(options, f"the output can't be written: {play.unwritten.strerror}")
        return 1
    for problem in play.problems:
        complain(options, f"not as it should be: {problem}")
    return 1 if play.problems else 0


class Play:
    """One performance of the demo.

    Attributes:
        problems: What was not as it should be.
        unwritten: Why it can't be shown any more, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = can_draw(stream) and not os.environ.get("NO_COLOR")
        self._seen: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._stage = trio.CancelScope()
        self.problems: list[str] = []
        self.unwritten: OSError | None = None

    async def perform(self, acts: Sequence[Act]) -> None:
        """Play every act, let a late consumer replay the first job, and show the table."""
        jobs: list[jobtrio.Job] = []
        with trio.move_on_after(TIME_LIMIT) as self._stage:
            async with jobtrio.open_registry() as registry:
                self._say(f"jobtrio {jobtrio.__version__}: each job here is watched by {' and '.join(WATCHERS)}.")
                for act in acts:
                    jobs += await self._play(registry, act)
                self._title(f"{LATE_WATCHER} comes late to {jobs[0].id!r}, and gets all of it from the beginning.")
                await self._watch(jobs[0], LATE_WATCHER)
        if self.unwritten is not None:
            return
        if self._stage.cancelled_caught:
            self.problems.append(f"it was not over after {TIME_LIMIT:g} s")
        self._compare([part for act in acts for part in act.parts])
        self._show_table(jobs)
        if not self.problems:
            self._say("\nEach job ended once, and all of its consumers saw the same.")
            # Under `uv run` the command is seldom on the PATH of the shell that the reader types into.
            command = "uv run jobtrio" if "UV_RUN_RECURSION_DEPTH" in os.environ else "jobtrio"
            self._say("\n" + NEXT.format(command=command), end="")

    async def _play(self, registry: jobtrio.JobRegistry, act: Act) -> list[jobtrio.Job]:
        self._title(act.title)
        jobs = []
        async with trio.open_nursery() as nursery:
            for part in act.parts:
                job = await registry.submit(part.executor, job_id=part.name, **part.options)
                jobs.append(job)
                for watcher in WATCHERS:
                    nursery.start_soon(self._watch, job, watcher)
                if part.cancel is not None:
                    nursery.start_soon(self._cancel, job, part.cancel)
        return jobs

    async def _watch(self, job: jobtrio.Job, watcher: str) -> None:
        """Be a consumer: print each message when it comes."""
        async with job.subscribe() as messages:
            async for message in messages:
                line = describe(message)
                self._seen[job.id, watcher].append(line)
                self._tell(job, watcher, line)

    async def _cancel(self, job: jobtrio.Job, reason: str) -> None:
        """Be a user who has seen enough after two messages."""
        async with job.subscribe() as messages:
            await messages.receive()
            await messages.receive()
        await trio.sleep(PAUSE)
        self._tell(job, "you", f"cancel: {reason}")
        await job.cancel(reason)

    def _compare(self, parts: Sequence[Part]) -> None:
        """Note every consumer that didn't see what its job set out to show."""
        watched = [(part, watcher) for part in parts for watcher in WATCHERS] + [(parts[0], LATE_WATCHER)]
        for part, watcher in watched:
            seen, due = self._seen[part.name, watcher], list(part.expected)
            if seen != due:
                self.problems.append(f"{watcher} should have seen of {part.name!r} {due}; saw {seen}")

    def _show_table(self, jobs: Sequence[jobtrio.Job]) -> None:
        rows = []
        for job in jobs:
            tokens = sum(line.startswith("token:") for line in self._seen[job.id, WATCHERS[0]])
            took = "-" if job.record.duration is None else f"{job.record.duration:.2f} s"
            outcome = "none" if job.outcome is None else describe_outcome(job.outcome)
            rows.append((job.id, took, str(job.record.attempt), str(tokens), outcome))
        head = ("JOB", "TOOK", "ATTEMPTS", "TOKENS", "OUTCOME")
        names, *lines = render_table(head, rows, right=head[1:-1]).splitlines()
        self._say("\n" + names)
        for line, (*_, outcome) in zip(lines, rows, strict=True):
            self._say(line.removesuffix(outcome) + self._paint(outcome))

    def _tell(self, job: jobtrio.Job, watcher: str, line: str) -> None:
        kind, _, text = line.partition(": ")
        self._say(f"  {job.id:<8} {watcher:<4} {kind:<9} {self._paint(text) if kind == 'end' else text}")

    def _title(self, text: str) -> None:
        self._say("\n" + self._coloured(text, "title"))

    def _paint(self, outcome: str) -> str:
        return self._coloured(outcome, outcome.split(" ", 1)[0].rstrip(","))

    def _coloured(self, text: str, what: str) -> str:
        code = COLOURS.get(what)
        return f"\033[{code}m{text}\033[0m" if self._colours and code else text

    def _say(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end, file=self._stream, flush=True)
        except OSError as exc:
            self.unwritten = exc
            self._stage.cancel(reason="the output can't be written")
