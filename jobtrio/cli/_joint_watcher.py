"""Watches several jobs together, and says how each of them ended.

How one is watched is the `Watcher`'s, and what its lines begin with the `LabelledOutput`'s. It must not know how the
jobs were chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import UnknownJobError
from jobtrio._nursery import open_background_nursery
from jobtrio.cli._endings import FAILED, one_line
from jobtrio.cli._labels import LabelledOutput, labels_of
from jobtrio.cli._output import STDERR, Output
from jobtrio.cli._signals import line_start
from jobtrio.cli._sources import is_of_one
from jobtrio.cli._watcher import PATIENCE, Watcher, watch_until_left

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobtrio.cli._sources import Source


class JointWatcher:
    """Shows the messages of several jobs until all have ended, or until the user leaves."""

    def __init__(self, sources: Mapping[str, Source | None], *, as_json: bool = False) -> None:
        """Prepare to watch.

        Args:
            sources: The jobs' streams, by their ids; None where there is no such job.
            as_json: Whether stdout gets each message as a line of JSON, rather than what it says.
        """
        turn = trio.Lock()
        labels = zip(sources, labels_of(sources), strict=True)
        self._sources = sources
        self._as_json = as_json
        self._outputs = {job_id: LabelledOutput(label, turn, as_json=as_json) for job_id, label in labels}
        self._endings: dict[str, tuple[str, int]] = {}  # the line that says how a job ended, and its exit code
        self._fault: Exception | None = None  # why none can be watched on

    async def watch(self) -> int:
        """Watch, sum up, and return the exit code: that of the first that did not complete, or 0.

        Raises what `Watcher.watch` raises, but for a job that is gone or refused: the others go on.

        *Cancellation*: the jobs go on.
        """
        if (left := await watch_until_left(self._follow_all, self._say_farewell)) is not None:
            return 128 + left
        for job_id, output in self._outputs.items():
            await output.write([(STDERR, f"{self._endings[job_id][0]}\n")])
        return next((code for job_id in self._sources if (code := self._endings[job_id][1])), 0)

    async def _follow_all(self) -> None:
        async with open_background_nursery() as background:
            background.start_soon(self._tell_waiting)
            async with trio.open_nursery() as nursery:
                for job_id in self._sources:
                    nursery.start_soon(self._follow, job_id, nursery.cancel_scope)
        if self._fault is not None:
            raise self._fault

    async def _tell_waiting(self) -> None:
        """Say what the jobs wait for that do not run, once for all that wait for the same; late answers come later."""
        answers: dict[str, str | None] = {}
        asked = {job_id: source for job_id, source in self._sources.items() if source is not None}
        is_answered = trio.Event()

        async def ask(job_id: str, source: Source) -> None:
            answers[job_id] = await source.waiting()
            del asked[job_id]
            if not asked:
                is_answered.set()

        await trio.sleep(PATIENCE)
        async with trio.open_nursery() as nursery:
            for job_id, source in asked.items():
                nursery.start_soon(ask, job_id, source)
            while asked or answers:
                with trio.move_on_after(PATIENCE):
                    await is_answered.wait()
                known = answers.copy()
                answers.clear()  # now, for others come while these are told
                await self._tell(known)

    async def _tell(self, answers: Mapping[str, str | None]) -> None:
        waiting: dict[str, list[str]] = {}
        for job_id in self._sources:
            if job_id not in self._endings and (what := answers.get(job_id)):
                waiting.setdefault(what, []).append(job_id)
        for what, (first, *others) in waiting.items():
            more = f"; the same holds for {len(others)} more" if others else ""
            await self._outputs[first].say(f"jobtrio: {what}{more}")

    async def _follow(self, job_id: str, scope: trio.CancelScope) -> None:
        source, output = self._sources[job_id], self._outputs[job_id]
        try:
            if source is None:
                raise UnknownJobError(job_id)
            watcher = Watcher(source, as_json=self._as_json, job=job_id, output=output)
            await watcher.follow()
            self._endings[job_id] = await watcher.ending()
        except Exception as exc:
            if not is_of_one(exc):  # as where nobody reads, which the others may find as well
                self._fault = self._fault or exc
                scope.cancel()
                return
            line = f"jobtrio: {one_line(str(exc), 1000)}"
            self._endings[job_id] = line, FAILED
            await output.say(line)

    async def _say_farewell(self, number: int) -> None:
        sources = [source for job_id, source in self._sources.items() if job_id not in self._endings]
        living = sum(source is not None and not source.has_ended for source in sources)
        said = f"{line_start(number)}jobtrio: jobs that go on: {living} of {len(self._sources)}\n"
        await Output().write([(STDERR, said)])
